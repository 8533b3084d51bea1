//! What damage reaches: snapshots, files, ranges of folders. Nodes that lead to damage are found upwards, once for all
//! snapshots and in the order of their packs; a snapshot is then descended along those only.

use crate::error::StoreError;
use crate::meta::Table;
use crate::meta::rows::{PackRow, Place, pack_of_key};
use crate::pack::{TrailerTrust, packs_directory, scan_pack};
use crate::vault::Vault;
use crate::vault::upload::unpack;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, XattrValue};
use repo_format::frame::FrameView;
use repo_format::id::{NodeId, ObjectId, ObjectKind, PackId, SnapshotId, UploadSessionId};
use repo_format::node::{NodeKind, NodeView};
use repo_format::pack::PackKind;
use repo_format::pathmap::{index_children, leaf_entries};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most damaged objects a session is told of: what is beyond waits for a later run.
const BASE_DAMAGED_MAX: usize = 65_536;
/// Most damaged objects listed in one report.
const REPORT_OBJECTS_MAX: usize = 10_000;
/// A walk over the packs that finds one gone begins again at most this often.
const WALKS_MAX: usize = 3;

/// Damage of a vault, by object and by what it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamageReport {
    /// Damaged objects, at most ten thousand of them.
    pub objects: Vec<DamagedObject>,
    /// How many there are.
    pub objects_total: u64,
    /// Packs whose header or trailer is damaged; they are rewritten by themselves.
    pub packs: Vec<PackId>,
    /// Snapshots that cannot be restored whole, oldest first.
    pub snapshots: Vec<DamagedSnapshot>,
    /// Something was left out.
    pub truncated: bool,
}

/// An object whose frame does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    /// The object.
    pub id: ObjectId,
    /// Pack and offset of its frame; `None` when no pack holds it any more.
    pub place: Option<(PackId, u32)>,
    /// When it was found, nanoseconds since 1970.
    pub found_ns: i64,
}

/// What is damaged of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// In path order.
    pub paths: Vec<DamagedPath>,
    /// There are more.
    pub truncated: bool,
}

/// A path and what is damaged there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedPath {
    /// Absolute path, as bytes.
    pub path: Vec<u8>,
    /// What.
    pub what: PathDamage,
}

/// What is damaged at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathDamage {
    /// Content of the file, or part of it.
    Content,
    /// An extended attribute.
    Attribute,
    /// The list of entries from this path on is unreadable, up to but without `until` (`None`: to the end).
    Entries {
        /// First path that is readable again.
        until: Option<Vec<u8>>,
    },
}

/// A descent into one snapshot.
struct Descent<'v> {
    vault: &'v Vault,
    marked: &'v HashSet<ObjectId>,
    reach: &'v HashSet<ObjectId>,
    room: usize,
    found: DamagedSnapshot,
}

impl Vault {
    /// Damaged objects, and what of which snapshots they reach; at most `paths_max` paths in all.
    pub(crate) fn damage(&self, paths_max: usize) -> Result<DamageReport, StoreError> {
        let marks = self.damaged_objects()?;
        let mut report = DamageReport {
            objects_total: marks.len() as u64,
            packs: self.packs_to_rewrite()?,
            truncated: marks.len() > REPORT_OBJECTS_MAX,
            ..DamageReport::default()
        };
        report.objects.extend(marks.iter().take(REPORT_OBJECTS_MAX).map(|(id, row)| DamagedObject {
            id: *id,
            place: (row.place.frame_len > 0).then_some((row.place.pack, row.place.offset)),
            found_ns: row.found_ns,
        }));
        if marks.is_empty() {
            return Ok(report);
        }
        let reach = self.reach()?;
        let marked: HashSet<ObjectId> = marks.into_iter().map(|(id, _)| id).collect();
        let mut room = paths_max;
        for snapshot in self.snapshots()? {
            if !reach.contains(&ObjectId::from(snapshot.root)) {
                continue;
            }
            let found = DamagedSnapshot { snapshot: snapshot.snapshot, paths: Vec::new(), truncated: false };
            let mut descent = Descent { vault: self, marked: &marked, reach: &reach, room, found };
            descent.enter(&snapshot.root, PathKey::root().as_bytes(), None)?;
            room = descent.room;
            // A node may have healed since its parents were found to lead to damage.
            if !descent.found.paths.is_empty() || descent.found.truncated {
                report.truncated |= descent.found.truncated;
                report.snapshots.push(descent.found);
            }
        }
        Ok(report)
    }

