//! Seeded histories: agents that upload, resume and commit, people who delete, hold and purge, a server that collects,
//! stops and loses power. Every call that is answered moves the model; every state the disk passes through is a state
//! it may be found in.

mod neighbour;
mod verbs;

pub use neighbour::check_gone;

use crate::content::{Tree, Universe, tree};
use crate::ground::{Ground, IDLE_NS, SimClock, VAULT};
use crate::model::{Expected, Model, Neighbour, Session, Snapshot, Stage};
use crate::sim_vfs::{Disk, Fault, Op, Rng, Survival, Volume};
use crate::sites::Sites;
use repo_format::id::{ObjectId, RestoreId, SnapshotId, UploadSessionId, VaultId};
use repo_format::keys::IdKeys;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{AuditRepair, CommitInput, Delivered, IncomingObject, Store, StoreError};

const START_NS: i64 = 1_800_000_000_000_000_000;
pub const HOUR_NS: i64 = 3_600_000_000_000;
/// How often a patient caller makes a call that is refused.
const TRIES_MAX: usize = 8;
/// Of a hundred states, how many are also looked at with a clock that has jumped.
const JUMP_PERCENT: usize = 25;
/// Steps after which collection must have come to rest.
const STEPS_MAX: usize = 10_000;

/// How a history is explored.
#[derive(Clone)]
pub struct Options {
    pub seed: u64,
    pub operations: usize,
    /// Of a hundred operations on the disk, how many are crashed at.
    pub crash_percent: usize,
    /// Random survivals at each, beside the extremes.
    pub variants: usize,
    /// Of a hundred states, how many are also collected until nothing is left to do.
    pub dry_percent: usize,
    /// Of a hundred states, how many lose power again while they recover.
    pub again_percent: usize,
    /// Of a hundred calls, in how many the history itself loses power or is killed, and goes on.
    pub lose_percent: usize,
    pub sites: Option<Arc<Sites>>,
    /// Calls fail now and then: whoever made one makes it again.
    pub patient: bool,
    pub ground: Ground,
    /// Changes of names reach the disk in order.
    pub names_in_order: bool,
}

impl Options {
    /// Any part of what was not synced.
    fn any(&self, seed: u64, sector: usize) -> Survival {
        if self.names_in_order { Survival::Ordered { seed, sector } } else { Survival::Any { seed, sector } }
    }

    /// Opens a state; where the engine says that its index is damaged, makes that again, as people are told to. Whether
    /// it did: then nothing holds what sessions held.
    fn open_or_rebuild(
        &self,
        disk: &Arc<Disk>,
        seed: u64,
        now_ns: i64,
        pack_bytes_target: u64,
    ) -> Result<(Store, Arc<SimClock>, bool), String> {
        let ground = &self.ground;
        let open = |seed| ground.open(disk, seed, now_ns, pack_bytes_target);
        let (opened, rebuilt) = match (open(seed), ground) {
            (Err(StoreError::IndexDamaged(reason) | StoreError::Index(reason)), Ground::Mounted(_)) => {
                // RocksDB bears any loss of data, and names that survive in the order they were given.
                if self.names_in_order {
                    return Err(format!("a rebuild is asked for: {reason}"));
                }
                ground
                    .rebuild(disk, seed ^ 1, now_ns, pack_bytes_target)
                    .map_err(|error| format!("rebuild: {reason}: {}", text(error)))?;
                (open(seed ^ 2), true)
            }
            (opened, _) => (opened, false),
        };
        let (store, clock) = opened.map_err(|error| format!("open: {}", text(error)))?;
        Ok((store, clock, rebuilt))
    }
}

