//! The policy by itself, and simulated years of it.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const MIB: u64 = 1 << 20;
const LIMITS: PlanLimits = PlanLimits { pack_bytes: 64 * MIB, free_bytes: u64::MAX };

fn pack(sequence: u32, frame_bytes: u64, live_bytes: u64) -> PackFacts {
    PackFacts {
        pack: PackId { epoch: 1, sequence },
        kind: PackKind::Data,
        frame_bytes,
        live_bytes,
        sealed_ns: 0,
        generation: 0,
        rewrite: false,
    }
}

fn sequences(victims: &[Victim]) -> Vec<u32> {
    victims.iter().map(|victim| victim.pack.sequence).collect()
}

#[test]
fn few_dead_bytes_are_left_alone() {
    let packs: Vec<PackFacts> = (0..10).map(|number| pack(number, 64 * MIB, 57 * MIB)).collect();
    assert_eq!(plan(&packs, LIMITS), []);
    assert_eq!(plan(&[], LIMITS), []);
}

#[test]
fn as_little_as_needed_is_copied_and_the_cheapest_first() {
    let mut packs: Vec<PackFacts> = (0..10).map(|number| pack(number, 64 * MIB, 64 * MIB)).collect();
    packs.push(pack(10, 64 * MIB, 4 * MIB));
    packs.push(pack(11, 64 * MIB, 20 * MIB));
    packs.push(pack(12, 64 * MIB, 30 * MIB));
    let victims = plan(&packs, LIMITS);
    assert_eq!(sequences(&victims), [10], "{victims:?}");
    assert_eq!((victims[0].reason, victims[0].live_bytes, victims[0].dead_bytes), (Reason::Dead, 4 * MIB, 60 * MIB));
}

#[test]
fn of_equal_packs_the_older_goes() {
    let mut packs: Vec<PackFacts> = (0..4).map(|number| pack(number, 64 * MIB, 55 * MIB)).collect();
    for (number, pack) in packs.iter_mut().enumerate() {
        pack.sealed_ns = 4 - number as u64;
    }
    assert_eq!(sequences(&plan(&packs, LIMITS)), [3]);
}

#[test]
fn many_small_packs_merge_few_do_not() {
    let mut packs: Vec<PackFacts> = (0..31).map(|number| pack(number, MIB, MIB)).collect();
    packs.push(pack(100, 64 * MIB, 64 * MIB));
    assert_eq!(plan(&packs, LIMITS), []);
    packs.push(pack(31, 2 * MIB, 2 * MIB));
    let victims = plan(&packs, LIMITS);
    assert_eq!(victims.len(), 32);
    assert!(victims.iter().all(|victim| victim.reason == Reason::Small));
    // With hardly any space left nothing is merged.
    assert_eq!(plan(&packs, PlanLimits { free_bytes: 63 * MIB, ..LIMITS }), []);
}

#[test]
fn with_little_space_only_what_fits_is_copied() {
    let packs = [pack(1, 64 * MIB, 30 * MIB), pack(2, 64 * MIB, 40 * MIB), pack(3, 64 * MIB, 10 * MIB)];
    let victims = plan(&packs, PlanLimits { free_bytes: 20 * MIB, ..LIMITS });
    assert_eq!(sequences(&victims), [3]);
    assert_eq!(plan(&packs, PlanLimits { free_bytes: 5 * MIB, ..LIMITS }), []);
}

#[test]
fn a_pack_marked_for_rewriting_goes_first_however_alive() {
    let packs = [pack(1, 64 * MIB, 64 * MIB), PackFacts { rewrite: true, ..pack(2, 64 * MIB, 64 * MIB) }];
    let victims = plan(&packs, LIMITS);
    assert_eq!((sequences(&victims), victims[0].reason), (vec![2], Reason::Rewrite));
}

/// Chunks of a computer that changes a little every day, its snapshots under a retention policy, and packs that only
/// know which of their frames are alive: what the real policy makes of a year.
struct Year {
    random: u64,
    day: u32,
    /// Version that each place of the tree has now.
    current: Vec<usize>,
    versions: Vec<Version>,
    /// Versions that were replaced and may still be in a snapshot.
    replaced: Vec<usize>,
    packs: BTreeMap<u32, SimulatedPack>,
    next_pack: u32,
    ingested: u64,
    copied: u64,
}

