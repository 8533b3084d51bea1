//! What an index of very many chunks costs and how fast it answers: bytes on disk and in memory per chunk, `have` for
//! chunks that are there and for chunks that are not, the first start after a crash, the rate of a rebuild.
//!
//! The rows are synthetic, but of the length real ones have, in as many vaults as asked for; everything measured goes
//! through the store's own verbs. The rebuild runs over real packs of small chunks, so that rows decide and not bytes.

use crate::error::{BenchError, Doing};
use clap::Args;
use repo_format::compress::compress;
use repo_format::id::{ObjectId, ObjectKind, UploadSessionId, VaultId};
use repo_format::masterkey::MasterKey;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::meta::{Batch, MetaStore, RocksMeta, Table};
use store::world::World;
use store::{IncomingObject, Store, StoreError, StoreSettings};
use tests::process::memory;

/// Rows of one batch.
const BATCH_ROWS: usize = 4096;
/// Ids of one `have`, as an agent asks.
const HAVE_IDS: usize = 4096;
/// Chunks uploaded for the rebuild, and their length.
const REBUILD_CHUNKS: u64 = 1_000_000;
const REBUILD_CHUNK_BYTES: usize = 256;
/// Rows written after the last flush, for the start after a crash to find in the log.
const UNFLUSHED_ROWS: u64 = 500_000;

/// Index of a size that decides
#[derive(Args)]
pub struct Options {
    /// Chunks, all vaults together
    #[arg(long, default_value_t = 100_000_000)]
    chunks: u64,
    /// Vaults they lie in
    #[arg(long, default_value_t = 1000)]
    vaults: u64,
    /// Memory for index and caches, bytes
    #[arg(long, default_value_t = 512 << 20)]
    memory: usize,
    /// Seconds for each kind of question
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Also writes one JSON object
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for the store; needs about 90 bytes per chunk
    path: PathBuf,
    /// One step alone, in a process of its own
    #[arg(long, hide = true)]
    step: Option<Step>,
}

/// Each step runs in a process of its own, so that nothing of the one before is in its memory.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Step {
    Fill,
    Ask,
    Rebuild,
}

/// Everything measured.
#[derive(Default, Serialize, serde::Deserialize)]
#[serde(default)]
struct Figures {
    chunks: u64,
    vaults: u64,
    fill_seconds: f64,
    index_bytes: u64,
    index_bytes_per_chunk: f64,
    start_after_crash_seconds: f64,
    first_vault_seconds: f64,
    have_present_per_second: f64,
    have_absent_per_second: f64,
    have_present_p99_ms: f64,
    have_absent_p99_ms: f64,
    pinned_bytes: u64,
    pinned_bytes_per_chunk: f64,
    rss_bytes: u64,
    rebuild_rows: u64,
    rebuild_packs: u64,
    rebuild_seconds: f64,
    rebuild_rows_per_second: f64,
}

fn vault(number: u64) -> VaultId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(number).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    VaultId::from_bytes(bytes)
}

/// SplitMix64: every number another one, spread evenly.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn object(number: u64) -> ObjectId {
    let mut bytes = [0; 32];
    for (index, part) in bytes.chunks_mut(8).enumerate() {
        part.copy_from_slice(&mix(number.wrapping_mul(4).wrapping_add(index as u64)).to_be_bytes());
    }
    ObjectId::from_bytes(bytes)
}

fn noise(number: u64, len: usize) -> Vec<u8> {
    (0..len.div_ceil(8)).flat_map(|index| mix(number << 20 | index as u64).to_le_bytes()).take(len).collect()
}

fn settings(path: &Path, memory_bytes: usize) -> StoreSettings {
    StoreSettings {
        memory_bytes,
        reserve_bytes: Some(0),
        ballast_bytes: Some(0),
        ..StoreSettings::new(path.to_owned())
    }
}

fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn failed(error: StoreError) -> BenchError {
    BenchError::Store(error.to_string())
}

