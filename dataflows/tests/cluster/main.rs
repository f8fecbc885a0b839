//! Several processes of the program `lambdaflow` as one cluster.
//!
//! | module | what is held to its word |
//! | --- | --- |
//! | `matrix` | answers are those of the plain reference, whatever the number of processes and workers |
//! | `bank` | every answer of every process is of one moment |
//! | `clients` | producers, tokens and keys do not depend on which process is asked |
//! | `handshake` | processes that do not fit together say so and end; strangers disturb nobody |
//! | `hung` | a process that hangs makes only those answers fail that need it |
//! | `ticks` | ticks that are longer than processes may be silent |
//! | `loss` | a process that is gone ends the others, and costs no event |
//! | `chaos` | kills and stops again and again, under load |
//! | `netns` | links that fail, lose and delay |

mod bank;
mod chaos;
mod clients;
mod cluster;
mod handshake;
#[path = "../e2e/harness.rs"]
#[allow(dead_code, reason = "the tests of one process use the rest")]
mod harness;
mod hung;
mod loss;
mod matrix;
mod netns;
#[path = "../../../tests/cluster_support/ports.rs"]
mod ports;
mod supervisor;
mod ticks;
#[path = "../../../tests/faults/tools.rs"]
#[allow(dead_code, reason = "the log's tests use the rest")]
mod tools;
