//! Many agents at once against one server, for long: trees that change, backups, restores, and what happens to snapshots
//! afterwards. Everything an agent does in a round follows from the seed, the agent and the round, so that a run can be
//! repeated with the same data but without what deletes and collects.

use super::keeper::unless_gone;
use super::scene::unexpected_lines;
use super::{Binaries, Keeper, Login, Server, User, latency, summary};
use crate::directory::remove_tree;
use crate::manifest::Manifest;
use crate::seed::{Random, Seed};
use crate::trees::{self, Totals};
use crate::{change, process};
use agent::client::ClientError;
use api::problem::Code;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a fleet is made of.
#[derive(Clone, Copy, Debug)]
pub struct FleetPlan {
    /// Agents; every pair of the second half shares a vault, the others have one each.
    pub agents: usize,
    /// Each agent's tree.
    pub tree: Totals,
    /// Thousandths of a tree's files that change between two backups.
    pub change_per_mille: u64,
    /// Newest snapshots of each series that retention leaves.
    pub keep_last: u32,
    /// Sessions that lost their agent, such as one whose begin was carried out but not answered, end after so many
    /// seconds; until then they keep what they began from.
    pub session_idle_seconds: u64,
}

/// When a run ends.
#[derive(Clone, Debug)]
pub enum Rounds {
    /// No round begins after this time.
    For(Duration),
    /// So many rounds for each agent.
    Exactly(Vec<u32>),
}

/// What agents do beside backups and restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: no snapshot is ever removed.
    BackupsOnly,
    /// Snapshots are deleted, brought back, held, purged, and expire.
    Everything,
}

/// What became of a snapshot, as its agent was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Deleted,
    /// Purged by this agent.
    Purged,
    /// Found to be gone: retention, or the end of its undelete days, must explain it.
    Gone,
}

struct Known {
    id: String,
    manifest: Arc<Manifest>,
    state: State,
    held: bool,
}

/// What a run amounted to.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Snapshots committed.
    pub committed: u64,
    /// Restores compared while agents worked.
    pub restored: u64,
    /// Softly deleted.
    pub deleted: u64,
    /// Brought back.
    pub undeleted: u64,
    /// Purged.
    pub purged: u64,
    /// Retention runs that were answered, and what they reported as expired.
    pub expired: u64,
    /// Purges that a hold refused.
    pub held: u64,
    /// Requests that agents had to repeat.
    pub retries: u64,
    /// Chunks that had to be sent again although they had been acknowledged as durable.
    pub resent_durable: u64,
}

/// One agent, its tree, and everything it has ever committed.
pub struct Member {
    login: Login,
    keeper: Arc<Keeper>,
    source: PathBuf,
    folder: PathBuf,
    known: Vec<Known>,
    rounds: u32,
    undelete_days: u32,
    found: Found,
}

/// A server and its agents, in a folder that goes away.
pub struct Fleet {
    /// Of this run.
    pub seed: Seed,
    /// The programs.
    pub binaries: Binaries,
    /// Parts of WARN and ERROR lines that are expected.
    pub expected_log: Vec<&'static str>,
    plan: FleetPlan,
    arguments: Vec<String>,
    server: Option<Server>,
    listen: SocketAddr,
    members: Vec<Mutex<Member>>,
    folder: TempDir,
}