/// What an exploration came to.
#[derive(Default)]
pub struct Figures {
    pub operations: u64,
    pub disk_operations: u64,
    pub checks: u64,
    pub dry_checks: u64,
    pub states: HashSet<[u8; 16]>,
    pub snapshots: u64,
    pub crashes_inside: u64,
    /// Deletions of a vault that went on after a crash.
    pub deletions_resumed: u64,
    /// States whose index the engine asked to make again.
    pub rebuilt: u64,
    pub verbs: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub fn add(&mut self, part: Figures) {
        self.operations += part.operations;
        self.disk_operations += part.disk_operations;
        self.checks += part.checks;
        self.dry_checks += part.dry_checks;
        self.snapshots += part.snapshots;
        self.crashes_inside += part.crashes_inside;
        self.deletions_resumed += part.deletions_resumed;
        self.rebuilt += part.rebuilt;
        self.states.extend(part.states);
        for (verb, count) in part.verbs {
            *self.verbs.entry(verb).or_default() += count;
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} checks, {} of them collected dry; {} operations on {} disk operations, {} lost power and went on; {} snapshots compared; {} deletions of vaults went on; {} asked for a rebuild",
            self.checks,
            self.dry_checks,
            self.operations,
            self.disk_operations,
            self.crashes_inside,
            self.snapshots,
            self.deletions_resumed,
            self.rebuilt
        )?;
        write!(f, "{:?}", self.verbs)
    }
}

/// An upload as its agent sees it.
#[derive(Clone)]
struct Upload {
    session: UploadSessionId,
    tree: Arc<Tree>,
    incarnation: u64,
    /// Chunks sent or reported present.
    sent: usize,
    /// Chunks acknowledged.
    acknowledged: usize,
    /// Nodes acknowledged.
    nodes: usize,
    /// Last request, nanoseconds since 1970.
    touched_ns: i64,
}

/// One history under way.
pub struct History {
    options: Options,
    rng: Rng,
    disk: Arc<Disk>,
    store: Store,
    clock: Arc<SimClock>,
    pack_bytes_target: u64,
    keys: IdKeys,
    universe: Universe,
    model: Arc<Model>,
    uploads: Vec<Upload>,
    trees: Vec<Arc<Tree>>,
    expired: Vec<UploadSessionId>,
    expired_restores: Vec<RestoreId>,
    verb: &'static str,
    asks_clock: bool,
    checked: HashSet<([u8; 16], u64)>,
    pub figures: Figures,
}

type Outcome = Result<(), String>;

/// A call the engine refused, as opposed to one that went wrong.
const REFUSED: &str = "refused: ";

fn text(error: StoreError) -> String {
    format!("{REFUSED}{error} ({error:?})")
}

impl History {
    pub fn new(options: Options) -> Result<Self, String> {
        let mut rng = Rng::new(options.seed);
        let disk = Disk::with_sites(Volume::default(), options.sites.clone());
        let pack_bytes_target = 800 + rng.below(4000) as u64;
        disk.watch();
        let (store, clock) = options.ground.open(&disk, rng.next(), START_NS, pack_bytes_target).map_err(text)?;
        store.create_vault(VAULT).map_err(text)?;
        let keys = store.id_keys(&VAULT).map_err(text)?;
        if options.crash_percent > 0 {
            check_creation(&disk, &mut rng, &options, pack_bytes_target)?;
        }
        // From here on a clock that jumps is refused, also over a restart.
        store.now_ns().map_err(text)?;
        Ok(History {
            options,
            rng,
            disk,
            store,
            clock,
            pack_bytes_target,
            keys,
            universe: Universe::default(),
            model: Arc::new(Model { confirmed_ns: START_NS, ..Model::default() }),
            uploads: Vec::new(),
            trees: Vec::new(),
            expired: Vec::new(),
            expired_restores: Vec::new(),
            verb: "start",
            asks_clock: true,
            checked: HashSet::new(),
            figures: Figures::default(),
        })
    }

    /// Runs the whole history and crashes it at its disk operations. The error names what repeats it.
    pub fn explore(options: Options) -> Result<Figures, String> {
        let seed = options.seed;
        let mut history = History::new(options)?;
        for number in 0..history.options.operations {
            history
                .operation()
                .map_err(|error| format!("HOLDFAST_SEED={seed} operation {number} ({}): {error}", history.verb))?;
        }
        history.figures.disk_operations += history.disk.operations();
        Ok(history.figures)
    }

