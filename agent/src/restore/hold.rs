//! While a snapshot is read, the server keeps everything in it, also when somebody deletes the snapshot meanwhile.

use crate::client::{Client, Patience};
use crate::connection::Connection;
use crate::error::AgentError;
use crate::report::Report;
use crate::stop::Stop;
use api::browse::Snapshot;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The server forgets a restore without a sign of life after a day.
const TOUCH_EVERY: Duration = Duration::from_secs(600);
/// At the end nothing depends on the answer any more.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Ends the restore when dropped.
pub struct HeldSnapshot {
    client: Client,
    vault: String,
    restore: String,
    stop: Stop,
    toucher: Option<JoinHandle<()>>,
}

impl HeldSnapshot {
    /// Begins to read `snapshot`. An error when it is deleted.
    pub fn begin(connection: &Connection, snapshot: &Snapshot, report: &Arc<Report>) -> Result<Self, AgentError> {
        let vault = connection.vault.clone();
        let restore = connection.client.begin_restore(&vault, &snapshot.id)?.id;
        let stop = Stop::default();
        let toucher = {
            let (client, stop, report) = (connection.client.with_stop(stop.clone()), stop.clone(), report.clone());
            let (vault, restore) = (vault.clone(), restore.clone());
            std::thread::spawn(move || {
                while stop.sleep(TOUCH_EVERY).is_ok() {
                    if let Err(error) = client.touch_restore(&vault, &restore) {
                        report.remark(b"", &format!("the server may not keep what is left to restore: {error}"));
                        return;
                    }
                }
            })
        };
        let client = connection.client.with_patience(Patience { total: END_PATIENCE, ..Patience::default() });
        Ok(HeldSnapshot { client, vault, restore, stop, toucher: Some(toucher) })
    }
}

impl Drop for HeldSnapshot {
    fn drop(&mut self) {
        self.stop.fail(AgentError::Stopped);
        if let Some(toucher) = self.toucher.take() {
            // It reports by itself.
            let _ = toucher.join();
        }
        // A server that is away ends it by itself after a day.
        let _ = self.client.end_restore(&self.vault, &self.restore);
    }
}
