//! The events of the auction site, as the benchmark defines them.

use columnar::Columnar;
use lambdaflow::log::Event;
use serde::{Deserialize, Serialize};

/// Something that happened on the site. As JSON: `{"bid": {"auction": 1000, ..}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Columnar)]
#[serde(rename_all = "lowercase")]
pub enum NexmarkEvent {
    /// Somebody registered.
    Person(Person),
    /// An auction was opened.
    Auction(Auction),
    /// Somebody bid.
    Bid(Bid),
}

/// A person who registered. Identifiers are unique.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Columnar)]
pub struct Person {
    pub id: u64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: String,
    /// Two letters, upper case.
    pub state: String,
    /// Event time, as all times here: milliseconds since 1970.
    pub date_time: u64,
    /// Padding to the size that the benchmark asks for.
    pub extra: String,
}

/// An auction. Identifiers are unique.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Columnar)]
pub struct Auction {
    pub id: u64,
    pub item_name: String,
    pub description: String,
    /// Prices are in cents.
    pub initial_bid: u64,
    pub reserve: u64,
    pub date_time: u64,
    /// Time of the last valid bid.
    pub expires: u64,
    /// A person, who may register later.
    pub seller: u64,
    pub category: u64,
    pub extra: String,
}

/// A bid. Nothing identifies it: equal bids are two bids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Columnar)]
pub struct Bid {
    /// An auction, which may be opened later.
    pub auction: u64,
    /// A person, who may register later.
    pub bidder: u64,
    pub price: u64,
    /// Where it came from.
    pub channel: String,
    pub url: String,
    pub date_time: u64,
    pub extra: String,
}

impl Event for NexmarkEvent {
    const NAME: &'static str = "nexmark.Event";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &[
        "Person: id u64, name String, email_address String, credit_card String, city String, state String, date_time u64, extra String",
        "Auction: id u64, item_name String, description String, initial_bid u64, reserve u64, date_time u64, expires u64, seller u64, \
         category u64, extra String",
        "Bid: auction u64, bidder u64, price u64, channel String, url String, date_time u64, extra String",
    ];
}

impl NexmarkEvent {
    /// Event time.
    pub fn date_time(&self) -> u64 {
        match self {
            Self::Person(person) => person.date_time,
            Self::Auction(auction) => auction.date_time,
            Self::Bid(bid) => bid.date_time,
        }
    }
}
