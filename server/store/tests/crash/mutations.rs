//! Whether the crash tests would notice: every call that makes something durable is left out in turn, by its place in
//! the engine, and the histories must fail. The places are those the histories come by, found by walking the stack, so
//! a call that is added is on the list without being put there.

use crate::history::{Figures, History, Options};
use crate::sites::{Site, Sites};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Places that may be left out, each with the reason: nothing acknowledged depends on them.
pub const REDUNDANT: [(&str, &str, &str); 5] = [
    ("directory sync", " next_directory", "the rename that puts the folder in place syncs the same directory"),
    ("directory sync", " believed", "an older file makes the clock more cautious, never less"),
    ("directory sync", "keyring_file.rs:60 open", "what is saved at a start is a repair: the next start repeats it"),
    ("fdatasync", " end_restore", "a restore that comes back ends by itself"),
    ("fdatasync", "compact.rs:74 settle_copies", "the drop that follows syncs the rows it depends on"),
];

/// Why the place may be left out, if it may.
pub fn redundant(site: &str) -> Option<&'static str> {
    let fits = |verb: &str, place: &str| site.starts_with(verb) && site.contains(place);
    REDUNDANT.iter().find(|(verb, place, _)| fits(verb, place)).map(|(_, _, why)| *why)
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
    sites.seen()
}

/// Leaves `site` out of histories until one fails.
pub fn mutate(site: &Site, calls: u64, options: impl Fn(u64) -> Options, first: u64, histories: u64) -> Mutation {
    let sites = Arc::new(Sites::new(Some(site.clone())));
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
