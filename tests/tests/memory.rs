//! What the agent and the server may take of memory, whatever the tree.

#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use std::path::Path;
use std::process::Stdio;
use tests::harness::Scene;
use tests::{process, trees};

/// Both programs stay below this, bytes.
const MEMORY_BYTES_MAX: u64 = 300_000_000;

/// Peak memory of a backup of `source`, bytes.
fn backup_peak(scene: &Scene, source: &Path) -> u64 {
    let mut command = scene.agent.command(["backup".as_ref(), source.as_os_str()]);
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let (status, peak) = process::wait_watching_memory(&mut agent).unwrap();
    assert!(status.success(), "{status}");
    let (_, server) = process::memory(scene.server().unwrap().pid());
    eprintln!("agent {} MB, server {} MB", peak / 1_000_000, server / 1_000_000);
    assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "the agent took {peak} bytes");
    assert!(server > 0 && server < MEMORY_BYTES_MAX, "the server took {server} bytes");
    peak
}

fn many_files(flat: u64, folders: u64, files_each: u64) {
    let scene = Scene::new().unwrap();
    let source = scene.path("flat");
    trees::many_small_files(&source, flat, scene.seed).unwrap();
    backup_peak(&scene, &source);
    backup_peak(&scene, &source);
    let source = scene.path("wide");
    trees::many_folders(&source, folders, files_each, scene.seed).unwrap();
    backup_peak(&scene, &source);
    backup_peak(&scene, &source);
}

#[test]
fn many_files_take_little_memory() {
    many_files(30_000, 500, 60);
}

#[test]
#[ignore = "long: ./check --long"]
fn a_million_files_in_one_folder_and_two_million_in_a_tree_take_little_memory() {
    many_files(1_000_000, 20_000, 100);
}

/// Backs up a file of `small` bytes and one of twice that; the second may take `more` bytes of memory more.
fn one_file(small: u64, more: fn(u64) -> u64) {
    let scene = Scene::new().unwrap();
    let mut peaks = Vec::new();
    for (name, len) in [("small", small), ("large", 2 * small)] {
        let source = scene.path(name);
        fs::create_dir(&source).unwrap();
        trees::mixed_file(&source.join("file"), len, scene.seed).unwrap();
        peaks.push(backup_peak(&scene, &source));
        tests::directory::remove_tree(&source).unwrap();
    }
    assert!(peaks[1] < peaks[0] + more(peaks[0]), "memory grows with the file: {peaks:?}");
}

#[test]
fn a_file_of_twice_the_size_takes_no_more_memory() {
    // In so short a run the peak depends on which buffers happen to be in use at once; what grew with the file would
    // grow by its size.
    const SMALL: u64 = 400 << 20;
    one_file(SMALL, |_| SMALL / 8);
}

#[test]
#[ignore = "long: ./check --long"]
fn a_file_of_twenty_gigabytes_takes_no_more_memory_than_one_of_ten() {
    one_file(10_000_000_000, |peak| peak / 5);
}