    fn now_ns(&self) -> i64 {
        self.clock.0.load(Ordering::Relaxed)
    }

    /// One call of somebody, then a crash at the disk operations it took.
    fn operation(&mut self) -> Outcome {
        // Once, however often the call is made: who asks again asks for the same.
        self.clock.0.fetch_add(1_000_000_000, Ordering::Relaxed);
        let (before, uploads_before) = (self.model.clone(), self.uploads.clone());
        self.disk.captured();
        let acted = if self.options.patient { self.act_patiently() } else { self.act() };
        tracing::debug!(
            restores = self.model.restores.len(),
            sessions = self.model.sessions.len(),
            snapshots = self.model.snapshots.len(),
            "model"
        );
        tracing::debug!(
            verb = self.verb,
            disk_operations = self.disk.operations(),
            "operation {}",
            self.figures.operations
        );
        acted?;
        self.figures.operations += 1;
        *self.figures.verbs.entry(self.verb).or_default() += 1;
        let captured = self.disk.captured();
        let expected = Expected { before, after: self.model.clone() };
        let now = [(Op::Write, self.disk.volume())];
        // While the call was under way, anything between before and after; when it has answered, nothing but after.
        for (_, volume) in captured.iter().take(captured.len().saturating_sub(1)) {
            if self.rng.chance(self.options.crash_percent) {
                self.crash_at(volume, &expected)?;
            }
        }
        let after = Expected::exactly(&self.model);
        if self.rng.chance(self.options.crash_percent.max(25)) {
            self.crash_at(&now[0].1, &after)?;
        }
        if !self.options.patient && self.rng.chance(self.options.lose_percent) {
            // The history itself loses power, inside the call or after it, and goes on.
            let inside = captured.len() > 1 && self.rng.chance(70);
            self.verb = "power loss";
            if inside {
                let at = self.rng.below(captured.len() - 1);
                self.uploads = uploads_before;
                self.go_on_from(&captured[at].1, &expected)?;
            } else {
                self.go_on_from(&now[0].1, &after)?;
            }
            self.figures.crashes_inside += 1;
        }
        Ok(())
    }

    fn survivals(&mut self, volume: &Volume) -> Vec<Survival> {
        let mut survivals = vec![Survival::Nothing];
        if volume.has_pending() {
            survivals.extend([Survival::Everything, Survival::Names, Survival::Data]);
            for number in 0..self.options.variants {
                let seed = self.rng.next();
                survivals.push(match number % 3 {
                    0 => self.options.any(seed, 512),
                    1 => Survival::Prefix { seed },
                    _ => self.options.any(seed, 4096),
                });
            }
        }
        survivals
    }

    fn crash_at(&mut self, volume: &Volume, expected: &Expected) -> Outcome {
        for survival in self.survivals(volume) {
            // A killed process leaves in memory what is not on disk: it may be lost yet, after the next start.
            let state = if survival == Survival::Everything { volume.clone() } else { volume.crash(survival) };
            let mut hash = [0; 16];
            hash.copy_from_slice(&state.hash()[..16]);
            self.figures.states.insert(hash);
            if !self.checked.insert((hash, expected.after.version * 2 + u64::from(expected.is_open()))) {
                continue;
            }
            self.check(state, expected).map_err(|error| {
                tracing::info!("before the crash: {:#?}", volume.listing());
                format!("{survival:?}: {error}")
            })?;
        }
        Ok(())
    }

