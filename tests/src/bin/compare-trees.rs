//! `compare-trees FIRST SECOND`: says whether two trees are equal in contents and metadata. Exit code 0 when equal, 1
//! when not, 2 when one cannot be read.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tests::compare::{Options, compare};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [left, right] = arguments.as_slice() else {
        let _ = writeln!(std::io::stderr(), "usage: compare-trees FIRST SECOND");
        return ExitCode::from(2);
    };
    match compare(Path::new(left), Path::new(right), Options::default()) {
        Ok(report) => {
            let _ = writeln!(std::io::stdout(), "{report}");
            if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "compare-trees: {error}");
            ExitCode::from(2)
        }
    }
}
