//! Names of the places that make something durable, found by walking the stack, and the one place a mutated run leaves
//! out. So the list of mutations is whatever the engine calls, and grows with it by itself.

use crate::sim_vfs::Op;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

/// Where a durable call stands: kind, and the engine's functions around it, innermost first.
pub type Site = String;

/// Calls seen, and the one left out.
#[derive(Default)]
pub struct Sites {
    left_out: Option<Site>,
    seen: Mutex<BTreeMap<Site, u64>>,
}

impl Sites {
    /// Leaves out `site`; `None` only watches.
    pub fn new(left_out: Option<Site>) -> Self {
        Sites { left_out, seen: Mutex::default() }
    }

    pub fn seen(&self) -> BTreeMap<Site, u64> {
        self.seen.lock().clone()
    }

    /// Notes the caller; whether its call is to be left out.
    pub fn leaves_out(&self, op: Op) -> bool {
        let verb = match op {
            Op::SyncData => "fdatasync",
            Op::SyncDir => "directory sync",
            Op::Rename => "rename in one step",
            _ => return false,
        };
        let site = here(verb);
        *self.seen.lock().entry(site.clone()).or_default() += 1;
        self.left_out.as_ref() == Some(&site)
    }
}

/// Functions of the engine that an address stands for, innermost first; with inlining it may be several.
fn functions_at(frame: &backtrace::Frame) -> Vec<String> {
    static KNOWN: OnceLock<Mutex<HashMap<usize, Vec<String>>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let address = frame.ip() as usize;
    if let Some(found) = known.lock().get(&address) {
        return found.clone();
    }
    let mut found = Vec::new();
    backtrace::resolve_frame(frame, |symbol| {
        let file = symbol.filename().map(|file| file.display().to_string()).unwrap_or_default();
        let Some(at) = file.find("store/src/") else { return };
        let file = &file[at + "store/src/".len()..];
        let line = symbol.lineno().unwrap_or(0);
        let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
        let parts: Vec<&str> =
            name.split("::").filter(|part| !part.starts_with('{') && !part.starts_with('<')).collect();
        let function = parts.last().copied().unwrap_or("?").trim_end_matches('>').to_owned();
        found.push(format!("{file}:{line} {function}"));
    });
    known.lock().insert(address, found.clone());
    found
}

fn here(verb: &str) -> Site {
    let mut functions: Vec<String> = Vec::new();
    let mut own = 0;
    backtrace::trace(|frame| {
        for function in functions_at(frame) {
            // Files that only pass calls on do not name a place by themselves.
            if !function.starts_with("world.rs") && !function.ends_with(" sync") && !function.ends_with(" sync_or_fail")
            {
                own += 1;
            }
            functions.push(function);
        }
        own < 2 && functions.len() < 6
    });
    format!("{verb} in {}", functions.join(" < "))
}