    /// Opens the state and compares it with what is expected.
    fn check(&mut self, state: Volume, expected: &Expected) -> Outcome {
        self.figures.checks += 1;
        let again = self.rng.chance(self.options.again_percent);
        let dry = self.rng.chance(self.options.dry_percent);
        let seed = self.rng.next();
        if self.rng.chance(JUMP_PERCENT) {
            self.check_jump(&state, seed)?;
        }
        let disk = Disk::with_sites(state, self.options.sites.clone());
        if again {
            disk.watch();
        }
        let (store, _, rebuilt) = self.open_or_rebuild(&disk, seed)?;
        let without_holds = rebuilt.then(|| expected.without_holds());
        let expected = without_holds.as_ref().unwrap_or(expected);
        let found = self.check_store(&store, expected)?;
        self.figures.snapshots += found.len() as u64;
        let neighbour = self.check_neighbour(&store, &disk, expected)?;
        let mut expected_again = Expected { before: expected.before.clone(), after: expected.after.clone() };
        if let Some(neighbour) = neighbour.filter(|neighbour| neighbour.stage == Stage::Decided) {
            self.finish_deletion(&store, &disk, &neighbour)?;
            self.figures.deletions_resumed += 1;
            self.check_store(&store, expected).map_err(|error| format!("beside a deleted vault: {error}"))?;
            Arc::make_mut(&mut expected_again.after).neighbour = Some(Neighbour { stage: Stage::Gone, ..neighbour });
        }
        if again {
            // Power is lost once more, in the middle of the recovery.
            let captured = disk.captured();
            for number in 0..2 {
                let Some((_, volume)) = self.rng.pick(&captured) else { break };
                let survival = match number {
                    0 => Survival::Nothing,
                    _ => self.options.any(self.rng.next(), 512),
                };
                let state = volume.crash(survival);
                let mut hash = [0; 16];
                hash.copy_from_slice(&state.hash()[..16]);
                self.figures.states.insert(hash);
                let disk = Disk::with_sites(state, self.options.sites.clone());
                let seed = self.rng.next();
                let (store, _, rebuilt) = self.open_or_rebuild(&disk, seed)?;
                let without_holds = rebuilt.then(|| (expected.without_holds(), expected_again.without_holds()));
                let (expected, expected_again) =
                    without_holds.as_ref().map_or((expected, &expected_again), |(once, again)| (once, again));
                self.check_store(&store, expected)
                    .and_then(|_| self.check_neighbour(&store, &disk, expected_again))
                    .map_err(|error| format!("after a second crash: {error}"))?;
            }
        }
        if dry {
            self.check_dry(&store, expected, found)?;
        }
        Ok(())
    }

    /// A clock that jumps over a restart is not believed.
    fn check_jump(&self, state: &Volume, seed: u64) -> Outcome {
        let disk = Disk::with_sites(state.clone(), self.options.sites.clone());
        let jumped_ns = self.now_ns() + 49 * HOUR_NS;
        let (store, ..) = self.options.open_or_rebuild(&disk, seed, jumped_ns, self.pack_bytes_target)?;
        match store.now_ns() {
            Err(StoreError::ClockJumped { .. }) => Ok(()),
            Err(error) => Err(format!("the clock: {}", text(error))),
            Ok(_) => Err("a clock that jumped two days over a restart was believed".into()),
        }
    }

    /// As [`Options::open_or_rebuild`], counted.
    fn open_or_rebuild(&mut self, disk: &Arc<Disk>, seed: u64) -> Result<(Store, Arc<SimClock>, bool), String> {
        let opened = self.options.open_or_rebuild(disk, seed, self.now_ns(), self.pack_bytes_target)?;
        self.figures.rebuilt += u64::from(opened.2);
        Ok(opened)
    }

    fn check_store(&self, store: &Store, expected: &Expected) -> Result<BTreeMap<SnapshotId, Snapshot>, String> {
        let listed = store.snapshots(&VAULT).map_err(|error| format!("snapshots: {}", text(error)))?;
        let found = expected.check_snapshots(&listed)?;
        for (session, _) in expected.sessions() {
            store.upload_session(&VAULT, session).map_err(|error| format!("a live session is gone: {error}"))?;
        }
        // Whoever confirmed the clock need not do so again because power was lost. To ask writes, and syncs what else is new
        // in the folder: some starts are not asked.
        if self.asks_clock && self.now_ns() - expected.before.confirmed_ns < 40 * HOUR_NS {
            store.now_ns().map_err(|error| format!("the clock: {}", text(error)))?;
        }
        let required = expected.required(&self.universe, &found);
        self.read_all(store, &VAULT, &required, |id| expected.needed_by(&self.universe, id))?;
        let recount = store.recount(&VAULT).map_err(|error| format!("recount: {}", text(error)))?;
        if let Some(drift) = recount.drift.first() {
            return Err(format!("drift: {drift}"));
        }
        let logical: u64 = found.values().map(|snapshot| snapshot.tree.logical_bytes).sum();
        if recount.ledger.logical_bytes != logical || recount.ledger.snapshots != found.len() as u64 {
            return Err(format!("the ledger says {:?}, the snapshots add up to {logical}", recount.ledger));
        }
        Ok(found)
    }

