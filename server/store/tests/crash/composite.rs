//! RocksDB and the system's own files, on disks mounted in user space. RocksDB works in threads of its own, so a seed
//! repeats what is asked of the engine, and nearly always, not always, the state that failed.
//!
//! Half of the histories keep changes of names in order, as file systems with a journal do: there nobody is ever asked
//! to rebuild the index. In the others names survive independently of each other, which RocksDB does not stand:
//! whoever then follows its message and rebuilds has lost nothing either.

use crate::ground::{Ground, VAULT};
use crate::history::{History, Options};
use crate::mounted::{Lie, Mount};
use crate::sim_vfs::{Disk, Rng, Survival, Volume};
use crate::{explore, options, seed};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use store::StoreError;
use store::meta::{Batch, MetaStore, RocksMeta, Table};

fn mounted(mount: &Arc<Mount>) -> impl Fn(u64) -> Options + Sync + use<> {
    let ground = Ground::Mounted(mount.clone());
    move |seed| Options {
        operations: 60,
        crash_percent: 5,
        variants: 3,
        ground: ground.clone(),
        names_in_order: seed % 2 == 0,
        ..options(seed)
    }
}

#[test]
fn the_real_index_loses_nothing_with_the_power() {
    let Some(mount) = Mount::new(None) else { return };
    let started = Instant::now();
    let figures = explore(seed(), |histories, _| histories >= 2, mounted(&mount));
    println!("composite crash states: {}", figures.states.len());
    println!("{:?}", started.elapsed());
    assert!(figures.states.len() > 50);
}

#[test]
#[ignore = "long: ./check --long"]
fn the_real_index_loses_nothing_with_the_power_long() {
    let Some(mount) = Mount::new(None) else { return };
    let started = Instant::now();
    let figures = explore(seed(), |_, states| states >= 10_000, mounted(&mount));
    println!("composite crash states: {}", figures.states.len());
    println!("{:?}", started.elapsed());
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an index on its own came to.
#[derive(Default, Debug)]
struct Alone {
    states: HashSet<[u8; 32]>,
    /// Batches that were not synced and came back, over all states.
    beyond: u64,
}

/// Batches of any size, some synced, the power lost within and after any call: the index comes back as it was after one
/// batch, none that was synced is missing, and nobody is asked to rebuild it.
fn alone(mount: &Mount, seed: u64, figures: &mut Alone) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let disk = Disk::new(Volume::default());
    let text = |error: StoreError| error.to_string();
    let index = RocksMeta::open(&mount.show(&disk), 1 << 20).map_err(text)?;
    let mut history: Vec<Rows> = vec![Rows::new()];
    let mut synced = 0;
    let mut ticket = index.written();
    disk.watch();
    // Few syncs and large batches make logs that follow each other before either is on disk.
    let (sync_percent, large_percent) = ([5, 25][rng.below(2)], [20, 80][rng.below(2)]);
    for _ in 0..10 + rng.below(30) {
        let before = synced;
        disk.captured();
        if rng.chance(sync_percent) {
            index.sync(ticket).map_err(text)?;
            synced = history.len() - 1;
        } else {
            let (mut batch, mut rows) = (Batch::default(), history.last().cloned().unwrap_or_default());
            let most = if rng.chance(large_percent) { 600 } else { 8 };
            for _ in 0..1 + rng.below(most) {
                let (table, key) = (Table::ALL[rng.below(7)], rng.below(2000).to_be_bytes().to_vec());
                let named = [&[table as u8], key.as_slice()].concat();
                if rng.chance(20) {
                    rows.remove(&named);
                    batch.delete(table, key);
                } else {
                    let value: Vec<u8> = (0..rng.below(200)).map(|_| rng.next() as u8).collect();
                    rows.insert(named, value.clone());
                    batch.put(table, key, value);
                }
            }
            ticket = index.write(&VAULT, batch).map_err(text)?;
            history.push(rows);
        }
        let captured = disk.captured();
        let inside = rng.pick(&captured).map(|(_, volume)| (volume.clone(), before));
        for (volume, least) in inside.into_iter().chain([(disk.volume(), synced)]) {
            let any = Survival::Ordered { seed: rng.next(), sector: [512, 4096][rng.below(2)] };
            let survival =
                [any, any, any, Survival::Prefix { seed: rng.next() }, Survival::Nothing, Survival::Everything]
                    [rng.below(6)];
            let state = volume.crash(survival);
            figures.states.insert(state.hash());
            let found = read(mount, state).map_err(|error| format!("{survival:?}: {error}"))?;
            let Some(at) = history.iter().rposition(|rows| *rows == found) else {
                return Err(format!("{survival:?}: the rows are those after no batch"));
            };
            if at < least {
                return Err(format!("{survival:?}: batch {least} was synced, and the rows are those after {at}"));
            }
            figures.beyond += (at - least) as u64;
        }
    }
    Ok(())
}