/// Runs all steps and prints their figures.
pub fn run(options: &Options) -> Result<(), BenchError> {
    let figures_file = options.path.join("figures.json");
    if let Some(step) = options.step {
        let mut figures: Figures = match fs::read(&figures_file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::from).doing("figures")?,
            Err(_) => Figures::default(),
        };
        match step {
            Step::Fill => fill(options, &mut figures)?,
            Step::Ask => ask(options, &mut figures)?,
            Step::Rebuild => rebuild(options, &mut figures)?,
        }
        let text = serde_json::to_vec_pretty(&figures).map_err(std::io::Error::from).doing("figures")?;
        fs::write(&figures_file, text).doing(figures_file.display().to_string())?;
        if matches!(step, Step::Fill) {
            // As a killed process leaves it: nothing is closed or flushed.
            std::process::exit(0);
        }
        return Ok(());
    }
    fs::create_dir_all(&options.path).doing(options.path.display().to_string())?;
    let me = std::env::current_exe().doing("own program")?;
    for step in ["fill", "ask", "rebuild"] {
        let status = Command::new(&me)
            .args(["scale", "--step", step, "--chunks", &options.chunks.to_string()])
            .args(["--vaults", &options.vaults.to_string(), "--memory", &options.memory.to_string()])
            .args(["--seconds", &options.seconds.to_string()])
            .arg(&options.path)
            .status()
            .doing(step)?;
        if !status.success() {
            return Err(BenchError::Store(format!("the step {step} failed")));
        }
    }
    let text = fs::read(&figures_file).doing(figures_file.display().to_string())?;
    std::io::stdout().write_all(&text).doing("standard output")?;
    if let Some(json) = &options.json {
        fs::write(json, &text).doing(json.display().to_string())?;
    }
    Ok(())
}

fn open(path: &Path, memory: usize) -> Result<(Store, Arc<RocksMeta>), BenchError> {
    let settings = settings(path, memory);
    let index = path.join("index");
    fs::create_dir_all(&index).doing(index.display().to_string())?;
    let meta = Arc::new(RocksMeta::open(&index, memory).map_err(failed)?);
    let store = Store::open_with(settings, World::system(), &master(), meta.clone()).map_err(failed)?;
    Ok((store, meta))
}

fn begin(store: &Store, vault: &VaultId) -> Result<UploadSessionId, BenchError> {
    Ok(store.begin_upload(vault, "bench", "scale", None).map_err(failed)?.0)
}

fn chunk(store: &Store, vault: &VaultId, plaintext: &[u8]) -> Result<IncomingObject, BenchError> {
    let (codec, payload) = compress(plaintext, 3).map_err(|error| BenchError::Store(error.to_string()))?;
    Ok(IncomingObject {
        id: store.id_keys(vault).map_err(failed)?.chunk_id(plaintext).into(),
        kind: ObjectKind::Chunk,
        codec: codec.byte(),
        plain_len: plaintext.len() as u32,
        payload: payload.into(),
    })
}

/// A row as a store writes it, of a chunk deep in a pack.
fn typical_row(store: &Store, meta: &RocksMeta, vault: &VaultId) -> Result<Vec<u8>, BenchError> {
    let session = begin(store, vault)?;
    let mut last = None;
    for number in 0..24 {
        let chunk = chunk(store, vault, &noise(number, 300_000))?;
        last = Some(chunk.id);
        store.put_chunks(vault, &session, &[chunk]).map_err(failed)?;
    }
    let (_, incarnation) = store.have(vault, &session, &[]).map_err(failed)?;
    store.flush(vault, &session, incarnation).map_err(failed)?;
    let id = last.ok_or_else(|| BenchError::Store("no chunk".into()))?;
    let row = meta.get(vault, Table::Object, id.as_bytes()).map_err(failed)?;
    row.ok_or_else(|| BenchError::Store("the chunk has no row".into()))
}

fn fill(options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let path = options.path.join("store");
    let (store, meta) = open(&path, options.memory)?;
    let per_vault = options.chunks / options.vaults.max(1);
    let mut vaults: Vec<u64> = (0..options.vaults).collect();
    vaults.sort_unstable_by_key(|number| vault(*number));
    for number in &vaults {
        store.create_vault(vault(*number)).map_err(failed)?;
    }
    let row = typical_row(&store, &meta, &vault(0))?;
    let started = Instant::now();
    for (done, number) in vaults.iter().enumerate() {
        let id = vault(*number);
        let mut ids: Vec<ObjectId> = (0..per_vault).map(|chunk| object(number * per_vault + chunk)).collect();
        ids.sort_unstable();
        write_rows(&meta, &id, &ids, &row)?;
        if done % 100 == 99 {
            let _ = writeln!(std::io::stderr(), "{} vaults, {:.0} s", done + 1, started.elapsed().as_secs_f64());
        }
    }
    meta.settle().map_err(failed)?;
    figures.chunks = per_vault * options.vaults;
    figures.vaults = options.vaults;
    figures.fill_seconds = started.elapsed().as_secs_f64();
    figures.index_bytes = folder_bytes(&path.join("index"))?;
    figures.index_bytes_per_chunk = figures.index_bytes as f64 / figures.chunks as f64;
    // What a crash finds unflushed, behind the numbers of all others.
    let ids: Vec<ObjectId> = (0..UNFLUSHED_ROWS).map(|chunk| object(u64::MAX / 8 + chunk)).collect();
    write_rows(&meta, &vault(0), &ids, &row)?;
    meta.sync(meta.written()).map_err(failed)
}

