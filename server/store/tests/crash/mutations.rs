//! Whether the crash tests would notice: every call that makes something durable is left out in turn, by its place in
//! the engine, and the histories must fail. The places are those the histories come by, found by walking the stack, so
//! a call that is added is on the list without being put there.

use crate::history::{Figures, History, Options};
use crate::sites::{Site, Sites};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Places that may be left out: what is left out, what the place's name holds, and the reason why nothing acknowledged
/// depends on it.
pub const REDUNDANT: [(&str, &[&str], &str); 10] = [
    ("directory sync", &[" next_directory"], "the rename that puts the folder in place syncs the same directory"),
    (
        "directory sync",
        &["index_volume.rs", " open <", " rebuild"],
        "a rebuild finds a folder whose name a start has synced",
    ),
    (
        "directory sync",
        &["keyring_file.rs", " save <", " open"],
        "a repair: the next start repeats it, and a vault is made only with the next save",
    ),
    (
        "directory sync",
        &["keyring_file.rs", " save <", " insert_vault"],
        "the vault's folders follow, and their parent's name is synced in the same directory before the answer",
    ),
    (
        "directory sync",
        &[" drop_step"],
        "the drop is in the journal: a name that comes back is removed by the next opening of the vault",
    ),
    ("rename in one step", &["keyring_file.rs"], "of two copies, the other is whole while one is replaced"),
    ("rename in one step", &[" write_segment"], "a segment's name is new: without it no record was acknowledged"),
    ("rename in one step", &[" write_intent"], "an intent's name is new: without it nothing was decided"),
    ("rename in one step", &[" next_epoch"], "a lost number goes on behind the highest that packs and journals carry"),
    (
        "rename in one step",
        &["vault/recover.rs", " open"],
        "the mark's name is new: without it the rows are still there",
    ),
];

/// Why the place may be left out, if it may.
pub fn redundant(site: &str) -> Option<&'static str> {
    let fits = |verb: &str, parts: &[&str]| site.starts_with(verb) && parts.iter().all(|part| site.contains(part));
    REDUNDANT.iter().find(|(verb, parts, _)| fits(verb, parts)).map(|(_, _, why)| *why)
}

/// What became of one mutation.
pub struct Mutation {
    pub site: Site,
    /// How often the unmutated histories came by.
    pub calls: u64,
    /// Histories until one failed, and what it said; `None`: all passed.
    pub noticed: Option<(u64, String)>,
}

/// Calls of `histories` histories, by place.
pub fn sites(options: impl Fn(u64) -> Options, first: u64, histories: u64) -> BTreeMap<Site, u64> {
    let sites = Arc::new(Sites::new(None));
    for number in 0..histories {
        let options = Options { sites: Some(sites.clone()), crash_percent: 0, ..options(first + number) };
        // A failure shows in the unmutated runs.
        let _ = History::explore(options);
    }
    let mut seen = sites.seen();
    // Calls of the tests themselves are none of the engine's.
    seen.retain(|site, _| names_a_caller(site));
    seen
}

/// Whether the place names more than the simulated disk it ends in.
fn names_a_caller(site: &str) -> bool {
    site.rsplit_once(" in ")
        .is_some_and(|(_, place)| place.split(" < ").any(|part| !part.is_empty() && !part.starts_with("world.rs")))
}

/// A place that may be left out is left out of so many histories, to see whether its reason still holds.
const HISTORIES_OF_REDUNDANT: u64 = 10;

/// Leaves `site` out of histories until one fails.
pub fn mutate(site: &Site, calls: u64, options: impl Fn(u64) -> Options, first: u64, histories: u64) -> Mutation {
    let sites = Arc::new(Sites::new(Some(site.clone())));
    let histories = if redundant(site).is_some() { HISTORIES_OF_REDUNDANT } else { histories };
    for number in 0..histories {
        let options = Options { sites: Some(sites.clone()), ..options(first + number) };
        if let Err(error) = History::explore(options) {
            let noticed = Some((number + 1, error));
            return Mutation { site: site.clone(), calls, noticed };
        }
    }
    Mutation { site: site.clone(), calls, noticed: None }
}

/// Every mutation, on every core, in the order of the places.
pub fn run(options: impl Fn(u64) -> Options + Sync, first: u64, discovered_by: u64, histories: u64) -> Vec<Mutation> {
    let queue: Mutex<Vec<(Site, u64)>> = Mutex::new(sites(&options, first, discovered_by).into_iter().rev().collect());
    let done: Mutex<Vec<Mutation>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((site, calls)) = queue.lock().pop() else { return };
                    let mutation = mutate(&site, calls, &options, first, histories);
                    eprint!("{}", row(&mutation));
                    done.lock().push(mutation);
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_by(|one, other| one.site.cmp(&other.site));
    done
}

/// The table, for people.
pub fn table(mutations: &[Mutation]) -> String {
    let mut out = String::from("| left out | calls | noticed after | as |\n|---|---|---|---|\n");
    for mutation in mutations {
        out.push_str(&row(mutation));
    }
    out
}

fn row(Mutation { site, calls, noticed }: &Mutation) -> String {
    let (after, what) = match noticed {
        Some((histories, error)) => {
            let what = error.split_once("): ").map_or(error.as_str(), |(_, what)| what);
            let what: String = what.chars().take(110).collect();
            (format!("{histories} histories"), what)
        }
        None => ("never".into(), redundant(site).unwrap_or("MISSED").to_owned()),
    };
    format!("| {site} | {calls} | {after} | {} |\n", what.replace('|', "/").replace('\n', " "))
}

/// Figures of an unmutated run of the same histories: it must pass.
pub fn unmutated(options: impl Fn(u64) -> Options, first: u64, histories: u64) -> Result<Figures, String> {
    let mut total = Figures::default();
    for number in 0..histories {
        total.add(History::explore(options(first + number))?);
    }
    Ok(total)
}