    /// Damaged objects that the base snapshot of an upload session reaches: the session may send them again although
    /// nothing has changed. Nobody can tell what a damaged node leads to, but an agent that still has a copy of it sees
    /// past it: with one in the base snapshot, all damaged objects of the vault are named. Empty, and found so at once,
    /// in a sound vault.
    pub(crate) fn damaged_in_base(&self, session: &UploadSessionId) -> Result<Vec<ObjectId>, StoreError> {
        if self.meta().scan(&self.id, Table::Damage, &[], 1)?.is_empty() {
            return Ok(Vec::new());
        }
        let Some(root) = self.session_row(session)?.base_root else { return Ok(Vec::new()) };
        let marked: HashSet<ObjectId> = self.damaged_objects()?.into_iter().map(|(id, _)| id).collect();
        let reach = self.reach()?;
        let (mut damaged, mut seen, mut node_damaged) = (BTreeSet::new(), HashSet::new(), false);
        let mut open = vec![ObjectId::from(root)];
        while let Some(id) = open.pop() {
            if !reach.contains(&id) || !seen.insert(id) || damaged.len() >= BASE_DAMAGED_MAX {
                continue;
            }
            if marked.contains(&id) {
                damaged.insert(id);
                node_damaged = true;
                continue;
            }
            match self.plaintext(id, ObjectKind::Node) {
                Ok(plaintext) => {
                    let view = NodeView::parse(&plaintext)?;
                    damaged.extend(view.chunks().map(ObjectId::from).filter(|chunk| marked.contains(chunk)));
                    open.extend(view.nodes().map(ObjectId::from));
                }
                Err(StoreError::Damaged(_) | StoreError::NoSuchObject(_)) => {
                    damaged.insert(id);
                    node_damaged = true;
                }
                Err(error) => return Err(error),
            }
        }
        if node_damaged {
            damaged.extend(marked);
        }
        Ok(damaged.into_iter().take(BASE_DAMAGED_MAX).collect())
    }

    /// Damaged objects and all nodes above them.
    fn reach(&self) -> Result<Arc<HashSet<ObjectId>>, StoreError> {
        let mut remembered = self.damage_memory.reach.lock();
        let marks = self.damage_memory.marks.load(Ordering::Acquire);
        if let Some((as_of, reach)) = &*remembered
            && *as_of == marks
        {
            return Ok(reach.clone());
        }
        let mut reach: HashSet<ObjectId> = self.damaged_objects()?.into_iter().map(|(id, _)| id).collect();
        // Children lie before their parents but where compaction has moved them: the second round mostly finds nothing.
        loop {
            let before = reach.len();
            self.each_node_frame(|id, view| {
                let leads = || {
                    let mut children = view.nodes().map(ObjectId::from).chain(view.chunks().map(ObjectId::from));
                    children.any(|child| reach.contains(&child))
                };
                if !reach.contains(&id) && leads() {
                    reach.insert(id);
                }
            })?;
            if reach.len() == before {
                break;
            }
        }
        let reach = Arc::new(reach);
        *remembered = Some((marks, reach.clone()));
        Ok(reach)
    }

