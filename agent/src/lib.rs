//! The agent as a library: everything the `holdfast` command does. Modules in reading order:
#![deny(unsafe_code)]

pub mod around;
pub mod backup;
pub mod browse;
pub mod budget;
pub mod cache;
pub mod check;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod connection;
pub mod databases;
pub mod error;
pub mod forget;
pub mod fs;
pub mod nodes;
pub mod pipeline;
pub mod program;
pub mod report;
pub mod restore;
pub mod service;
pub mod snapshots;
pub mod stop;
pub mod tls;
pub mod transport;
