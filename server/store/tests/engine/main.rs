//! The engine through its public verbs, on real files and the real index.
//!
//! | module | what it shows |
//! |---|---|
//! | `bed` | the test bed: a store in a temporary folder, and small trees to upload |
//! | `audit` | counting everything again beside live traffic |
//! | `care` | scrub, damage marks and reports, healing |
//! | `collect` | garbage collection: what goes, what stays, and why |
//! | `copies` | what changes while compaction copies it |
//! | `upload` | the path from chunk to snapshot and back, and every refusal |
//! | `recovery` | restarts without closing, torn packs, lost index, damaged frames |
//! | `failure` | the index fails, is lost or damaged; the keyring is old or gone |
//! | `deletion` | a deleted vault leaves nothing, wherever its deletion was interrupted |
//! | `faults` | one failing file operation after another |
//! | `flips` | bit flips and truncations everywhere |
//! | `history` | random histories against a model |
//! | `races` | many uploads at once into one vault |
//! | `hooked` | a file system that lets a test act between two calls of the engine |
//! | `quota` | what limits refuse, reserve and give back |
//! | `rules` | the binding rules of durability, each broken by hand once: these tests noticed |
//! | `states` | what happens to a snapshot after its commit |
//! | `year` | what compaction costs, and leaves, day by day |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step of a test is its failure")]

mod audit;
mod bed;
mod care;
mod collect;
mod copies;
mod deletion;
mod failure;
mod faults;
mod flips;
mod history;
mod hooked;
mod quota;
mod races;
mod recovery;
mod rules;
mod states;
mod upload;
mod year;
