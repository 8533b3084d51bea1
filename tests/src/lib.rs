//! Whole-system tests through public doors, and what they and `bench` share: seeded trees, a comparer of two trees
//! that misses nothing the agent promises to keep, and a harness over the real binaries. Reading order: [`seed`],
//! [`directory`], the generators ([`oddity`], [`trees`], [`change`]), [`compare`], [`harness`].
//!
//! Every random choice comes from one printed seed; `HOLDFAST_SEED` repeats a run.
#![forbid(unsafe_code)]

pub mod change;
pub mod compare;
pub mod directory;
pub mod harness;
pub mod manifest;
pub mod mariadb;
pub mod oddity;
pub mod postgres;
pub mod process;
pub mod receivers;
pub mod seed;
pub mod shop;
pub mod trees;
