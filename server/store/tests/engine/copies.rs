//! What collection decided on outside the monitor is asked again inside: between the copy of a frame and the row that is
//! to point at it, and between the reading of an object that is to go and its removal.

use crate::bed::{Files, VAULT, begin, chunk, download, files, master, settings, tree, upload};
use crate::care::{frame_of, rot};
use crate::collect::{now_ns, run_dry};
use crate::hooked::{Call, Hooked, is_pack};
use repo_format::id::ObjectId;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::world::World;
use store::{CommitInput, Store, StoreSettings};

/// An object heals while its old frame is being copied: its row stays where it was healed to, and the copy is dead from
/// the start.
#[test]
fn a_row_that_has_changed_meanwhile_is_not_pointed_at_the_copy() {
    let directory = tempfile::tempdir().unwrap();
    let vfs = Hooked::default();
    let world = World { vfs: Arc::new(vfs.clone()), ..World::system() };
    let settings = StoreSettings { pack_bytes_target: 64 << 10, ..settings(directory.path()) };
    let store = Arc::new(Store::open(settings, world, &master()).unwrap());
    store.create_vault(VAULT).unwrap();
    let content = files(70, 120, 3000);
    let kept: Files = content.iter().step_by(3).map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    let all = upload(&store, &content).unwrap();
    let snapshot = upload(&store, &kept).unwrap();
    let packs = directory.path().join("vaults").join(VAULT.to_string()).join("packs");
    let old: Vec<PathBuf> = std::fs::read_dir(&packs).unwrap().map(|entry| entry.unwrap().path()).collect();
    store.purge_snapshots(&VAULT, &[all.snapshot]).unwrap();

    let healed: Arc<Mutex<Option<(ObjectId, PathBuf)>>> = Arc::default();
    let hook = {
        let (store, healed, kept, old) = (store.clone(), healed.clone(), kept.clone(), old.clone());
        move |copies: &Path| {
            let keys = store.id_keys(&VAULT).unwrap();
            let (id, bytes) = kept
                .values()
                .map(|bytes| (keys.chunk_id(bytes), bytes))
                .find(|(id, _)| frame_of(copies, &(*id).into()).is_some())
                .unwrap();
            let object = ObjectId::from(id);
            let (pack, at) = old.iter().find_map(|pack| frame_of(pack, &object).map(|at| (pack, at))).unwrap();
            rot(pack, at + 100, 3);
            store.reader(&VAULT).unwrap().chunk(&id).unwrap_err();
            let session = begin(&store, None);
            let received = store.put_chunks(&VAULT, &session, &[chunk(&keys, bytes)]).unwrap();
            assert_eq!(received.new_objects, 1, "a damaged chunk is taken again");
            store.flush(&VAULT, &session, received.incarnation).unwrap();
            store.abort_upload(&VAULT, &session).unwrap();
            *healed.lock().unwrap() = Some((object, copies.to_owned()));
            Ok(())
        }
    };
    vfs.before(move |call, path| call == Call::Sync && is_pack(path) && !old.iter().any(|old| old == path), hook);
    let done = run_dry(&store, now_ns());
    assert!(done.copied_frames > 0, "{done:?}");
    let (object, copies) = healed.lock().unwrap().take().unwrap();
    assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new());
    // Nobody reads the copy.
    if let Some(at) = copies.exists().then(|| frame_of(&copies, &object)).flatten() {
        rot(&copies, at + 100, 3);
    }
    assert_eq!(download(&store, &snapshot).unwrap(), kept);
}

/// While the reaper reads a node that nothing needs, an upload is told that it is there, or commits it.
#[test]
fn what_an_upload_has_been_promised_since_the_reaper_read_it_stays() {
    for commits in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let vfs = Hooked::default();
        let world = World { vfs: Arc::new(vfs.clone()), ..World::system() };
        let store = Arc::new(Store::open(settings(directory.path()), world, &master()).unwrap());
        store.create_vault(VAULT).unwrap();
        let content = files(71, 40, 600);
        let tree = Arc::new(tree(&store.id_keys(&VAULT).unwrap(), &content));
        let aborted = begin(&store, None);
        store.put_chunks(&VAULT, &aborted, &tree.chunks).unwrap();
        store.put_nodes(&VAULT, &aborted, &tree.nodes).unwrap();
        store.abort_upload(&VAULT, &aborted).unwrap();
        let session = begin(&store, None);
        let commit = {
            let (store, root) = (store.clone(), tree.root);
            move || store.commit(&VAULT, &session, &CommitInput { root, summary_json: Vec::new() }).unwrap()
        };
        let ran = Arc::new(Mutex::new(None));
        vfs.before(|call, path| call == Call::Read && is_pack(path), {
            let (store, tree, commit, ran) = (store.clone(), tree.clone(), commit.clone(), ran.clone());
            move |_| {
                store.put_nodes(&VAULT, &session, &tree.nodes).unwrap();
                *ran.lock().unwrap() = Some(commits.then(commit));
                Ok(())
            }
        });
        assert_eq!(run_dry(&store, now_ns()).reaped_objects, 0, "committed: {commits}");
        let snapshot = ran.lock().unwrap().take().unwrap().unwrap_or_else(commit);
        assert_eq!(run_dry(&store, now_ns()).reaped_objects, 0);
        assert_eq!(download(&store, &snapshot).unwrap(), content);
        assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new());
    }
}
