//! End to end: the program `lambdaflow` as people and clients meet it.
//!
//! | module | what is held to its word |
//! | --- | --- |
//! | `bank` | answers of joined views fit together, whenever they are read |
//! | `cli` | messages, exit codes, nothing lost when something is wrong |
//! | `faults` | full outputs, limits, clocks, signals |
//! | `generation_faults` | kills before any system call, power cuts, full and moved directories of generations |
//! | `generations` | a restart goes on from what is on disk, whatever happened to it |
//! | `http` | every endpoint of the interface |
//! | `kill` | `kill -9` of the running program, then all promises again |
//! | `launch` | a cluster on one machine: processes that die, hang or are told to stop |
//! | `load` | answers stay exact while a generator appends and generations change |
//! | `log` | producers, redaction, copies: what the commands do to a log |
//! | `memory` | views that do not fit into memory |
//! | `scripts` | a cluster on several machines |

mod bank;
mod cli;
mod faults;
mod generation_faults;
mod generations;
mod harness;
mod http;
mod kill;
mod launch;
mod load;
mod log;
mod memory;
#[path = "../../../tests/cluster_support/ports.rs"]
mod ports;
mod scripts;
#[path = "../../../tests/faults/tools.rs"]
#[allow(dead_code, reason = "the log's tests use the rest")]
mod tools;