    /// Every required object comes back, byte for byte.
    fn read_all(
        &self,
        store: &Store,
        vault: &VaultId,
        required: &HashSet<ObjectId>,
        needed_by: impl Fn(&ObjectId) -> Vec<String>,
    ) -> Outcome {
        let ids: Vec<ObjectId> = required.iter().copied().collect();
        let mut wrong = None;
        let mut plaintext = Vec::new();
        let mut decompressor = None;
        store
            .read_objects(vault, &ids, |delivered| {
                let object = match delivered {
                    Delivered::Object(object) => object,
                    other => {
                        wrong.get_or_insert_with(|| {
                            let (Delivered::Absent(id) | Delivered::Damaged(id)) = &other else { return String::new() };
                            format!("{other:?}, needed by {:?}", needed_by(id))
                        });
                        return Ok(());
                    }
                };
                let known = &self.universe.objects[&object.id].incoming;
                let same = if object.codec == repo_format::compress::Codec::Raw {
                    object.payload == known.payload
                } else {
                    let context = match &mut decompressor {
                        Some(context) => context,
                        None => decompressor.insert(repo_format::compress::Decompressor::new()?),
                    };
                    context.decompress_into(object.codec, &object.payload, object.plain_len, &mut plaintext)?;
                    plaintext == known.payload
                };
                if !same || object.kind != known.kind {
                    wrong.get_or_insert(format!("object {} came back different", object.id));
                }
                Ok(())
            })
            .map_err(|error| format!("reading: {}", text(error)))?;
        wrong.map_or(Ok(()), Err)
    }

    /// With every session ended and everything collected, exactly what the snapshots reach is left.
    fn check_dry(&mut self, store: &Store, expected: &Expected, found: BTreeMap<SnapshotId, Snapshot>) -> Outcome {
        self.figures.dry_checks += 1;
        // An expiry was answered to nobody: a crash may bring such a session back.
        let expired = self.expired.iter();
        for session in [&expected.before, &expected.after].iter().flat_map(|model| model.sessions.keys()).chain(expired)
        {
            match store.abort_upload(&VAULT, session) {
                Ok(()) | Err(StoreError::NoSuchSession(_)) => {}
                Err(error) => return Err(format!("abort: {}", text(error))),
            }
        }
        let expired = self.expired_restores.iter();
        for restore in [&expected.before, &expected.after].iter().flat_map(|model| model.restores.keys()).chain(expired)
        {
            store.end_restore(&VAULT, restore).map_err(text)?;
        }
        // Long enough for packs nobody writes to to be finished.
        let now_ns = self.now_ns() + HOUR_NS;
        let due = |snapshot: &Snapshot| {
            snapshot.deleted_until_ns.is_some_and(|until_ns| until_ns <= now_ns)
                && snapshot.hold_until_ns.is_none_or(|until_ns| until_ns <= now_ns)
        };
        Self::run_dry(store, now_ns)?;
        let listed = store.snapshots(&VAULT).map_err(text)?;
        let mut model = Model { snapshots: found, ..Model::default() };
        model.snapshots.retain(|id, snapshot| !due(snapshot) || listed.iter().any(|info| info.snapshot == *id));
        if model.snapshots.len() != listed.len() {
            return Err(format!("{} snapshots are left instead of {}", listed.len(), model.snapshots.len()));
        }
        self.compare_space(store, &model)?;
        // Trailers and stripes as well, which no restore reads.
        loop {
            let step = store.scrub_step(&VAULT, self.now_ns(), u64::MAX).map_err(text)?;
            if (step.objects_damaged, step.packs_damaged, step.packs_missing) != (0, 0, 0) {
                return Err(format!("scrub found damage on a sound disk: {step:?}"));
            }
            if step.done {
                return Ok(());
            }
        }
    }

