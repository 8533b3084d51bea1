//! Which entries of a snapshot are wanted, in an order in which every directory comes before what is in it.

use crate::error::AgentError;
use crate::nodes::ServerNodes;
use repo_format::entry::{Content, Entry, EntryKind, PathKey};
use repo_format::id::NodeId;
use repo_format::pathmap::Cursor;
use std::collections::{BTreeSet, VecDeque};

/// Entries looked at ahead, so that the content lists they need are fetched together.
const LOOK_AHEAD: usize = 256;
/// Damaged places of a path map that are reported and passed over before giving up.
const GAPS_MAX: usize = 1000;

/// The wanted part of a path map, entry by entry.
pub struct Selection<'n> {
    nodes: &'n ServerNodes,
    cursor: Cursor<&'n ServerNodes>,
    root: NodeId,
    ranges: VecDeque<Range>,
    inside: Option<Vec<u8>>,
    started: bool,
    ahead: VecDeque<(PathKey, Entry)>,
    gaps: usize,
}

enum Range {
    /// One entry.
    Entry(PathKey),
    /// Everything whose key starts with this.
    Subtree(Vec<u8>),
}

/// What comes next.
pub enum Selected {
    /// An entry.
    Entry(PathKey, Box<Entry>),
    /// Entries that cannot be read: why.
    Gap(AgentError),
    /// Nothing.
    End,
}

impl<'n> Selection<'n> {
    /// Everything below `paths` in the map under `root`, with the directories above; everything when `paths` is empty.
    pub fn new(nodes: &'n ServerNodes, root: NodeId, paths: &[Vec<u8>]) -> Result<Self, AgentError> {
        let mut ranges = VecDeque::new();
        let wrong = |path: &[u8]| AgentError::Usage(format!("{}: not a path", crate::report::printable(path)));
        let mut keys = BTreeSet::new();
        for path in paths {
            keys.insert(PathKey::from_path(path).map_err(|_| wrong(path))?);
        }
        if keys.is_empty() || keys.contains(&PathKey::root()) {
            ranges.push_back(Range::Subtree(Vec::new()));
            return Ok(Self::over(nodes, root, ranges));
        }
        let mut given = BTreeSet::new();
        for key in &keys {
            let prefix = key.subtree_prefix();
            let covered = keys.iter().any(|other| other != key && prefix.starts_with(&other.subtree_prefix()));
            if covered {
                continue;
            }
            let mut above = PathKey::root();
            given.insert(above.clone()).then(|| ranges.push_back(Range::Entry(above.clone())));
            for component in key.directory() {
                above = above.child(component)?;
                given.insert(above.clone()).then(|| ranges.push_back(Range::Entry(above.clone())));
            }
            ranges.push_back(Range::Entry(key.clone()));
            ranges.push_back(Range::Subtree(prefix));
        }
        Ok(Self::over(nodes, root, ranges))
    }

    fn over(nodes: &'n ServerNodes, root: NodeId, ranges: VecDeque<Range>) -> Self {
        let cursor = Cursor::new(nodes, root);
        Selection { nodes, cursor, root, ranges, inside: None, started: false, ahead: VecDeque::new(), gaps: 0 }
    }

    /// The next entry.
    pub fn advance(&mut self) -> Result<Selected, AgentError> {
        if let Some((key, entry)) = self.ahead.pop_front() {
            return Ok(Selected::Entry(key, Box::new(entry)));
        }
        let mut lists = Vec::new();
        let failure = loop {
            match self.read() {
                Ok(Some((key, entry))) => {
                    if let EntryKind::File { content: Content::List(root), .. } = &entry.kind {
                        lists.push(*root);
                    }
                    self.ahead.push_back((key, entry));
                    if self.ahead.len() >= LOOK_AHEAD {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if !lists.is_empty() {
            self.nodes.prefetch(lists)?;
        }
        match failure {
            None => match self.ahead.pop_front() {
                Some((key, entry)) => Ok(Selected::Entry(key, Box::new(entry))),
                None => Ok(Selected::End),
            },
            Some(error @ (AgentError::ObjectUnavailable { .. } | AgentError::Format(_))) => {
                self.gaps += 1;
                if self.gaps > GAPS_MAX { Err(error) } else { Ok(Selected::Gap(error)) }
            }
            Some(error) => Err(error),
        }
    }

    fn read(&mut self) -> Result<Option<(PathKey, Entry)>, AgentError> {
        loop {
            if let Some(prefix) = &self.inside {
                match self.cursor.next() {
                    Ok(Some((key, entry))) if key.as_bytes().starts_with(prefix) => return Ok(Some((key, entry))),
                    Ok(_) => self.inside = None,
                    Err(error) => return Err(self.failed(error)),
                }
                continue;
            }
            match self.ranges.pop_front() {
                None => return Ok(None),
                Some(Range::Entry(key)) => {
                    let found = self.cursor.lookup(&key);
                    match found {
                        Ok(Some(entry)) => return Ok(Some((key, entry))),
                        Ok(None) => {}
                        Err(error) => return Err(self.failed(error)),
                    }
                }
                Some(Range::Subtree(prefix)) => {
                    if let Err(error) = self.cursor.seek(&prefix) {
                        return Err(self.failed(error));
                    }
                    self.inside = Some(prefix);
                }
            }
            self.started = true;
        }
    }

    /// After a failure the cursor goes on behind the node that failed; if that was the root, there is nothing behind.
    fn failed(&mut self, error: AgentError) -> AgentError {
        if !self.started {
            self.ranges.clear();
            self.inside = None;
        }
        if let AgentError::ObjectUnavailable { id, .. } = &error
            && *id == self.root.to_string()
        {
            self.ranges.clear();
            self.inside = None;
        }
        error
    }
}
