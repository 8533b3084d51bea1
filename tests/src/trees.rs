//! Seeded trees and streams of ordinary shape: life-like trees, huge directories, sparse files, database dumps.

use crate::directory::Directory;
use crate::seed::{Random, Seed};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Sum of their lengths, bytes.
    pub bytes: u64,
}

/// Counts the regular files under `path` and their lengths; symbolic links are not followed.
pub fn totals(path: &Path) -> io::Result<Totals> {
    let mut sum = Totals::default();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = totals(&entry.path())?;
            sum.files += below.files;
            sum.bytes += below.bytes;
        } else if kind.is_file() {
            sum.files += 1;
            sum.bytes += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

#[derive(Clone, Copy)]
enum Kind {
    /// Like source text: compresses to about a third.
    Text,
    /// Like a program: tables, zeros and code.
    Binary,
    /// Like a photograph or an archive.
    Compressed,
}

struct FilePlan {
    kind: Kind,
    bytes: u64,
    /// Files with equal numbers and lengths have equal contents.
    content: u64,
}

/// Builds a tree of `goal.files` files and very nearly `goal.bytes` bytes under `path`, which is created when missing:
/// text, programs and compressed data in folders of uneven depth, a tenth of the files duplicates, some links.
pub fn life_like(path: &Path, goal: Totals, seed: Seed) -> io::Result<Totals> {
    let mut random = seed.stream("life-like tree");
    let plans = plan_files(goal, &mut random);
    fs::create_dir_all(path)?;
    let mut folders: Vec<(PathBuf, usize)> = vec![(path.to_path_buf(), 0)];
    let words = Words::new(seed);
    let mut built = Totals::default();
    let mut buffer = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        if number % 25 == 24 {
            let (parent, depth) = folders[random.index(folders.len())].clone();
            if depth < 9 {
                let name = format!("{}-{}", words.pick(&mut random), folders.len());
                let folder = parent.join(name);
                fs::create_dir(&folder)?;
                folders.push((folder, depth + 1));
            }
        }
        let recent = folders.len().min(40);
        let (folder, _) = &folders[folders.len() - 1 - random.index(recent)];
        let suffix = ["c", "so", "gz"][plan.kind as usize];
        let file_path = folder.join(format!("{}_{number}.{suffix}", words.pick(&mut random)));
        let mut file = File::create_new(&file_path)?;
        write_content(&mut file, plan, seed, &words, &mut buffer)?;
        if random.chance(1, 8) {
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
        }
        set_modified(&file, &mut random)?;
        built.files += 1;
        built.bytes += plan.bytes;
        if random.chance(1, 50) {
            std::os::unix::fs::symlink(&file_path, folder.join(format!("link_{number}")))?;
        }
        if random.chance(1, 500) {
            fs::hard_link(&file_path, folder.join(format!("hard_{number}")))?;
            built.files += 1;
            built.bytes += plan.bytes;
        }
    }
    Ok(built)
}

/// Tops a tree up: builds under `path` what `present` lacks to reach `goal`, nothing when it lacks nothing.
pub fn top_up(path: &Path, present: Totals, goal: Totals, seed: Seed) -> io::Result<Totals> {
    let mut lacking =
        Totals { files: goal.files.saturating_sub(present.files), bytes: goal.bytes.saturating_sub(present.bytes) };
    if lacking == Totals::default() {
        return Ok(lacking);
    }
    lacking.files = lacking.files.max(lacking.bytes >> 24).max(1);
    life_like(path, lacking, seed)
}

fn set_modified(file: &File, random: &mut Random) -> io::Result<()> {
    let since = std::time::Duration::new(random.between(1_000_000_000, 1_700_000_000), random.below(1 << 29) as u32);
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + since)
}

