//! Damage: frames that do not verify are marked, journalled and reported; a new copy heals them. A mark is knowledge,
//! not a verdict: a frame that verifies again (a cable, a controller) loses its mark.

mod reach;

pub use reach::{DamageReport, DamagedObject, DamagedPath, DamagedSnapshot, PathDamage};

use super::{State, Vault};
use crate::error::StoreError;
use crate::meta::rows::{DamageRow, LEDGER_KEY, ObjectRow, PackRow, Place, pack_key, pack_of_key};
use crate::meta::{Batch, Table};
use crate::sync::Mutex;
use repo_format::FormatError;
use repo_format::id::{ObjectId, PackId};
use repo_format::journal::RecordKind;
use repo_format::record::{DAMAGE_OBJECTS_MAX, DamageRecord, DamagedFrame};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects marked in one batch: two rows each, and the ledger.
pub(super) const MARKS_PER_BATCH: usize = 1024;

const _: () = assert!(2 * MARKS_PER_BATCH + 1 < crate::meta::BATCH_ROWS_MAX);
const _: () = assert!(MARKS_PER_BATCH <= DAMAGE_OBJECTS_MAX);

/// Which nodes lead to damage, as of a number of marks.
type Reach = (u64, Arc<HashSet<ObjectId>>);

/// What a vault remembers of its damage between calls.
#[derive(Default)]
pub(crate) struct DamageMemory {
    /// Rises with every mark.
    marks: AtomicU64,
    reach: Mutex<Option<Reach>>,
}

/// Whether an error says that the bytes of a frame are not what was written. A file that cannot be opened now may be
/// readable later.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Format(_) => true,
        StoreError::Io { source, .. } => source.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

impl Vault {
    pub(super) fn now_ns(&self) -> i64 {
        self.shared.world.clock.now_ns()
    }

    /// From now on these objects count as absent for uploads, and heal when they are sent again; their counts stay.
    /// Marks only what still lies where it was seen. Answers how many marks are new.
    pub(crate) fn mark_damaged(&self, seen: &[(ObjectId, Place)]) -> Result<u64, StoreError> {
        let mut marked = 0;
        for seen in seen.chunks(MARKS_PER_BATCH) {
            let mut journal = self.journal.lock();
            let current = self.unmarked(&self.state.lock(), seen)?;
            if current.is_empty() {
                continue;
            }
            let frames = current.iter().map(|(id, row)| DamagedFrame {
                id: *id,
                pack: row.place.pack,
                offset: row.place.offset,
            });
            let payload = DamageRecord { frames: frames.collect() }.encode()?;
            let places: Vec<(ObjectId, Place)> = current.iter().map(|(id, row)| (*id, row.place)).collect();
            let mut new = 0;
            let journalled = self.journalled(&mut journal, &[(RecordKind::Damage, payload)], |state, sequence| {
                new = self.write_marks(state, &places, Some(sequence))?;
                Ok(self.meta().written())
            });
            if let Err(error) = journalled {
                // What is only in the rows is found again by reading, should they be lost: better than no mark.
                tracing::warn!(vault = %self.id, %error, "marks of damaged objects could not be journalled");
                new = self.write_marks(&mut self.state.lock(), &places, None)?;
            }
            marked += new;
        }
        Ok(marked)
    }

    /// Those of `seen` that still lie where they were seen and are not marked.
    fn unmarked(&self, _: &State, seen: &[(ObjectId, Place)]) -> Result<Vec<(ObjectId, ObjectRow)>, StoreError> {
        let ids: Vec<ObjectId> = seen.iter().map(|(id, _)| *id).collect();
        let rows = seen.iter().zip(self.object_rows(&ids)?);
        let current = rows.filter_map(|((id, place), row)| Some((*id, row.filter(|row| row.place == *place)?)));
        Ok(current.filter(|(_, row)| !row.damaged).collect())
    }

    /// Marks what still lies where it was seen. Without a sequence the marks are in the rows only.
    pub(super) fn write_marks(
        &self,
        state: &mut State,
        seen: &[(ObjectId, Place)],
        sequence: Option<u64>,
    ) -> Result<u64, StoreError> {
        let current = self.unmarked(state, seen)?;
        let found_ns = self.now_ns();
        let mut batch = Batch::default();
        for (id, row) in &current {
            batch.put(Table::Object, *id.as_bytes(), ObjectRow { damaged: true, ..*row }.encode());
            batch.put(Table::Damage, *id.as_bytes(), DamageRow { place: row.place, found_ns }.encode());
            tracing::error!(
                vault = %self.id, object = %id, pack = %row.place.pack, offset = row.place.offset,
                "a stored object is damaged; the next backup that has its bytes heals it, `holdfastd vault damage` lists the files"
            );
            self.shared.stats.damaged();
        }
        let mut ledger = *state.ledger;
        if let Some(sequence) = sequence {
            ledger.journal_sequence = sequence;
            batch.put(Table::Ledger, LEDGER_KEY, ledger.encode());
        }
        if !batch.is_empty() {
            self.meta().write(&self.id, batch)?;
            state.ledger.set(ledger);
        }
        self.damage_memory.marks.fetch_add(1, Ordering::AcqRel);
        Ok(current.len() as u64)
    }

