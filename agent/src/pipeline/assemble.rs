//! The last stage before the server: puts results back in order, bundles small files, and builds the path map.

use super::counters::add;
use super::limits::{KNOWN_SMALL_FILES_MAX, WAITING_ENTRIES_MAX};
use super::read::{Body, JobResult, Outcome};
use super::rebundle::BundleUse;
use super::walk::Link;
use super::{NodeWriter, Run};
use crate::cache::files::FilesWriter;
use crate::cache::nodes::{BaseNodes, NodesWriter};
use crate::error::AgentError;
use bytes::Bytes;
use crossbeam_channel::Receiver;
use repo_format::chunker::closes_bundle;
use repo_format::entry::{Content, Element, Entry, EntryKind};
use repo_format::id::{ChunkId, ContentHash, NodeId};
use repo_format::limits::{BUNDLE_BYTES_SOFT_MAX, BUNDLED_FILE_BYTES_MAX};
use repo_format::pathmap::PathMapBuilder;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Where the cache of this run goes; `None` for runs without one.
pub struct CacheWriters {
    /// Statuses.
    pub files: FilesWriter,
    /// Nodes.
    pub nodes: NodesWriter,
    /// What the snapshot uses of its bundles.
    pub bundles: BundleUse,
}

/// Content of a small file: (offset, length) within the bundle being filled.
#[derive(Clone, Copy)]
struct Slice {
    offset: u32,
    len: u32,
}

enum Wait {
    Ready,
    Bundle(Slice),
    OfLink,
}

struct Waiting {
    outcome: Outcome,
    wait: Wait,
}

/// Builds the path map of one run.
pub struct Assembler<'r> {
    run: &'r Run,
    base: Option<&'r BaseNodes>,
    builder: PathMapBuilder<'r>,
    nodes: NodeWriter<'r>,
    cache: Option<CacheWriters>,
    waiting: VecDeque<Waiting>,
    bundle: Vec<u8>,
    in_bundle: HashMap<ContentHash, Slice>,
    known: HashMap<ContentHash, Element>,
    links: HashMap<u64, EntryKind>,
}

impl<'r> Assembler<'r> {
    /// For `run`; nodes that `base` has are not sent.
    pub fn new(run: &'r Run, base: Option<&'r BaseNodes>, cache: Option<CacheWriters>) -> Result<Self, AgentError> {
        Ok(Assembler {
            run,
            base,
            builder: PathMapBuilder::new(&run.keys),
            nodes: NodeWriter::new(run)?,
            cache,
            waiting: VecDeque::new(),
            bundle: Vec::with_capacity(BUNDLE_BYTES_SOFT_MAX + BUNDLED_FILE_BYTES_MAX),
            in_bundle: HashMap::new(),
            known: HashMap::new(),
            links: HashMap::new(),
        })
    }

    /// Takes all results, in whatever order they come.
    pub fn take_all(&mut self, results: &Receiver<JobResult>) -> Result<(), AgentError> {
        let (mut early, mut next) = (BTreeMap::new(), 0u64);
        for result in results {
            self.run.stop.check()?;
            early.insert(result.number, result);
            while let Some(result) = early.remove(&next) {
                next += 1;
                for outcome in result.outcomes {
                    self.take(outcome)?;
                }
            }
        }
        self.run.stop.check()
    }

    /// The next object in key order.
    pub fn take(&mut self, mut outcome: Outcome) -> Result<(), AgentError> {
        let body = std::mem::replace(&mut outcome.body, Body::Ready);
        let mut closes = false;
        let wait = match body {
            Body::Ready => Wait::Ready,
            Body::OfLink => Wait::OfLink,
            Body::Bundle(data) => match &outcome.entry.kind {
                EntryKind::File { hash, .. } => {
                    let hash = *hash;
                    match self.known.get(&hash).copied() {
                        Some(element) => {
                            set_content(&mut outcome.entry, element);
                            Wait::Ready
                        }
                        None => {
                            let (slice, fresh) = self.bundle(hash, &data);
                            closes = fresh && closes_bundle(self.bundle.len(), &hash);
                            Wait::Bundle(slice)
                        }
                    }
                }
                _ => Wait::Ready,
            },
        };
        if self.waiting.is_empty() && matches!(wait, Wait::Ready) {
            return self.push(outcome);
        }
        self.waiting.push_back(Waiting { outcome, wait });
        if closes || self.waiting.len() >= WAITING_ENTRIES_MAX || self.bundle.is_empty() {
            self.close_bundle()?;
        }
        Ok(())
    }

