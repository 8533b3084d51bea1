//! The real programs, as a person would run them: a server in a folder of its own on a free loopback port, users, and
//! agents with their own configuration and cache. Every process is ended by its id, also when a test fails.

mod agent;
mod day;
mod fleet;
mod hand;
mod keeper;
mod latency;
mod scene;
mod server;
mod wire;

pub use agent::{Login, Outcome};
pub use day::{Day, Person, Service, text};
pub use fleet::{Fleet, FleetPlan, Found, Member, Rounds, Work};
pub use hand::Hand;
pub use keeper::{Keeper, Reached, Settled};
pub use latency::Latencies;
pub use scene::{Scene, summary};
pub use server::{Server, User, administer};
pub use wire::{Answer, Wire, one_record};

use std::io;
use std::path::{Path, PathBuf};

/// Environment variable that names the folder of the binaries to test.
pub const BINARIES_VARIABLE: &str = "HOLDFAST_BIN_DIR";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `holdfastd`.
    pub server: PathBuf,
    /// `holdfast`.
    pub agent: PathBuf,
}

impl Binaries {
    /// Both in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Binaries { server: folder.join("holdfastd"), agent: folder.join("holdfast") }
    }

    /// Those that cargo built beside the running test, or in the folder that [`BINARIES_VARIABLE`] names.
    pub fn of_this_build() -> io::Result<Self> {
        let folder = match std::env::var_os(BINARIES_VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            // target/PROFILE/deps/TEST
            None => std::env::current_exe()?.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default(),
        };
        let found = Self::in_folder(&folder);
        match found.server.is_file() && found.agent.is_file() {
            true => Ok(found),
            false => Err(io::Error::other(format!(
                "holdfastd and holdfast are not in {}; run: cargo build -p server -p agent --bins",
                folder.display()
            ))),
        }
    }
}
