//! Compaction: copies the live frames of some packs, as they are and without keys, into packs of the compactor's own,
//! so that the old ones die whole. `compaction_policy` says which; here is how, in steps of a few mebibytes.
//!
//! A frame is copied only when its keyless checksum says it is what was written; a rotten one is marked damaged and
//! stays where it is, its pack with it, until the object heals. Copies are synced before a row is pointed at them, and
//! a row is only if it still points at the frame that was copied: what was freed, healed or moved meanwhile leaves its
//! copy dead from the start.

use super::Vault;
use super::apply::{BATCH_ROWS_ENOUGH, NOBODY, Work};
use super::compaction_policy::{PackFacts, PlanLimits, Reason, Victim, plan};
use super::maintain::Maintained;
use crate::error::{At, StoreError};
use crate::meta::rows::{ObjectRow, PackState, Place};
use crate::pack::{FoundFrame, NewFrame, TrailerTrust, packs_directory, scan_pack};
use repo_format::FormatError;
use repo_format::frame::FrameView;
use repo_format::id::{ObjectId, PackId};
use repo_format::pack::PackKind;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

/// Frames looked at in one step.
const FRAMES_PER_STEP: usize = 1024;
/// Bytes copied in one step; one frame alone may pass it.
const BYTES_PER_STEP: u64 = 8 << 20;
/// Kept for the journal and the index when copies take from the reserve, bytes.
const SPACE_UNTOUCHED_BYTES: u64 = 8 << 20;

/// A compaction under way.
#[derive(Default)]
pub(crate) struct Compaction {
    victims: VecDeque<Victim>,
    current: Option<Copying>,
    /// Generation of the copies in the compactor's open packs.
    generations: HashMap<PackKind, u8>,
    /// Packs with frames that cannot be copied, and how many: left alone until the number changes.
    stuck: HashMap<PackId, u64>,
}

/// A pack being copied from.
struct Copying {
    pack: PackId,
    frames: Vec<FoundFrame>,
    next: usize,
}

/// A copied frame: whose, and from where to where.
struct Copied {
    id: ObjectId,
    from: Place,
    to: Place,
}

impl Compaction {
    /// Whether copies are under way, so that the compactor's open packs stay open.
    pub(crate) fn is_running(&self) -> bool {
        self.current.is_some() || !self.victims.is_empty()
    }
}

impl Vault {
    /// Syncs what was copied and marks the packs sealed that are complete. The marks are not synced: a pack whose mark a
    /// crash takes is sealed again by the next start, and a drop syncs everything before its own mark.
    pub(super) fn settle_copies(&self) -> Result<(), StoreError> {
        self.sync_writer(&self.compactor)?;
        let durable = self.compactor.lock().durable();
        let mut state = self.state.lock();
        let mut work = Work::with_writer(self, *state.ledger, NOBODY, &self.compactor);
        work.finish(&durable)?;
        state.settle(&mut work, 0);
        Ok(())
    }

    /// Copies a step's worth of frames, of the plan under way or of a new one. `true`: there is more to do.
    pub(super) fn compact_step(&self, compaction: &mut Compaction, done: &mut Maintained) -> Result<bool, StoreError> {
        if self.read_only_reason().is_some() {
            return Ok(false);
        }
        if !compaction.is_running() {
            if !self.upkeep.plan_wanted.swap(false, Ordering::AcqRel) {
                return Ok(false);
            }
            let victims = self.plan_compaction(compaction).inspect_err(|_| self.want_plan())?;
            if !victims.is_empty() {
                tracing::info!(
                    vault = %self.id, packs = victims.len(),
                    copy_bytes = victims.iter().map(|victim| victim.live_bytes).sum::<u64>(),
                    dead_bytes = victims.iter().map(|victim| victim.dead_bytes).sum::<u64>(),
                    "compacting"
                );
            }
            compaction.victims = victims.into();
        }
        let was_running = compaction.is_running();
        let copying = match compaction.current.take() {
            Some(copying) => Some(copying),
            None => self.begin_copying(compaction)?,
        };
        if let Some(copying) = copying {
            compaction.current =
                self.copy_some(copying, &mut compaction.stuck, done).inspect_err(|_| self.want_plan())?;
        }
        if was_running && !compaction.is_running() {
            // The plan is done; what has died meanwhile may call for another, and the copies' pack may be finished now.
            self.want_plan();
        }
        Ok(was_running)
    }

    fn want_plan(&self) {
        self.upkeep.plan_wanted.store(true, Ordering::Release);
    }