    /// Its place in the current bundle, and whether it was put there now (not a copy of one there).
    fn bundle(&mut self, hash: ContentHash, data: &[u8]) -> (Slice, bool) {
        if let Some(slice) = self.in_bundle.get(&hash) {
            return (*slice, false);
        }
        let slice = Slice { offset: self.bundle.len() as u32, len: data.len() as u32 };
        self.bundle.extend_from_slice(data);
        self.in_bundle.insert(hash, slice);
        (slice, true)
    }

    /// Stores the bundle and lets go of everything that waited for it.
    fn close_bundle(&mut self) -> Result<(), AgentError> {
        let mut chunk = None;
        if !self.bundle.is_empty() {
            let id = self.run.keys.chunk_id(&self.bundle);
            let bundle = &self.bundle;
            self.run.uploader.chunk(id, bundle.len(), || Bytes::copy_from_slice(bundle))?;
            if let Some(cache) = &mut self.cache {
                cache.bundles.made(id, self.bundle.len() as u32);
            }
            self.bundle.clear();
            chunk = Some(id);
            if self.known.len() >= KNOWN_SMALL_FILES_MAX {
                self.known.clear();
            }
            self.known.extend(self.in_bundle.drain().map(|(hash, slice)| (hash, element(id, slice))));
        }
        while let Some(Waiting { mut outcome, wait }) = self.waiting.pop_front() {
            if let (Wait::Bundle(slice), Some(chunk)) = (&wait, chunk) {
                set_content(&mut outcome.entry, element(chunk, *slice));
            }
            if matches!(wait, Wait::OfLink) && !self.content_of_link(&mut outcome) {
                continue;
            }
            self.push(outcome)?;
        }
        Ok(())
    }

    fn content_of_link(&self, outcome: &mut Outcome) -> bool {
        match outcome.entry.link_group.and_then(|group| self.links.get(&group)) {
            Some(kind) => {
                outcome.entry.kind = kind.clone();
                true
            }
            None => {
                self.run.warn(&outcome.key.to_path(), "a hard link to a file that could not be read");
                false
            }
        }
    }

    fn push(&mut self, outcome: Outcome) -> Result<(), AgentError> {
        let Outcome { key, entry, record, link, .. } = outcome;
        if let (Link::First, Some(group)) = (link, entry.link_group) {
            self.links.insert(group, entry.kind.clone());
        }
        self.count(&entry);
        let mut nodes = Vec::new();
        self.builder.push(&key, &entry, &mut |node| nodes.push(node))?;
        if let Some(cache) = &mut self.cache {
            cache.bundles.count(&entry);
            if let Some(record) = record {
                cache.files.push(&key, &record)?;
            }
        }
        self.store(nodes, None)
    }

    fn count(&self, entry: &Entry) {
        let counters = &self.run.counters;
        match &entry.kind {
            EntryKind::File { size, .. } => {
                add(&counters.files, 1);
                add(&counters.logical_bytes, *size);
            }
            EntryKind::Directory => add(&counters.directories, 1),
            _ => add(&counters.others, 1),
        }
    }

    /// The root is sent even when the base snapshot has it: the answer to it says that the snapshot has room, so that
    /// the commit cannot be refused for want of it.
    fn store(&mut self, nodes: Vec<repo_format::node::BuiltNode>, root: Option<NodeId>) -> Result<(), AgentError> {
        for node in nodes {
            let (codec, payload) = self.nodes.compress(&node)?;
            if let Some(cache) = &mut self.cache {
                cache.nodes.push(&node, codec, &payload)?;
            }
            if Some(node.id) != root && self.base.is_some_and(|base| base.has(&node.id)) {
                add(&self.run.counters.nodes_unchanged, 1);
            } else {
                self.run.uploader.node(&node, codec, payload)?;
            }
        }
        Ok(())
    }

    /// The root of the finished map, and the cache to be put in place once it is committed.
    pub fn finish(mut self) -> Result<(NodeId, Option<CacheWriters>), AgentError> {
        self.close_bundle()?;
        let mut nodes = Vec::new();
        let builder = std::mem::replace(&mut self.builder, PathMapBuilder::new(&self.run.keys));
        let root = builder.finish(&mut |node| nodes.push(node))?;
        self.store(nodes, Some(root))?;
        Ok((root, self.cache))
    }
}

fn element(chunk: ChunkId, slice: Slice) -> Element {
    Element::Data { chunk, offset: slice.offset, len: slice.len }
}

fn set_content(entry: &mut Entry, element: Element) {
    if let EntryKind::File { content, .. } = &mut entry.kind {
        *content = Content::Inline(vec![element]);
    }
}