/// Most files are small, most bytes are in few large ones; the large ones take what the others leave of the goal.
fn plan_files(goal: Totals, random: &mut Random) -> Vec<FilePlan> {
    let mut plans: Vec<FilePlan> = Vec::new();
    let mut large = Vec::new();
    for number in 0..goal.files {
        if number > 10 && random.chance(1, 10) {
            let FilePlan { kind, bytes, content } = plans[random.index(plans.len())];
            if bytes < 4 << 20 {
                plans.push(FilePlan { kind, bytes, content });
                continue;
            }
        }
        let kind = match random.below(20) {
            0..11 => Kind::Text,
            11..16 => Kind::Binary,
            _ => Kind::Compressed,
        };
        let bytes = match random.below(100) {
            0..55 => random.below(4 << 10),
            55..85 => random.between(4 << 10, 32 << 10),
            85..97 => random.between(32 << 10, 256 << 10),
            _ => {
                large.push((plans.len(), random.between(1, 100)));
                0
            }
        };
        plans.push(FilePlan { kind, bytes, content: number });
    }
    let small: u64 = plans.iter().map(|plan| plan.bytes).sum();
    if small > goal.bytes || large.is_empty() {
        let numerator = u128::from(goal.bytes);
        let denominator = u128::from(small.max(1));
        plans.iter_mut().for_each(|plan| plan.bytes = (u128::from(plan.bytes) * numerator / denominator) as u64);
    } else {
        let weights: u64 = large.iter().map(|(_, weight)| weight).sum();
        for (index, weight) in large {
            plans[index].bytes = (goal.bytes - small) / weights * weight;
        }
    }
    plans
}

fn write_content(file: &mut File, plan: &FilePlan, seed: Seed, words: &Words, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut random = seed.stream(&format!("file {}", plan.content));
    let mut left = plan.bytes as usize;
    while left > 0 {
        let len = left.min(1 << 20);
        buffer.clear();
        match plan.kind {
            Kind::Text => words.write_text(buffer, len, &mut random),
            Kind::Binary => write_binary(buffer, len, &mut random),
            Kind::Compressed => {
                buffer.resize(len, 0);
                random.fill(buffer);
            }
        }
        file.write_all(&buffer[..len])?;
        left -= len;
    }
    Ok(())
}

fn write_binary(out: &mut Vec<u8>, len: usize, random: &mut Random) {
    let mut template = [0u8; 32];
    while out.len() < len {
        random.fill(&mut template);
        match random.below(4) {
            0 => out.resize(out.len() + random.between(16, 600) as usize, 0),
            1 => {
                let mut code = [0u8; 240];
                random.fill(&mut code);
                out.extend_from_slice(&code);
            }
            _ => {
                for row in 0..random.between(8, 60) {
                    template[..8].copy_from_slice(&(row * 24).to_le_bytes());
                    out.extend_from_slice(&template);
                }
            }
        }
    }
}

/// A vocabulary in which few words are frequent.
struct Words(Vec<String>);

impl Words {
    fn new(seed: Seed) -> Self {
        let mut random = seed.stream("vocabulary");
        let mut word = |_| {
            let syllables = random.between(1, 5);
            (0..syllables)
                .map(|_| {
                    let consonant = b"bcdfghjklmnprstvwz"[random.index(18)] as char;
                    let vowel = b"aeiouy"[random.index(6)] as char;
                    format!("{consonant}{vowel}")
                })
                .collect()
        };
        Words((0..4096).map(&mut word).collect())
    }

    fn pick(&self, random: &mut Random) -> &str {
        // The product of two draws prefers small indices, as language prefers few words.
        let draw = random.next_u64();
        let (one, two) = (draw & 0xfff, (draw >> 12) & 0xfff);
        &self.0[((one * two) >> 12) as usize % self.0.len()]
    }

    fn write_text(&self, out: &mut Vec<u8>, len: usize, random: &mut Random) {
        while out.len() < len {
            let indent = random.below(4) as usize * 4;
            out.resize(out.len() + indent, b' ');
            for _ in 0..random.between(2, 9) {
                out.extend_from_slice(self.pick(random).as_bytes());
                out.extend_from_slice([" ", "_", ", ", "(", ") ", " = "][random.index(6)].as_bytes());
            }
            out.extend_from_slice(b";\n");
        }
    }
}

/// Builds `count` files of 0 to 200 bytes in the one directory `path`, which is created.
pub fn many_small_files(path: &Path, count: u64, seed: Seed) -> io::Result<Totals> {
    fs::create_dir(path)?;
    let directory = Directory::open(path)?;
    let mut random = seed.stream("many small files");
    let mut built = Totals { files: count, bytes: 0 };
    let mut content = [0u8; 200];
    for number in 0..count {
        let len = random.below(201) as usize;
        random.fill(&mut content[..len]);
        directory.create_file(format!("{number:08}.eml").as_bytes())?.write_all(&content[..len])?;
        built.bytes += len as u64;
    }
    Ok(built)
}

