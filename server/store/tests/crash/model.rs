//! The reference: what has been acknowledged, as plain maps. After any crash the engine must be at one of the states
//! between the last acknowledgement and the call that was under way.

use crate::content::{Tree, Universe};
use repo_format::id::{ObjectId, RestoreId, SnapshotId, UploadSessionId, VaultId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use store::SnapshotInfo;

/// A snapshot with its state.
#[derive(Clone)]
pub struct Snapshot {
    pub tree: Arc<Tree>,
    pub session: UploadSessionId,
    pub deleted_until_ns: Option<i64>,
    pub hold_until_ns: Option<i64>,
    pub tags: Option<Vec<String>>,
}

impl Snapshot {
    /// Whether the engine's record says the same.
    fn equals(&self, info: &SnapshotInfo) -> bool {
        info.root == self.tree.root
            && info.logical_bytes == self.tree.logical_bytes
            && info.session == self.session
            && info.deleted.as_ref().map(|deleted| deleted.until_ns) == self.deleted_until_ns
            && info.hold_until_ns == self.hold_until_ns
            && info.tags == self.tags
    }
}

/// An upload session that was answered.
#[derive(Clone, Default)]
pub struct Session {
    /// Root of its base snapshot: held as long as it lives.
    pub base_root: Option<ObjectId>,
    /// Objects acknowledged as durable: the agent has let go of their bytes.
    pub durable: BTreeSet<ObjectId>,
}

/// How far the vault beside the first one is on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    Standing,
    /// Its deletion was decided.
    Decided,
    /// Its deletion was answered: nothing of it is left.
    Gone,
}

/// The vault beside the first one, which comes and goes.
#[derive(Clone)]
pub struct Neighbour {
    pub vault: VaultId,
    /// What was committed to it, once or more often.
    pub tree: Option<Arc<Tree>>,
    pub stage: Stage,
}

/// What a caller knows to be so.
#[derive(Clone, Default)]
pub struct Model {
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// Restores under way: the root each holds, and its last request.
    pub restores: BTreeMap<RestoreId, (ObjectId, i64)>,
    /// Live ones only.
    pub sessions: BTreeMap<UploadSessionId, Session>,
    /// When someone last said that the clock is right, nanoseconds since 1970.
    pub confirmed_ns: i64,
    /// The latest one; one that is gone must stay so.
    pub neighbour: Option<Neighbour>,
    /// Rises with every acknowledgement.
    pub version: u64,
}

/// The states a crash may leave: what was acknowledged, and what the call under way would have made of it.
pub struct Expected {
    pub before: Arc<Model>,
    pub after: Arc<Model>,
}

impl Expected {
    pub fn exactly(model: &Arc<Model>) -> Self {
        Expected { before: model.clone(), after: model.clone() }
    }

    /// After a rebuild: sessions and restores live in the index only.
    pub fn without_holds(&self) -> Self {
        let without = |model: &Arc<Model>| {
            let model = Model { sessions: BTreeMap::new(), restores: BTreeMap::new(), ..(**model).clone() };
            Arc::new(model)
        };
        Expected { before: without(&self.before), after: without(&self.after) }
    }

    /// Compares the engine's list of snapshots; each must be as before or as after.
    pub fn check_snapshots(&self, listed: &[SnapshotInfo]) -> Result<BTreeMap<SnapshotId, Snapshot>, String> {
        let mut found = BTreeMap::new();
        for info in listed {
            let known = [&self.before, &self.after].map(|model| model.snapshots.get(&info.snapshot));
            let Some(known) = known.into_iter().flatten().find(|snapshot| snapshot.equals(info)) else {
                return Err(match self.before.snapshots.get(&info.snapshot) {
                    Some(_) => format!("snapshot {} has another state than was acknowledged: {info:?}", info.snapshot),
                    None => format!("snapshot {} was never committed, or was purged", info.snapshot),
                });
            };
            if found.insert(info.snapshot, known.clone()).is_some() {
                return Err(format!("snapshot {} is listed twice", info.snapshot));
            }
        }
        for id in self.before.snapshots.keys().filter(|id| self.after.snapshots.contains_key(*id)) {
            if !found.contains_key(id) {
                return Err(format!("snapshot {id} was acknowledged and is gone"));
            }
        }
        Ok(found)
    }

