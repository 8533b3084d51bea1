//! `check`: are all objects that snapshots refer to there, and are they what their ids say?

use crate::connection::{Connection, computer_name, root_of};
use crate::error::AgentError;
use crate::nodes::{open_record, unavailable};
use crate::report::{Report, human_bytes};
use crate::restore::fetch::open_chunk;
use crate::restore::selection::{Selected, Selection};
use api::browse::Snapshot;
use api::objects::GET_IDS_MAX;
use api::problem::Code;
use api::upload::{BeginUpload, HAVE_IDS_MAX};
use repo_format::FormatError;
use repo_format::compress::Decompressor;
use repo_format::entry::{Element, EntryKind, XattrValue};
use repo_format::filelist::ContentCursor;
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind};
use repo_format::node::NodeView;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Nodes asked for at once.
const NODES_AT_ONCE: usize = 64;
/// Chunks read at once with `--read-data`.
const CHUNKS_AT_ONCE: usize = 64;
/// Series under which `check` asks which chunks are there.
const CHECK_SERIES: &str = "(check)";

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckResult {
    /// `checked`.
    pub event: &'static str,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Distinct nodes read and verified.
    pub nodes: u64,
    /// Distinct chunks referred to.
    pub chunks: u64,
    /// Of those, read and verified.
    pub chunks_read: u64,
    /// Bytes of plaintext verified.
    pub bytes_read: u64,
    /// Objects missing or damaged.
    pub bad_objects: u64,
    /// Paths in snapshots that cannot be restored.
    pub bad_paths: u64,
    /// Whether the server was asked for every chunk (needs the right to back up) or all were read.
    pub chunks_checked: bool,
}

/// Checks `snapshots`; with `read_data` every byte is fetched and verified.
pub fn check(
    connection: &Connection,
    snapshots: &[Snapshot],
    read_data: bool,
    report: &Report,
) -> Result<CheckResult, AgentError> {
    let mut check = Check { connection, report, result: CheckResult::default(), bad: HashMap::new() };
    check.result.event = "checked";
    check.result.snapshots = snapshots.len() as u64;
    let chunks = check.walk(snapshots)?;
    check.result.chunks = chunks.len() as u64;
    if read_data {
        check.read(&chunks)?;
    } else {
        check.ask(&chunks)?;
    }
    check.result.bad_objects = check.bad.len() as u64;
    if !check.bad.is_empty() {
        for snapshot in snapshots {
            check.name_paths(snapshot)?;
        }
    }
    Ok(check.result)
}

struct Check<'c> {
    connection: &'c Connection,
    report: &'c Report,
    result: CheckResult,
    bad: HashMap<ObjectId, String>,
}