fn read(mount: &Mount, state: Volume) -> Result<Rows, StoreError> {
    let disk = Disk::new(state);
    let index = RocksMeta::open(&mount.show(&disk), 1 << 20)?;
    let mut rows = Rows::new();
    for table in Table::ALL {
        for (key, value) in index.scan(&VAULT, table, &[], usize::MAX)? {
            rows.insert([&[table as u8], key.as_slice()].concat(), value);
        }
    }
    Ok(rows)
}

fn indexes(mount: &Mount, first: u64, count: u64) -> Result<Alone, String> {
    let mut figures = Alone::default();
    for seed in first..first + count {
        alone(mount, seed, &mut figures).map_err(|error| format!("HOLDFAST_SEED={seed}: {error}"))?;
    }
    Ok(figures)
}

fn check_indexes(count: u64) {
    let Some(mount) = Mount::new(None) else { return };
    let started = Instant::now();
    let figures = indexes(&mount, seed(), count).unwrap_or_else(|error| panic!("{error}"));
    println!("index crash states: {}, {:?}", figures.states.len(), started.elapsed());
    assert!(figures.states.len() as u64 > count, "hardly any state differs");
    assert!(figures.beyond > 0, "nothing that was not synced ever survived");
}

#[test]
fn an_index_comes_back_as_it_was_after_some_batch() {
    check_indexes(2);
}

#[test]
#[ignore = "long: ./check --long"]
fn an_index_comes_back_as_it_was_after_some_batch_long() {
    check_indexes(60);
}

/// On a disk that answers a sync of the write-ahead log and does nothing, acknowledged batches go missing.
#[test]
fn a_disk_that_lies_about_the_log_is_noticed() {
    let Some(mount) = Mount::new(Some(Lie::Ending(".log"))) else { return };
    let noticed = indexes(&mount, seed(), 20);
    println!("{noticed:?}");
    assert!(noticed.is_err());
}

/// On a disk that lies about any other kind of file as well, by the index alone or by whole histories.
#[test]
#[ignore = "long: ./check --long"]
fn a_disk_that_lies_about_any_kind_of_file_is_noticed() {
    let first = seed();
    let mut missed = Vec::new();
    for lie in [
        Lie::Ending(".log"),
        Lie::Starting("MANIFEST-"),
        Lie::Ending(".sst"),
        Lie::Ending(".dbtmp"),
        Lie::DirectoryOf("MANIFEST-"),
        Lie::Ending(".pack"),
        Lie::Ending(".journal"),
    ] {
        let Some(mount) = Mount::new(Some(lie)) else { return };
        let alone = indexes(&mount, first, 30).err();
        let options = mounted(&mount);
        let whole = (first..first + 30).find_map(|seed| History::explore(options(seed)).err());
        let brief = |error: &Option<String>| error.as_ref().map(|error| error.chars().take(160).collect::<String>());
        println!("{lie:?}\n  index: {:?}\n  histories: {:?}", brief(&alone), brief(&whole));
        if alone.is_none() && whole.is_none() {
            missed.push(lie);
        }
    }
    assert_eq!(missed, []);
}
