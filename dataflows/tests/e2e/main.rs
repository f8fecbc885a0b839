//! End to end: the program `lambdaflow` as people and clients meet it.
//!
//! | module | what is held to its word |
//! | --- | --- |
//! | `bank` | answers of joined views fit together, whenever they are read |
//! | `cli` | messages, exit codes, nothing lost when something is wrong |
//! | `faults` | full outputs, limits, clocks, signals |
//! | `generations` | a restart goes on from what is on disk, whatever happened to it |
//! | `http` | every endpoint of the interface |
//! | `kill` | `kill -9` of the running program, then all promises again |
//! | `load` | answers stay exact while a generator appends and generations change |
//! | `log` | producers, redaction, copies: what the commands do to a log |

mod bank;
mod cli;
mod faults;
mod generations;
mod harness;
mod http;
mod kill;
mod load;
mod log;
