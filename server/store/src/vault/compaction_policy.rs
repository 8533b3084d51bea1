//! Which packs to compact: pure, from facts to a printable plan. Copying costs reads and writes, dead bytes cost space;
//! a pack left alone goes on dying and gets cheaper. So nothing is copied as long as the vault as a whole has few dead
//! bytes, and then as little as brings it back below that.
//!
//! Victims are taken by what they give for what they cost: dead bytes per live byte to be copied, and of equal ones the
//! older. Weighing by age as well, as log-structured file systems do (Rosenblum and Ousterhout, 1992, section 3.6),
//! copied more in every simulation of the tests: here a pack dies by expiry of whole snapshots, not by overwriting.
//! Survivors are copied oldest pack first, apart by how often they have been copied, so that what will die together
//! lies together.

use repo_format::id::PackId;
use repo_format::pack::PackKind;

/// More dead bytes than this share of all sealed frame bytes start compaction, percent; it stops below. The last daily
/// or weekly expiry comes on top for a moment: years on the engine (`tests/engine/year.rs`) stay below 20 %.
pub(crate) const DEAD_PERCENT_MAX: u64 = 11;
/// A sealed pack below this share of the usual size is small, percent.
const SMALL_PERCENT: u64 = 25;
/// Small packs of one kind that are merged at once; fewer are left alone.
const SMALL_PACKS_MIN: usize = 32;
/// Victims of one plan.
const VICTIMS_MAX: usize = 256;

/// What the policy knows of a sealed pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackFacts {
    pub(crate) pack: PackId,
    pub(crate) kind: PackKind,
    pub(crate) frame_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) sealed_ns: u64,
    pub(crate) generation: u8,
    /// To be copied whatever it costs.
    pub(crate) rewrite: bool,
}

impl PackFacts {
    const fn dead_bytes(&self) -> u64 {
        self.frame_bytes.saturating_sub(self.live_bytes)
    }
}

/// Why a pack is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// Something in it is damaged beside its frames.
    Rewrite,
    /// The vault has too many dead bytes, and this pack gives most for least.
    Dead,
    /// One of many small packs.
    Small,
}

/// A pack whose live frames are to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Victim {
    pub(crate) pack: PackId,
    pub(crate) kind: PackKind,
    pub(crate) generation: u8,
    /// To be copied.
    pub(crate) live_bytes: u64,
    /// To be won.
    pub(crate) dead_bytes: u64,
    pub(crate) reason: Reason,
}

/// What the plan may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlanLimits {
    /// Size at which packs are sealed.
    pub(crate) pack_bytes: u64,
    /// Space that copies may take until the first victim is gone: with less than a pack's worth, only victims that
    /// fit are taken, and none for being small.
    pub(crate) free_bytes: u64,
}

/// Packs to be copied, in this order.
pub(crate) fn plan(packs: &[PackFacts], limits: PlanLimits) -> Vec<Victim> {
    let mut victims: Vec<Victim> = Vec::new();
    let mut taken = vec![false; packs.len()];
    let fits = |pack: &PackFacts| pack.live_bytes <= limits.free_bytes;
    let mut take = |index: usize, reason: Reason, taken: &mut Vec<bool>| {
        let pack = &packs[index];
        taken[index] = true;
        victims.push(Victim {
            pack: pack.pack,
            kind: pack.kind,
            generation: pack.generation,
            live_bytes: pack.live_bytes,
            dead_bytes: pack.dead_bytes(),
            reason,
        });
    };
    for (index, pack) in packs.iter().enumerate() {
        if pack.rewrite && fits(pack) {
            take(index, Reason::Rewrite, &mut taken);
        }
    }

    let mut frame_bytes: u64 = packs.iter().map(|pack| pack.frame_bytes).sum();
    let mut dead_bytes: u64 = packs.iter().map(PackFacts::dead_bytes).sum();
    let mut candidates: Vec<usize> = (0..packs.len())
        .filter(|&index| !taken[index] && packs[index].dead_bytes() > 0 && fits(&packs[index]))
        .collect();
    candidates.sort_by(|&a, &b| {
        let (a, b) = (&packs[a], &packs[b]);
        worth(b).total_cmp(&worth(a)).then(a.sealed_ns.cmp(&b.sealed_ns))
    });
    let dead_from = taken.iter().filter(|taken| **taken).count();
    for index in candidates {
        if u128::from(dead_bytes) * 100 <= u128::from(frame_bytes) * u128::from(DEAD_PERCENT_MAX)
            || taken.iter().filter(|taken| **taken).count() - dead_from >= VICTIMS_MAX
        {
            break;
        }
        dead_bytes -= packs[index].dead_bytes();
        frame_bytes -= packs[index].dead_bytes();
        take(index, Reason::Dead, &mut taken);
    }

    if limits.free_bytes >= limits.pack_bytes {
        for kind in [PackKind::Data, PackKind::Node] {
            let small: Vec<usize> = (0..packs.len())
                .filter(|&index| !taken[index] && packs[index].kind == kind)
                .filter(|&index| packs[index].frame_bytes * 100 < limits.pack_bytes * SMALL_PERCENT)
                .collect();
            if small.len() >= SMALL_PACKS_MIN {
                for index in small.into_iter().take(VICTIMS_MAX) {
                    take(index, Reason::Small, &mut taken);
                }
            }
        }
    }
    // What is copied together lies together afterwards: by kind, by how often it was copied, by age.
    victims.sort_by_key(|victim| (victim.reason != Reason::Rewrite, victim.kind, victim.generation, victim.pack));
    victims
}

/// What a pack gives for what it costs.
fn worth(pack: &PackFacts) -> f64 {
    pack.dead_bytes() as f64 / (pack.live_bytes + 1) as f64
}

#[cfg(test)]
mod tests;
