//! Scrub: every sealed pack is read again from time to time, the one verified longest ago first, in steps as small as
//! the caller wants. Stripe checksums of the trailer find damage; the frames in a bad stripe say what it hit.

use super::{PAGE_ROWS, Vault};
use crate::error::{At, StoreError};
use crate::meta::rows::{ObjectRow, PackRow, PackState, Place, pack_key, pack_of_key};
use crate::meta::{Batch, Table};
use crate::pack::{FoundFrame, pack_path, packs_directory, read_readable, read_trailer, scan_frames};
use crate::world::VfsFile;
use repo_format::frame::FrameView;
use repo_format::id::{ObjectId, PackId};
use repo_format::limits::STRIPE_BYTES;
use repo_format::pack::{PACK_HEADER_BYTES, PackHeader, Trailer, TrailerEntry};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read.
    pub bytes: u64,
    /// Packs verified to their end.
    pub packs: u64,
    /// Objects newly found damaged.
    pub objects_damaged: u64,
    /// Packs whose header or trailer was newly or again found damaged.
    pub packs_damaged: u64,
    /// Packs that the index knows and the disk does not have.
    pub packs_missing: u64,
    /// No sealed pack is left that was last verified before the time asked for.
    pub done: bool,
}

/// How far a vault is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Sealed packs.
    pub packs: u64,
    /// Of them, verified at or after the time asked for.
    pub packs_verified: u64,
    /// Bytes of sealed packs.
    pub bytes: u64,
    /// Of them, in packs verified at or after the time asked for.
    pub bytes_verified: u64,
    /// When the pack was verified that was verified longest ago, nanoseconds since 1970; `None`: one was never
    /// verified, or there is none.
    pub oldest_verified_ns: Option<i64>,
}

/// Where a vault's scrub stands. Lost with the process: the pack at hand then begins again.
#[derive(Default)]
pub(crate) struct Scrub {
    /// Packs due, the one verified longest ago first, as of the last listing.
    due: VecDeque<PackId>,
    current: Option<PackCheck>,
}

/// A pack being verified.
struct PackCheck {
    pack: PackId,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    trailer: Trailer,
    stripe: usize,
    bad: Vec<Range<u64>>,
}

/// What the check of a pack came to.
#[derive(Default)]
struct Verdict {
    /// Header or trailer is damaged.
    structure: bool,
    damaged: Vec<(ObjectId, Place)>,
}

impl Vault {
    /// Verifies about `bytes_max` bytes of packs that were last verified before `before_ns`, going on where the last
    /// step stopped. The caller paces the steps.
    pub(crate) fn scrub_step(&self, before_ns: i64, bytes_max: u64) -> Result<ScrubStep, StoreError> {
        let mut scrub = self.scrub.lock();
        let mut step = ScrubStep::default();
        loop {
            let check = match scrub.current.take() {
                Some(check) => check,
                None => match self.next_due(&mut scrub, before_ns)? {
                    None => {
                        step.done = true;
                        return Ok(step);
                    }
                    Some(pack) => match self.begin_check(pack, &mut step)? {
                        Some(check) => check,
                        None if step.bytes >= bytes_max => return Ok(step),
                        None => continue,
                    },
                },
            };
            match self.continue_check(check, bytes_max, &mut step)? {
                Some(check) => scrub.current = Some(check),
                None => step.packs += 1,
            }
            if step.bytes >= bytes_max {
                return Ok(step);
            }
        }
    }

    /// How much of the vault was verified at or after `since_ns`.
    pub(crate) fn scrub_progress(&self, since_ns: i64) -> Result<ScrubProgress, StoreError> {
        let since = u64::try_from(since_ns).unwrap_or(0);
        let mut progress = ScrubProgress::default();
        let mut oldest: Option<u64> = None;
        self.each_row(Table::Pack, &[], |_, value| {
            let row = PackRow::decode(&value)?;
            if row.state == PackState::Sealed {
                progress.packs += 1;
                progress.bytes += row.durable_len;
                oldest = Some(oldest.map_or(row.verified_ns, |oldest| oldest.min(row.verified_ns)));
                if row.verified_ns >= since && row.verified_ns > 0 {
                    progress.packs_verified += 1;
                    progress.bytes_verified += row.durable_len;
                }
            }
            Ok(())
        })?;
        progress.oldest_verified_ns = oldest.filter(|at| *at > 0).and_then(|at| i64::try_from(at).ok());
        Ok(progress)
    }