    /// Looks at all pack rows, outside the monitor: every decision is taken again when it is acted on.
    fn plan_compaction(&self, compaction: &mut Compaction) -> Result<Vec<Victim>, StoreError> {
        let rows = self.pack_rows()?;
        compaction.stuck.retain(|pack, frames| rows.get(pack).is_some_and(|row| row.live_frames == *frames));
        let sealed = rows.iter().filter(|(pack, row)| {
            row.state == PackState::Sealed && row.live_frames > 0 && !compaction.stuck.contains_key(pack)
        });
        let facts: Vec<PackFacts> = sealed
            .map(|(pack, row)| PackFacts {
                pack: *pack,
                kind: row.kind,
                frame_bytes: row.frame_bytes.max(row.live_bytes),
                live_bytes: row.live_bytes,
                sealed_ns: row.sealed_ns,
                generation: row.generation,
                rewrite: row.rewrite,
            })
            .collect();
        let settings = &self.shared.settings;
        let space = self.shared.world.vfs.space(&settings.directory).at(&settings.directory)?;
        let above_reserve = space.free.saturating_sub(settings.reserve_bytes(space.total));
        // The reserve pays for one pack of copies, after which its victim is gone.
        let from_reserve = space.free.saturating_sub(SPACE_UNTOUCHED_BYTES).min(settings.pack_bytes_target - 1);
        let free_bytes = above_reserve.max(from_reserve);
        Ok(plan(&facts, PlanLimits { pack_bytes: settings.pack_bytes_target, free_bytes }))
    }

    /// Reads what the next victim holds.
    fn begin_copying(&self, compaction: &mut Compaction) -> Result<Option<Copying>, StoreError> {
        while let Some(victim) = compaction.victims.pop_front() {
            let row = self.pack_row(&victim.pack)?;
            let Some(row) = row.filter(|row| row.state == PackState::Sealed && row.live_frames > 0) else { continue };
            if victim.reason != Reason::Rewrite {
                let generation = victim.generation.saturating_add(1);
                if compaction.generations.insert(victim.kind, generation).is_some_and(|before| before != generation) {
                    self.finish_pack(&self.compactor, victim.kind)?;
                    self.settle_copies()?;
                }
            }
            let directory = packs_directory(&self.directory);
            match scan_pack(&*self.shared.world.vfs, &directory, &self.id, &victim.pack, TrailerTrust::Trusted) {
                Ok(Some(scan)) => {
                    let mut frames = scan.frames;
                    frames.sort_unstable_by_key(|frame| frame.offset);
                    return Ok(Some(Copying { pack: victim.pack, frames, next: 0 }));
                }
                outcome => {
                    let error = outcome.err().map_or_else(|| "it has no header".to_owned(), |error| error.to_string());
                    tracing::error!(vault = %self.id, pack = %victim.pack, %error, "a pack cannot be compacted");
                    compaction.stuck.insert(victim.pack, row.live_frames);
                }
            }
        }
        Ok(None)
    }

    /// Copies the next frames. `None`: the pack is done.
    fn copy_some(
        &self,
        mut copying: Copying,
        stuck: &mut HashMap<PackId, u64>,
        done: &mut Maintained,
    ) -> Result<Option<Copying>, StoreError> {
        let rest = &copying.frames[copying.next..];
        let some = &rest[..rest.len().min(FRAMES_PER_STEP)];
        let ids: Vec<ObjectId> = some.iter().map(|frame| frame.id).collect();
        let (mut live, mut places, mut bytes, mut looked_at) = (Vec::new(), Vec::new(), 0, 0);
        for (frame, row) in some.iter().zip(self.object_rows(&ids)?) {
            if bytes >= BYTES_PER_STEP {
                break;
            }
            looked_at += 1;
            let here = Place { pack: copying.pack, offset: frame.offset, frame_len: frame.frame_len };
            if let Some(row) = row.filter(|row| row.place == here && !row.damaged) {
                bytes += u64::from(here.frame_len);
                live.push((frame, row));
                places.push(here);
            }
        }
        let copied = self.copy_frames(&live, &places)?;
        self.sync_writer(&self.compactor)?;
        self.move_rows(&copied, done)?;
        copying.next += looked_at;
        if copying.next < copying.frames.len() {
            return Ok(Some(copying));
        }
        if let Some(row) = self.pack_row(&copying.pack)?
            && row.live_frames > 0
        {
            tracing::warn!(
                vault = %self.id, pack = %copying.pack, frames = row.live_frames,
                "a pack keeps frames that cannot be copied"
            );
            stuck.insert(copying.pack, row.live_frames);
        }
        Ok(None)
    }

