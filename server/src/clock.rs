//! The server's clock, the same as its store's. Every stamped time comes from here.

pub use store::world::{Clock, SystemClock};

/// Names the file of [`MovableClock`].
#[cfg(feature = "testing")]
pub const CLOCK_FILE_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";

/// The system's clock plus the seconds (may be negative) that stand in a file; read at every call, so that a test
/// moves a running server's time by writing the file.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct MovableClock {
    file: std::path::PathBuf,
}

#[cfg(feature = "testing")]
impl MovableClock {
    /// Reading offsets from `file`; a missing file is an offset of zero.
    pub fn new(file: std::path::PathBuf) -> Self {
        MovableClock { file }
    }
}

#[cfg(feature = "testing")]
impl Clock for MovableClock {
    fn now_ns(&self) -> i64 {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let seconds: i64 = text.trim().parse().unwrap_or(0);
        SystemClock.now_ns().saturating_add(seconds.saturating_mul(1_000_000_000))
    }
}

/// A time for people: UTC, to the second.
pub fn utc(nanoseconds: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{nanoseconds} ns since 1970"),
    }
}

/// The clock this process runs on.
pub fn from_environment() -> std::sync::Arc<dyn Clock> {
    #[cfg(feature = "testing")]
    if let Some(file) = std::env::var_os(CLOCK_FILE_VARIABLE) {
        return std::sync::Arc::new(MovableClock::new(file.into()));
    }
    std::sync::Arc::new(SystemClock)
}
