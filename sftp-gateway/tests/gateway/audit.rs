//! ssh-audit's opinion of what we offer: nothing above "info" but what stands in `audit-allowed.txt`, each with its reason.

use crate::served::{Served, installed, run};
use std::collections::BTreeSet;
use std::process::Command;

/// `(fail) name` and the like, of the lines of ssh-audit's output.
fn findings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut name = String::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" -- ") else { continue };
        if let Some(algorithm) = left.split_once(") ").map(|(_, rest)| rest.trim()).filter(|rest| !rest.is_empty()) {
            name = algorithm.split(' ').next().unwrap_or_default().to_owned();
        }
        for level in ["[fail]", "[warn]"] {
            if right.starts_with(level) {
                found.insert(format!("{level} {name}"));
            }
        }
    }
    found
}

#[test]
fn nothing_is_offered_that_an_audit_minds_without_a_reason() {
    if !installed("ssh-audit") {
        return;
    }
    let served = Served::new();
    let mut command = Command::new("ssh-audit");
    let output = run(command.args(["--no-colors", "--port", &served.port.to_string(), "127.0.0.1"]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("(gen) banner: SSH-2.0-Holdfast"), "{text}");
    assert!(text.contains("(gen) compression: disabled"), "{text}");
    assert!(text.contains("kex-strict-s-v00@openssh.com"), "strict key exchange: {text}");
    assert!(!text.contains("insufficient connection throttling"), "{text}");
    let allowed = include_str!("audit-allowed.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let allowed: BTreeSet<_> = allowed.map(|line| line.split_once(": ").unwrap().0.to_owned()).collect();
    let found = findings(&text);
    let new: Vec<_> = found.difference(&allowed).collect();
    assert!(new.is_empty(), "{new:?}\n{text}");
    let gone: Vec<_> = allowed.difference(&found).collect();
    println!("allowed, and not minded by this version of ssh-audit: {gone:?}");
    assert!(!text.contains("ssh-rsa ") && !text.to_lowercase().contains("vulnerable to the terrapin"), "{text}");
}
