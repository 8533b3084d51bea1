//! One backup run: scan, read, cut, hash, ask, compress, send, each stage in threads of its own with bounded queues.
//!
//! ```text
//! walk ──jobs──> workers ──results──> assembler          (in key order again: bundles, path map)
//!                   └──chunks──> uploader <──chunks, nodes──┘
//! ```
//! [`limits`] bounds every queue in bytes. What is sent is kept until it is durable ([`window`]).

pub mod assemble;
pub mod content;
pub mod counters;
pub mod limits;
pub mod read;
pub mod rebundle;
pub mod upload;
pub mod walk;
pub mod window;

use crate::budget::Budget;
use crate::cache::nodes::BaseNodes;
use crate::error::AgentError;
use crate::fs::{MetadataReader, ScanEvent};
use crate::report::Report;
use crate::stop::Stop;
use assemble::{Assembler, CacheWriters};
use bytes::Bytes;
use counters::{Counters, add};
use repo_format::compress::{Codec, Compressor};
use repo_format::entry::{Profile, Time};
use repo_format::id::NodeId;
use repo_format::keys::IdKeys;
use repo_format::node::BuiltNode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use upload::Uploader;
use walk::BaseView;

/// What all stages of a run share.
pub struct Run {
    /// The vault's keys for ids and cuts.
    pub keys: Arc<IdKeys>,
    /// Takes chunks and nodes.
    pub uploader: Uploader,
    /// What happened.
    pub counters: Arc<Counters>,
    /// Tells people.
    pub report: Arc<Report>,
    /// Ends every wait when the run fails.
    pub stop: Stop,
    /// How large files are cut.
    pub profile: Profile,
    /// Reading threads.
    pub workers: usize,
}

impl Run {
    /// Something could not be backed up; the run goes on.
    pub fn warn(&self, path: &[u8], text: &str) {
        add(&self.counters.warnings, 1);
        self.report.warning(path, text);
    }

    fn count_moved(&self) {
        add(&self.counters.files_moved, 1);
    }
}

/// Now, as a file system would stamp it.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}

/// Compresses and submits nodes; one per thread.
pub struct NodeWriter<'r> {
    run: &'r Run,
    compressor: Compressor,
}

impl<'r> NodeWriter<'r> {
    /// For one thread of `run`.
    pub fn new(run: &'r Run) -> Result<Self, AgentError> {
        Ok(NodeWriter { run, compressor: Compressor::new(upload::COMPRESSION_LEVEL)? })
    }

    /// The payload of a node.
    pub fn compress(&mut self, node: &BuiltNode) -> Result<(Codec, Bytes), AgentError> {
        let (codec, payload) = self.compressor.compress(&node.bytes)?;
        Ok((codec, payload.into()))
    }

    /// Stores nodes, children first.
    pub fn store_all(&mut self, nodes: &[BuiltNode]) -> Result<(), AgentError> {
        for node in nodes {
            let (codec, payload) = self.compress(node)?;
            self.run.uploader.node(node, codec, payload)?;
        }
        Ok(())
    }
}

/// Takes everything `scan` yields through all stages; the root of the path map, and the cache to put in place when the
/// root is committed. The uploader still has to finish.
pub fn run_scan(
    run: &Run,
    scan: impl Iterator<Item = ScanEvent> + Send,
    base: Option<BaseView<'_>>,
    cache: Option<CacheWriters>,
) -> Result<(NodeId, Option<CacheWriters>), AgentError> {
    let base_nodes: Option<&BaseNodes> = base.as_ref().map(|base| base.nodes);
    let mut assembler = Assembler::new(run, base_nodes, cache)?;
    let metadata = MetadataReader::new();
    let budget = Budget::new(limits::JOB_BYTES_MAX, run.stop.clone());
    let (job_sender, job_receiver) = crossbeam_channel::bounded(run.workers * 4);
    let (result_sender, result_receiver) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        // Channels close when their senders are dropped, so each thread owns its own.
        scope.spawn(move || stopping(run, walk::walk(run, scan, base, &budget, &job_sender)));
        for _ in 0..run.workers {
            let (jobs, results, metadata) = (job_receiver.clone(), result_sender.clone(), &metadata);
            scope.spawn(move || stopping(run, read::work(run, metadata, &jobs, &results)));
        }
        drop((job_receiver, result_sender));
        stopping(run, assembler.take_all(&result_receiver));
        drop(result_receiver);
    });
    run.stop.check()?;
    assembler.finish()
}

fn stopping(run: &Run, result: Result<(), AgentError>) {
    if let Err(error) = result {
        run.stop.fail(error);
    }
}
