//! Nexmark: an auction site's persons, auctions and bids, and the queries that stream processors are measured with.
//!
//! The queries are those of the suite `nexmark/nexmark` for Flink SQL; each is a view of one dataflow and, in SQL, a file
//! in `sql/`. `lambdaflow oracle nexmark` compares the two; [`mod@reference`] computes the same in plain Rust and **must
//! not share logic with the dataflow**.
//!
//! How they are read here:
//!
//! - Answers are over all events so far, as a query over a table would be. Windows are of event time, and nothing is too
//!   late: a late bid corrects the answers of its windows, so there is no watermark.
//! - Processing time (q12, q13) would make an answer depend on when a log is replayed. It is read as event time.
//! - Times are milliseconds since 1970; a day, minute or window is shown as its first. Prices are cents; in euros they are
//!   thousandths of a cent, which `0.908 * price` is exactly.
//! - Where the suite leaves open which row comes first, the order is stated, so that there is one answer.
//!
//! | view | what it has | how |
//! | --- | --- | --- |
//! | `q0` | all bids | passed through |
//! | `q1` | bids with prices in euros | linear |
//! | `q2` | bids for auctions whose identifier is a multiple of 123 | linear |
//! | `q3` | auctions in category 10 of sellers in OR, ID or CA | join of two filtered inputs |
//! | `q4` | by category, the mean of the auctions' highest valid bids, rounded down | winners (join and `min`), then an aggregate |
//! | `q5` | by window of 10 s every 2 s, the auctions with the most bids, all that tie | aggregate, then two stages of reduce |
//! | `q6` | by seller, the mean of the winning bids of the ten auctions that were won last (by time of the winning bid, its price, the auction), rounded down. The suite's SQL has a mean for each auction instead, over eleven rows, and does not run in Flink | winners, top-k by seller, aggregate |
//! | `q7` | by window of 10 s, the bids with the window's highest price. The suite's SQL also takes bids at the very end of the window, which belong to the next | aggregate with a monoid of its own |
//! | `q8` | persons who opened auctions in the window of 10 s in which they registered | join of persons and distinct sellers |
//! | `q9` | auctions with their winning bids: the highest price, then the earliest, the least bidder, the least `extra` | winners, joined with the auctions |
//! | `q10` | bids by day and minute. The suite writes them to files, partitioned so; a view is the partitioned store here | linear |
//! | `q11` | bids of each bidder's sessions. A bid at most 10 s after the one before belongs to its session; a session ends 10 s after its last bid | reduce by bidder |
//! | `q12` | bids of each bidder, by window of 10 s | aggregate |
//! | `q13` | bids with a value from a bounded side input. It never changes, so the join is a look-up; its 10,000 rows are made up ([`views::side_input`]) | linear |
//! | `q14` | bids above 1,000,000 and below 50,000,000 in euros, with the time of day in UTC and the letters `c` in `extra` | linear |
//! | `q15` | by day, bids, distinct bidders and distinct auctions, by rank of the price | aggregates: one keeps the ranks in which each bidder and auction was seen |
//! | `q16` | the same by channel and day, with the last minute that had a bid | as q15, and a join |
//! | `q17` | by auction and day, bids by rank, least, greatest, mean (rounded down) and sum of the prices | aggregate |
//! | `q18` | by bidder and auction, the last bid. Of bids at the same time: the highest price, then the greatest channel, URL, `extra` | aggregate: the greatest |
//! | `q19` | by auction, the ten highest bids with their ranks. Of equal prices: the earliest, then the least bidder, channel, URL, `extra` | aggregate with a monoid of its own |
//! | `q20` | bids for auctions in category 10, with the auctions | join |
//! | `q21` | bids with the number of their channel: of four names, or what follows `channel_id=` in the URL. No regular expression: the parameter is a part between `&`s. Bids without are left out | linear |
//! | `q22` | bids with the parts 3, 4 and 5 of the URL between slashes, counted from 0 | linear |
//!
//! A bid is valid for its auction from the auction's opening to its expiry, both included. Auctions are won by the best bid
//! so far: events do not say when an auction is over.

mod dataflow;
mod event;
pub mod generate;
mod monoids;
mod oracle;
pub mod reference;
pub mod views;

pub use dataflow::{nexmark, nexmark_query};
pub use event::{Auction, Bid, NexmarkEvent, Person};

use lambdaflow::prelude::Program;

use generate::{GeneratorOptions, events};

/// The program: reads events as JSON, one a line.
pub fn program() -> Program<NexmarkEvent> {
    Program::new("nexmark", nexmark)
        .summary("the benchmark Nexmark: queries 0 to 22 over persons, auctions and bids of an auction site")
        .samples(|seed| events(seed, &GeneratorOptions::default()).map(|event| serde_json::to_string(&event).expect("events are JSON")))
        .oracle(oracle::oracle())
}
