//! Looking into snapshots without restoring: listing, finding, comparing, and one file to standard output.

use crate::connection::{Connection, root_of};
use crate::error::AgentError;
use crate::nodes::ServerNodes;
use crate::report::{Report, human_bytes, printable};
use crate::restore::fetch::open_chunk;
use crate::snapshots::{Filter, short, show_time};
use api::browse::Snapshot;
use globset::{GlobBuilder, GlobMatcher};
use repo_format::compress::Decompressor;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile};
use repo_format::filelist::ContentCursor;
use repo_format::id::{ChunkId, ObjectId};
use repo_format::pathmap::{Cursor, Difference, differences};
use serde::Serialize;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Content asked for at once by `cat`, bytes.
const CAT_BATCH_BYTES: u64 = 8 << 20;
/// Zeros written at once for a hole, bytes.
const ZEROS_BYTES: usize = 64 << 10;

/// An entry as scripts see it.
#[derive(Serialize)]
struct EntryEvent<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a str>,
    path: String,
    kind: &'static str,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    modified_seconds: i64,
    modified_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

fn kind_word(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice { .. } => "char_device",
        EntryKind::BlockDevice { .. } => "block_device",
    }
}

fn event<'a>(name: &'static str, snapshot: Option<&'a str>, key: &PathKey, entry: &Entry) -> EntryEvent<'a> {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => Some(printable(target)),
        _ => None,
    };
    EntryEvent {
        event: name,
        snapshot,
        path: printable(&key.to_path()),
        kind: kind_word(entry),
        size: entry.size(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified_seconds: entry.mtime.seconds,
        modified_nanoseconds: entry.mtime.nanoseconds,
        target,
    }
}

/// One line as `ls -l` writes it.
fn line(key: &PathKey, entry: &Entry) -> String {
    let first = match entry.kind {
        EntryKind::File { .. } => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    };
    let owner = |name: &[u8], id: u32| if name.is_empty() { id.to_string() } else { printable(name) };
    let nanoseconds =
        entry.mtime.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(entry.mtime.nanoseconds));
    let target = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", printable(target)),
        _ => String::new(),
    };
    format!(
        "{first}{} {:>8} {:>8} {:>12} {} {}{target}",
        mode_text(entry.mode),
        owner(&entry.user, entry.uid),
        owner(&entry.group, entry.gid),
        entry.size(),
        show_time(nanoseconds),
        printable(&key.to_path()),
    )
}

fn mode_text(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `snapshots`: one line each, oldest first.
pub fn list_snapshots(connection: &Connection, filter: &Filter, report: &Report) -> Result<(), AgentError> {
    #[derive(Serialize)]
    struct SnapshotEvent<'a> {
        event: &'static str,
        #[serde(flatten)]
        snapshot: &'a Snapshot,
    }
    for snapshot in connection.snapshots()?.iter().filter(|snapshot| filter.matches(snapshot)) {
        let warnings = match snapshot.summary.warnings {
            0 => String::new(),
            count => format!("  ({count} warnings)"),
        };
        let tags = match snapshot.tags.as_slice() {
            [] => String::new(),
            tags => format!("  [{}]", printable(tags.join(", ").as_bytes())),
        };
        let held = match snapshot.hold_until_ns {
            None => String::new(),
            Some(until_ns) => format!("  (held until {})", show_time(until_ns)),
        };
        let deleted = match &snapshot.deleted {
            None => String::new(),
            Some(deleted) => format!("  (deleted, undelete until {})", show_time(deleted.until_ns)),
        };
        let text = format!(
            "{}  {}  {}  {:>10}  {}{tags}{warnings}{held}{deleted}",
            short(&snapshot.id),
            show_time(snapshot.committed_ns),
            printable(snapshot.computer.as_bytes()),
            human_bytes(snapshot.logical_bytes),
            printable(snapshot.series.as_bytes()),
        );
        report.result(&SnapshotEvent { event: "snapshot", snapshot }, &text);
    }
    Ok(())
}

/// `ls`: one folder, or everything below it.
pub fn list(
    connection: &Connection,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
    report: &Report,
) -> Result<(), AgentError> {
    let nodes = connection.nodes();
    let (key, entry) = lookup(&nodes, snapshot, path)?;
    let is_directory = entry.as_ref().is_none_or(|entry| entry.kind == EntryKind::Directory);
    if let (false, Some(entry)) = (is_directory, &entry) {
        report.result(&event("entry", None, &key, entry), &line(&key, entry));
        return Ok(());
    }
    let mut prefix = key.subtree_prefix();
    if !recursive {
        // A folder's own entries are the range behind one more zero byte.
        prefix.push(0);
    }
    let mut cursor = Cursor::new(&nodes, root_of(snapshot)?);
    cursor.seek(&prefix)?;
    while let Some((key, entry)) = cursor.next()? {
        if !key.as_bytes().starts_with(&prefix) {
            break;
        }
        if !key.is_root() {
            report.result(&event("entry", None, &key, &entry), &line(&key, &entry));
        }
    }
    Ok(())
}

