//! The Holdfast server: puts store and control together and serves them. `app` holds the use cases, `http` is a skin
//! over it, `run` the composition root, `cli` the command line.
#![forbid(unsafe_code)]

/// Where a test may end the process; nothing in a build for use.
#[cfg(feature = "testing")]
macro_rules! kill_point {
    ($point:ident) => {
        $crate::kill_points::reach($crate::kill_points::KillPoint::$point)
    };
}
#[cfg(not(feature = "testing"))]
macro_rules! kill_point {
    ($point:ident) => {};
}

pub mod app;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_folder;
pub mod http;
pub mod jobs;
#[cfg(feature = "testing")]
pub mod kill_points;
pub mod limits;
pub mod listener;
pub mod local;
pub mod mailer;
pub mod master_key;
pub mod metrics;
mod open_files;
pub mod recovery_sheet;
pub mod run;
pub mod sealing;
pub mod sftp;
pub mod telemetry;
mod testing_guard;
pub mod webhook_sender;
