//! Wherever a use case changes the store beside the accounts, a test can end the server between the two: a function that
//! changes the store has a kill point, or stands here with the reason why it needs none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here is the failure of the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Calls that change keys, limits or vaults in the store, or lead to such calls.
const CHANGES: &[&str] = &[
    ".make_vault(",
    ".make_vault_keys(",
    ".create_vault(",
    ".decide_vault_deletion(",
    ".delete_vault(",
    ".carry_out_deletion(",
    ".set_limit(",
    ".set_vault_limits(",
    ".push_quotas(",
    ".push_quota_chain(",
    ".push_quota_chains(",
    ".push_licence_quotas(",
    ".lift_quota(",
    ".rotate_master(",
];

/// Functions that change the store and nothing else.
const ONE_STEP: &[(&str, &str)] = &[
    ("make_vault_keys", "the store's own step"),
    ("make_vault", "the store's own step"),
    ("push_quotas", "copies into memory; every start does it again"),
    ("push_quota_chains", "copies into memory"),
    ("push_quota_chain", "copies into memory"),
    ("push_licence_quotas", "copies into memory"),
    ("lift_quota", "forgets in memory"),
    ("new", "the copies of a start"),
    ("delete_vault", "checks a name and hands on"),
    ("resume_deletions", "hands on"),
    ("check_vaults", "hands on; a proof that is finished is one step of the accounts"),
    ("check_quotas", "copies into memory"),
];

/// Each function of a file, by name, with its text. A function ends where the next one begins.
fn functions(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let start = line.trim_start();
        if start.starts_with("//") {
            continue;
        }
        let declared = start.split_once("fn ").filter(|(before, _)| {
            before.split_whitespace().all(|word| matches!(word, "pub" | "async" | "const") || word.starts_with("pub("))
        });
        if let Some((_, rest)) = declared {
            let name = rest.split(['(', '<']).next().unwrap_or(rest);
            found.push((name.to_owned(), String::new()));
        } else if let Some((_, body)) = found.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    found
}

fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

fn lacking(text: &str) -> Vec<String> {
    let changes = |body: &str| CHANGES.iter().any(|call| body.contains(call));
    let bare = functions(text).into_iter().filter(|(_, body)| changes(body) && !body.contains("kill_point!("));
    bare.map(|(name, _)| name).collect()
}

#[test]
fn what_changes_the_store_has_a_kill_point() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = vec![fs::read_to_string(source.join("run.rs")).unwrap()];
    files(&source.join("app"), &mut texts);
    files(&source.join("jobs"), &mut texts);
    let found: BTreeSet<String> = texts.iter().flat_map(|text| lacking(text)).collect();
    let known: BTreeSet<String> = ONE_STEP.iter().map(|(name, _)| (*name).to_owned()).collect();
    let without: Vec<&String> = found.difference(&known).collect();
    assert!(without.is_empty(), "no kill point between their steps: {without:?}");
    let stale: Vec<&String> = known.difference(&found).collect();
    assert!(stale.is_empty(), "stand here and need not: {stale:?}");
}

#[test]
fn a_function_without_a_kill_point_is_found() {
    let text = "impl App {\n    pub async fn good(&self) {\n        self.make_vault();\n        kill_point!(X);\n    }\n\n    \
                pub(crate) async fn bad(&self) {\n        let vault = self.make_vault();\n        self.enter(vault);\n    }\n}\n";
    assert_eq!(lacking(text), ["bad"]);
}
