//! Lists of jobs, and the search in their logs.

use crate::app::{App, AppError, Principal, Verb};
use control::{FoundLogs, JobCursor, JobFilter, JobSort, ListedJob, LogCursor};

/// A page of a list of jobs.
#[derive(Clone, Debug)]
pub struct JobListing {
    /// Which of them.
    pub filter: JobFilter,
    /// By what.
    pub sort: JobSort,
    /// The oldest or best first.
    pub ascending: bool,
    /// Behind which one the page begins.
    pub after: Option<JobCursor>,
    /// At most so many.
    pub limit: u32,
}

impl App {
    /// Jobs that the caller sees.
    pub async fn jobs(&self, caller: &Principal, listing: &JobListing) -> Result<Vec<ListedJob>, AppError> {
        let allowed = self.reach(caller, Verb::JOB_VIEW).await?;
        let JobListing { filter, sort, ascending, after, limit } = listing;
        Ok(self.control.jobs(&allowed.scope, filter, *sort, *ascending, after.as_ref(), *limit).await?)
    }

    /// Jobs that the caller sees and whose logs have every one of the words.
    pub async fn search_logs(
        &self,
        caller: &Principal,
        words: &str,
        filter: &JobFilter,
        after: Option<&LogCursor>,
        limit: u32,
    ) -> Result<FoundLogs, AppError> {
        let allowed = self.reach(caller, Verb::JOB_VIEW).await?;
        Ok(self.control.search_logs(&allowed.scope, words, filter, after, limit).await?)
    }
}
