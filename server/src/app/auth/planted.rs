//! A difference in time between foreign and absent things, planted by a test that must see it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Names the microseconds that the refusal of a foreign thing takes longer.
pub const FOREIGN_DELAY_VARIABLE: &str = "HOLDFAST_TEST_FOREIGN_DELAY_US";

static DELAY: LazyLock<Option<Duration>> = LazyLock::new(|| {
    let text = std::env::var(FOREIGN_DELAY_VARIABLE).ok()?;
    text.parse().ok().map(Duration::from_micros)
});

/// Waits, to the microsecond: a timer would be far too coarse.
pub(super) fn delay() {
    if let Some(delay) = *DELAY {
        let began = Instant::now();
        while began.elapsed() < delay {
            std::hint::spin_loop();
        }
    }
}