/// The entry at `path`; the root directory need not have one.
fn lookup(nodes: &ServerNodes, snapshot: &Snapshot, path: &[u8]) -> Result<(PathKey, Option<Entry>), AgentError> {
    let missing = || AgentError::Usage(format!("{} is not in snapshot {}", printable(path), snapshot.id));
    let key = PathKey::from_path(path).map_err(|_| missing())?;
    let entry = Cursor::new(nodes, root_of(snapshot)?).lookup(&key)?;
    if entry.is_none() && !key.is_root() {
        return Err(missing());
    }
    Ok((key, entry))
}

/// A pattern for `find`: with a slash it is matched against whole paths, without against names.
pub struct FindPattern {
    matcher: GlobMatcher,
    whole: bool,
}

impl FindPattern {
    /// `*` and `?` do not match a slash, `**` does.
    pub fn new(text: &str) -> Result<Self, AgentError> {
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let glob = glob.map_err(|error| AgentError::Usage(format!("pattern {text:?}: {}", error.kind())))?;
        Ok(FindPattern { matcher: glob.compile_matcher(), whole: text.contains('/') })
    }

    fn matches(&self, key: &PathKey) -> bool {
        match self.whole {
            true => self.matcher.is_match(OsStr::from_bytes(&key.to_path())),
            false => self.matcher.is_match(OsStr::from_bytes(key.name())),
        }
    }
}

/// `find`: every version of matching paths over all matching snapshots. Of one path, snapshots in which it is the same
/// as in the one before are counted as one version.
pub fn find(
    connection: &Connection,
    pattern: &FindPattern,
    filter: &Filter,
    report: &Report,
) -> Result<u64, AgentError> {
    #[derive(Serialize)]
    struct Version<'a> {
        #[serde(flatten)]
        entry: EntryEvent<'a>,
        committed_ns: i64,
    }
    let nodes = connection.nodes();
    let snapshots = connection.readable_snapshots()?;
    let mut versions = 0;
    let mut shown: HashMap<(&str, &str), Option<&Snapshot>> = HashMap::new();
    let mut show = |snapshot: &Snapshot, key: &PathKey, entry: &Entry| {
        versions += 1;
        let short = snapshot.id.get(..12).unwrap_or(&snapshot.id);
        let text = format!("{short}  {}", line(key, entry));
        let entry = event("version", Some(&snapshot.id), key, entry);
        report.result(&Version { entry, committed_ns: snapshot.committed_ns }, &text);
    };
    for snapshot in snapshots.iter().filter(|snapshot| filter.matches(snapshot)) {
        let before = shown.insert((&snapshot.computer, &snapshot.series), Some(snapshot)).flatten();
        let root = root_of(snapshot)?;
        let Some(before) = before else {
            let mut cursor = Cursor::new(&nodes, root);
            while let Some((key, entry)) = cursor.next()? {
                if pattern.matches(&key) {
                    show(snapshot, &key, &entry);
                }
            }
            continue;
        };
        // Only what differs from the snapshot before in the series can be another version.
        differences(&&nodes, root_of(before)?, root, |difference| {
            match &difference {
                Difference::Added(key, entry) if pattern.matches(key) => show(snapshot, key, entry),
                Difference::Changed(key, both) if pattern.matches(key) => show(snapshot, key, &both.1),
                _ => {}
            }
            Ok::<(), AgentError>(())
        })?;
    }
    Ok(versions)
}

/// Counts of `diff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffCounts {
    /// Only in the second.
    pub added: u64,
    /// Only in the first.
    pub removed: u64,
    /// Content differs.
    pub changed: u64,
    /// Only metadata differs.
    pub metadata: u64,
}

/// `diff`: `+` added, `-` removed, `M` content changed, `m` metadata changed.
pub fn diff(
    connection: &Connection,
    first: &Snapshot,
    second: &Snapshot,
    report: &Report,
) -> Result<DiffCounts, AgentError> {
    #[derive(Serialize)]
    struct Change {
        event: &'static str,
        change: &'static str,
        path: String,
        size_before: Option<u64>,
        size_after: Option<u64>,
    }
    #[derive(Serialize)]
    struct Summary {
        event: &'static str,
        #[serde(flatten)]
        counts: DiffCounts,
    }
    let nodes = connection.nodes();
    let mut counts = DiffCounts::default();
    differences(&&nodes, root_of(first)?, root_of(second)?, |difference| {
        let (mark, change, key, before, after) = match &difference {
            Difference::Added(key, entry) => {
                counts.added += 1;
                ("+", "added", key, None, Some(entry.size()))
            }
            Difference::Removed(key, entry) => {
                counts.removed += 1;
                ("-", "removed", key, Some(entry.size()), None)
            }
            Difference::Changed(key, both) => {
                let sizes = (Some(both.0.size()), Some(both.1.size()));
                if same_content(&both.0, &both.1) {
                    if both.0.mode == both.1.mode && same_visible_metadata(&both.0, &both.1) {
                        // The same file, stored in another place.
                        return Ok(());
                    }
                    counts.metadata += 1;
                    ("m", "metadata", key, sizes.0, sizes.1)
                } else {
                    counts.changed += 1;
                    ("M", "content", key, sizes.0, sizes.1)
                }
            }
        };
        let path = printable(&key.to_path());
        let text = format!("{mark} {path}");
        report.result(&Change { event: "difference", change, path, size_before: before, size_after: after }, &text);
        Ok::<(), AgentError>(())
    })?;
    report.json(&Summary { event: "summary", counts });
    Ok(counts)
}

