//! Bit flips and truncations everywhere a store keeps bytes. Whatever is hit: no wrong byte is ever read, nothing panics,
//! damage is named or harmless, and a rebuild or the next backup brings everything back.

use crate::bed::{Files, VAULT, download, files, master, upload};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::world::World;
use store::{AuditRepair, SnapshotInfo, Store, StoreError, StoreSettings};

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Pack,
    PackTrailer,
    Journal,
    Sst,
    WriteAheadLog,
    IndexOther,
    KeyringA,
    KeyringB,
    Epoch,
    Clock,
}

/// How a trial went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// Every snapshot restores identical, the ledger equals a recount.
    Harmless,
    /// Refused at the start with a reason; a rebuild of the index brings everything back.
    Rebuilt,
    /// Named by a read or a scrub; the next backup brings everything back.
    Healed,
}

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn settings(directory: &Path) -> StoreSettings {
    // Many small packs, so that many trailers can be hit.
    StoreSettings { pack_bytes_target: 60_000, ..crate::bed::settings(directory) }
}

fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(settings(directory), World::system(), &master())
}

/// A store with a past, and what must come back from it.
struct Template {
    directory: tempfile::TempDir,
    snapshots: Vec<(SnapshotInfo, Files)>,
}

impl Template {
    /// Closed in order, or left as a killed process leaves it.
    fn new(closed: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut snapshots = Vec::new();
        for part in 0..3u64 {
            let store = open(directory.path()).unwrap();
            if part == 0 {
                store.create_vault(VAULT).unwrap();
            }
            let mut content = files(50, 150, 700);
            content.extend(files(51 + part, 20, 3000).into_iter().map(|(name, bytes)| (format!("own-{name}"), bytes)));
            let gone = upload(&store, &files(90 + part, 9, 2000)).unwrap();
            let snapshot = upload(&store, &content).unwrap();
            snapshots.push((snapshot, content));
            store.purge_snapshots(&VAULT, &[gone.snapshot]).unwrap();
            if part == 1 {
                store.tag_snapshot(&VAULT, &snapshots[0].0.snapshot, &["kept".to_owned()]).unwrap();
            }
            if closed || part < 2 {
                store.close().unwrap();
            }
        }
        Template { directory, snapshots }
    }

    /// A copy to be hurt.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for path in files_below(self.directory.path()) {
            let to = copy.path().join(path.strip_prefix(self.directory.path()).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&path, &to).unwrap();
        }
        copy
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn class_of(path: &Path) -> Option<Class> {
    let name = path.file_name()?.to_str()?;
    let in_index = path.parent()?.file_name()? == "index";
    Some(match name {
        "keyring.a" => Class::KeyringA,
        "keyring.b" => Class::KeyringB,
        "epoch" => Class::Epoch,
        "clock" => Class::Clock,
        _ if name.ends_with(".pack") => Class::Pack,
        _ if name.ends_with(".journal") => Class::Journal,
        _ if name.ends_with(".sst") => Class::Sst,
        _ if in_index && name.ends_with(".log") => Class::WriteAheadLog,
        _ if in_index && (name.starts_with("MANIFEST") || name == "CURRENT" || name.starts_with("OPTIONS")) => {
            Class::IndexOther
        }
        _ => return None,
    })
}

/// Hurts one file of the class; answers what was done, or `None` where there is nothing to hurt.
fn hurt(directory: &Path, class: Class, random: &mut Random) -> Option<String> {
    let wanted = if class == Class::PackTrailer { Class::Pack } else { class };
    let candidates: Vec<PathBuf> = files_below(directory)
        .into_iter()
        .filter(|path| class_of(path) == Some(wanted) && std::fs::metadata(path).is_ok_and(|data| data.len() > 0))
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let path = &candidates[random.below(candidates.len())];
    let mut bytes = std::fs::read(path).unwrap();
    let from = if class == Class::PackTrailer { bytes.len().saturating_sub(1500) } else { 0 };
    let at = from + random.below(bytes.len() - from);
    let name = path.strip_prefix(directory).unwrap().display();
    let done = if random.below(5) == 0 {
        bytes.truncate(at);
        format!("{name} cut to {at} bytes")
    } else {
        let bit = random.below(8);
        bytes[at] ^= 1 << bit;
        format!("bit {bit} of byte {at} of {name} flipped")
    };
    std::fs::write(path, &bytes).unwrap();
    Some(done)
}

/// Reads every snapshot: identical, or an error. `true`: all identical.
fn all_identical(store: &Store, template: &Template, context: &str) -> bool {
    let Ok(listed) = store.snapshots(&VAULT) else { return false };
    let mut whole = true;
    for (snapshot, content) in &template.snapshots {
        whole &= listed.iter().any(|found| found.snapshot == snapshot.snapshot);
        match download(store, snapshot) {
            Ok(found) => assert!(found == *content, "WRONG BYTES: {context}"),
            Err(_) => whole = false,
        }
    }
    whole
}

