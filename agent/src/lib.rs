//! The agent as a library: everything the `holdfast` command does. Modules in reading order:
#![deny(unsafe_code)]

pub mod error;
pub mod stop;
pub mod budget;
pub mod report;
pub mod config;
pub mod tls;
pub mod transport;
pub mod client;
pub mod fs;
pub mod nodes;
pub mod cache;
pub mod pipeline;
pub mod connection;
pub mod backup;
pub mod snapshots;
pub mod restore;
pub mod browse;
pub mod check;
pub mod cli;