fn same_content(a: &Entry, b: &Entry) -> bool {
    match (&a.kind, &b.kind) {
        (EntryKind::File { size, hash, .. }, EntryKind::File { size: other_size, hash: other_hash, .. }) => {
            (size, hash) == (other_size, other_hash)
        }
        (a, b) => a == b,
    }
}

fn same_visible_metadata(a: &Entry, b: &Entry) -> bool {
    let empty = |entry: &Entry| Entry {
        kind: match &entry.kind {
            EntryKind::File { size, hash, .. } => EntryKind::File {
                size: *size,
                content: Content::Inline(Vec::new()),
                hash: *hash,
                profile: Profile::Bundle,
            },
            other => other.clone(),
        },
        ..entry.clone()
    };
    empty(a) == empty(b)
}

/// `cat`: the content of one file. Holes are written as zeros.
pub fn cat(connection: &Connection, snapshot: &Snapshot, path: &[u8], out: &mut dyn Write) -> Result<(), AgentError> {
    let nodes = connection.nodes();
    let shown = || printable(path);
    let (_, entry) = lookup(&nodes, snapshot, path)?;
    let Some(Entry { kind: EntryKind::File { content, .. }, .. }) = entry else {
        return Err(AgentError::Usage(format!("{} is not a regular file", shown())));
    };
    let mut elements = ContentCursor::new(&nodes, &content);
    let mut decompressor = Decompressor::new()?;
    let failed = |error| AgentError::file("standard output", error);
    loop {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < CAT_BATCH_BYTES
            && let Some((_, element)) = elements.next()?
        {
            if let Element::Data { len, .. } = element {
                bytes += u64::from(len);
            }
            batch.push(element);
        }
        if batch.is_empty() {
            return out.flush().map_err(failed);
        }
        let chunks = fetch(connection, &mut decompressor, &batch)?;
        for element in batch {
            match element {
                Element::Hole { len } => write_zeros(out, len).map_err(failed)?,
                Element::Data { chunk, offset, len } => {
                    let plain = chunks.get(&chunk).map(Vec::as_slice).unwrap_or_default();
                    let start = offset as usize;
                    let bytes = plain
                        .get(start..start + len as usize)
                        .ok_or_else(|| crate::nodes::unavailable("chunk", &chunk.into(), "missing"))?;
                    out.write_all(bytes).map_err(failed)?;
                }
            }
        }
    }
}

fn fetch(
    connection: &Connection,
    decompressor: &mut Decompressor,
    elements: &[Element],
) -> Result<HashMap<ChunkId, Vec<u8>>, AgentError> {
    let mut ids: Vec<ObjectId> = elements
        .iter()
        .filter_map(|element| match element {
            Element::Data { chunk, .. } => Some(ObjectId::from(*chunk)),
            Element::Hole { .. } => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let (mut chunks, mut failure) = (HashMap::new(), None);
    for part in ids.chunks(api::objects::GET_IDS_MAX) {
        connection.client.objects(&connection.vault, part, &mut |record| match open_chunk(
            decompressor,
            &connection.keys,
            &record,
        ) {
            Ok(plain) => {
                chunks.insert(record.id.as_chunk(), plain);
                true
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        })?;
    }
    failure.map_or(Ok(chunks), Err)
}

fn write_zeros(out: &mut dyn Write, mut len: u64) -> std::io::Result<()> {
    let zeros = [0; ZEROS_BYTES];
    while len > 0 {
        let now = len.min(ZEROS_BYTES as u64);
        out.write_all(&zeros[..now as usize])?;
        len -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_usual() {
        assert_eq!(mode_text(0o755), "rwxr-xr-x");
        assert_eq!(mode_text(0o7644), "rwSr-Sr-T");
        assert_eq!(mode_text(0o7777), "rwsrwsrwt");
    }

    #[test]
    fn patterns_match_names_or_paths() {
        let key = PathKey::from_path(b"/usr/share/doc/a.txt").unwrap();
        for (pattern, expected) in
            [("*.txt", true), ("a.*", true), ("doc", false), ("/usr/**/a.txt", true), ("/usr/*.txt", false)]
        {
            assert_eq!(FindPattern::new(pattern).unwrap().matches(&key), expected, "{pattern}");
        }
    }
}
