//! The first stage: the scan, compared with the base snapshot and with what the last run remembered, both in the same
//! order. Decides for every object whether it must be read; opens none.

use super::Run;
use super::limits::{ITEM_BYTES, JOB_ITEMS_MAX, JOB_READ_BYTES, LINK_GROUPS_MAX};
use super::rebundle::Rebundling;
use crate::budget::{Budget, Permit};
use crate::cache::files::{FilesReader, Remembered};
use crate::cache::nodes::BaseNodes;
use crate::error::AgentError;
use crate::fs::{FileKind, ScanEvent, ScanItem, WarningKind};
use crossbeam_channel::Sender;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Xattr, XattrValue};
use repo_format::filelist::ContentCursor;
use repo_format::id::{NodeId, ObjectId};
use repo_format::limits::BUNDLED_FILE_BYTES_MAX;
use repo_format::pathmap::Cursor;
use std::cmp::Ordering;
use std::collections::HashSet;

/// Some neighbours of the scan, for one worker.
pub struct Job {
    /// Position in the order of jobs.
    pub number: u64,
    /// What to do, in key order.
    pub items: Vec<Planned>,
    /// Memory they may take until they are in the path map.
    pub permit: Permit,
}

/// What to do with one object.
pub struct Planned {
    /// The object.
    pub item: ScanItem,
    /// How.
    pub task: Task,
    /// Its hard links, if it has any.
    pub link: Link,
}

/// How an object gets its entry.
pub enum Task {
    /// Unchanged: this is its entry.
    Reuse(Box<Entry>),
    /// Unchanged, and to be bundled again: its entry where it cannot be read.
    Rebundle(Box<Entry>),
    /// Not a regular file.
    Metadata,
    /// A regular file to be read, with what the base snapshot has under its key.
    Read(Option<Box<Entry>>),
    /// A further hard link to a file of this run.
    SameAsLink,
}

/// Part of an object in a group of hard links.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not one, or not remembered.
    None,
    /// The first: its content is remembered for the others.
    First,
    /// A later one.
    Again,
}

/// The base snapshot as the walk sees it.
pub struct BaseView<'b> {
    /// Its nodes.
    pub nodes: &'b BaseNodes,
    /// Its root.
    pub root: NodeId,
    /// What the last run remembered, if it was the one that made this snapshot.
    pub files: Option<FilesReader>,
    /// What it has in bundles too empty to keep.
    pub again: Rebundling,
}

struct Walk<'b> {
    run: &'b Run,
    base: Option<BaseView<'b>>,
    cursor: Option<Cursor<&'b BaseNodes>>,
    /// For objects that were elsewhere before.
    moved: Option<Cursor<&'b BaseNodes>>,
    links: HashSet<u64>,
    /// That the base is damaged has been said.
    told: bool,
}

/// Sends every object of `scan` as part of a job.
pub fn walk<'b>(
    run: &'b Run,
    scan: impl Iterator<Item = ScanEvent>,
    base: Option<BaseView<'b>>,
    budget: &Budget,
    jobs: &Sender<Job>,
) -> Result<(), AgentError> {
    let cursor = base.as_ref().map(|base| Cursor::new(base.nodes, base.root));
    let mut walk = Walk { run, base, cursor, moved: None, links: HashSet::new(), told: false };
    let (mut number, mut items, mut read_bytes) = (0u64, Vec::new(), 0u64);
    let mut send = |items: &mut Vec<Planned>, read_bytes: &mut u64| -> Result<(), AgentError> {
        if items.is_empty() {
            return Ok(());
        }
        let permit = budget.take(items.len() as u64 * ITEM_BYTES + *read_bytes)?;
        let job = Job { number, items: std::mem::take(items), permit };
        number += 1;
        *read_bytes = 0;
        jobs.send(job).map_err(|_| AgentError::Stopped)
    };
    for event in scan {
        run.stop.check()?;
        let item = match event {
            ScanEvent::Item(item) => item,
            ScanEvent::Warning(warning) => {
                match warning.kind {
                    WarningKind::RootIsLink => run.report.remark(&warning.path, &warning.error.to_string()),
                    _ => run.warn(&warning.path, &warning.error.to_string()),
                }
                continue;
            }
        };
        let planned = walk.plan(item)?;
        let size = planned.item.stat.size;
        let large = matches!(planned.task, Task::Read(_)) && size > BUNDLED_FILE_BYTES_MAX as u64;
        if large {
            // A large file is a job of its own, so that its neighbours do not wait for it.
            send(&mut items, &mut read_bytes)?;
        } else if matches!(planned.task, Task::Read(_) | Task::Rebundle(_)) {
            read_bytes += size;
        }
        items.push(planned);
        if large || items.len() >= JOB_ITEMS_MAX || read_bytes >= JOB_READ_BYTES {
            send(&mut items, &mut read_bytes)?;
        }
    }
    send(&mut items, &mut read_bytes)
}