impl Fleet {
    /// A server, vaults, agents and their first trees; nothing is backed up yet.
    pub fn new(plan: FleetPlan, seed: Seed) -> io::Result<Self> {
        let folder = TempDir::with_prefix("holdfast-fleet-")?;
        let binaries = Binaries::of_this_build()?;
        let idle = plan.session_idle_seconds.to_string();
        let arguments: Vec<String> =
            ["--log", latency::LOG_FILTER, "--session-idle-seconds", &idle].map(str::to_owned).to_vec();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let data = folder.path().join("data");
        let server = Server::start_at(&binaries, &data, any, &borrowed(&arguments))?;
        let mut fleet = Fleet {
            seed,
            binaries,
            expected_log: vec!["the master key is not confirmed"],
            plan,
            arguments,
            listen: server.address(),
            server: Some(server),
            members: Vec::new(),
            folder,
        };
        let alone = plan.agents - plan.agents / 2;
        let mut vault: Option<(User, Arc<Keeper>, u32)> = None;
        for index in 0..plan.agents {
            let shares = index >= alone && !(index - alone).is_multiple_of(2);
            let (user, keeper, undelete_days) = match vault.take().filter(|_| shares) {
                Some(vault) => vault,
                None => fleet.add_vault(index)?,
            };
            let below = fleet.folder.path().join(format!("agent-{index}"));
            let login = Login::create(&fleet.binaries, &user, &below)?;
            let source = below.join("source");
            trees::life_like(&source, plan.tree, Seed(fleet.seed.stream(&format!("tree {index}")).next_u64()))?;
            let member = Member {
                login,
                keeper: keeper.clone(),
                source,
                folder: below,
                known: Vec::new(),
                rounds: 0,
                undelete_days,
                found: Found::default(),
            };
            fleet.members.push(Mutex::new(member));
            vault = Some((user, keeper, undelete_days));
        }
        Ok(fleet)
    }

    /// A user with a vault and a retention policy, and somebody with every right on it. What is deleted in every second
    /// vault is due at once.
    fn add_vault(&self, index: usize) -> io::Result<(User, Arc<Keeper>, u32)> {
        let server = self.server()?;
        let user = server.add_user(&self.binaries, &format!("user-{index}"))?;
        let undelete_days = if index.is_multiple_of(2) { 14 } else { 0 };
        let administer = |arguments: &[&str]| server.administer(&self.binaries, arguments);
        administer(&["vault", "undelete-days", &user.vault, &undelete_days.to_string()])?;
        administer(&["vault", "retention", &user.vault, "--keep-last", &self.plan.keep_last.to_string()])?;
        let keeper = Arc::new(server.keeper(&self.binaries, &user)?);
        Ok((user, keeper, undelete_days))
    }

    /// The running server.
    pub fn server(&self) -> io::Result<&Server> {
        self.server.as_ref().ok_or_else(|| io::Error::other("the server is not running"))
    }

