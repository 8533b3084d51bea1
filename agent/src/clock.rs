//! The time by which the service runs its plans.

#[cfg(all(feature = "testing", not(debug_assertions)))]
compile_error!(
    "the feature `testing` lets the clock be moved from outside; it must not be in a build without debug assertions"
);

/// Names a file with the seconds (may be negative) that are added to the system's clock.
#[cfg(feature = "testing")]
pub const CLOCK_FILE_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX).saturating_add(moved_ns())
}

/// Read at every call, so that a test moves a running agent's time by writing the file.
#[cfg(feature = "testing")]
fn moved_ns() -> i64 {
    let Some(file) = std::env::var_os(CLOCK_FILE_VARIABLE) else { return 0 };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let seconds: i64 = text.trim().parse().unwrap_or(0);
    seconds.saturating_mul(1_000_000_000)
}

#[cfg(not(feature = "testing"))]
const fn moved_ns() -> i64 {
    0
}
