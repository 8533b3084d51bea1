//! Commands before and after a backup, by the real programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use std::fs;
use tests::harness::{Outcome, Scene};

/// Runs a backup of the folder `source`; what was noted in the file `notes` meanwhile.
fn run(scene: &Scene, arguments: &[&str]) -> (Outcome, String) {
    let (source, notes) = (scene.path("source"), scene.path("notes"));
    fs::create_dir_all(&source).unwrap();
    fs::remove_file(&notes).ok();
    let mut all = vec!["backup", source.to_str().unwrap()];
    all.extend_from_slice(arguments);
    let mut command = scene.agent.command(all);
    let done = command.env("NOTES", &notes).env("SOURCE", &source).output().unwrap();
    let outcome = Outcome {
        code: done.status.code(),
        stdout: done.stdout,
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    };
    (outcome, fs::read_to_string(&notes).unwrap_or_default())
}

const AFTER: &str = "--after=echo after $HOLDFAST_RESULT ${HOLDFAST_SNAPSHOT:-none} >> $NOTES";

#[test]
fn they_run_in_order_and_know_how_it_went() {
    let scene = Scene::new().unwrap();
    let before = ["--before=echo one >> $NOTES; echo dumped > $SOURCE/dump", "--before=echo two >> $NOTES", AFTER];
    let (outcome, notes) = run(&scene, &before);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let snapshots = scene.snapshots().unwrap();
    assert_eq!(notes, format!("one\ntwo\nafter complete {}\n", snapshots[0]));
    let dump = format!("{}/dump", scene.path("source").display());
    assert_eq!(scene.agent.run(["cat", "latest", &dump]).unwrap().stdout, b"dumped\n");
}

#[test]
fn a_failure_before_keeps_the_backup_from_beginning_unless_it_only_warns() {
    let scene = Scene::new().unwrap();
    let failing = ["--before=echo cannot stop it; exit 4", "--before=echo never >> $NOTES", AFTER];
    let (outcome, notes) = run(&scene, &failing);
    assert_eq!((outcome.code, notes.as_str()), (Some(1), "after failed none\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("exit status: 4: cannot stop it); nothing was backed up"), "{}", outcome.stderr);
    assert!(scene.snapshots().unwrap().is_empty());

    let (outcome, notes) = run(&scene, &[&failing[..], &["--command-failure=warn"]].concat());
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(notes.starts_with("never\nafter warnings "), "{notes}");
    assert_eq!(scene.snapshots().unwrap().len(), 1);
}

#[test]
fn a_failure_after_fails_the_run_and_keeps_the_snapshot() {
    let scene = Scene::new().unwrap();
    let (outcome, notes) = run(&scene, &["--after=exit 5", AFTER]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the backup itself is complete"), "{}", outcome.stderr);
    assert!(notes.starts_with("after complete "), "{notes}");
    assert_eq!(scene.snapshots().unwrap().len(), 1);
}

#[test]
fn a_command_that_does_not_end_is_ended() {
    let scene = Scene::new().unwrap();
    let (outcome, _) = run(&scene, &["--before=sleep 1000", "--command-timeout=1"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("its time-out"), "{}", outcome.stderr);
    assert!(scene.snapshots().unwrap().is_empty());
}
