//! The Holdfast server: puts store and control together and serves them. `app` holds the use cases, `http` is a skin
//! over it, `run` the composition root, `cli` the command line.
#![forbid(unsafe_code)]

pub mod app;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_folder;
pub mod http;
pub mod jobs;
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
pub mod telemetry;
mod testing_guard;
pub mod webhook_sender;
