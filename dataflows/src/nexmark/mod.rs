//! Nexmark.

mod dataflow;
mod event;
pub mod generate;
mod monoids;
mod oracle;
pub mod reference;
pub mod views;

pub use dataflow::nexmark;
pub use event::{Auction, Bid, NexmarkEvent, Person};

use lambdaflow::prelude::Program;

use generate::{GeneratorOptions, events};

/// The program.
pub fn program() -> Program<NexmarkEvent> {
    Program::new("nexmark", nexmark)
        .summary("the benchmark Nexmark: queries 0 to 22 over persons, auctions and bids of an auction site")
        .samples(|seed| events(seed, &GeneratorOptions::default()).map(|event| serde_json::to_string(&event).expect("events are JSON")))
        .oracle(oracle::oracle())
}
