//! Counting everything again: what reference counts, ledger and pack rows should be, computed from snapshots and stored
//! nodes alone, and where the index differs. Tests run it after every history; an operator runs it as an audit.

use crate::error::StoreError;
use crate::meta::rows::{Ledger, ObjectRow, PackRow, pack_of_key};
use crate::meta::{Row, Table};
use crate::vault::Vault;
use repo_format::id::{ObjectId, ObjectKind, PackId};
use repo_format::node::{NodeSource, NodeView};
use std::collections::{BTreeMap, BTreeSet};

/// Everything a vault's index says, in comparable form; and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recount {
    /// Counts and bytes computed from the rows.
    pub ledger: Ledger,
    /// Objects with their references, without places: a rebuild may place duplicates differently.
    pub objects: BTreeMap<ObjectId, u64>,
    /// Snapshot rows as stored.
    pub snapshots: Vec<Row>,
    /// Every disagreement found, for people.
    pub drift: Vec<String>,
}

impl Vault {
    /// Reads every row of the vault; memory grows with their number.
    pub(crate) fn recount(&self) -> Result<Recount, StoreError> {
        let stored = self.ledger();
        let mut drift = Vec::new();
        let mut objects: BTreeMap<ObjectId, ObjectRow> = BTreeMap::new();
        let mut computed = Ledger { journal_sequence: stored.journal_sequence, ..Ledger::default() };
        let mut live: BTreeMap<PackId, (u64, u64)> = BTreeMap::new();
        for (key, value) in self.all_rows(Table::Object)? {
            let (id, row) = (ObjectId::from_slice(&key)?, ObjectRow::decode(&value)?);
            computed.add(&row);
            if row.references > 0 {
                computed.referenced(&row);
            }
            if !row.is_lost() {
                let pack = live.entry(row.place.pack).or_default();
                pack.0 += u64::from(row.place.frame_len);
                pack.1 += 1;
            }
            objects.insert(id, row);
        }
        let mut references: BTreeMap<ObjectId, u64> = BTreeMap::new();
        // What a node refers to that cannot be read is not known: counts may be higher by as many.
        let mut unreadable = 0;
        for (id, row) in objects.iter().filter(|(_, row)| row.kind == ObjectKind::Node && !row.is_lost()) {
            let plaintext = match NodeSource::node(self, &id.as_node()) {
                Ok(plaintext) => plaintext,
                Err(StoreError::Damaged(_)) if row.damaged => {
                    unreadable += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let view = NodeView::parse(&plaintext)?;
            for child in view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from)) {
                if !objects.contains_key(&child) {
                    drift.push(format!("node {id} refers to {child}, which has no row"));
                }
                *references.entry(child).or_default() += 1;
            }
        }
        let snapshots = self.all_rows(Table::Snapshot)?;
        for record in self.snapshots()? {
            computed.snapshot_added(&record);
            *references.entry(ObjectId::from(record.root)).or_default() += 1;
        }
        let zero: BTreeSet<ObjectId> =
            self.all_rows(Table::Zero)?.iter().map(|(key, _)| ObjectId::from_slice(key)).collect::<Result<_, _>>()?;
        let damaged: BTreeSet<ObjectId> = self.damaged_objects()?.into_iter().map(|(id, _)| id).collect();
        for id in damaged.iter().filter(|id| !objects.contains_key(*id)) {
            drift.push(format!("damage row of {id}, which has no object row"));
        }
        for (id, row) in &objects {
            let counted = references.get(id).copied().unwrap_or(0);
            if row.references < counted || row.references > counted + unreadable {
                drift.push(format!("object {id} has {} references, its row says {}", counted, row.references));
            }
            if damaged.contains(id) != row.damaged {
                drift.push(format!("object {id} is wrongly in or missing from the damage rows"));
            }
            if zero.contains(id) != (row.references == 0) {
                drift.push(format!("object {id} is wrongly in or missing from the zero rows"));
            }
        }
        for id in zero.iter().filter(|id| !objects.contains_key(*id)) {
            drift.push(format!("zero row of {id}, which has no object row"));
        }
        for (key, value) in self.all_rows(Table::Pack)? {
            let (pack, row) = (pack_of_key(&key)?, PackRow::decode(&value)?);
            let (bytes, frames) = live.remove(&pack).unwrap_or_default();
            if (bytes, frames) != (row.live_bytes, row.live_frames) {
                drift.push(format!("pack {pack} has {frames} live frames, its row says {}", row.live_frames));
            }
        }
        drift.extend(live.keys().map(|pack| format!("pack {pack} has objects but no row")));
        if computed != stored {
            drift.push(format!("the ledger says {stored:?}, the rows add up to {computed:?}"));
        }
        let objects = objects.into_iter().map(|(id, row)| (id, row.references)).collect();
        Ok(Recount { ledger: computed, objects, snapshots, drift })
    }

    fn all_rows(&self, table: Table) -> Result<Vec<Row>, StoreError> {
        let mut all = Vec::new();
        self.each_row(table, &[], |key, value| {
            all.push((key, value));
            Ok(())
        })?;
        Ok(all)
    }
}