fn write_rows(meta: &RocksMeta, vault: &VaultId, ids: &[ObjectId], row: &[u8]) -> Result<(), BenchError> {
    for part in ids.chunks(BATCH_ROWS) {
        let mut batch = Batch::default();
        for id in part {
            batch.put(Table::Object, *id.as_bytes(), row.to_vec());
        }
        meta.write(vault, batch).map_err(failed)?;
    }
    Ok(())
}

fn ask(options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let path = options.path.join("store");
    let started = Instant::now();
    let (store, meta) = open(&path, options.memory)?;
    figures.start_after_crash_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    store.usage(&vault(0)).map_err(failed)?;
    figures.first_vault_seconds = started.elapsed().as_secs_f64();
    let per_vault = options.chunks / options.vaults.max(1);
    let sessions: Vec<(u64, UploadSessionId)> = (0..options.vaults.min(64))
        .map(|number| Ok((number, begin(&store, &vault(number))?)))
        .collect::<Result<_, BenchError>>()?;
    let asked = |present: bool| -> Result<(f64, f64), BenchError> {
        let mut times: Vec<Duration> = Vec::new();
        let started = Instant::now();
        let mut turn = 0u64;
        while started.elapsed() < Duration::from_secs(options.seconds) {
            let (number, session) = sessions[(mix(turn) % sessions.len() as u64) as usize];
            let ids: Vec<ObjectId> = (0..HAVE_IDS as u64)
                .map(|index| mix(turn << 16 | index))
                .map(|random| match present {
                    true => object(number * per_vault + random % per_vault),
                    false => object(u64::MAX / 4 + random % (1 << 60)),
                })
                .collect();
            let before = Instant::now();
            let (have, _) = store.have(&vault(number), &session, &ids).map_err(failed)?;
            times.push(before.elapsed());
            if have.iter().any(|have| *have != present) {
                return Err(BenchError::Store("a wrong answer to `have`".into()));
            }
            turn += 1;
        }
        let asking: Duration = times.iter().sum();
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        Ok(((times.len() * HAVE_IDS) as f64 / asking.as_secs_f64(), p99.as_secs_f64() * 1000.0))
    };
    (figures.have_absent_per_second, figures.have_absent_p99_ms) = asked(false)?;
    (figures.have_present_per_second, figures.have_present_p99_ms) = asked(true)?;
    figures.pinned_bytes = meta.filter_and_index_bytes().map_err(failed)?;
    figures.pinned_bytes_per_chunk = figures.pinned_bytes as f64 / figures.chunks as f64;
    figures.rss_bytes = memory(std::process::id()).0;
    Ok(())
}

fn rebuild(options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let path = options.path.join("rebuilt");
    let (store, meta) = open(&path, options.memory)?;
    let id = vault(0);
    store.create_vault(id).map_err(failed)?;
    let session = begin(&store, &id)?;
    let numbers: Vec<u64> = (0..REBUILD_CHUNKS).collect();
    for part in numbers.chunks(4096) {
        let chunks: Vec<IncomingObject> = part
            .iter()
            .map(|number| chunk(&store, &id, &noise(*number, REBUILD_CHUNK_BYTES)))
            .collect::<Result<_, _>>()?;
        store.put_chunks(&id, &session, &chunks).map_err(failed)?;
        let (_, incarnation) = store.have(&id, &session, &[]).map_err(failed)?;
        store.flush(&id, &session, incarnation).map_err(failed)?;
    }
    store.close().map_err(failed)?;
    drop((store, meta));
    let packs = path.join("vaults").join(id.to_string()).join("packs");
    figures.rebuild_packs = fs::read_dir(&packs).doing(packs.display().to_string())?.count() as u64;
    let started = Instant::now();
    let report =
        Store::rebuild_index(settings(&path, options.memory), World::system(), &master(), |_, _| {}).map_err(failed)?;
    figures.rebuild_seconds = started.elapsed().as_secs_f64();
    figures.rebuild_rows = report.rebuilt.iter().map(|(_, recovered, _)| recovered.objects).sum();
    figures.rebuild_rows_per_second = figures.rebuild_rows as f64 / figures.rebuild_seconds;
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64, BenchError> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).doing(folder.display().to_string())? {
        let entry = entry.doing(folder.display().to_string())?;
        bytes += entry.metadata().doing(entry.path().display().to_string())?.len();
    }
    Ok(bytes)
}
