//! What the service says to the server, typed.

use crate::client::{Client, ClientError};
use api::agents::{AppendLog, BeginJob, ComputerPlans, EndJob, Hello, Orders, Welcome};
use api::computers::{Enrol, Enrolled};
use api::jobs::{Job, JobCounts};

impl Client {
    /// Becomes a computer.
    pub fn enrol(&self, enrol: &Enrol) -> Result<Enrolled, ClientError> {
        self.post_json("/enrol", enrol)
    }

    /// The agent has started.
    pub fn hello(&self, hello: &Hello) -> Result<Welcome, ClientError> {
        self.post_json("/computer/hello", hello)
    }

    /// The computer's plans.
    pub fn computer_plans(&self) -> Result<ComputerPlans, ClientError> {
        self.get("/computer/plans")
    }

    /// Waits for orders; `plans` is the version that the agent has.
    pub fn orders(&self, wait_seconds: u32, plans: i64) -> Result<Orders, ClientError> {
        self.get(&format!("/computer/orders?wait={wait_seconds}&plans={plans}"))
    }

    /// An order is taken.
    pub fn order_received(&self, order: &str) -> Result<(), ClientError> {
        self.post_nothing(&format!("/computer/orders/{order}/received"), &())
    }

    /// Begins a job.
    pub fn begin_job(&self, begin: &BeginJob) -> Result<Job, ClientError> {
        self.post_json("/computer/jobs", begin)
    }

    /// At work on a job.
    pub fn job_heartbeat(&self, job: &str, counts: &JobCounts) -> Result<Job, ClientError> {
        self.put_json(&format!("/computer/jobs/{job}"), counts)
    }

    /// Lines for a job's log.
    pub fn append_job_log(&self, job: &str, lines: &AppendLog) -> Result<(), ClientError> {
        self.post_nothing(&format!("/computer/jobs/{job}/log"), lines)
    }

    /// A job has ended.
    pub fn end_job(&self, job: &str, end: &EndJob) -> Result<Job, ClientError> {
        self.post_json(&format!("/computer/jobs/{job}/end"), end)
    }
}