    /// Collects until nothing is left to do.
    fn run_dry(store: &Store, now_ns: i64) -> Outcome {
        for _ in 0..STEPS_MAX {
            if !store.maintain(&VAULT, now_ns).map_err(|error| format!("maintain: {}", text(error)))?.more {
                return Ok(());
            }
        }
        Err("collection does not come to rest".into())
    }

    fn compare_space(&self, store: &Store, model: &Model) -> Outcome {
        let recount = store.recount(&VAULT).map_err(|error| format!("recount: {}", text(error)))?;
        if let Some(drift) = recount.drift.first() {
            return Err(format!("drift after collection: {drift}"));
        }
        let references = model.references(&self.universe);
        if let Some(id) = recount.objects.keys().find(|id| !references.contains_key(*id)) {
            for (id, count) in recount.objects.iter().filter(|(id, _)| !references.contains_key(*id)) {
                let root = self.trees.iter().position(|tree| ObjectId::from(tree.root) == *id);
                tracing::info!(%id, count, kind = ?self.universe.objects[id].incoming.kind, root, "left");
            }
            let kind = self.universe.objects[id].incoming.kind;
            let live = store.live_sessions(&VAULT).map_err(text)?;
            let references = recount.objects[id];
            return Err(format!(
                "{kind:?} {id} is left with {references} references beside {live} uploads, and nothing reaches it"
            ));
        }
        for (id, counted) in &references {
            if recount.objects.get(id) != Some(counted) {
                return Err(format!("{id} has {counted} references, the index says {:?}", recount.objects.get(id)));
            }
        }
        if recount.ledger.pending_bytes != 0 {
            return Err(format!("{} bytes are still to be reclaimed", recount.ledger.pending_bytes));
        }
        if recount.ledger.logical_bytes != model.logical_bytes()
            || recount.ledger.deleted_logical_bytes != model.deleted_logical_bytes()
        {
            return Err(format!("logical bytes differ: {:?}", recount.ledger));
        }
        Ok(())
    }

    /// The power is back: what survived is what is there.
    fn go_on_from(&mut self, volume: &Volume, expected: &Expected) -> Outcome {
        let state = match self.rng.below(6) {
            // Killed, and the power stays on: nothing is lost, and nothing more is on disk than before.
            0 | 1 => volume.clone(),
            2 => volume.crash(Survival::Nothing),
            3 => volume.crash(Survival::Everything),
            _ => volume.crash(self.options.any(self.rng.next(), 512)),
        };
        self.figures.disk_operations += self.disk.operations();
        self.disk = Disk::with_sites(state, self.options.sites.clone());
        self.disk.watch();
        self.reopen(expected)
    }

