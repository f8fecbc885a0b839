//! Computes the answers of every query with plain loops and maps: the oracle for the dataflow.
//!
//! Nothing here is clever or fast, and nothing is shared with the dataflow but the shapes of the rows and the parameters.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use lambdaflow::operators::Count;
use lambdaflow::runs::AnswerRow;
use serde::Serialize;

use super::event::{Auction, Bid, NexmarkEvent, Person};
use super::views::*;

/// The rows of each view, ascending by key and value.
pub type Answers = BTreeMap<String, Vec<AnswerRow>>;

/// The answers of every view after those events; their order does not matter.
pub fn answers<'a>(events: impl IntoIterator<Item = &'a NexmarkEvent>) -> Answers {
    let mut site = Site::default();
    for event in events {
        match event {
            NexmarkEvent::Person(person) => site.persons.push(person),
            NexmarkEvent::Auction(auction) => site.auctions.push(auction),
            NexmarkEvent::Bid(bid) => site.bids.push(bid),
        }
    }
    let views = [
        (
            "q0",
            site.each_bid(|b| (b.auction, PlainBid { bidder: b.bidder, price: b.price, date_time: b.date_time, extra: b.extra.clone() })),
        ),
        ("q1", site.each_bid(q1)),
        ("q2", rows(site.bids.iter().filter(|b| b.auction % SELECTED_AUCTIONS == 0).map(|b| (b.auction, b.price)))),
        ("q3", site.q3()),
        ("q4", site.q4()),
        ("q5", site.q5()),
        ("q6", site.q6()),
        ("q7", site.q7()),
        ("q8", site.q8()),
        ("q9", site.q9()),
        ("q10", site.each_bid(|b| ((b.date_time / DAY * DAY, b.date_time / MINUTE * MINUTE), whole(b)))),
        ("q11", site.q11()),
        ("q12", site.q12()),
        ("q13", site.each_bid(q13)),
        ("q14", site.q14()),
        ("q15", site.q15()),
        ("q16", site.q16()),
        ("q17", site.q17()),
        ("q18", site.q18()),
        ("q19", site.q19()),
        ("q20", site.q20()),
        ("q21", rows(site.bids.iter().filter_map(|b| q21(b)))),
        ("q22", site.each_bid(q22)),
        ("errors", Vec::new()),
    ];
    views.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect()
}

/// Counts equal pairs and puts them in the order of their types.
fn rows<K: Ord + Serialize, V: Ord + Serialize>(pairs: impl IntoIterator<Item = (K, V)>) -> Vec<AnswerRow> {
    let mut counts: BTreeMap<(K, V), isize> = BTreeMap::new();
    for pair in pairs {
        *counts.entry(pair).or_default() += 1;
    }
    let json = |value: serde_json::Result<serde_json::Value>| value.expect("rows are representable as JSON");
    let counts = counts.into_iter();
    counts
        .map(|((key, value), count)| AnswerRow { key: json(serde_json::to_value(key)), value: json(serde_json::to_value(value)), count })
        .collect()
}

#[derive(Default)]
struct Site<'a> {
    persons: Vec<&'a Person>,
    auctions: Vec<&'a Auction>,
    bids: Vec<&'a Bid>,
}

fn whole(b: &Bid) -> WholeBid {
    WholeBid { auction: b.auction, bidder: b.bidder, price: b.price, date_time: b.date_time, extra: b.extra.clone() }
}

fn q1(b: &Bid) -> (u64, EuroBid) {
    (b.auction, EuroBid { bidder: b.bidder, price_millis: b.price * 908, date_time: b.date_time, extra: b.extra.clone() })
}

fn q13(b: &Bid) -> (u64, EnrichedBid) {
    let value = side_input(b.auction % SIDE_INPUT_ROWS);
    (b.auction, EnrichedBid { bidder: b.bidder, price: b.price, date_time: b.date_time, value })
}