struct Version {
    born: u32,
    replaced: u32,
    pack: u32,
}

#[derive(Default)]
struct SimulatedPack {
    frames: Vec<usize>,
    live: u64,
    born: u32,
    generation: u8,
}

// A quarter of the usual chunks per pack and of the chunks of a small computer: their ratio is what counts.
const CHUNK_BYTES: u64 = 2 << 20;
const CHUNKS_PER_PACK: usize = 32;

/// Keep-daily, keep-weekly and keep-monthly.
#[derive(Clone, Copy)]
struct Keep {
    daily: u32,
    weekly: u32,
    monthly: u32,
}

impl Keep {
    /// Days whose snapshots are kept on `day`: the newest of each of the last days, weeks and months.
    fn days(self, day: u32) -> Vec<u32> {
        // Periods of `days` in `periods`: a month is a twelfth of a year.
        let newest = |periods: u32, days: u32, count: u32| {
            let last_of = move |period: u32| ((period + 1) * days).div_ceil(periods) - 1;
            (0..count)
                .filter_map(move |back| (day * periods / days).checked_sub(back))
                .map(move |period| last_of(period).min(day))
        };
        let mut days: Vec<u32> =
            newest(1, 1, self.daily).chain(newest(1, 7, self.weekly)).chain(newest(12, 365, self.monthly)).collect();
        days.sort_unstable();
        days.dedup();
        days
    }
}

impl Year {
    fn new(seed: u64, chunks: usize) -> Self {
        let mut year = Year {
            random: seed | 1,
            day: 0,
            current: Vec::new(),
            versions: Vec::new(),
            replaced: Vec::new(),
            packs: BTreeMap::new(),
            next_pack: 0,
            ingested: 0,
            copied: 0,
        };
        let first: Vec<usize> = (0..chunks).map(|_| year.version()).collect();
        year.current.clone_from(&first);
        year.write(&first, 0, year.day);
        year.ingested = 0;
        year
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.random >> 33) % below as u64) as usize
    }

    fn version(&mut self) -> usize {
        self.versions.push(Version { born: self.day, replaced: u32::MAX, pack: 0 });
        self.versions.len() - 1
    }

    /// Appends frames to fresh packs; the last one is sealed though not full, as after a while without uploads.
    fn write(&mut self, frames: &[usize], generation: u8, born: u32) {
        for part in frames.chunks(CHUNKS_PER_PACK) {
            let pack = self.next_pack;
            self.next_pack += 1;
            for &frame in part {
                self.versions[frame].pack = pack;
            }
            let simulated = SimulatedPack { frames: part.to_vec(), live: part.len() as u64, born, generation };
            self.packs.insert(pack, simulated);
        }
        self.ingested += if generation == 0 { frames.len() as u64 } else { 0 };
    }

    fn replace(&mut self, place: usize) -> usize {
        let old = self.current[place];
        self.versions[old].replaced = self.day;
        self.replaced.push(old);
        let new = self.version();
        self.current[place] = new;
        new
    }

    /// One day: changes, a backup, expiry, and then the worst dead share that was seen, in percent.
    fn live_through(&mut self, scattered_percent: usize, run_percent: usize, keep: Keep) -> f64 {
        self.day += 1;
        let chunks = self.current.len();
        let mut places: Vec<usize> = (0..chunks * scattered_percent / 100).map(|_| self.random(chunks)).collect();
        let start = self.random(chunks);
        places.extend((start..start + chunks * run_percent / 100).map(|place| place % chunks));
        places.sort_unstable();
        places.dedup();
        let new: Vec<usize> = places.into_iter().map(|place| self.replace(place)).collect();
        self.write(&new, 0, self.day);
        let kept = keep.days(self.day);
        let (versions, packs) = (&self.versions, &mut self.packs);
        self.replaced.retain(|&version| {
            let Version { born, replaced, pack } = versions[version];
            let alive = kept.iter().any(|day| (born..replaced).contains(day));
            if !alive && let Some(pack) = packs.get_mut(&pack) {
                pack.live -= 1;
            }
            alive
        });
        self.packs.retain(|_, pack| pack.live > 0);
        let worst = self.dead_percent();
        self.compact();
        worst
    }

    fn dead_percent(&self) -> f64 {
        let frames: u64 = self.packs.values().map(|pack| pack.frames.len() as u64).sum();
        let live: u64 = self.packs.values().map(|pack| pack.live).sum();
        (frames - live) as f64 * 100.0 / frames as f64
    }

    fn compact(&mut self) {
        loop {
            let facts: Vec<PackFacts> = self
                .packs
                .iter()
                .map(|(number, pack)| PackFacts {
                    frame_bytes: pack.frames.len() as u64 * CHUNK_BYTES,
                    live_bytes: pack.live * CHUNK_BYTES,
                    sealed_ns: u64::from(pack.born),
                    generation: pack.generation,
                    ..super::tests::pack(*number, 0, 0)
                })
                .collect();
            let victims = plan(&facts, LIMITS);
            if victims.is_empty() {
                return;
            }
            let replaced: BTreeSet<usize> = self.replaced.iter().copied().collect();
            let mut groups: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for victim in victims {
                let Some(pack) = self.packs.remove(&victim.pack.sequence) else { continue };
                let group = groups.entry(victim.generation.saturating_add(1)).or_default();
                let number = victim.pack.sequence;
                for frame in pack.frames {
                    let version = &self.versions[frame];
                    if version.pack == number && (version.replaced == u32::MAX || replaced.contains(&frame)) {
                        group.push(frame);
                    }
                }
            }
            for (generation, frames) in groups {
                self.copied += frames.len() as u64;
                self.write(&frames, generation, self.day);
            }
        }
    }
}

