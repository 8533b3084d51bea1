//! The API against its own description: schemathesis sends, as every kind of principal, what the description allows and
//! what it does not. No answer is a 5xx, none has a status, a type, headers or a body that the description does not know.
//!
//! The program is not Rust, so these run only where `./check` has installed it; `HOLDFAST_SCHEMATHESIS` names it.

use crate::every_route::oracle::Matrix;
use crate::every_route::world::{Principal, World};
use crate::harness::Server;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = "HOLDFAST_SCHEMATHESIS";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance";
/// Whom they ask as, and of whose things the ids are: those first that others may take something away from.
const ROLES: &[(&str, &str)] =
    &[("agent", "anna"), ("vault token", "anna"), ("BU", "anna"), ("CA", "bert"), ("PA", "cleo"), ("OP", "dora")];
/// More of them, which hold less.
const MORE_ROLES: &[(&str, &str)] = &[("local", "dora"), ("PG", "cleo"), ("RO", "anna"), ("nobody", "anna")];
/// They end what the principal asks with.
const ENDS_THE_PRINCIPAL: &[(&str, &str)] = &[("/api/v1/login", "delete"), ("/api/v1/login-sessions", "delete")];
const SHOWN_CHARACTERS_MAX: usize = 20_000;
const LINE_CHARACTERS_MAX: usize = 400;

/// Together a minute: each role asks a part of the calls, another one with each seed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: ./check"]
async fn answers_are_as_described() {
    all(ROLES, 10, true).await;
}

/// Ten minutes for each role, of every call.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./check --long"]
async fn answers_are_as_described_to_every_role_for_ten_minutes() {
    all(&[ROLES, MORE_ROLES].concat(), 600, false).await;
}

async fn all(roles: &[(&str, &str)], seconds: u64, in_parts: bool) {
    let program = std::env::var(PROGRAM).expect("HOLDFAST_SCHEMATHESIS names the program `st`: ./check sets it");
    let given = std::env::var("HOLDFAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| getrandom::u64().unwrap());
    println!("HOLDFAST_SEED={seed}");
    let turn = seed as usize % roles.len();
    let world = World::build_on(Server::start(), &Matrix::read()).await;
    let described = world.server.client("").get("/api/v1/openapi.json").await;
    let described: Value = described.json().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut failed = String::new();
    for (number, (name, things)) in roles.iter().enumerate() {
        let part = in_parts.then_some(((number + turn) % roles.len(), roles.len()));
        let run = Run { program: &program, folder: folder.path(), seed, seconds, part };
        if let Err(output) = run.of(&world, world.principal(name), things, &described).await {
            let _ = writeln!(failed, "==== as {name}\n{output}");
        }
    }
    assert!(failed.is_empty(), "HOLDFAST_SEED={seed}\n{failed}");
    let log = world.server.log();
    assert!(!log.contains("panicked"), "{log}");
}

struct Run<'a> {
    program: &'a str,
    folder: &'a Path,
    seed: u64,
    seconds: u64,
    /// Which part of how many.
    part: Option<(usize, usize)>,
}

impl Run<'_> {
    /// Asks as `principal`; gives what is wrong, cut to what a person reads.
    async fn of(&self, world: &World, principal: &Principal, things: &str, described: &Value) -> Result<(), String> {
        let mut described = described.clone();
        let paths = described["paths"].as_object_mut().unwrap();
        let mut number = 0;
        for (path, method) in ENDS_THE_PRINCIPAL {
            assert!(paths[*path].as_object_mut().unwrap().remove(*method).is_some(), "{method} {path}");
        }
        paths.retain(|_, _| {
            number += 1;
            self.part.is_none_or(|(part, parts)| number % parts == part)
        });
        let asked = paths.len();
        let document = self.folder.join("openapi.json");
        std::fs::write(&document, described.to_string()).unwrap();
        let mut settings = String::from("[parameters]\n");
        for (name, id) in &world.things(things).ids {
            let _ = writeln!(settings, "\"path.{name}\" = {:?}", id.replace('$', "$$"));
        }
        let with_ids = self.folder.join("with-ids.toml");
        std::fs::write(&with_ids, settings).unwrap();
        let without_ids = self.folder.join("without-ids.toml");
        std::fs::write(&without_ids, "").unwrap();
        for (settings, seconds) in [(&with_ids, self.seconds * 2 / 3), (&without_ids, self.seconds / 3)] {
            let mut command = Command::new(self.program);
            command.arg("--config-file").arg(settings).arg("run").arg(&document);
            command.args(["--url", &principal.fresh.base, "--tls-verify", "false"]);
            command.args(["--phases", "coverage,fuzzing", "--checks", CHECKS, "--no-shrink", "--continue-on-failure"]);
            command.args(["--warnings", "off", "--workers", "1", "--request-timeout", "60", "--no-color"]);
            command.args(["--max-time", &seconds.to_string(), "--seed", &self.seed.to_string()]);
            command.arg("--suppress-health-check=all");
            if !principal.fresh.secret.is_empty() {
                command.arg(format!("--header=Authorization: Bearer {}", principal.fresh.secret));
            }
            command
                .env("SCHEMATHESIS_HOOKS", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/described/bodies.py"));
            command.current_dir(self.folder).stdin(Stdio::null());
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let cases = text.lines().find(|line| line.contains(" generated")).unwrap_or_default().trim().to_owned();
            println!("as {}: {asked} paths, {seconds} s, {cases}", principal.name);
            if !output.status.success() {
                return Err(shown(&text));
            }
        }
        Ok(())
    }
}

fn shown(text: &str) -> String {
    let cut = |line: &str| line.chars().take(LINE_CHARACTERS_MAX).chain(['\n']).collect::<String>();
    text.lines().map(cut).collect::<String>().chars().take(SHOWN_CHARACTERS_MAX).collect()
}
