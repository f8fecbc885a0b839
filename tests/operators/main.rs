//! Every operator keeps the layer law, and answers what plain Rust answers.
//!
//! Each module states dataflows of one operator family, and for each view a reference written in the obvious way: it
//! recomputes the view from all facts at hand. [`harness::check`] runs both over random logs: the law is checked for random
//! cuts, block sizes and 1, 2 and 3 workers, and the answers at every tick are compared with the reference.
//!
//! A failure prints `LAMBDAFLOW_SEED=n`; the same test with that variable set repeats it.
//! `scripts/mutants.sh` checks that these tests notice when an operator forgets its part of the law.

mod harness;

mod aggregate;
mod changes;
mod exchange;
mod graphs;
mod join;
mod keyed;
mod linear;
mod monoids;
mod opaque;
mod quarantine;
mod reduce;
mod relational;
mod running;
mod stacked;
mod temporal;
mod top_k;
mod windows;