    /// One keeper for each vault.
    pub fn keepers(&self) -> Vec<Arc<Keeper>> {
        let all = self.members.iter().map(|member| lock(member).keeper.clone());
        all.map(|keeper| (keeper.vault.clone(), keeper)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// Kills the server where it stands and starts it again.
    pub fn kill_and_start(&mut self) -> io::Result<()> {
        let data = self.folder.path().join("data");
        self.server.take().map_or(Ok(()), Server::kill)?;
        self.server = Some(Server::start_at(&self.binaries, &data, self.listen, &borrowed(&self.arguments))?);
        Ok(())
    }

    /// Lets all agents work at once. `meanwhile` is called again and again, here, until they are done, and may do
    /// whatever it likes to the server.
    pub fn run(
        &mut self,
        rounds: &Rounds,
        work: Work,
        mut meanwhile: impl FnMut(&mut Fleet) -> io::Result<()>,
    ) -> io::Result<Found> {
        let started = Instant::now();
        let members = std::mem::take(&mut self.members);
        let (seed, plan) = (self.seed, self.plan);
        let outcome = std::thread::scope(|scope| {
            let threads: Vec<_> = members
                .iter()
                .enumerate()
                .map(|(index, member)| {
                    scope.spawn(move || {
                        let mut member = lock(member);
                        while member.goes_on(rounds, index, started) {
                            member.round(index, seed, plan, work).map_err(|error| {
                                io::Error::other(format!("agent {index}, round {}: {error}", member.rounds))
                            })?;
                        }
                        Ok::<(), io::Error>(())
                    })
                })
                .collect();
            let mut outcome = Ok(());
            while threads.iter().any(|thread| !thread.is_finished()) {
                // Agents need a server to come to their end, whatever went wrong here.
                if outcome.is_ok() {
                    outcome = meanwhile(self);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let failed = |_| Err(io::Error::other("an agent's thread ended with a panic"));
            threads.into_iter().fold(outcome, |outcome, thread| outcome.and(thread.join().unwrap_or_else(failed)))
        });
        self.members = members;
        outcome?;
        Ok(self.found())
    }

    /// Everything so far, all agents together.
    pub fn found(&self) -> Found {
        self.members.iter().fold(Found::default(), |mut sum, member| {
            let found = &lock(member).found;
            sum.committed += found.committed;
            sum.restored += found.restored;
            sum.deleted += found.deleted;
            sum.undeleted += found.undeleted;
            sum.purged += found.purged;
            sum.expired += found.expired;
            sum.held += found.held;
            sum.retries += found.retries;
            sum.resent_durable += found.resent_durable;
            sum
        })
    }

    /// Rounds that each agent has done.
    pub fn rounds(&self) -> Vec<u32> {
        self.members.iter().map(|member| lock(member).rounds).collect()
    }

    /// Compares every vault's list with what its agents were told, then restores the newest `each_max` snapshots of
    /// every agent that can be restored and compares them with what was backed up. Gives how many were restored.
    pub fn verify(&self, each_max: usize) -> io::Result<u64> {
        let mut restored = 0;
        for (index, member) in self.members.iter().enumerate() {
            let verified = lock(member).verify(self.plan, each_max);
            restored += verified.map_err(|error| io::Error::other(format!("agent {index}: {error}")))?;
        }
        Ok(restored)
    }

    /// Purges all but the newest snapshot of the first agent in each vault, deleted and held ones included. Gives each
    /// vault's keeper, and the tree that its snapshot must give back.
    pub fn leave_one(&self) -> io::Result<Vec<(Arc<Keeper>, PathBuf)>> {
        let mut left: Vec<(Arc<Keeper>, PathBuf)> = Vec::new();
        for member in &self.members {
            let mut member = lock(member);
            let first = left.iter().all(|(keeper, _)| keeper.vault != member.keeper.vault);
            if first {
                left.push((member.keeper.clone(), member.source.clone()));
            }
            let all = member.keeper.client.snapshots(&member.keeper.vault).map_err(io::Error::other)?;
            let own = all.iter().filter(|snapshot| member.known.iter().any(|known| known.id == snapshot.id));
            let mut own: Vec<_> = own.cloned().collect();
            if first {
                let newest = own.iter().rposition(|snapshot| snapshot.deleted.is_none());
                own.remove(newest.ok_or_else(|| io::Error::other("an agent has no snapshot left"))?);
            }
            for snapshot in own {
                member.purge_whatever_holds(&snapshot.id)?;
            }
        }
        Ok(left)
    }

    /// The server's log over all its starts.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    /// Stops the server, rebuilds the index of a copy of its data folder from packs and journals, and gives what
    /// `vault list` says of both, before and after.
    pub fn rebuilt(&mut self) -> io::Result<(String, String)> {
        let list = |server: &Server, binaries: &Binaries| server.administer(binaries, &["vault", "list", "--json"]);
        let before = list(self.server()?, &self.binaries)?;
        let (data, copy) = (self.folder.path().join("data"), self.folder.path().join("copy"));
        self.server.take().map_or(Ok(()), Server::stop)?;
        copy_folder(&data, &copy)?;
        super::administer(&self.binaries, &copy, &["rebuild-index"])?;
        let server = Server::start_at(&self.binaries, &copy, SocketAddr::from(([127, 0, 0, 1], 0)), &[])?;
        let after = list(&server, &self.binaries)?;
        server.stop()?;
        fs::remove_dir_all(&copy)?;
        self.server = Some(Server::start_at(&self.binaries, &data, self.listen, &borrowed(&self.arguments))?);
        Ok((before, after))
    }

    /// A folder of this fleet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let log = self.log();
        self.server = None;
        let _ = remove_tree(self.folder.path());
        if !std::thread::panicking() {
            let unexpected = unexpected_lines(&log, &self.expected_log);
            assert!(unexpected.is_empty(), "unexpected lines in the server's log:\n{}", unexpected.join("\n"));
        }
    }
}

impl Member {
    fn goes_on(&self, rounds: &Rounds, index: usize, started: Instant) -> bool {
        match rounds {
            Rounds::For(time) => started.elapsed() < *time,
            Rounds::Exactly(rounds) => self.rounds < rounds.get(index).copied().unwrap_or(0),
        }
    }

    /// The tree changes and is backed up; perhaps it is restored; then perhaps older snapshots go.
    fn round(&mut self, index: usize, seed: Seed, plan: FleetPlan, work: Work) -> io::Result<()> {
        let mut random = seed.stream(&format!("agent {index} round {}", self.rounds));
        if self.rounds > 0 {
            change::apply(&self.source, plan.change_per_mille, &mut random)?;
        }
        self.rounds += 1;
        let manifest = Arc::new(Manifest::of(&self.source)?);
        let mut command = self.login.command(["backup".as_ref(), "--json".as_ref(), self.source.as_os_str()]);
        let outcome = self.finish(&mut command)?;
        let summary = summary(&outcome, 0)?;
        let number = |pointer: &str| summary.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let id = summary.pointer("/snapshot/id").and_then(serde_json::Value::as_str);
        let id = id.ok_or_else(|| io::Error::other(format!("no snapshot in {summary}")))?.to_owned();
        self.found.retries += number("/retries");
        self.found.resent_durable += number("/counters/chunks_resent_durable");
        self.found.committed += 1;
        self.known.push(Known { id: id.clone(), manifest: manifest.clone(), state: State::Live, held: false });
        if random.chance(1, 3) {
            self.restore(&id, &manifest)?;
            self.found.restored += 1;
        }
        if work == Work::Everything {
            self.remove_some(&mut random)?;
        }
        Ok(())
    }

    /// What a person, a script and a policy do to snapshots. The newest two are left alone, so that a round's own
    /// restore always finds its own.
    fn remove_some(&mut self, random: &mut Random) -> io::Result<()> {
        if self.known.len() == 2 {
            self.hold(0)?;
        }
        let older = self.known.len().saturating_sub(2);
        if random.chance(1, 2) {
            self.delete(pick(&self.known[..older], random, State::Live))?;
        }
        if random.chance(1, 3) {
            self.undelete(pick(&self.known[..older], random, State::Deleted))?;
        }
        if random.chance(1, 3) {
            let state = if random.chance(1, 2) { State::Live } else { State::Deleted };
            self.purge(pick(&self.known[..older], random, state))?;
        }
        if random.chance(1, 3) {
            self.found.expired += self.keeper.run_retention()?.expired;
        }
        Ok(())
    }

    fn hold(&mut self, at: usize) -> io::Result<()> {
        let known = &mut self.known[at];
        let until_ns = Some(i64::MAX / 2);
        let hold = api::states::SetHold { until_ns };
        known.held = unless_gone(self.keeper.client.hold_snapshot(&self.keeper.vault, &known.id, &hold))?.is_some();
        Ok(())
    }

    fn delete(&mut self, at: Option<usize>) -> io::Result<()> {
        let Some(known) = at.map(|at| &mut self.known[at]) else { return Ok(()) };
        match self.keeper.client.delete_snapshot(&self.keeper.vault, &known.id) {
            Err(error) if error.code() == Some(Code::SnapshotHeld) && known.held => self.found.held += 1,
            result => {
                known.state = unless_gone(result)?.map_or(State::Gone, |_| State::Deleted);
                self.found.deleted += 1;
            }
        }
        Ok(())
    }

    fn undelete(&mut self, at: Option<usize>) -> io::Result<()> {
        let Some(known) = at.map(|at| &mut self.known[at]) else { return Ok(()) };
        let result = unless_gone(self.keeper.client.undelete_snapshot(&self.keeper.vault, &known.id))?;
        self.found.undeleted += u64::from(result.is_some());
        known.state = result.map_or(State::Gone, |_| State::Live);
        Ok(())
    }

    fn purge(&mut self, at: Option<usize>) -> io::Result<()> {
        let Some(known) = at.map(|at| &mut self.known[at]) else { return Ok(()) };
        match self.keeper.client.purge_snapshot(&self.keeper.vault, &known.id) {
            Ok(()) => {
                known.state = State::Purged;
                self.found.purged += 1;
            }
            Err(error) if is_held(&error) && known.held => self.found.held += 1,
            Err(error) => known.state = unless_gone::<()>(Err(error)).map(|_| State::Gone)?,
        }
        Ok(())
    }

    fn purge_whatever_holds(&mut self, id: &str) -> io::Result<()> {
        let (client, vault) = (&self.keeper.client, &self.keeper.vault);
        unless_gone(client.hold_snapshot(vault, id, &api::states::SetHold { until_ns: None }))?;
        unless_gone(client.purge_snapshot(vault, id))?;
        if let Some(known) = self.known.iter_mut().find(|known| known.id == id) {
            known.state = State::Purged;
        }
        Ok(())
    }

    /// Restores one snapshot and compares it with what the tree was when it was backed up.
    fn restore(&self, id: &str, manifest: &Manifest) -> io::Result<()> {
        let target = self.folder.join("restored");
        fs::create_dir_all(&target)?;
        let mut command = self.login.command(["restore".as_ref(), id.as_ref(), "--to".as_ref(), target.as_os_str()]);
        let outcome = self.finish(&mut command)?;
        if outcome.code != Some(0) {
            let said = format!("restore of {id} ended with {:?}: {}{}", outcome.code, outcome.text(), outcome.stderr);
            return Err(io::Error::other(said));
        }
        let restored = target.join(self.source.strip_prefix("/").map_err(io::Error::other)?);
        let differences = manifest.differences(&Manifest::of(&restored)?);
        if !differences.is_empty() {
            return Err(io::Error::other(format!("{id} came back otherwise: {}", differences.join("\n  "))));
        }
        remove_tree(&target)
    }

    fn finish(&self, command: &mut Command) -> io::Result<super::Outcome> {
        super::agent::run(command, b"")
    }

    /// See [`Fleet::verify`].
    fn verify(&mut self, plan: FleetPlan, most: usize) -> io::Result<u64> {
        let listed = self.keeper.client.snapshots(&self.keeper.vault).map_err(io::Error::other)?;
        let keep = plan.keep_last as usize;
        let mut whole = Vec::new();
        for (at, known) in self.known.iter().enumerate() {
            let found = listed.iter().find(|snapshot| snapshot.id == known.id);
            // Retention takes only what so many newer ones stand behind; what is deleted goes when its days are over.
            let may_expire = self.known.len() - at > keep && !known.held;
            let explained = match (known.state, found) {
                (State::Live, Some(found)) => found.deleted.is_none(),
                (State::Deleted, Some(found)) => found.deleted.is_some(),
                (State::Live, None) => may_expire,
                (State::Deleted, None) => self.undelete_days == 0 && !known.held,
                (State::Gone, None) => may_expire || self.undelete_days == 0,
                (State::Purged, None) => !known.held,
                (State::Purged | State::Gone, Some(_)) => false,
            };
            if !explained {
                let state = known.state;
                let said = format!("{} was {state:?}, held {}, and is listed as {found:?}", known.id, known.held);
                return Err(io::Error::other(said));
            }
            if found.is_some_and(|found| found.deleted.is_none()) {
                whole.push(known);
            }
        }
        let newest = &whole[whole.len().saturating_sub(most)..];
        for known in newest {
            self.restore(&known.id, &known.manifest)?;
        }
        Ok(newest.len() as u64)
    }
}

fn pick(known: &[Known], random: &mut Random, state: State) -> Option<usize> {
    let fit: Vec<usize> = (0..known.len()).filter(|at| known[*at].state == state).collect();
    (!fit.is_empty()).then(|| fit[random.index(fit.len())])
}

fn is_held(error: &ClientError) -> bool {
    error.code() == Some(Code::SnapshotHeld)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left is still worth reporting on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    let mut child = command.spawn()?;
    match process::wait_at_most(&mut child, Duration::from_secs(300))? {
        Some(status) if status.success() => Ok(()),
        status => Err(io::Error::other(format!("cp ended with {status:?}"))),
    }
}