/// Builds `folders` folders of `files_each` files of 0 to 60 bytes under `path`, which is created.
pub fn many_folders(path: &Path, folders: u64, files_each: u64, seed: Seed) -> io::Result<Totals> {
    fs::create_dir(path)?;
    let top = Directory::open(path)?;
    let mut random = seed.stream("many folders");
    let mut built = Totals { files: folders * files_each, bytes: 0 };
    let mut content = [0u8; 60];
    for folder in 0..folders {
        let inner = top.create_directory(format!("folder {folder:06}").as_bytes())?;
        for number in 0..files_each {
            let len = random.below(61) as usize;
            random.fill(&mut content[..len]);
            inner.create_file(format!("{number:06}").as_bytes())?.write_all(&content[..len])?;
            built.bytes += len as u64;
        }
    }
    Ok(built)
}

/// Creates a file of `len` bytes of which about `data_bytes`, and not fewer, are incompressible data in runs of 1 to
/// 16 MiB with holes between them.
pub fn sparse_file(path: &Path, len: u64, data_bytes: u64, seed: Seed) -> io::Result<()> {
    const BLOCK: u64 = 1 << 20;
    let mut random = seed.stream("sparse file");
    let file = File::create_new(path)?;
    file.set_len(len)?;
    let mut buffer = vec![0u8; BLOCK as usize];
    let blocks = len / BLOCK;
    let mut needed = data_bytes.div_ceil(BLOCK).min(blocks);
    let mut block = 0;
    while needed > 0 {
        let run = random.between(1, 17).min(needed);
        // Spread what may still be empty over what must still come.
        let spare = blocks - block - needed;
        block += random.below(2 * spare / (needed / 8 + 1) + 1).min(spare);
        for _ in 0..run {
            random.fill(&mut buffer);
            file.write_all_at(&buffer, block * BLOCK)?;
            block += 1;
        }
        needed -= run;
    }
    Ok(())
}

/// Creates a file of `len` incompressible bytes.
pub fn dense_file(path: &Path, len: u64, seed: Seed) -> io::Result<()> {
    let mut random = seed.stream("dense file");
    let mut file = File::create_new(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = left.min(1 << 20) as usize;
        random.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Creates a file of `len` bytes without two equal blocks, of which a third is incompressible and the rest compresses
/// to almost nothing, so that a large file does not need as much room again in a vault.
pub fn mixed_file(path: &Path, len: u64, seed: Seed) -> io::Result<()> {
    const PATTERN: usize = 4096;
    let mut random = seed.stream("mixed file");
    let mut file = File::create_new(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = left.min(1 << 20) as usize;
        if random.chance(1, 3) {
            random.fill(&mut buffer);
        } else {
            random.fill(&mut buffer[..PATTERN]);
            let (pattern, rest) = buffer.split_at_mut(PATTERN);
            rest.chunks_exact_mut(PATTERN).for_each(|block| block.copy_from_slice(pattern));
        }
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Writes about `bytes` of something like a database dump. Another `version` differs in one row of every 4,000 and has
/// some rows more at the end, as a dump a day later would.
pub fn dump(out: impl Write, bytes: u64, version: u32, seed: Seed) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let words = Words::new(seed);
    let mut random = seed.stream("dump");
    let mut written = 0;
    let mut row = 0u64;
    let mut line = Vec::new();
    out.write_all(b"COPY public.orders (id, customer, note, total) FROM stdin;\n")?;
    while written < bytes {
        line.clear();
        write!(line, "{row}\t{:016x}\t", random.next_u64())?;
        for _ in 0..random.between(4, 16) {
            line.extend_from_slice(words.pick(&mut random).as_bytes());
            line.push(b' ');
        }
        let total = random.below(1_000_000);
        let touched = version > 0 && row % 4000 == u64::from(version) % 4000;
        writeln!(line, "\t{}", if touched { total + u64::from(version) } else { total })?;
        out.write_all(&line)?;
        written += line.len() as u64;
        row += 1;
    }
    for extra in 0..version {
        writeln!(out, "{}\tadded later\t{extra}", row + u64::from(extra))?;
    }
    out.write_all(b"\\.\n")?;
    out.flush()
}