impl<'b> Walk<'b> {
    fn plan(&mut self, item: ScanItem) -> Result<Planned, AgentError> {
        let before = self.entry_before(&item.key)?;
        let link = self.link(&item);
        let status = Remembered::of(&item.stat);
        let remembered =
            self.base.as_mut().and_then(|base| base.files.as_mut()).and_then(|files| files.find(&item.key));
        let known = match before {
            Some(entry) if remembered == Some(status) && same_shape(&entry, &item) => Some(entry),
            Some(entry) if !matches!(entry.kind, EntryKind::File { .. }) => None,
            Some(entry) => {
                let task = self.read_task(&item, link, Some(entry))?;
                return Ok(Planned { item, task, link });
            }
            None if item.kind() == FileKind::File => {
                let moved = match self.moved(&status) {
                    Err(error) => {
                        self.pass_over(error)?;
                        None
                    }
                    Ok(entry) => entry,
                };
                moved.filter(|entry| same_shape(entry, &item)).inspect(|_| self.run.count_moved())
            }
            None => None,
        };
        let task = match known {
            Some(mut entry) if self.sound(&entry)? => {
                entry.link_group = item.link_group;
                match self.base.as_mut().is_some_and(|base| base.again.take(&entry)) {
                    true => Task::Rebundle(Box::new(entry)),
                    false => Task::Reuse(Box::new(entry)),
                }
            }
            _ => self.read_task(&item, link, None)?,
        };
        Ok(Planned { item, task, link })
    }

    fn read_task(&self, item: &ScanItem, link: Link, before: Option<Entry>) -> Result<Task, AgentError> {
        if item.kind() != FileKind::File {
            return Ok(Task::Metadata);
        }
        if link == Link::Again {
            return Ok(Task::SameAsLink);
        }
        // Content that is damaged on the server must be stored anew, not referred to, and so is what is read anyway and
        // lies in a bundle to be replaced.
        let before = match before {
            Some(entry) if self.sound(&entry)? && !self.is_replaced(&entry) => Some(Box::new(entry)),
            _ => None,
        };
        Ok(Task::Read(before))
    }

    fn link(&mut self, item: &ScanItem) -> Link {
        match item.link_group {
            Some(group) if item.kind() == FileKind::File => {
                if self.links.contains(&group) {
                    Link::Again
                } else if self.links.len() < LINK_GROUPS_MAX {
                    self.links.insert(group);
                    Link::First
                } else {
                    Link::None
                }
            }
            _ => Link::None,
        }
    }

