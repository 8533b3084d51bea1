//! A real PostgreSQL dump through `--stdin-from-command`, twice with a little change between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use serde_json::Value;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use tests::harness::{Scene, summary};
use tests::postgres::Cluster;

/// Rows of about 85 bytes in the dump.
const ROWS: u64 = 12_500_000;

/// Dumps that differ only where the data does: newer versions otherwise put a random word into each.
fn dump(cluster: &Cluster) -> Command {
    let mut command = cluster.client("pg_dump");
    let help = cluster.command("pg_dump").arg("--help").output().unwrap();
    if String::from_utf8_lossy(&help.stdout).contains("--restrict-key") {
        command.arg("--restrict-key=holdfast");
    }
    command
}

#[test]
#[ignore = "long: ./check --long"]
fn a_dump_of_a_gigabyte_comes_back_and_the_next_one_adds_under_one_percent() {
    let scene = Scene::new().unwrap();
    let cluster = Cluster::start();
    cluster.run(&format!(
        "create table orders as select n as id, md5(n::text) as customer, md5((n * 7)::text) as note, n * 1.25 as total \
         from generate_series(1, {ROWS}) as n"
    ));
    let mut added = Vec::new();
    for round in 0..2 {
        if round == 1 {
            cluster.run("update orders set total = total + 1 where id % 250000 = 3");
            cluster.run("insert into orders select n, 'new', 'row', 1 from generate_series(1, 5000) as n");
        }
        let dumping = dump(&cluster);
        let mut arguments: Vec<OsString> =
            ["backup", "--json", "--stdin", "shop.sql", "--stdin-from-command", "--"].map(OsString::from).to_vec();
        arguments.push(dumping.get_program().to_owned());
        arguments.extend(dumping.get_args().map(ToOwned::to_owned));
        let made = summary(&scene.agent.run(arguments).unwrap(), 0).unwrap();
        eprintln!("{made}");
        let count = |name: &str| made.pointer(&format!("/counters/{name}")).and_then(Value::as_u64).unwrap();
        assert!(count("bytes_read") > 1_000_000_000, "{made}");
        added.push(count("bytes_added"));

        let mut came_back = scene.agent.command(["cat", "latest", "/shop.sql"]);
        let mut came_back = came_back.stdout(Stdio::piped()).spawn().unwrap();
        let mut wanted = dump(&cluster);
        let mut wanted = wanted.stdout(Stdio::piped()).spawn().unwrap();
        let equal = same_bytes(came_back.stdout.take().unwrap(), wanted.stdout.take().unwrap());
        assert!(came_back.wait().unwrap().success() && wanted.wait().unwrap().success());
        assert!(equal, "dump {round} came back different");
    }
    assert!(added[1] < added[0] / 100, "{added:?}");
}

fn same_bytes(mut one: impl std::io::Read, mut two: impl std::io::Read) -> bool {
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let (left_len, right_len) = (fill(&mut one, &mut left), fill(&mut two, &mut right));
        if left[..left_len] != right[..right_len] {
            return false;
        }
        if left_len < left.len() {
            return true;
        }
    }
}

fn fill(source: &mut impl std::io::Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]).unwrap() {
            0 => break,
            len => filled += len,
        }
    }
    filled
}
