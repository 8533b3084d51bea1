//! `run`: the service, and the unit file for it.

use super::arguments::RunArguments;
use crate::config::Folders;
use crate::error::{AgentError, EXIT_COMPLETE, EXIT_NOT_ENROLLED};
use crate::report::Report;
use crate::service::{self, Ended};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct Unit<'a> {
    event: &'static str,
    unit: &'a str,
}

pub(super) fn run(arguments: &RunArguments, folders: &Folders, report: &Arc<Report>) -> Result<u8, AgentError> {
    if arguments.print_unit {
        let program = std::env::current_exe().map_err(|error| AgentError::file("holdfast", error))?;
        let unit = service::unit::unit(&program, folders);
        report.result(&Unit { event: "unit", unit: &unit }, unit.trim_end());
        return Ok(EXIT_COMPLETE);
    }
    match service::run(folders, report)? {
        Ended::Stopped => Ok(EXIT_COMPLETE),
        Ended::NotEnrolled => {
            report.failure(&AgentError::Usage(
                "this computer was retired, or another machine took its place; `holdfast enrol` makes it a new one"
                    .into(),
            ));
            Ok(EXIT_NOT_ENROLLED)
        }
    }
}
