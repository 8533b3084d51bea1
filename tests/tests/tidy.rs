//! Rules of style that a machine can check, each with what to do instead.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this wants splitting by subject.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Source files of the workspace, with their text and path below its root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for member in ["repo-format", "server", "agent", "bench", "tests"] {
        collect(&root.join(member), &mut found);
    }
    assert!(found.len() > 50, "only {} source files found", found.len());
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn complain(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n  {}\n", breaches.join("\n  "));
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#![no_main]"));
    complain(silent.map(|(name, _)| format!("{name}: begin with `//!` and say what the file owns")).collect());
}

#[test]
fn files_are_short_enough_to_understand() {
    let long = sources().into_iter().map(|(name, text)| (name, text.lines().count()));
    let long = long.filter(|(_, lines)| *lines > LINES_MAX);
    complain(long.map(|(name, lines)| format!("{name}: {lines} lines; split it by subject")).collect());
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["utils", "util", "helpers", "helper", "common", "misc"];
    let breaches = sources().into_iter().filter(|(name, _)| {
        Path::new(name)
            .iter()
            .any(|part| drawers.iter().any(|drawer| part == *drawer || part == format!("{drawer}.rs").as_str()))
    });
    complain(breaches.map(|(name, _)| format!("{name}: name it after what it owns")).collect());
}

#[test]
fn lines_that_are_not_written_here() {
    // A phrase, where it is allowed all the same, and what to do instead. Split, so that this file does not hold them.
    let rules: [(&str, &[&str], &str); 6] = [
        (concat!("use crate", "::*"), &[], "name what is used"),
        (concat!("TO", "DO"), &[], "do it, or write an issue"),
        (concat!("FIX", "ME"), &[], "fix it"),
        (concat!("/ro", "ot/"), &[], "no path of one machine belongs here"),
        (concat!("/wo", "rk/"), &[], "no path of one machine belongs here"),
        (
            concat!("SystemTime::", "now()"),
            &["server/src/clock.rs", "server/store/src/world.rs", "agent/src/", "/tests/", "tests/", "bench/"],
            "take the time from the Clock",
        ),
    ];
    let mut breaches = Vec::new();
    for (name, text) in sources() {
        for (phrase, allowed, instead) in rules {
            if !allowed.iter().any(|allowed| name.contains(allowed)) && text.contains(phrase) {
                let line = text.lines().position(|line| line.contains(phrase)).unwrap_or(0) + 1;
                breaches.push(format!("{name}:{line}: `{phrase}`: {instead}"));
            }
        }
    }
    complain(breaches);
}

#[test]
fn decisions_are_dated() {
    let folder = root().join("decisions");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let undated = names.filter(|name| {
        name != "README.md"
            && !(name.starts_with("20") && name.ends_with(".md") && name.as_bytes().get(10) == Some(&b'-'))
    });
    complain(undated.map(|name| format!("decisions/{name}: name it YYYY-MM-DD-title.md")).collect());
}