impl Check<'_> {
    /// Reads every node once; the chunks they refer to.
    fn walk(&mut self, snapshots: &[Snapshot]) -> Result<Vec<ChunkId>, AgentError> {
        let (mut seen, mut chunks) = (HashSet::<NodeId>::new(), HashSet::<ChunkId>::new());
        let mut waiting = Vec::new();
        for snapshot in snapshots {
            let root = root_of(snapshot)?;
            if seen.insert(root) {
                waiting.push(root);
            }
        }
        let mut decompressor = Decompressor::new()?;
        while !waiting.is_empty() {
            let ids: Vec<ObjectId> = waiting
                .split_off(waiting.len().saturating_sub(NODES_AT_ONCE))
                .into_iter()
                .map(ObjectId::from)
                .collect();
            let (keys, result, bad) = (&self.connection.keys, &mut self.result, &mut self.bad);
            self.connection.client.objects(&self.connection.vault, &ids, &mut |record| {
                let opened = open_record(&mut decompressor, &record, ObjectKind::Node).and_then(|plain| {
                    if ObjectId::from(keys.node_id(&plain)) != record.id {
                        return Err(FormatError::IdMismatch { what: "node" }.into());
                    }
                    let view = NodeView::parse(&plain)?;
                    waiting.extend(view.nodes().filter(|id| seen.insert(*id)));
                    chunks.extend(view.chunks());
                    Ok(plain.len())
                });
                match opened {
                    Ok(bytes) => {
                        result.nodes += 1;
                        result.bytes_read += bytes as u64;
                    }
                    Err(error) => {
                        bad.insert(record.id, error.to_string());
                    }
                }
                true
            })?;
        }
        let mut chunks: Vec<ChunkId> = chunks.into_iter().collect();
        chunks.sort_unstable();
        Ok(chunks)
    }

    /// Asks the server which chunks it has sound, through an upload session that is given up afterwards.
    fn ask(&mut self, chunks: &[ChunkId]) -> Result<(), AgentError> {
        let (client, vault) = (&self.connection.client, &self.connection.vault);
        let begin = BeginUpload { computer: computer_name(), series: CHECK_SERIES.to_owned(), base_snapshot: None };
        let session = match client.begin(vault, &begin) {
            Ok(session) => session,
            Err(error) if error.code() == Some(Code::Forbidden) => {
                self.report.remark(b"", "this token may not ask for chunks; use --read-data to check them");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for part in chunks.chunks(HAVE_IDS_MAX) {
            let ids: Vec<ObjectId> = part.iter().map(|id| ObjectId::from(*id)).collect();
            let (present, _) = client.have(vault, &session.id, &ids)?;
            for (id, present) in ids.iter().zip(present) {
                if !present {
                    self.bad.insert(*id, unavailable("chunk", id, "missing or damaged").to_string());
                }
            }
        }
        self.result.chunks_checked = true;
        Ok(client.abandon(vault, &session.id)?)
    }

    /// Fetches every chunk and verifies it.
    fn read(&mut self, chunks: &[ChunkId]) -> Result<(), AgentError> {
        let mut decompressor = Decompressor::new()?;
        for part in chunks.chunks(CHUNKS_AT_ONCE.min(GET_IDS_MAX)) {
            let ids: Vec<ObjectId> = part.iter().map(|id| ObjectId::from(*id)).collect();
            let (keys, result, bad) = (&self.connection.keys, &mut self.result, &mut self.bad);
            self.connection.client.objects(&self.connection.vault, &ids, &mut |record| {
                match open_chunk(&mut decompressor, keys, &record) {
                    Ok(plain) => {
                        result.chunks_read += 1;
                        result.bytes_read += plain.len() as u64;
                    }
                    Err(error) => {
                        bad.insert(record.id, error.to_string());
                    }
                }
                true
            })?;
        }
        self.result.chunks_checked = true;
        Ok(())
    }

    /// Says which paths of a snapshot need a bad object.
    fn name_paths(&mut self, snapshot: &Snapshot) -> Result<(), AgentError> {
        let nodes = self.connection.nodes();
        let mut selection = Selection::new(&nodes, root_of(snapshot)?, &[])?;
        let short = snapshot.id.get(..12).unwrap_or(&snapshot.id);
        loop {
            let (key, entry) = match selection.advance()? {
                Selected::End => return Ok(()),
                Selected::Gap(error) => {
                    self.result.bad_paths += 1;
                    self.report.warning(b"", &format!("snapshot {short}: a range of entries cannot be read: {error}"));
                    continue;
                }
                Selected::Entry(key, entry) => (key, entry),
            };
            let mut cause = None;
            for xattr in &entry.xattrs {
                if let XattrValue::Chunk { chunk, .. } = &xattr.value {
                    cause = cause.or(self.bad.get(&(*chunk).into()).cloned());
                }
            }
            if let EntryKind::File { content, .. } = &entry.kind {
                let mut elements = ContentCursor::new(&nodes, content);
                while cause.is_none() {
                    match elements.next() {
                        Ok(None) => break,
                        Ok(Some((_, Element::Data { chunk, .. }))) => cause = self.bad.get(&chunk.into()).cloned(),
                        Ok(Some((_, Element::Hole { .. }))) => {}
                        Err(error @ (AgentError::ObjectUnavailable { .. } | AgentError::Format(_))) => {
                            cause = Some(error.to_string());
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            if let Some(cause) = cause {
                self.result.bad_paths += 1;
                self.report.warning(&key.to_path(), &format!("snapshot {short}: {cause}"));
            }
        }
    }
}

/// Text of a finished check for people.
pub fn summary_text(result: &CheckResult) -> String {
    let chunks = match (result.chunks_checked, result.chunks_read) {
        (false, _) => "chunks not checked".to_owned(),
        (true, 0) => format!("{} chunks present", result.chunks),
        (true, read) => format!("{read} of {} chunks read", result.chunks),
    };
    let verdict = match result.bad_objects {
        0 => "no problems".to_owned(),
        count => format!("{count} objects missing or damaged, {} paths cannot be restored", result.bad_paths),
    };
    format!(
        "{} snapshots, {} nodes verified, {chunks}, {}: {verdict}",
        result.snapshots,
        result.nodes,
        human_bytes(result.bytes_read)
    )
}
