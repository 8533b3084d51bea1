//! Rows, the table for people and the array for programs.

use crate::error::{BenchError, Doing};
use crate::measure::Usage;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// First backup into an empty repository.
    First,
    /// Again, nothing changed.
    Unchanged,
    /// After a seeded change of 1 % of the files.
    Changed,
    /// The last snapshot into an empty folder.
    Restore,
}

impl Scenario {
    const ALL: [Scenario; 4] = [Scenario::First, Scenario::Unchanged, Scenario::Changed, Scenario::Restore];

    const fn label(self) -> &'static str {
        match self {
            Scenario::First => "first",
            Scenario::Unchanged => "unchanged",
            Scenario::Changed => "changed",
            Scenario::Restore => "restore",
        }
    }
}

/// One tool in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `holdfast`, `restic`, `borg`, `rustic` or `floor`.
    pub tool: &'static str,
    /// What was done.
    pub scenario: Scenario,
    /// Wall clock.
    pub seconds: f64,
    /// Processor time of the client's process tree.
    pub cpu_seconds: f64,
    /// Peak resident memory of the client's process tree.
    pub rss_bytes_max: u64,
    /// Processor time of the server, 0 for a local tool.
    pub server_cpu_seconds: f64,
    /// Peak resident memory of the server, 0 for a local tool.
    pub server_rss_bytes_max: u64,
    /// `du -sb` of the data folder or repository after a clean stop.
    pub stored_bytes: u64,
}

impl Row {
    /// From what was measured.
    pub fn new(
        tool: &'static str,
        scenario: Scenario,
        client: Usage,
        (server_cpu_seconds, server_rss_bytes_max): (f64, u64),
        stored_bytes: u64,
    ) -> Self {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        Row {
            tool,
            scenario,
            seconds: (client.seconds * 1000.0).round() / 1000.0,
            cpu_seconds: hundredths(client.cpu_seconds),
            rss_bytes_max: client.rss_bytes_max,
            server_cpu_seconds: hundredths(server_cpu_seconds),
            server_rss_bytes_max,
            stored_bytes,
        }
    }
}

/// The table, scenario by scenario, with each time as a multiple of Holdfast's.
pub fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let mega = |bytes: u64| bytes as f64 / 1e6;
    for scenario in Scenario::ALL {
        let ours = rows.iter().find(|row| row.tool == "holdfast" && row.scenario == scenario).map(|row| row.seconds);
        let _ = writeln!(
            out,
            "\n{:<10} {:>9} {:>7} {:>8} {:>10} {:>9} {:>11} {:>10}",
            scenario.label(),
            "seconds",
            "x ours",
            "cpu s",
            "memory MB",
            "server s",
            "server MB",
            "stored MB"
        );
        for row in rows.iter().filter(|row| row.scenario == scenario) {
            let times = ours.map_or("-".to_owned(), |ours| format!("{:.2}", row.seconds / ours));
            let _ = writeln!(
                out,
                "{:<10} {:>9.2} {:>7} {:>8.2} {:>10.1} {:>9.2} {:>11.1} {:>10.1}",
                row.tool,
                row.seconds,
                times,
                row.cpu_seconds,
                mega(row.rss_bytes_max),
                row.server_cpu_seconds,
                mega(row.server_rss_bytes_max),
                mega(row.stored_bytes)
            );
        }
    }
    out
}

/// Writes one array of rows.
pub fn write_json(rows: &[Row], path: &Path) -> Result<(), BenchError> {
    let file = File::create(path).doing(path.display().to_string())?;
    serde_json::to_writer_pretty(file, rows).map_err(|source| BenchError::Json { path: path.to_path_buf(), source })
}
