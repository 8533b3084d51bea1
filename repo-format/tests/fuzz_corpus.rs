//! Every fuzz target over its corpus and over seeded random changes of it, on a stable compiler, in every test run.
//! The seed is printed; `HOLDFAST_SEED` repeats a run, `HOLDFAST_FUZZ_CHANGES` makes it longer, and
//! `HOLDFAST_WRITE_GOLDEN=1` adds missing corpus files.

#[cfg(test)]
mod samples;
mod targets;

#[cfg(test)]
mod runs {
    use super::{samples, targets::TARGETS};
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};
    use std::path::PathBuf;

    /// Changed inputs per corpus file, unless the environment asks for more.
    const CHANGES_PER_FILE: u32 = 10_000;

    fn corpus() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
    }

    fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(corpus().join(target))
            .unwrap_or_else(|error| panic!("corpus/{target}: {error}"))
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// SplitMix64: a whole run follows from one number.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit.max(1) as u64) as usize
        }
    }

    /// A few random changes of the kinds that find parser mistakes.
    fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let end = (at + 1 + random.below(8)).min(bytes.len());
            match random.below(9) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
                3 => bytes[at..end].fill([0, 0xff, 0x7f, 0x80, 1][random.below(5)]),
                4 => bytes.truncate(at),
                5 => bytes.splice(at..end, random.next().to_le_bytes()).for_each(drop),
                6 => bytes.drain(at..end).for_each(drop),
                7 => bytes.extend_from_within(at..end),
                _ => {
                    let start = random.below(other.len());
                    let piece = &other[start..(start + random.below(64)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
    }

    #[test]
    fn every_target_has_a_corpus_that_covers_its_samples() {
        let write = std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some();
        for target in TARGETS {
            let seeds = samples::seeds(target.name);
            assert!(!seeds.is_empty(), "{}", target.name);
            for (name, bytes) in seeds {
                let path = corpus().join(target.name).join(format!("{name}.bin"));
                if write && !path.exists() {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(&path, bytes).unwrap();
                }
                assert!(path.exists(), "{}: write it with HOLDFAST_WRITE_GOLDEN=1", path.display());
            }
        }
        let folders: BTreeSet<_> = std::fs::read_dir(corpus())
            .unwrap()
            .map(|folder| folder.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
    }

    #[test]
    fn every_target_has_a_libfuzzer_binary() {
        let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in TARGETS {
            let name = target.name;
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
            let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(source.contains(&format!("targets::{name}(")), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    }

    #[test]
    fn corpus_and_seeded_changes() {
        let seed = match std::env::var("HOLDFAST_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(0u64),
        };
        println!("HOLDFAST_SEED={seed}");
        let changes = match std::env::var("HOLDFAST_FUZZ_CHANGES") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => CHANGES_PER_FILE,
        };
        let mut random = Random(seed);
        for target in TARGETS {
            let files = files(target.name);
            for (path, original) in &files {
                (target.run)(original);
                for _ in 0..changes {
                    let mut bytes = original.clone();
                    let other = random.below(files.len());
                    change(&mut random, &mut bytes, &files[other].1);
                    if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                        let input = data_encoding::HEXLOWER.encode(&bytes);
                        panic!("HOLDFAST_SEED={seed}: {} fails on {}, changed to {input}", target.name, path.display());
                    }
                }
            }
        }
    }
}