    fn reopen(&mut self, expected: &Expected) -> Outcome {
        let seed = self.rng.next();
        let disk = self.disk.clone();
        let (store, clock, rebuilt) = self.open_or_rebuild(&disk, seed)?;
        let without_holds = rebuilt.then(|| expected.without_holds());
        let expected = without_holds.as_ref().unwrap_or(expected);
        (self.store, self.clock) = (store, clock);
        self.asks_clock = self.rng.chance(50);
        let listed = self.store.snapshots(&VAULT).map_err(text)?;
        let found = expected.check_snapshots(&listed)?;
        let mut live = HashSet::new();
        let sessions: Vec<UploadSessionId> =
            [&expected.before, &expected.after].iter().flat_map(|model| model.sessions.keys().copied()).collect();
        for session in sessions {
            if self.store.upload_session(&VAULT, &session).is_ok() {
                live.insert(session);
            }
        }
        // Whoever asks again for a commit that was done gets the same answer.
        for (id, snapshot) in &found {
            if self.uploads.iter().any(|upload| upload.session == snapshot.session) {
                let input = CommitInput { root: snapshot.tree.root, summary_json: Vec::new() };
                let again = self.store.commit(&VAULT, &snapshot.session, &input).map_err(text)?;
                if again.snapshot != *id {
                    return Err("a commit asked again made another snapshot".into());
                }
            }
        }
        self.uploads.retain(|upload| live.contains(&upload.session));
        let mut restores = BTreeMap::new();
        for (restore, root) in [&expected.before, &expected.after].iter().flat_map(|model| &model.restores) {
            if self.store.touch_restore(&VAULT, restore).is_ok() {
                restores.insert(*restore, *root);
            } else if expected.before.restores.contains_key(restore) && expected.after.restores.contains_key(restore) {
                return Err("a running restore is gone".into());
            }
        }
        let neighbour = self.check_neighbour(&self.store, &self.disk, expected)?;
        self.model = Arc::new(Model { neighbour, ..expected.settle(found, &live, restores) });
        for upload in &mut self.uploads {
            upload.sent = upload.acknowledged;
            upload.incarnation = 0;
        }
        self.check_store(&self.store, &Expected::exactly(&self.model))?;
        if self.now_ns() - self.model.confirmed_ns >= 40 * HOUR_NS {
            // Whether the confirmation got through, nobody heard: it is given again.
            self.store.confirm_clock().map_err(text)?;
            let confirmed_ns = self.now_ns();
            self.change(|model| model.confirmed_ns = confirmed_ns);
        }
        Ok(())
    }

    /// The process that had the store is gone; nobody but the disk remembers it.
    fn release(&mut self) -> Outcome {
        if let Ground::Mounted(_) = self.options.ground {
            // Two processes never have one index open, so the old one's goes on elsewhere.
            self.store = open_elsewhere()?;
        }
        Ok(())
    }

    fn change(&mut self, change: impl FnOnce(&mut Model)) {
        let model = Arc::make_mut(&mut self.model);
        model.version += 1;
        change(model);
    }

    fn objects(&self, ids: &[ObjectId]) -> Vec<IncomingObject> {
        ids.iter().map(|id| self.universe.objects[id].incoming.clone()).collect()
    }

