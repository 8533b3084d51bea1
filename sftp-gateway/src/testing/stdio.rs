//! The engine on standard input and output, in place of OpenSSH's `sftp-server`.

use super::FolderFs;
use crate::path::ExportPath;
use crate::sftp::{Engine, EngineOptions, FileClosed, FileReports, Inbox, Sink, SinkClosed};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is served, and what of it.
#[derive(Debug, Clone)]
pub struct StdioOptions {
    /// The folder.
    pub root: PathBuf,
    /// Nothing is changed.
    pub read_only: bool,
    /// Only these requests, as OpenSSH's `-p` has it.
    pub permitted: Option<BTreeSet<String>>,
    /// Not these requests, as OpenSSH's `-P` has it.
    pub denied: BTreeSet<String>,
}

struct Quiet;

impl FileReports for Quiet {
    fn opened(&self, _: &ExportPath, _: u64) {}

    fn closed(&self, _: &FileClosed) {}
}

struct StandardOutput(tokio::sync::Mutex<tokio::io::Stdout>);

impl Sink for StandardOutput {
    async fn send(&self, bytes: Bytes) -> Result<(), SinkClosed> {
        let mut output = self.0.lock().await;
        output.write_all(&bytes).await.map_err(|_| SinkClosed)?;
        output.flush().await.map_err(|_| SinkClosed)
    }
}

/// Serves until the input ends.
pub async fn serve_stdio(options: StdioOptions) -> io::Result<()> {
    let fs = Arc::new(FolderFs::new(options.root, options.read_only));
    let inbox = Arc::new(Inbox::default());
    let (permitted, denied) = (options.permitted, options.denied);
    let permits =
        move |name: &str| !denied.contains(name) && permitted.as_ref().is_none_or(|permitted| permitted.contains(name));
    let engine_options = EngineOptions { permits: Some(Arc::new(permits)), ..EngineOptions::default() };
    let engine = Engine::new(fs, inbox.clone(), Arc::new(Quiet), engine_options);
    let answering = tokio::spawn(async move {
        let output = StandardOutput(tokio::sync::Mutex::new(tokio::io::stdout()));
        engine.run(&output).await
    });
    let mut input = tokio::io::stdin();
    let mut bytes = vec![0; 64 * 1024];
    let ended = loop {
        match input.read(&mut bytes).await? {
            0 => break Ok(()),
            count => {
                // Whoever uploads is not held up by a network here: wait until the engine has caught up.
                while inbox.bytes() > crate::limits::REQUEST_QUEUE_BYTES_MAX / 2 {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                if let Err(error) = inbox.receive(bytes.get(..count).unwrap_or_default()) {
                    break Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    };
    inbox.end();
    let _ = answering.await;
    ended
}
