//! The rows of the views: what the dataflow publishes and the reference recomputes.
//!
//! Only shapes and parameters are shared; how a row comes about is written twice on purpose. The order of the fields is the
//! order of the rows, of the JSON and of the columns in SQL. Times are milliseconds since 1970, prices cents; days, minutes
//! and windows are shown as their first millisecond.

use columnar::Columnar;
use lambdaflow::operators::Count;
use serde::{Deserialize, Serialize};

/// Length of a day.
pub const DAY: u64 = 86_400_000;
/// Length of a minute.
pub const MINUTE: u64 = 60_000;
/// Length of the windows of q5, q7, q8 and q12, and the gap that ends a session in q11.
pub const WINDOW: u64 = 10_000;
/// How often a window of q5 starts.
pub const HOP: u64 = 2_000;
/// Thousandths of a euro in a dollar.
pub const EURO_MILLIS: u64 = 908;
/// The prices that q14 keeps, in thousandths of a cent of a euro, both excluded.
pub const CALCULATED_PRICES: (u64, u64) = (1_000_000_000, 50_000_000_000);
/// The category that q3 and q20 ask for.
pub const CATEGORY: u64 = 10;
/// The states that q3 asks for.
pub const STATES: [&str; 3] = ["OR", "ID", "CA"];
/// q2 keeps every auction with a multiple of this as its identifier.
pub const SELECTED_AUCTIONS: u64 = 123;
/// Auctions that q6 takes the mean of.
pub const LAST_AUCTIONS: usize = 10;
/// Bids for each auction in q19.
pub const TOP_BIDS: usize = 10;
/// Rows of the side input of q13.
pub const SIDE_INPUT_ROWS: u64 = 10_000;
/// Prices below are of the first rank; prices below the second bound are of the second rank.
pub const RANK_BOUNDS: [u64; 2] = [10_000, 1_000_000];

/// Value of a row of q13's side input. The benchmark comes with a file; the contents do not matter to it.
pub fn side_input(key: u64) -> String {
    format!("side-{}", key * key % 9_973)
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
        #[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
        pub struct $name { $(pub $field: $type),+ }

        impl $name {
            /// The fields' names.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];
        }
    )+};
}

rows! {
    /// Row of q0, by auction.
    PlainBid { bidder: u64, price: u64, date_time: u64, extra: String }
    /// Row of q1, by auction. The price is in thousandths of a cent of a euro.
    EuroBid { bidder: u64, price_millis: u64, date_time: u64, extra: String }
    /// Row of q3, by auction.
    LocalItem { name: String, city: String, state: String }
    /// Row of q5, by the window's start.
    HotItem { bids: u64, auction: u64 }
    /// Row of q7, by the window's start, and of q10, by day and minute.
    WholeBid { auction: u64, bidder: u64, price: u64, date_time: u64, extra: String }
    /// Row of q9, by auction.
    WinningBid {
        item_name: String, description: String, initial_bid: u64, reserve: u64, date_time: u64, expires: u64, seller: u64,
        category: u64, extra: String, bidder: u64, price: u64, bid_date_time: u64, bid_extra: String,
    }
    /// Row of q11, by bidder. The session ends a gap after its last bid.
    BidderSession { start: u64, end: u64, bids: u64 }
    /// Row of q13, by auction.
    EnrichedBid { bidder: u64, price: u64, date_time: u64, value: String }
    /// Row of q14, by auction. The price is in thousandths of a cent of a euro.
    CalculatedBid { bidder: u64, price_millis: u64, bid_time_type: String, date_time: u64, extra: String, c_counts: u64 }
    /// Row of q17, by auction and day.
    AuctionDay {
        total_bids: u64, rank1_bids: u64, rank2_bids: u64, rank3_bids: u64, min_price: u64, max_price: u64, avg_price: u64,
        sum_price: u64,
    }
    /// Row of q18, by bidder and auction. Of bids at the same time the greatest row is the last.
    LastBid { date_time: u64, price: u64, channel: String, url: String, extra: String }
    /// Row of q19, by auction.
    RankedBid { rank: u64, bidder: u64, price: u64, channel: String, url: String, date_time: u64, extra: String }
    /// Row of q20, by auction.
    ExpandedBid {
        bidder: u64, price: u64, channel: String, url: String, bid_date_time: u64, bid_extra: String, item_name: String,
        description: String, initial_bid: u64, reserve: u64, auction_date_time: u64, expires: u64, seller: u64,
        auction_extra: String,
    }
    /// Row of q21, by auction.
    ChannelBid { bidder: u64, price: u64, channel: String, channel_id: String }
    /// Row of q22, by auction. Parts that the URL does not have are none.
    UrlBid { bidder: u64, price: u64, channel: String, dir1: Option<String>, dir2: Option<String>, dir3: Option<String> }
    /// Row of q16, by channel and day: the last minute with a bid, and the statistics.
    ChannelDay { minute: u64, statistics: Statistics }
}

lambdaflow::monoid_struct! {
    /// Bids, and distinct bidders and auctions with such bids, by rank of the price. Row of q15, by day.
    pub struct Statistics {
        pub total_bids: Count, pub rank1_bids: Count, pub rank2_bids: Count, pub rank3_bids: Count,
        pub total_bidders: Count, pub rank1_bidders: Count, pub rank2_bidders: Count, pub rank3_bidders: Count,
        pub total_auctions: Count, pub rank1_auctions: Count, pub rank2_auctions: Count, pub rank3_auctions: Count,
    }
}