    /// As agents and people do: a call that is refused is made again, and in the end the server is started again.
    fn act_patiently(&mut self) -> Outcome {
        let (rng, uploads, model) = (self.rng.clone(), self.uploads.clone(), self.model.clone());
        let mut tries = 0;
        loop {
            match self.act() {
                Err(error) if error.contains(REFUSED) && tries < TRIES_MAX => {
                    tracing::debug!(verb = self.verb, error, "made again");
                    tries += 1;
                    (self.rng, self.uploads, self.model) = (rng.clone(), uploads.clone(), model.clone());
                    if tries == TRIES_MAX / 2 {
                        // A commit whose answer is awaited is asked for again as it is.
                        for upload in self.uploads.iter_mut().filter(|upload| upload.nodes < upload.tree.nodes.len()) {
                            upload.sent = upload.acknowledged;
                        }
                        self.start()?;
                        self.rng = rng.clone();
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Another process on the same disk.
    fn start(&mut self) -> Outcome {
        let mut refused = String::new();
        for _ in 0..TRIES_MAX {
            let seed = self.rng.next();
            match self.options.ground.open(&self.disk, seed, self.now_ns(), self.pack_bytes_target) {
                Ok((store, clock)) => {
                    (self.store, self.clock) = (store, clock);
                    return Ok(());
                }
                Err(error) => refused = format!("open: {}", text(error)),
            }
        }
        Err(refused)
    }

    /// Runs the history with an error at one disk operation, or some in a row. Answers how many struck and how many
    /// operations the disk had, once everything acknowledged was found, before and after another start.
    pub fn with_fault(options: Options, fault: Fault) -> Result<(u64, u64), String> {
        let seed = options.seed;
        let mut history = History::new(options)?;
        let before = history.disk.operations();
        history.disk.set_fault(Some(fault));
        let named = |verb: &str, error: String| format!("HOLDFAST_SEED={seed} {fault:?} {verb}: {error}");
        for _ in 0..history.options.operations {
            history.operation().map_err(|error| named(history.verb, error))?;
        }
        let struck = history.disk.faults_struck();
        let operations = history.disk.operations() - before;
        history.disk.set_fault(None);
        history.finish().map_err(|error| named("at the end", error))?;
        Ok((struck, operations))
    }

    fn finish(&mut self) -> Outcome {
        let expected = Expected::exactly(&self.model);
        self.check_store(&self.store, &expected)?;
        self.start()?;
        let found = self.check_store(&self.store, &expected)?;
        let neighbour = self.check_neighbour(&self.store, &self.disk, &expected)?;
        if let Some(neighbour) = neighbour.filter(|neighbour| neighbour.stage == Stage::Decided) {
            self.finish_deletion(&self.store, &self.disk, &neighbour)?;
        }
        // Sessions whose begin was never answered end by themselves.
        self.clock.0.fetch_add(2 * IDLE_NS, Ordering::Relaxed);
        self.store.confirm_clock().map_err(text)?;
        let store = std::mem::replace(&mut self.store, open_elsewhere()?);
        let checked = self.check_dry(&store, &expected, found);
        self.store = store;
        checked
    }

    fn act(&mut self) -> Outcome {
        match self.rng.below(100) {
            0..=9 => self.begin(),
            10..=22 => self.put(),
            23..=26 => self.flush(),
            27..=30 => self.neighbour(),
            31..=45 => self.nodes(),
            46..=61 => self.commit(),
            62..=63 => self.abort(),
            64..=68 => self.delete(),
            69..=70 => self.undelete(),
            71..=75 => self.purge(),
            76..=77 => self.hold(),
            78..=79 => self.tag(),
            80 => self.begin_restore(),
            81 => self.end_restore(),
            82..=88 => self.maintain(),
            89..=90 => self.pass_time(),
            91..=92 => self.scrub(),
            93 => self.audit(),
            94..=95 => self.close(),
            96..=97 => self.kill(),
            98 => self.rebuild(),
            _ => self.duplicate(),
        }
    }
}

/// Power may go while the store and its vault are made: whoever did not hear that they are makes them again, and whoever
/// did finds them.
fn check_creation(disk: &Arc<Disk>, rng: &mut Rng, options: &Options, pack_bytes_target: u64) -> Outcome {
    let captured = disk.captured();
    let answered = captured.len().saturating_sub(1);
    for (number, (_, volume)) in captured.iter().enumerate() {
        // Hundreds of states, most of them RocksDB's own.
        if matches!(options.ground, Ground::Mounted(_)) && !rng.chance(8) {
            continue;
        }
        let any = options.any(rng.next(), 512);
        for survival in [Survival::Nothing, Survival::Names, Survival::Data, Survival::Everything, any] {
            let killed = survival == Survival::Everything;
            let state = if killed { volume.clone() } else { volume.crash(survival) };
            let disk = Disk::with_sites(state, options.sites.clone());
            let named = |error: StoreError| format!("creation, {survival:?}: {}", text(error));
            let (store, ..) = options
                .open_or_rebuild(&disk, rng.next(), START_NS, pack_bytes_target)
                .map_err(|error| format!("creation, {survival:?}: {error}"))?;
            if number < answered {
                store.create_vault(VAULT).map_err(named)?;
            }
            store.snapshots(&VAULT).map_err(named)?;
            store.begin_upload(&VAULT, "computer", "series", None).map_err(named)?;
            if killed {
                // What the first process left in memory must be on disk by now.
                let disk = Disk::with_sites(disk.volume().crash(Survival::Nothing), options.sites.clone());
                let (store, ..) = options.open_or_rebuild(&disk, rng.next(), START_NS, pack_bytes_target)?;
                store.begin_upload(&VAULT, "computer", "series", None).map_err(named)?;
            }
        }
    }
    Ok(())
}

/// A store that stands in while another one is looked at.
fn open_elsewhere() -> Result<Store, String> {
    let ground = Ground::Simulated;
    ground.open(&Disk::new(Volume::default()), 0, START_NS, 1000).map(|(store, _)| store).map_err(text)
}