    fn next_due(&self, scrub: &mut Scrub, before_ns: i64) -> Result<Option<PackId>, StoreError> {
        if let Some(pack) = scrub.due.pop_front() {
            return Ok(Some(pack));
        }
        let before = u64::try_from(before_ns).unwrap_or(0);
        let mut due: Vec<(u64, PackId)> = Vec::new();
        self.each_row(Table::Pack, &[], |key, value| {
            let row = PackRow::decode(&value)?;
            if row.state == PackState::Sealed && row.verified_ns < before {
                due.push((row.verified_ns, pack_of_key(&key)?));
            }
            Ok(())
        })?;
        due.sort_unstable();
        scrub.due = due.into_iter().map(|(_, pack)| pack).collect();
        Ok(scrub.due.pop_front())
    }

    fn sealed_pack(&self, pack: &PackId) -> Result<Option<PackRow>, StoreError> {
        let row = self.meta().get(&self.id, Table::Pack, &pack_key(pack))?;
        let row = row.map(|bytes| PackRow::decode(&bytes)).transpose()?;
        Ok(row.filter(|row| row.state == PackState::Sealed))
    }

    /// Opens a pack that is due. One without a readable trailer is checked at once, frame by frame.
    fn begin_check(&self, pack: PackId, step: &mut ScrubStep) -> Result<Option<PackCheck>, StoreError> {
        if self.sealed_pack(&pack)?.is_none() {
            return Ok(None);
        }
        let path = pack_path(&packs_directory(&self.directory), &pack);
        let file = match self.shared.world.vfs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.sealed_pack(&pack)?.is_some() {
                    tracing::error!(vault = %self.id, %pack, "a pack is missing; put {} back, or run `holdfastd rebuild-index`", path.display());
                    step.packs_missing += 1;
                }
                return Ok(None);
            }
            file => file.at(&path)?,
        };
        let file_len = file.len().at(&path)?;
        if let Some(trailer) = read_trailer(&*file, file_len).at(&path)? {
            return Ok(Some(PackCheck { pack, path, file, trailer, stripe: 0, bad: Vec::new() }));
        }
        let bytes = read_readable(&*file, file_len);
        step.bytes += file_len;
        let intact: HashMap<ObjectId, FoundFrame> =
            scan_frames(&bytes).into_iter().map(|frame| (frame.id, frame)).collect();
        let mut verdict = Verdict { structure: true, damaged: Vec::new() };
        for (id, place) in self.objects_of(&pack)? {
            let found =
                intact.get(&id).is_some_and(|frame| (frame.offset, frame.frame_len) == (place.offset, place.frame_len));
            if !found {
                verdict.damaged.push((id, place));
            }
        }
        self.conclude(&pack, verdict, step)?;
        step.packs += 1;
        Ok(None)
    }

    /// Every object whose row names the pack. Reads the vault's whole object table: for damage only.
    pub(super) fn objects_of(&self, pack: &PackId) -> Result<Vec<(ObjectId, Place)>, StoreError> {
        let mut objects = Vec::new();
        self.each_row(Table::Object, &[], |key, value| {
            let row = ObjectRow::decode(&value)?;
            if row.place.pack == *pack {
                objects.push((ObjectId::from_slice(&key)?, row.place));
            }
            Ok(())
        })?;
        Ok(objects)
    }

    fn continue_check(
        &self,
        mut check: PackCheck,
        bytes_max: u64,
        step: &mut ScrubStep,
    ) -> Result<Option<PackCheck>, StoreError> {
        let mut buffer = vec![0; STRIPE_BYTES as usize];
        while let Some(range) = check.trailer.stripe_range(check.stripe) {
            let bytes = &mut buffer[..(range.end - range.start) as usize];
            let sound = check.file.read_at(range.start, bytes).is_ok()
                && check.trailer.verify_stripe(check.stripe, bytes).is_ok();
            step.bytes += bytes.len() as u64;
            if !sound {
                check.bad.push(range);
            }
            check.stripe += 1;
            if step.bytes >= bytes_max && check.trailer.stripe_range(check.stripe).is_some() {
                return Ok(Some(check));
            }
        }
        let verdict = self.verdict(&check)?;
        self.conclude(&check.pack, verdict, step)?;
        Ok(None)
    }

    /// Finds which frames the bad stripes hit; and whether marks on this pack's frames still hold.
    fn verdict(&self, check: &PackCheck) -> Result<Verdict, StoreError> {
        let mut verdict = Verdict::default();
        let place = |frame: &FoundFrame| Place { pack: check.pack, offset: frame.offset, frame_len: frame.frame_len };
        let mut header = [0; PACK_HEADER_BYTES];
        if check.bad.first().is_some_and(|range| range.start == 0) {
            let read = check.file.read_at(0, &mut header).is_ok();
            verdict.structure = !read
                || !PackHeader::parse(&header).is_ok_and(|header| header.pack == check.pack && header.vault == self.id);
        }
        for entry in &check.trailer.entries {
            let hit = |range: &Range<u64>| u64::from(entry.offset) < range.end && range.start < entry.end();
            let frame = FoundFrame::from(entry);
            if check.bad.iter().any(hit) && !self.verifies(check, &frame) {
                verdict.damaged.push((frame.id, place(&frame)));
            }
        }
        if !check.bad.is_empty() {
            tracing::error!(
                vault = %self.id, pack = %check.pack, stripes = check.bad.len(), objects = verdict.damaged.len(),
                "{} does not hold what was written", check.path.display()
            );
        }
        verdict.damaged.extend(self.beside_the_trailer(check)?);
        // Reading takes the mark off what can be read again.
        let bad: HashSet<(ObjectId, Place)> = verdict.damaged.iter().copied().collect();
        let frames: HashSet<(ObjectId, Place)> =
            check.trailer.entries.iter().map(|entry| (entry.id, place(&FoundFrame::from(entry)))).collect();
        let marks = self.damaged_objects()?.into_iter().map(|(id, row)| (id, row.place));
        let again: Vec<ObjectId> =
            marks.filter(|mark| frames.contains(mark) && !bad.contains(mark)).map(|(id, _)| id).collect();
        self.read_objects(&again, |_| Ok(()))?;
        Ok(verdict)
    }

    /// Objects whose rows name places in the pack where its trailer has no frame: a pack that was cut before it was
    /// sealed, or rows that are wrong. The vault's objects are only looked through when the pack's count says so.
    fn beside_the_trailer(&self, check: &PackCheck) -> Result<Vec<(ObjectId, Place)>, StoreError> {
        let ids: Vec<ObjectId> = check.trailer.entries.iter().map(|entry| entry.id).collect();
        let missing = || {
            let Some(pack) = self.sealed_pack(&check.pack)? else { return Ok(false) };
            let mut there = 0;
            for (ids, entries) in ids.chunks(PAGE_ROWS).zip(check.trailer.entries.chunks(PAGE_ROWS)) {
                let rows = self.object_rows(ids)?.into_iter().zip(entries);
                let here = |(row, entry): &(Option<ObjectRow>, &TrailerEntry)| {
                    row.is_some_and(|row| (row.place.pack, row.place.offset) == (check.pack, entry.offset))
                };
                there += rows.filter(here).count() as u64;
            }
            Ok::<bool, StoreError>(there < pack.live_frames)
        };
        // A first look may see a row go in between; the second one is inside the monitor.
        if !missing()? || {
            let _state = self.state.lock();
            !missing()?
        } {
            return Ok(Vec::new());
        }
        let listed: HashSet<(ObjectId, u32)> =
            check.trailer.entries.iter().map(|entry| (entry.id, entry.offset)).collect();
        let mut beside = self.objects_of(&check.pack)?;
        beside.retain(|(id, place)| !listed.contains(&(*id, place.offset)));
        Ok(beside)
    }

    /// Whether the frame is still the one that was written, by its own checksums.
    fn verifies(&self, check: &PackCheck, frame: &FoundFrame) -> bool {
        let mut bytes = vec![0; frame.frame_len as usize];
        if check.file.read_at(frame.offset.into(), &mut bytes).is_err() {
            return false;
        }
        FrameView::parse(&bytes).is_ok_and(|view| {
            let header = &view.header;
            (header.id, header.kind, header.codec, header.plain_len, header.key_epoch)
                == (frame.id, frame.kind, frame.codec, frame.plain_len, frame.key_epoch)
                && view.frame_len() == bytes.len()
                && view.verify_checksum().is_ok()
        })
    }

    fn conclude(&self, pack: &PackId, verdict: Verdict, step: &mut ScrubStep) -> Result<(), StoreError> {
        step.objects_damaged += self.mark_damaged(&verdict.damaged)?;
        if verdict.structure {
            step.packs_damaged += 1;
            self.mark_pack(pack)?;
        }
        let _state = self.state.lock();
        if let Some(row) = self.sealed_pack(pack)? {
            let verified_ns = u64::try_from(self.shared.world.clock.now_ns()).unwrap_or(1);
            let mut batch = Batch::default();
            batch.put(Table::Pack, pack_key(pack), PackRow { verified_ns, ..row }.encode());
            self.meta().write(&self.id, batch)?;
        }
        Ok(())
    }
}