    /// Hands every readable node of every node pack to `each`, in the order of packs; dead ones and duplicates as well.
    fn each_node_frame(&self, mut each: impl FnMut(ObjectId, &NodeView<'_>)) -> Result<(), StoreError> {
        let directory = packs_directory(&self.directory);
        let mut walked: BTreeSet<PackId> = BTreeSet::new();
        let mut walks = 0;
        loop {
            let mut packs = Vec::new();
            self.each_row(Table::Pack, &[], |key, value| {
                if PackRow::decode(&value)?.kind == PackKind::Node {
                    packs.push(pack_of_key(&key)?);
                }
                Ok(())
            })?;
            packs.retain(|pack| !walked.contains(pack));
            if packs.is_empty() {
                return Ok(());
            }
            for pack in packs {
                match self.walk_node_pack(&directory, &pack, &mut each) {
                    // What it held was moved to a pack that the next round finds.
                    Err(StoreError::Io { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound && walks < WALKS_MAX =>
                    {
                        walks += 1;
                    }
                    done => done?,
                }
                walked.insert(pack);
            }
        }
    }

    fn walk_node_pack(
        &self,
        directory: &std::path::Path,
        pack: &PackId,
        each: &mut impl FnMut(ObjectId, &NodeView<'_>),
    ) -> Result<(), StoreError> {
        let Some(scan) = scan_pack(&*self.shared.world.vfs, directory, &self.id, pack, TrailerTrust::Trusted)? else {
            return Ok(());
        };
        let place = |offset, frame_len| Place { pack: *pack, offset, frame_len };
        let places: Vec<Place> = scan.frames.iter().map(|frame| place(frame.offset, frame.frame_len)).collect();
        let mut plaintext = Vec::new();
        self.files.read_frames(&places, |index, bytes| {
            let frame = &scan.frames[index];
            let opened = bytes.ok().and_then(|bytes| {
                let view = FrameView::parse(bytes).ok().filter(|view| view.header.id == frame.id)?;
                view.open(self.shared.aead, &self.id, self.keys.data_key(view.header.key_epoch)?).ok()
            });
            // Frames that do not open are damaged themselves, and marked by who reads them for their content.
            if let Some(payload) = opened
                && unpack(frame.codec, &payload, frame.plain_len, &mut plaintext).is_ok()
                && let Ok(view) = NodeView::parse(&plaintext)
            {
                each(frame.id, &view);
            }
            Ok(())
        })
    }
}

impl Descent<'_> {
    /// A node's plaintext, or `None` when it is damaged. A copy in memory does not make it sound.
    fn sound(&self, node: ObjectId) -> Result<Option<Arc<[u8]>>, StoreError> {
        if self.marked.contains(&node) {
            return Ok(None);
        }
        match self.vault.plaintext(node, ObjectKind::Node) {
            Ok(plaintext) => Ok(Some(plaintext)),
            Err(StoreError::Damaged(_) | StoreError::NoSuchObject(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, path: Vec<u8>, what: PathDamage) {
        if self.room == 0 {
            self.found.truncated = true;
            return;
        }
        self.room -= 1;
        self.found.paths.push(DamagedPath { path, what });
    }

    /// Descends into a node that holds the keys from `from` up to `until`.
    fn enter(&mut self, node: &NodeId, from: &[u8], until: Option<&[u8]>) -> Result<(), StoreError> {
        if self.found.truncated {
            return Ok(());
        }
        let Some(plaintext) = self.sound(ObjectId::from(*node))? else {
            let until = until.map(PathKey::from_encoded).transpose()?.map(|key| key.to_path());
            self.push(PathKey::from_encoded(from)?.to_path(), PathDamage::Entries { until });
            return Ok(());
        };
        let view = NodeView::parse(&plaintext)?;
        if view.kind == NodeKind::PathLeaf {
            for (key, entry) in leaf_entries(&view)? {
                if let Some(what) = self.of_entry(&entry)? {
                    self.push(key.to_path(), what);
                }
            }
            return Ok(());
        }
        let children = index_children(&view)?;
        for (index, child) in children.iter().enumerate() {
            if self.reach.contains(&ObjectId::from(child.node)) {
                let next = children.get(index + 1).map(|next| next.first_key.as_slice()).or(until);
                // The first child begins where its parent does.
                let from = if index == 0 { from } else { child.first_key.as_slice() };
                self.enter(&child.node, from, next)?;
            }
        }
        Ok(())
    }

    fn of_entry(&self, entry: &Entry) -> Result<Option<PathDamage>, StoreError> {
        if let EntryKind::File { content, .. } = &entry.kind {
            let damaged = match content {
                Content::List(root) => self.leads_to_damage(root)?,
                Content::Inline(elements) => elements.iter().any(|element| match element {
                    Element::Data { chunk, .. } => self.marked.contains(&ObjectId::from(*chunk)),
                    Element::Hole { .. } => false,
                }),
            };
            if damaged {
                return Ok(Some(PathDamage::Content));
            }
        }
        let attribute = entry.xattrs.iter().any(|xattr| match &xattr.value {
            XattrValue::Chunk { chunk, .. } => self.marked.contains(&ObjectId::from(*chunk)),
            XattrValue::Inline(_) => false,
        });
        Ok(attribute.then_some(PathDamage::Attribute))
    }

    /// Whether something below a content list is damaged now: what is remembered to lead there may have healed.
    fn leads_to_damage(&self, list: &NodeId) -> Result<bool, StoreError> {
        let id = ObjectId::from(*list);
        if !self.reach.contains(&id) {
            return Ok(false);
        }
        let Some(plaintext) = self.sound(id)? else { return Ok(true) };
        let view = NodeView::parse(&plaintext)?;
        if view.chunks().any(|chunk| self.marked.contains(&ObjectId::from(chunk))) {
            return Ok(true);
        }
        for child in view.nodes() {
            if self.leads_to_damage(&child)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