fn q21(b: &Bid) -> Option<(u64, ChannelBid)> {
    let known = ["apple", "google", "facebook", "baidu"].iter().position(|name| b.channel.eq_ignore_ascii_case(name));
    let channel_id = match known {
        Some(position) => position.to_string(),
        None => {
            let marked = format!("&{}", b.url);
            let (_, behind) = marked.split_once("&channel_id=")?;
            behind.chars().take_while(|c| *c != '&').collect()
        }
    };
    Some((b.auction, ChannelBid { bidder: b.bidder, price: b.price, channel: b.channel.clone(), channel_id }))
}

fn q22(b: &Bid) -> (u64, UrlBid) {
    let parts: Vec<&str> = b.url.split('/').collect();
    let dir = |at: usize| parts.get(at).map(|part| part.to_string());
    (b.auction, UrlBid { bidder: b.bidder, price: b.price, channel: b.channel.clone(), dir1: dir(3), dir2: dir(4), dir3: dir(5) })
}

impl<'a> Site<'a> {
    fn each_bid<K: Ord + Serialize, V: Ord + Serialize>(&self, row: impl Fn(&Bid) -> (K, V)) -> Vec<AnswerRow> {
        rows(self.bids.iter().map(|bid| row(bid)))
    }

    /// Bids by some key.
    fn by<K: Ord>(&self, key: impl Fn(&'a Bid) -> K) -> BTreeMap<K, Vec<&'a Bid>> {
        let mut groups: BTreeMap<K, Vec<&Bid>> = BTreeMap::new();
        for bid in &self.bids {
            groups.entry(key(bid)).or_default().push(bid);
        }
        groups
    }

    /// Each auction that has valid bids, with the best of them.
    fn winning(&self) -> Vec<(&'a Auction, &'a Bid)> {
        let by_auction = self.by(|bid| bid.auction);
        let best = |auction: &'a Auction| {
            let offers = by_auction.get(&auction.id)?.iter().copied();
            let valid = offers.filter(|bid| (auction.date_time..=auction.expires).contains(&bid.date_time));
            Some((auction, valid.min_by_key(|bid| (Reverse(bid.price), bid.date_time, bid.bidder, &bid.extra))?))
        };
        self.auctions.iter().filter_map(|auction| best(auction)).collect()
    }

    fn q3(&self) -> Vec<AnswerRow> {
        let mut found = Vec::new();
        for auction in self.auctions.iter().filter(|auction| auction.category == CATEGORY) {
            for p in self.persons.iter().filter(|p| p.id == auction.seller && STATES.contains(&p.state.as_str())) {
                found.push((auction.id, LocalItem { name: p.name.clone(), city: p.city.clone(), state: p.state.clone() }));
            }
        }
        rows(found)
    }

    fn q4(&self) -> Vec<AnswerRow> {
        let mut prices: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (auction, bid) in self.winning() {
            prices.entry(auction.category).or_default().push(bid.price);
        }
        rows(prices.into_iter().map(|(category, prices)| (category, prices.iter().sum::<u64>() / prices.len() as u64)))
    }

    fn q5(&self) -> Vec<AnswerRow> {
        let mut windows: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for bid in &self.bids {
            let mut start = bid.date_time / HOP * HOP;
            loop {
                if bid.date_time < start + WINDOW {
                    *windows.entry(start).or_default().entry(bid.auction).or_default() += 1;
                } else {
                    break;
                }
                match start.checked_sub(HOP) {
                    Some(earlier) => start = earlier,
                    None => break,
                }
            }
        }
        rows(windows.into_iter().flat_map(|(start, counts)| {
            let most = counts.values().copied().max().unwrap_or(0);
            let hot: Vec<_> = counts.into_iter().filter(|(_, bids)| *bids == most).collect();
            hot.into_iter().map(move |(auction, bids)| (start, HotItem { bids, auction }))
        }))
    }

    fn q6(&self) -> Vec<AnswerRow> {
        let mut sales: BTreeMap<u64, BTreeSet<(u64, u64, u64)>> = BTreeMap::new();
        for (auction, bid) in self.winning() {
            sales.entry(auction.seller).or_default().insert((bid.date_time, bid.price, auction.id));
        }
        rows(sales.into_iter().map(|(seller, sales)| {
            let last: Vec<u64> = sales.iter().rev().take(LAST_AUCTIONS).map(|(_, price, _)| *price).collect();
            (seller, last.iter().sum::<u64>() / last.len() as u64)
        }))
    }

    fn q7(&self) -> Vec<AnswerRow> {
        let windows = self.by(|bid| bid.date_time / WINDOW * WINDOW).into_iter();
        rows(windows.flat_map(|(start, bids)| {
            let highest = bids.iter().map(|bid| bid.price).max();
            bids.into_iter().filter(move |bid| Some(bid.price) == highest).map(move |bid| (start, whole(bid)))
        }))
    }

    fn q8(&self) -> Vec<AnswerRow> {
        let selling: BTreeSet<(u64, u64)> = self.auctions.iter().map(|auction| (auction.seller, auction.date_time / WINDOW)).collect();
        let new = self.persons.iter().filter(|person| selling.contains(&(person.id, person.date_time / WINDOW)));
        rows(new.map(|person| ((person.id, person.date_time / WINDOW * WINDOW), person.name.clone())))
    }

    fn q9(&self) -> Vec<AnswerRow> {
        rows(self.winning().into_iter().map(|(a, b)| {
            let winning = WinningBid {
                item_name: a.item_name.clone(),
                description: a.description.clone(),
                initial_bid: a.initial_bid,
                reserve: a.reserve,
                date_time: a.date_time,
                expires: a.expires,
                seller: a.seller,
                category: a.category,
                extra: a.extra.clone(),
                bidder: b.bidder,
                price: b.price,
                bid_date_time: b.date_time,
                bid_extra: b.extra.clone(),
            };
            (a.id, winning)
        }))
    }

    fn q11(&self) -> Vec<AnswerRow> {
        let mut sessions = Vec::new();
        for (bidder, bids) in self.by(|bid| bid.bidder) {
            let mut times: Vec<u64> = bids.iter().map(|bid| bid.date_time).collect();
            times.sort_unstable();
            for run in times.chunk_by(|a, b| b - a <= WINDOW) {
                sessions.push((bidder, BidderSession { start: run[0], end: run[run.len() - 1] + WINDOW, bids: run.len() as u64 }));
            }
        }
        rows(sessions)
    }

    fn q12(&self) -> Vec<AnswerRow> {
        rows(self.by(|bid| (bid.bidder, bid.date_time / WINDOW * WINDOW)).into_iter().map(|(key, bids)| (key, bids.len())))
    }

    fn q14(&self) -> Vec<AnswerRow> {
        let mut found = Vec::new();
        for bid in &self.bids {
            let price_millis = bid.price * 908;
            if price_millis <= 1_000_000_000 || price_millis >= 50_000_000_000 {
                continue;
            }
            let hour = bid.date_time / 3_600_000 % 24;
            let bid_time_type = match hour {
                7 | 19 => "otherTime",
                _ if hour > 7 && hour < 19 => "dayTime",
                _ => "nightTime",
            };
            let row = CalculatedBid {
                bidder: bid.bidder,
                price_millis,
                bid_time_type: bid_time_type.to_owned(),
                date_time: bid.date_time,
                extra: bid.extra.clone(),
                c_counts: bid.extra.matches('c').count() as u64,
            };
            found.push((bid.auction, row));
        }
        rows(found)
    }

    fn q15(&self) -> Vec<AnswerRow> {
        rows(self.by(|bid| bid.date_time / DAY * DAY).into_iter().map(|(day, bids)| (day, statistics(&bids))))
    }

    fn q16(&self) -> Vec<AnswerRow> {
        rows(self.by(|bid| (&bid.channel, bid.date_time / DAY * DAY)).into_iter().map(|(key, bids)| {
            let minute = bids.iter().map(|bid| bid.date_time / MINUTE * MINUTE).max().unwrap_or(0);
            (key, ChannelDay { minute, statistics: statistics(&bids) })
        }))
    }

    fn q17(&self) -> Vec<AnswerRow> {
        rows(self.by(|bid| (bid.auction, bid.date_time / DAY * DAY)).into_iter().map(|(key, bids)| {
            let prices: Vec<u64> = bids.iter().map(|bid| bid.price).collect();
            let (total_bids, sum_price) = (prices.len() as u64, prices.iter().sum());
            let day = AuctionDay {
                total_bids,
                rank1_bids: prices.iter().filter(|price| **price < 10_000).count() as u64,
                rank2_bids: prices.iter().filter(|price| **price >= 10_000 && **price < 1_000_000).count() as u64,
                rank3_bids: prices.iter().filter(|price| **price >= 1_000_000).count() as u64,
                min_price: prices.iter().copied().min().unwrap_or(0),
                max_price: prices.iter().copied().max().unwrap_or(0),
                avg_price: sum_price / total_bids,
                sum_price,
            };
            (key, day)
        }))
    }

    fn q18(&self) -> Vec<AnswerRow> {
        let last = self.by(|bid| (bid.bidder, bid.auction)).into_iter().filter_map(|(key, bids)| {
            let b = bids.into_iter().max_by_key(|b| (b.date_time, b.price, &b.channel, &b.url, &b.extra))?;
            let (channel, url, extra) = (b.channel.clone(), b.url.clone(), b.extra.clone());
            Some((key, LastBid { date_time: b.date_time, price: b.price, channel, url, extra }))
        });
        rows(last)
    }

    fn q19(&self) -> Vec<AnswerRow> {
        rows(self.by(|bid| bid.auction).into_iter().flat_map(|(auction, mut bids)| {
            bids.sort_by_key(|b| (Reverse(b.price), b.date_time, b.bidder, &b.channel, &b.url, &b.extra));
            bids.truncate(TOP_BIDS);
            bids.into_iter().enumerate().map(move |(at, b)| {
                let (channel, url, extra) = (b.channel.clone(), b.url.clone(), b.extra.clone());
                let rank = at as u64 + 1;
                (auction, RankedBid { rank, bidder: b.bidder, price: b.price, channel, url, date_time: b.date_time, extra })
            })
        }))
    }

    fn q20(&self) -> Vec<AnswerRow> {
        let by_auction = self.by(|bid| bid.auction);
        let auctions = self.auctions.iter().filter(|auction| auction.category == CATEGORY);
        rows(auctions.flat_map(|a| {
            by_auction.get(&a.id).into_iter().flatten().map(|b| {
                let expanded = ExpandedBid {
                    bidder: b.bidder,
                    price: b.price,
                    channel: b.channel.clone(),
                    url: b.url.clone(),
                    bid_date_time: b.date_time,
                    bid_extra: b.extra.clone(),
                    item_name: a.item_name.clone(),
                    description: a.description.clone(),
                    initial_bid: a.initial_bid,
                    reserve: a.reserve,
                    auction_date_time: a.date_time,
                    expires: a.expires,
                    seller: a.seller,
                    auction_extra: a.extra.clone(),
                };
                (a.id, expanded)
            })
        }))
    }
}

fn statistics(bids: &[&Bid]) -> Statistics {
    let ranked = |rank: fn(u64) -> bool| -> [Count; 3] {
        let bids: Vec<&&Bid> = bids.iter().filter(|bid| rank(bid.price)).collect();
        let bidders: BTreeSet<u64> = bids.iter().map(|bid| bid.bidder).collect();
        let auctions: BTreeSet<u64> = bids.iter().map(|bid| bid.auction).collect();
        [bids.len(), bidders.len(), auctions.len()].map(|n| Count(n as isize))
    };
    let [total_bids, total_bidders, total_auctions] = ranked(|_| true);
    let [rank1_bids, rank1_bidders, rank1_auctions] = ranked(|price| price < 10_000);
    let [rank2_bids, rank2_bidders, rank2_auctions] = ranked(|price| (10_000..1_000_000).contains(&price));
    let [rank3_bids, rank3_bidders, rank3_auctions] = ranked(|price| price >= 1_000_000);
    Statistics {
        total_bids,
        rank1_bids,
        rank2_bids,
        rank3_bids,
        total_bidders,
        rank1_bidders,
        rank2_bidders,
        rank3_bidders,
        total_auctions,
        rank1_auctions,
        rank2_auctions,
        rank3_auctions,
    }
}