    /// Sessions that must live.
    pub fn sessions(&self) -> impl Iterator<Item = (&UploadSessionId, &Session)> {
        self.before.sessions.iter().filter(|(id, _)| self.after.sessions.contains_key(*id))
    }

    /// Everything that must be readable: below every snapshot found, and below what live sessions hold.
    pub fn required(&self, universe: &Universe, found: &BTreeMap<SnapshotId, Snapshot>) -> HashSet<ObjectId> {
        let mut required = HashSet::new();
        universe.reach(found.values().map(|snapshot| snapshot.tree.root.into()), &mut required);
        for (_, session) in self.sessions() {
            universe.reach(session.base_root, &mut required);
            universe.reach(session.durable.iter().copied(), &mut required);
        }
        let restores = self.before.restores.iter().filter(|(id, _)| self.after.restores.contains_key(*id));
        universe.reach(restores.map(|(_, (root, _))| *root), &mut required);
        required
    }

    /// Who needs an object, for people.
    pub fn needed_by(&self, universe: &Universe, id: &ObjectId) -> Vec<String> {
        let reaches = |from: &[ObjectId]| {
            let mut reached = HashSet::new();
            universe.reach(from.iter().copied(), &mut reached);
            reached.contains(id)
        };
        let mut needed = Vec::new();
        for (snapshot, state) in self.before.snapshots.iter().chain(&self.after.snapshots) {
            if reaches(&[state.tree.root.into()]) {
                needed.push(format!("snapshot {snapshot}"));
            }
        }
        for (session, state) in self.sessions() {
            if state.durable.contains(id) {
                needed.push(format!("upload session {session}, which was told that it is durable"));
            } else if reaches(&state.durable.iter().copied().collect::<Vec<_>>()) {
                needed.push(format!("upload session {session}, below a durable node"));
            }
            if state.base_root.is_some_and(|root| reaches(&[root])) {
                needed.push(format!("upload session {session}, below its base"));
            }
        }
        for (restore, (root, _)) in &self.before.restores {
            if reaches(&[*root]) {
                needed.push(format!("restore {restore}"));
            }
        }
        needed
    }

    /// The model that goes on from what was found after a crash.
    pub fn settle(
        &self,
        found: BTreeMap<SnapshotId, Snapshot>,
        live: &HashSet<UploadSessionId>,
        restores: BTreeMap<RestoreId, (ObjectId, i64)>,
    ) -> Model {
        let sessions = [&self.before, &self.after].into_iter().flat_map(|model| &model.sessions);
        let sessions = sessions.filter(|(id, _)| live.contains(id)).map(|(id, session)| {
            // What only the call under way would have acknowledged was not: the agent still has it.
            let begun = Session { base_root: session.base_root, ..Session::default() };
            (*id, self.before.sessions.get(id).cloned().unwrap_or(begun))
        });
        Model {
            sessions: sessions.collect(),
            restores,
            snapshots: found,
            confirmed_ns: self.before.confirmed_ns,
            neighbour: None,
            version: self.after.version + 1,
        }
    }

    /// Whether the call under way changes any snapshot; then both outcomes are right.
    pub fn is_open(&self) -> bool {
        self.before.version != self.after.version
    }
}

impl Model {
    /// References of every object below the snapshots: one for each distinct stored parent and each root.
    pub fn references(&self, universe: &Universe) -> HashMap<ObjectId, u64> {
        let mut reached = HashSet::new();
        universe.reach(self.snapshots.values().map(|snapshot| snapshot.tree.root.into()), &mut reached);
        let mut references: HashMap<ObjectId, u64> = HashMap::new();
        for id in &reached {
            references.entry(*id).or_default();
            for child in &universe.objects[id].children {
                *references.entry(*child).or_default() += 1;
            }
        }
        for snapshot in self.snapshots.values() {
            *references.entry(snapshot.tree.root.into()).or_default() += 1;
        }
        references
    }

    pub fn logical_bytes(&self) -> u64 {
        self.snapshots.values().map(|snapshot| snapshot.tree.logical_bytes).sum()
    }

    pub fn deleted_logical_bytes(&self) -> u64 {
        let deleted = self.snapshots.values().filter(|snapshot| snapshot.deleted_until_ns.is_some());
        deleted.map(|snapshot| snapshot.tree.logical_bytes).sum()
    }
}