    /// What the base snapshot has under `key`. Keys come in ascending order. What lies below a node of the base that
    /// cannot be read counts as unknown: it is read from disk, and so stored anew.
    fn entry_before(&mut self, key: &PathKey) -> Result<Option<Entry>, AgentError> {
        loop {
            let Some(cursor) = &mut self.cursor else { return Ok(None) };
            let order = match cursor.peek() {
                // The cursor goes on behind the node.
                Err(error) => {
                    self.pass_over(error)?;
                    continue;
                }
                Ok(None) => return Ok(None),
                Ok(Some((found, _))) => found.cmp(key),
            };
            match order {
                Ordering::Greater => return Ok(None),
                Ordering::Equal => return Ok(cursor.next()?.map(|(_, entry)| entry)),
                Ordering::Less => {
                    cursor.next()?;
                }
            }
        }
    }

    /// The entry of an object that stood somewhere else in the base snapshot, with the very same status.
    fn moved(&mut self, status: &Remembered) -> Result<Option<Entry>, AgentError> {
        let Some(base) = &mut self.base else { return Ok(None) };
        let Some(key) = base.files.as_mut().and_then(|files| files.find_moved(status)) else { return Ok(None) };
        let (nodes, root) = (base.nodes, base.root);
        self.moved.get_or_insert_with(|| Cursor::new(nodes, root)).lookup(&key)
    }

    /// Whether nothing an entry refers to is known to be damaged.
    fn sound(&self, entry: &Entry) -> Result<bool, AgentError> {
        match &self.base {
            Some(base) => is_sound(base.nodes, entry),
            None => Ok(true),
        }
    }

    fn is_replaced(&self, entry: &Entry) -> bool {
        self.base.as_ref().is_some_and(|base| base.again.replaces(entry))
    }

    /// A node of the base snapshot cannot be read: what is below it is read from disk instead.
    fn pass_over(&mut self, error: AgentError) -> Result<(), AgentError> {
        if !is_damage(&error) {
            return Err(error);
        }
        if !self.told {
            self.told = true;
            self.run.report.remark(
                b"",
                &format!("part of the last snapshot cannot be compared with ({error}); its files are read again"),
            );
        }
        Ok(())
    }
}

/// Whether nothing an entry of the base snapshot refers to is known to be damaged.
pub fn is_sound(nodes: &BaseNodes, entry: &Entry) -> Result<bool, AgentError> {
    let damaged = nodes.damaged();
    if damaged.is_empty() {
        return Ok(true);
    }
    let attribute = |xattr: &Xattr| match &xattr.value {
        XattrValue::Chunk { chunk, .. } => damaged.contains(&ObjectId::from(*chunk)),
        XattrValue::Inline(_) => false,
    };
    if entry.xattrs.iter().any(attribute) {
        return Ok(false);
    }
    let EntryKind::File { content, .. } = &entry.kind else { return Ok(true) };
    if let Content::List(root) = content
        && damaged.contains(&ObjectId::from(*root))
    {
        return Ok(false);
    }
    let mut elements = ContentCursor::new(nodes, content);
    loop {
        match elements.next() {
            Ok(None) => return Ok(true),
            Ok(Some((_, Element::Data { chunk, .. }))) if damaged.contains(&ObjectId::from(chunk)) => {
                return Ok(false);
            }
            Ok(Some(_)) => {}
            Err(error) if is_damage(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error says that something stored is missing or damaged.
pub fn is_damage(error: &AgentError) -> bool {
    matches!(error, AgentError::ObjectUnavailable { .. } | AgentError::Format(_))
}

fn same_shape(entry: &Entry, item: &ScanItem) -> bool {
    match (&entry.kind, item.kind()) {
        (EntryKind::File { size, .. }, FileKind::File) => *size == item.stat.size,
        (EntryKind::Directory, FileKind::Directory)
        | (EntryKind::Symlink { .. }, FileKind::Symlink)
        | (EntryKind::Fifo, FileKind::Fifo)
        | (EntryKind::Socket, FileKind::Socket)
        | (EntryKind::CharDevice { .. }, FileKind::CharDevice)
        | (EntryKind::BlockDevice { .. }, FileKind::BlockDevice) => true,
        _ => false,
    }
}