    /// Applies damage marks of the journal: they count where the row still names the place and the frame there still
    /// does not verify.
    pub(super) fn replay_damage(&self, frames: &[DamagedFrame]) -> Result<(), StoreError> {
        for frames in frames.chunks(MARKS_PER_BATCH) {
            let ids: Vec<ObjectId> = frames.iter().map(|frame| frame.id).collect();
            let mut still = Vec::new();
            for (frame, row) in frames.iter().zip(self.object_rows(&ids)?) {
                let there = |row: &ObjectRow| (row.place.pack, row.place.offset) == (frame.pack, frame.offset);
                let Some(row) = row.filter(there).filter(|row| !row.damaged) else { continue };
                if self.open_frame(&frame.id, &row).is_err() {
                    still.push((frame.id, row.place));
                }
            }
            still.sort_unstable();
            still.dedup();
            self.write_marks(&mut self.state.lock(), &still, None)?;
        }
        Ok(())
    }

    /// Records that carry all marks into a new generation of the journal.
    pub(super) fn damage_states(&self) -> Result<Vec<(RecordKind, Vec<u8>)>, StoreError> {
        let mut marks = self.damaged_objects()?;
        // What no pack holds shows by itself when packs and journal are read.
        marks.retain(|(_, row)| row.place.frame_len > 0);
        let frames = |marks: &[(ObjectId, DamageRow)]| DamageRecord {
            frames: marks
                .iter()
                .map(|(id, row)| DamagedFrame { id: *id, pack: row.place.pack, offset: row.place.offset })
                .collect(),
        };
        let records = marks.chunks(DAMAGE_OBJECTS_MAX).map(|marks| Ok((RecordKind::Damage, frames(marks).encode()?)));
        records.collect::<Result<_, FormatError>>().map_err(StoreError::from)
    }

    /// Takes the marks off frames that were just found to verify where their rows say.
    pub(crate) fn lift_marks(&self, sound: &[(ObjectId, Place)]) -> Result<(), StoreError> {
        for sound in sound.chunks(MARKS_PER_BATCH) {
            let state = self.state.lock();
            let ids: Vec<ObjectId> = sound.iter().map(|(id, _)| *id).collect();
            let mut batch = Batch::default();
            for ((id, place), row) in sound.iter().zip(self.object_rows(&ids)?) {
                let Some(row) = row.filter(|row| row.damaged && !row.is_lost() && row.place == *place) else {
                    continue;
                };
                batch.put(Table::Object, *id.as_bytes(), ObjectRow { damaged: false, ..row }.encode());
                batch.delete(Table::Damage, *id.as_bytes());
                tracing::info!(vault = %self.id, object = %id, "an object that was marked damaged can be read again");
            }
            if !batch.is_empty() {
                self.meta().write(&self.id, batch)?;
            }
            drop(state);
        }
        Ok(())
    }

    /// All marked objects.
    pub(crate) fn damaged_objects(&self) -> Result<Vec<(ObjectId, DamageRow)>, StoreError> {
        let mut objects = Vec::new();
        self.each_row(Table::Damage, &[], |key, value| {
            objects.push((ObjectId::from_slice(&key)?, DamageRow::decode(&value)?));
            Ok(())
        })?;
        Ok(objects)
    }

    /// Packs whose own structure (header, trailer) is damaged: their frames want to be copied into a sound one.
    pub(crate) fn packs_to_rewrite(&self) -> Result<Vec<PackId>, StoreError> {
        let mut packs = Vec::new();
        self.each_row(Table::Pack, &[], |key, value| {
            if PackRow::decode(&value)?.rewrite {
                packs.push(pack_of_key(&key)?);
            }
            Ok(())
        })?;
        Ok(packs)
    }

    /// Marks a pack for rewriting, unless its row is gone, and wakes the compactor.
    pub(crate) fn mark_pack(&self, pack: &PackId) -> Result<(), StoreError> {
        let state = self.state.lock();
        let Some(row) = self.meta().get(&self.id, Table::Pack, &pack_key(pack))? else { return Ok(()) };
        let row = PackRow::decode(&row)?;
        if row.rewrite {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put(Table::Pack, pack_key(pack), PackRow { rewrite: true, ..row }.encode());
        self.meta().write(&self.id, batch)?;
        drop(state);
        self.upkeep.plan_wanted.store(true, Ordering::Release);
        tracing::error!(vault = %self.id, %pack, "a pack's header or trailer is damaged; its objects will be copied into another pack");
        Ok(())
    }
}