    /// Appends the frames that verify to the compactor's packs, and marks the others damaged.
    fn copy_frames(&self, live: &[(&FoundFrame, ObjectRow)], places: &[Place]) -> Result<Vec<Copied>, StoreError> {
        let mut copied: Vec<Copied> = Vec::with_capacity(live.len());
        let mut rotten: Vec<(ObjectId, Place)> = Vec::new();
        let outcome = self.files.read_frames(places, |index, bytes| {
            let (frame, row) = &live[index];
            let verified = bytes.and_then(|bytes| Ok(verify_frame(bytes, frame, row).map(|()| bytes)?));
            let bytes = match verified {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(vault = %self.id, object = %frame.id, pack = %row.place.pack, offset = frame.offset, %error, "a frame is not copied");
                    // What cannot be read now may be readable later; changed bytes are damage.
                    if matches!(error, StoreError::Format(_)) {
                        rotten.push((frame.id, row.place));
                    }
                    return Ok(());
                }
            };
            let new = NewFrame {
                id: frame.id,
                kind: frame.kind,
                codec: frame.codec,
                plain_len: frame.plain_len,
                key_epoch: frame.key_epoch,
                bytes,
            };
            let appended = self.compactor.lock().append(&new);
            let to = appended.map_err(|(pack, error)| self.give_up_copies(pack, error))?;
            copied.push(Copied { id: frame.id, from: row.place, to });
            Ok(())
        });
        if let Err(error) = outcome {
            let mut compactor = self.compactor.lock();
            for copy in &copied {
                compactor.recorded(&copy.to.pack, 1);
            }
            return Err(error);
        }
        if !copied.is_empty() {
            self.upkeep.written_ns.store(self.now_ns(), Ordering::Release);
        }
        self.mark_damaged(&rotten)?;
        Ok(copied)
    }

    /// Nothing anybody was told of is in the copies: their pack is given up without a word to uploads.
    fn give_up_copies(&self, pack: Option<PackId>, error: StoreError) -> StoreError {
        let full = matches!(&error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
        if let Some(pack) = pack {
            let mut state = self.state.lock();
            self.compactor.lock().poison(&pack);
            if !full {
                state.poisoned += 1;
            }
        }
        tracing::error!(vault = %self.id, %error, "a copy could not be written");
        error
    }

    /// Points rows at the copies, where they still point at what was copied.
    fn move_rows(&self, copied: &[Copied], done: &mut Maintained) -> Result<(), StoreError> {
        if copied.is_empty() {
            return Ok(());
        }
        let ids: Vec<ObjectId> = copied.iter().map(|copy| copy.id).collect();
        let (mut frames, mut bytes) = (0, 0);
        {
            let mut state = self.state.lock();
            let durable = self.compactor.lock().durable();
            let mut work = Work::with_writer(self, *state.ledger, NOBODY, &self.compactor);
            work.load(&ids)?;
            for copy in copied {
                let durable = durable.get(&copy.to.pack).is_some_and(|len| copy.to.end() <= *len);
                let unchanged = work.row(&copy.id).is_some_and(|row| row.place == copy.from && !row.damaged);
                if durable && unchanged {
                    work.replace(&copy.id, copy.to)?;
                    work.write_if_above(BATCH_ROWS_ENOUGH)?;
                } else {
                    work.give_up(copy.to.pack);
                }
                frames += 1;
                bytes += u64::from(copy.to.frame_len);
            }
            work.finish(&durable)?;
            state.settle(&mut work, 0);
        }
        done.copied_frames += frames;
        done.copied_bytes += bytes;
        self.shared.stats.copied(bytes);
        Ok(())
    }
}

/// The frame must be the object its row says, and what was written: its keyless checksum says so.
fn verify_frame(bytes: &[u8], found: &FoundFrame, row: &ObjectRow) -> Result<(), FormatError> {
    let frame = FrameView::parse(bytes)?;
    let header = &frame.header;
    let same = header.id == found.id
        && header.kind == row.kind
        && header.codec == row.codec
        && header.plain_len == row.plain_len
        && header.key_epoch == found.key_epoch
        && frame.frame_len() == bytes.len();
    if !same {
        return Err(FormatError::invalid("frame", "another object than the index says"));
    }
    frame.verify_checksum()
}