struct Figures {
    copied_per_ingested: f64,
    worst_dead_percent: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures { copied_per_ingested, worst_dead_percent } = self;
        write!(f, "{copied_per_ingested:.3} bytes copied per byte ingested, at most {worst_dead_percent:.1} % dead")
    }
}

fn simulate(seed: u64, days: u32, scattered_percent: usize, run_percent: usize, keep: Keep) -> Figures {
    let mut year = Year::new(seed, 5_000);
    let mut worst = 0.0_f64;
    for day in 1..days {
        let seen = year.live_through(scattered_percent, run_percent, keep);
        if day > 10 {
            worst = worst.max(seen);
        }
        if day == days / 2 {
            (year.ingested, year.copied) = (0, 0);
        }
    }
    Figures { copied_per_ingested: year.copied as f64 / year.ingested as f64, worst_dead_percent: worst }
}

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("HOLDFAST_SEED={seed}");
    seed
}

#[test]
fn a_year_of_a_usual_policy_copies_little_and_leaves_little_dead() {
    let seed = seed();
    let keep = Keep { daily: 7, weekly: 4, monthly: 12 };
    let figures = simulate(seed, 365, 1, 1, keep);
    println!("7/4/12, 2 % daily, half scattered, half one run: {figures}");
    assert!(figures.copied_per_ingested <= 0.25, "{figures}");
    assert!(figures.worst_dead_percent <= 20.0, "{figures}");
}

#[test]
fn harder_years_stay_below_the_same_share_of_dead_bytes() {
    let seed = seed();
    for (name, days, scattered, run, keep) in [
        ("7/4/12, two years", 730, 1, 1, Keep { daily: 7, weekly: 4, monthly: 12 }),
        ("keep-7, 2 % scattered", 365, 2, 0, Keep { daily: 7, weekly: 0, monthly: 0 }),
        ("keep-7, half scattered", 365, 1, 1, Keep { daily: 7, weekly: 0, monthly: 0 }),
    ] {
        let figures = simulate(seed, days, scattered, run, keep);
        println!("{name}: {figures}");
        assert!(figures.worst_dead_percent <= 20.0, "{name}: {figures}");
    }
}