fn trial(template: &Template, class: Class, seed: u64) -> Option<Outcome> {
    let mut random = Random(seed);
    let copy = template.copy();
    let directory = copy.path();
    let done = hurt(directory, class, &mut random)?;
    let context = format!("HOLDFAST_SEED={seed}: {done}");
    let mut outcome = Outcome::Harmless;
    let usable = |store: &Store| !matches!(store.recount(&VAULT), Err(error) if needs_rebuild(&error));
    let mut store = match open(directory) {
        Ok(store) if usable(&store) && store.snapshots(&VAULT).is_ok() => store,
        refused => {
            let said = match &refused {
                Ok(store) => store.snapshots(&VAULT).err().or_else(|| store.recount(&VAULT).err()).unwrap().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(!matches!(class, Class::KeyringA | Class::KeyringB | Class::Clock), "{context}: {said}");
            drop(refused);
            if class == Class::Epoch {
                // Says what to do; the counter goes on behind what packs carry.
                assert!(said.contains("remove it"), "{context}: {said}");
                std::fs::remove_file(directory.join("epoch")).unwrap();
            } else {
                assert!(said.contains("rebuild-index") || said.contains("index"), "{context}: {said}");
                let rebuilt = Store::rebuild_index(settings(directory), World::system(), &master(), |_, _| {});
                assert!(rebuilt.is_ok(), "{context}: {said}, then {:?}", rebuilt.err());
            }
            outcome = Outcome::Rebuilt;
            open(directory).unwrap_or_else(|error| panic!("{context}: {error}"))
        }
    };
    let listed = store.snapshots(&VAULT).unwrap_or_else(|error| panic!("{context}: {error}"));
    for (snapshot, _) in &template.snapshots {
        let found = listed.iter().find(|found| found.snapshot == snapshot.snapshot);
        assert!(found.is_some_and(|found| found.commit == snapshot.commit), "{context}: a snapshot is not listed");
    }
    assert_eq!(listed.len(), template.snapshots.len(), "{context}");
    let whole = all_identical(&store, template, &context);
    let now = World::system().clock.now_ns();
    while !store.scrub_step(&VAULT, now, u64::MAX).unwrap_or_else(|error| panic!("{context}: {error}")).done {}
    let report = store.damage(&VAULT, 10_000).unwrap();
    if !whole {
        assert!(report.objects_total > 0, "{context}: something cannot be read and nothing is named");
        let named: Vec<_> = report.snapshots.iter().map(|damaged| damaged.snapshot).collect();
        for (snapshot, _) in &template.snapshots {
            let fails = download(&store, snapshot).is_err();
            assert_eq!(named.contains(&snapshot.snapshot), fails, "{context}: {named:?}");
        }
    }
    if !whole || report.objects_total > 0 {
        assert!(matches!(class, Class::Pack | Class::PackTrailer), "{context}: {report:?}");
        // One flip or cut in one of many packs never costs most of the vault.
        let all = store.usage(&VAULT).unwrap();
        assert!(report.objects_total < (all.chunks + all.nodes) / 2, "{context}: {report:?}");
        outcome = Outcome::Healed;
        for (_, content) in &template.snapshots {
            upload(&store, content).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        let report = store.damage(&VAULT, 10_000).unwrap();
        assert!(report.snapshots.is_empty(), "{context}: {report:?}");
    }
    assert!(all_identical(&store, template, &context), "{context}: not whole after healing");
    assert_eq!(store.recount(&VAULT).unwrap().drift, Vec::<String>::new(), "{context}");
    let audit = store.audit(&VAULT, AuditRepair::TooLow, || true).unwrap();
    assert!(audit.is_clean(), "{context}: {audit:?}");
    // And it stays so over a restart.
    store.close().unwrap();
    drop(store);
    store = open(directory).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(all_identical(&store, template, &context), "{context}: not whole after a restart");
    if matches!(class, Class::KeyringA | Class::KeyringB) {
        let [a, b] = store::KEYRING_FILES.map(|name| std::fs::read(directory.join(name)).unwrap());
        assert_eq!(a, b, "{context}");
    }
    Some(outcome)
}

fn needs_rebuild(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable { .. } | StoreError::Index(_) | StoreError::IndexDamaged(_) | StoreError::Format(_)
    )
}

fn run(trials: u64) {
    let seed = match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => World::system().clock.now_ns() as u64,
    };
    eprintln!("HOLDFAST_SEED={seed}");
    let templates = [Template::new(true), Template::new(false)];
    let classes = [
        Class::Pack,
        Class::PackTrailer,
        Class::Journal,
        Class::Sst,
        Class::WriteAheadLog,
        Class::IndexOther,
        Class::KeyringA,
        Class::KeyringB,
        Class::Pack,
        Class::Journal,
        Class::Sst,
        Class::WriteAheadLog,
        Class::Epoch,
        Class::Clock,
    ];
    let mut outcomes: BTreeMap<(Class, Outcome), u64> = BTreeMap::new();
    let mut done = 0;
    for number in 0.. {
        let class = classes[number as usize % classes.len()];
        let template = &templates[(number as usize / classes.len()) % templates.len()];
        if let Some(outcome) = trial(template, class, seed.wrapping_add(number)) {
            *outcomes.entry((class, outcome)).or_default() += 1;
            done += 1;
            if done == trials {
                break;
            }
        }
    }
    eprintln!("bit flips and truncations: {done}");
    for ((class, outcome), count) in outcomes {
        eprintln!("  {class:?}: {outcome:?} {count}");
    }
}

#[test]
fn no_flipped_bit_is_ever_read_as_data() {
    run(42);
}

#[test]
#[ignore = "minutes; part of ./check --long"]
fn no_flipped_bit_is_ever_read_as_data_long() {
    run(1000);
}
