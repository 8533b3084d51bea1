//! Owns randomness of tests: one seed per run, printed, and independent streams drawn from it by label. The stream is
//! BLAKE3 in its extendable form, so the same seed gives the same trees in ten years.

use std::fmt;
use std::io::Write;

/// Environment variable that repeats a run.
pub const SEED_VARIABLE: &str = "HOLDFAST_SEED";

/// One number that decides every random choice of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u64);

impl Seed {
    /// From [`SEED_VARIABLE`], else from the process and its start; printed to standard error so that a failure can be
    /// repeated.
    pub fn announce() -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = Seed(given.unwrap_or_else(fresh));
        let _ = writeln!(std::io::stderr(), "{SEED_VARIABLE}={seed}");
        seed
    }

    /// An independent stream; equal labels give equal streams.
    pub fn stream(self, label: &str) -> Random {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast tests 2026 seeded stream");
        hasher.update(&self.0.to_le_bytes());
        hasher.update(label.as_bytes());
        Random { source: hasher.finalize_xof(), buffer: Box::new([0; BUFFER_BYTES]), used: BUFFER_BYTES }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A seed nobody chose: the hasher keys of the standard library differ in every process.
fn fresh() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

const BUFFER_BYTES: usize = 4096;

/// A stream of pseudo-random values.
pub struct Random {
    source: blake3::OutputReader,
    buffer: Box<[u8; BUFFER_BYTES]>,
    used: usize,
}

impl Random {
    /// The next eight bytes as a number.
    pub fn next_u64(&mut self) -> u64 {
        if self.used + 8 > BUFFER_BYTES {
            self.source.fill(&mut self.buffer[..]);
            self.used = 0;
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.buffer[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// A number below `limit`; zero when `limit` is zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(limit)) >> 64) as u64
    }

    /// A number in `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True `times` out of `of`.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    /// Fills `out` with incompressible bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.source.fill(out);
    }

    /// `len` incompressible bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.fill(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_labels_separate_them() {
        let mut first = Seed(7).stream("a");
        let mut again = Seed(7).stream("a");
        let mut other = Seed(7).stream("b");
        let values: Vec<u64> = (0..2000).map(|_| first.next_u64()).collect();
        assert_eq!(values, (0..2000).map(|_| again.next_u64()).collect::<Vec<_>>());
        assert_ne!(values, (0..2000).map(|_| other.next_u64()).collect::<Vec<_>>());
        // Frozen: a change here changes every seeded tree.
        assert_eq!(Seed(1).stream("frozen").next_u64(), FROZEN);
    }

    const FROZEN: u64 = 8_777_859_366_262_072_347;

    #[test]
    fn below_stays_below() {
        let mut random = Seed(1).stream("below");
        assert!((0..10_000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| (5..9).contains(&random.between(5, 9))));
    }
}
