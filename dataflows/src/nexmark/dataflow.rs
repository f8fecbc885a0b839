//! The dataflow: events of an auction site in, a view for each query out. What each computes is said in [the module](super).

use std::cell::OnceCell;

use columnar::Ref;
use lambdaflow::prelude::*;
use lambdaflow::runs::Data;

use super::event::{Auction, Bid, NexmarkEvent, NexmarkEventReference as Lent, Person};
use super::monoids::{Highest, Offer, Ranks, TopOffers};
use super::views::*;

/// Publishes `q0` to `q22`.
pub fn nexmark(events: Events<'_, NexmarkEvent>, views: &mut Views) {
    publish(&events, views, |_| true);
}

/// Publishes one of the queries alone, to measure it.
pub fn nexmark_query(view: &'static str) -> impl for<'s> Fn(Events<'s, NexmarkEvent>, &mut Views) {
    move |events, views| publish(&events, views, |name| name == view)
}

fn publish(events: &SiteEvents<'_>, views: &mut Views, wanted: impl Fn(&str) -> bool) {
    let shared = OnceCell::new();
    let winners = || shared.get_or_init(|| winners(events)).clone();
    macro_rules! view {
        ($name:literal, $query:expr, $key:expr, $value:expr) => {
            if wanted($name) {
                views.publish($name, $query).key(&$key).value($value);
            }
        };
    }
    view!("q0", q0(events), ["auction"], PlainBid::FIELDS);
    view!("q1", q1(events), ["auction"], EuroBid::FIELDS);
    view!("q2", q2(events), ["auction"], &["price"]);
    view!("q3", q3(events), ["auction"], LocalItem::FIELDS);
    view!("q4", q4(winners()), ["category"], &["avg_price"]);
    view!("q5", q5(events), ["window"], HotItem::FIELDS);
    view!("q6", q6(winners()), ["seller"], &["avg_price"]);
    view!("q7", q7(events), ["window"], WholeBid::FIELDS);
    view!("q8", q8(events), ["person", "window"], &["name"]);
    view!("q9", q9(events, winners()), ["auction"], WinningBid::FIELDS);
    view!("q10", q10(events), ["day", "minute"], WholeBid::FIELDS);
    view!("q11", q11(events), ["bidder"], BidderSession::FIELDS);
    view!("q12", q12(events), ["bidder", "window"], &["bids"]);
    view!("q13", q13(events), ["auction"], EnrichedBid::FIELDS);
    view!("q14", q14(events), ["auction"], CalculatedBid::FIELDS);
    view!("q15", q15(events), ["day"], &STATISTICS);
    view!("q16", q16(events), ["channel", "day"], ChannelDay::FIELDS);
    view!("q17", q17(events), ["auction", "day"], AuctionDay::FIELDS);
    view!("q18", q18(events), ["bidder", "auction"], LastBid::FIELDS);
    view!("q19", q19(events), ["auction"], RankedBid::FIELDS);
    view!("q20", q20(events), ["auction"], ExpandedBid::FIELDS);
    view!("q21", q21(events), ["auction"], ChannelBid::FIELDS);
    view!("q22", q22(events), ["auction"], UrlBid::FIELDS);
}

const STATISTICS: [&str; 12] = [
    "total_bids",
    "rank1_bids",
    "rank2_bids",
    "rank3_bids",
    "total_bidders",
    "rank1_bidders",
    "rank2_bidders",
    "rank3_bidders",
    "total_auctions",
    "rank1_auctions",
    "rank2_auctions",
    "rank3_auctions",
];

type SiteEvents<'s> = Events<'s, NexmarkEvent>;
type LentBid<'a> = Ref<'a, Bid>;

/// Rows of bids; none for bids that `row` leaves out.
fn bids<'s, D: Data>(events: &SiteEvents<'s>, mut row: impl FnMut(LentBid<'_>) -> Option<D> + 'static) -> Flow<'s, D> {
    events.clone().flat_map(move |event| if let Lent::Bid(bid) = event { row(bid) } else { None })
}

/// Rows of auctions.
fn auctions<'s, D: Data>(events: &SiteEvents<'s>, mut row: impl FnMut(Ref<'_, Auction>) -> Option<D> + 'static) -> Flow<'s, D> {
    events.clone().flat_map(move |event| if let Lent::Auction(auction) = event { row(auction) } else { None })
}

/// Rows of persons.
fn persons<'s, D: Data>(events: &SiteEvents<'s>, mut row: impl FnMut(Ref<'_, Person>) -> Option<D> + 'static) -> Flow<'s, D> {
    events.clone().flat_map(move |event| if let Lent::Person(person) = event { row(person) } else { None })
}

/// Sums over bids.
fn sum_bids<'s, K: Data, M: Monoid>(
    events: &SiteEvents<'s>,
    mut add: impl FnMut(LentBid<'_>, &mut Groups<K, M>) + 'static,
) -> Aggregated<'s, K, M> {
    events.clone().aggregate(move |event, groups| {
        if let Lent::Bid(bid) = event {
            add(bid, groups);
        }
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first millisecond of a day, minute or window.
fn start_of(time: u64, length: u64) -> u64 {
    time - time % length
}

fn q0<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, PlainBid)> {
    bids(events, |b| Some((*b.auction, PlainBid { bidder: *b.bidder, price: *b.price, date_time: *b.date_time, extra: text(b.extra) })))
}

fn q1<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, EuroBid)> {
    bids(events, |b| {
        let price_millis = b.price.saturating_mul(EURO_MILLIS);
        Some((*b.auction, EuroBid { bidder: *b.bidder, price_millis, date_time: *b.date_time, extra: text(b.extra) }))
    })
}

fn q2<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, u64)> {
    bids(events, |b| b.auction.is_multiple_of(SELECTED_AUCTIONS).then_some((*b.auction, *b.price)))
}

fn q3<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, LocalItem)> {
    let items = auctions(events, |a| (*a.category == CATEGORY).then_some((*a.seller, *a.id)));
    let locals = persons(events, |p| {
        let local = STATES.iter().any(|state| p.state == state.as_bytes());
        local.then(|| (*p.id, LocalItem { name: text(p.name), city: text(p.city), state: text(p.state) }))
    });
    items.join_map(locals, |_seller, auction, local| (*auction, local.clone()))
}

/// A winning bid, as far as q4, q6 and q9 have use for it.
type Winner = (WinningOffer, u64, u64);
/// Price counted down from the greatest, time, bidder, extra: the best offer is the least.
type WinningOffer = (u64, u64, u64, String);

/// The best of the valid bids for each auction, with the auction's seller and category.
fn winners<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, Winner)> {
    let terms = auctions(events, |a| Some((*a.id, (*a.date_time, *a.expires, *a.seller, *a.category))));
    let offers = bids(events, |b| Some((*b.auction, (u64::MAX - *b.price, *b.date_time, *b.bidder, text(b.extra)))));
    let valid = offers.join_map(terms, |auction, offer, (opens, expires, seller, category)| {
        (opens <= &offer.1 && &offer.1 <= expires).then(|| (*auction, (offer.clone(), *seller, *category)))
    });
    valid.flat_map(|offer| offer).min()
}

fn price_of(((below, ..), ..): &Winner) -> u64 {
    u64::MAX - below
}

/// The mean of prices by key, rounded down.
fn mean_price<'s, K: Data>(prices: Flow<'s, (K, u64)>) -> Flow<'s, (K, u64)> {
    let sums = prices.aggregate::<(Count, Sum)>(|price| (Count::one(), Sum::of(*price))).rows();
    sums.map(|(key, (Count(n), Sum(sum)))| (key, sum as u64 / n as u64))
}

fn q4<'s>(winners: Flow<'s, (u64, Winner)>) -> Flow<'s, (u64, u64)> {
    mean_price(winners.map(|(_auction, winner)| (winner.2, price_of(&winner))))
}

fn q5<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, HotItem)> {
    let counts = sum_bids::<(u64, u64), Count>(events, |b, groups| {
        for window in Window::hopping(*b.date_time, WINDOW, HOP) {
            groups.add((window.start, *b.auction), Count::one());
        }
    });
    fn hottest<K>(_: &K, items: &[(&HotItem, isize)], hot: &mut Vec<(HotItem, isize)>) {
        let most = items.last().map_or(0, |(item, _)| item.bids);
        hot.extend(items.iter().rev().take_while(|(item, _)| item.bids == most).map(|(item, n)| ((*item).clone(), *n)));
    }
    // In two stages, since a bid changes a count and a window has thousands of them.
    let items = counts.rows().map(|((window, auction), Count(n))| ((window, auction % 256), HotItem { bids: n as u64, auction }));
    let some = items.reduce_named("HotInPart", hottest).map(|((window, _), item)| (window, item));
    some.reduce_named("Hot", hottest)
}

fn q6<'s>(winners: Flow<'s, (u64, Winner)>) -> Flow<'s, (u64, u64)> {
    let sold = winners.map(|(auction, winner)| (winner.1, (winner.0.1, price_of(&winner), auction)));
    mean_price(sold.top_k_by_group(LAST_AUCTIONS, |sale| *sale).map(|(seller, (_time, price, _auction))| (seller, price)))
}

fn q7<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, WholeBid)> {
    let highest = sum_bids::<u64, Highest>(events, |b, groups| groups.add(start_of(*b.date_time, WINDOW), Highest(vec![whole(b)])));
    highest.rows().flat_map(|(window, Highest(bids))| bids.into_iter().map(move |bid| (window, bid)))
}

fn whole(b: LentBid<'_>) -> WholeBid {
    WholeBid { auction: *b.auction, bidder: *b.bidder, price: *b.price, date_time: *b.date_time, extra: text(b.extra) }
}

fn q8<'s>(events: &SiteEvents<'s>) -> Flow<'s, ((u64, u64), String)> {
    let new = persons(events, |p| Some(((*p.id, start_of(*p.date_time, WINDOW)), text(p.name))));
    let selling = events.clone().aggregate::<(u64, u64), Count>(|event, groups| {
        if let Lent::Auction(auction) = event {
            groups.add((*auction.seller, start_of(*auction.date_time, WINDOW)), Count::one());
        }
    });
    new.join_map(selling.keys().map(|seller| (seller, ())), |key, name, ()| (*key, name.clone()))
}

fn q9<'s>(events: &SiteEvents<'s>, winners: Flow<'s, (u64, Winner)>) -> Flow<'s, (u64, WinningBid)> {
    let sold = auctions(events, |a| {
        let terms = (*a.initial_bid, *a.reserve, *a.date_time, *a.expires);
        Some((*a.id, (text(a.item_name), text(a.description), text(a.extra), terms)))
    });
    winners.join_map(sold, |auction, winner, (item_name, description, extra, (initial_bid, reserve, date_time, expires))| {
        let ((_, bid_date_time, bidder, bid_extra), seller, category) = winner;
        let winning = WinningBid {
            item_name: item_name.clone(),
            description: description.clone(),
            initial_bid: *initial_bid,
            reserve: *reserve,
            date_time: *date_time,
            expires: *expires,
            seller: *seller,
            category: *category,
            extra: extra.clone(),
            bidder: *bidder,
            price: price_of(winner),
            bid_date_time: *bid_date_time,
            bid_extra: bid_extra.clone(),
        };
        (*auction, winning)
    })
}

fn q10<'s>(events: &SiteEvents<'s>) -> Flow<'s, ((u64, u64), WholeBid)> {
    bids(events, |b| Some(((start_of(*b.date_time, DAY), start_of(*b.date_time, MINUTE)), whole(b))))
}

fn q11<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, BidderSession)> {
    let times = bids(events, |b| Some((*b.bidder, *b.date_time)));
    times.reduce_named("Sessions", |_bidder, times, sessions| {
        let mut open: Option<BidderSession> = None;
        for (time, n) in times.iter().map(|(time, n)| (**time, *n as u64)) {
            match &mut open {
                Some(session) if time <= session.end => {
                    session.end = time + WINDOW;
                    session.bids += n;
                }
                _ => sessions.extend(open.replace(BidderSession { start: time, end: time + WINDOW, bids: n }).map(|session| (session, 1))),
            }
        }
        sessions.extend(open.map(|session| (session, 1)));
    })
}

fn q12<'s>(events: &SiteEvents<'s>) -> Aggregated<'s, (u64, u64), Count> {
    sum_bids(events, |b, groups| groups.add((*b.bidder, start_of(*b.date_time, WINDOW)), Count::one()))
}

fn q13<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, EnrichedBid)> {
    let side: Vec<String> = (0..SIDE_INPUT_ROWS).map(side_input).collect();
    bids(events, move |b| {
        let value = side.get((*b.auction % SIDE_INPUT_ROWS) as usize)?.clone();
        Some((*b.auction, EnrichedBid { bidder: *b.bidder, price: *b.price, date_time: *b.date_time, value }))
    })
}

fn q14<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, CalculatedBid)> {
    bids(events, |b| {
        let price_millis = b.price.saturating_mul(EURO_MILLIS);
        (CALCULATED_PRICES.0 < price_millis && price_millis < CALCULATED_PRICES.1).then(|| {
            let bid_time_type = match *b.date_time % DAY / 3_600_000 {
                8..=18 => "dayTime",
                0..=6 | 20.. => "nightTime",
                _ => "otherTime",
            };
            let c_counts = b.extra.iter().filter(|byte| **byte == b'c').count() as u64;
            let row = CalculatedBid {
                bidder: *b.bidder,
                price_millis,
                bid_time_type: bid_time_type.to_owned(),
                date_time: *b.date_time,
                extra: text(b.extra),
                c_counts,
            };
            (*b.auction, row)
        })
    })
}

/// What is counted in [`Statistics`].
const A_BID: u8 = 0;
const A_BIDDER: u8 = 1;
const AN_AUCTION: u8 = 2;

/// The statistics of bids, and of the bidders and auctions that were seen in some ranks; `seen` is by `(key, (what, id))`.
fn statistics<'s, K: Data>(bids: Flow<'s, (K, Ranks)>, seen: Aggregated<'s, (K, (u8, u64)), Ranks>) -> Aggregated<'s, K, Statistics> {
    let bids = bids.map(|(key, rank)| (key, (A_BID, rank)));
    let seen = seen.rows().map(|((key, (what, _id)), ranks)| (key, (what, ranks)));
    bids.concat(seen).aggregate(|(what, ranks)| {
        let ([rank1, rank2, rank3], none) = (ranks.each(), Statistics::default());
        match *what {
            A_BID => Statistics { total_bids: Count::one(), rank1_bids: rank1, rank2_bids: rank2, rank3_bids: rank3, ..none },
            A_BIDDER => {
                Statistics { total_bidders: Count::one(), rank1_bidders: rank1, rank2_bidders: rank2, rank3_bidders: rank3, ..none }
            }
            _ => Statistics { total_auctions: Count::one(), rank1_auctions: rank1, rank2_auctions: rank2, rank3_auctions: rank3, ..none },
        }
    })
}

fn q15<'s>(events: &SiteEvents<'s>) -> Aggregated<'s, u64, Statistics> {
    let ranked = bids(events, |b| Some((start_of(*b.date_time, DAY), Ranks::of(*b.price))));
    let seen = sum_bids::<(u64, (u8, u64)), Ranks>(events, |b, groups| {
        let (day, rank) = (start_of(*b.date_time, DAY), Ranks::of(*b.price));
        groups.add((day, (A_BIDDER, *b.bidder)), rank);
        groups.add((day, (AN_AUCTION, *b.auction)), rank);
    });
    statistics(ranked, seen)
}

fn q16<'s>(events: &SiteEvents<'s>) -> Flow<'s, ((String, u64), ChannelDay)> {
    let ranked = bids(events, |b| Some(((text(b.channel), start_of(*b.date_time, DAY)), Ranks::of(*b.price))));
    let seen = sum_bids::<((String, u64), (u8, u64)), Ranks>(events, |b, groups| {
        let (key, rank) = ((b.channel, start_of(*b.date_time, DAY)), Ranks::of(*b.price));
        groups.add((key, (A_BIDDER, *b.bidder)), rank);
        groups.add((key, (AN_AUCTION, *b.auction)), rank);
    });
    let minutes = sum_bids::<(String, u64), Max<u64>>(events, |b, groups| {
        groups.add((b.channel, start_of(*b.date_time, DAY)), Max::of(start_of(*b.date_time, MINUTE)));
    });
    let minutes = minutes.rows().flat_map(|(key, minute)| minute.into_inner().map(|minute| (key, minute)));
    let days = statistics(ranked, seen).rows();
    days.join_map(minutes, |key, statistics, minute| (key.clone(), ChannelDay { minute: *minute, statistics: statistics.clone() }))
}

fn q17<'s>(events: &SiteEvents<'s>) -> Flow<'s, ((u64, u64), AuctionDay)> {
    type Prices = (((Count, Count), Count), Min<u64>, Max<u64>, Sum);
    let days = sum_bids::<(u64, u64), Prices>(events, |b, groups| {
        let [rank1, rank2, rank3] = Ranks::of(*b.price).each();
        groups.add(
            (*b.auction, start_of(*b.date_time, DAY)),
            (((rank1, rank2), rank3), Min::of(*b.price), Max::of(*b.price), Sum::of(*b.price)),
        );
    });
    days.rows().flat_map(|(key, (((rank1, rank2), rank3), min, max, sum))| {
        let (total_bids, sum_price) = ((rank1.0 + rank2.0 + rank3.0) as u64, sum.0 as u64);
        let day = AuctionDay {
            total_bids,
            rank1_bids: rank1.0 as u64,
            rank2_bids: rank2.0 as u64,
            rank3_bids: rank3.0 as u64,
            min_price: min.into_inner()?,
            max_price: max.into_inner()?,
            avg_price: sum_price / total_bids,
            sum_price,
        };
        Some((key, day))
    })
}

fn q18<'s>(events: &SiteEvents<'s>) -> Aggregated<'s, (u64, u64), Max<LastBid>> {
    sum_bids(events, |b, groups| {
        let bid = LastBid { date_time: *b.date_time, price: *b.price, channel: text(b.channel), url: text(b.url), extra: text(b.extra) };
        groups.add((*b.bidder, *b.auction), Max::of(bid));
    })
}

fn q19<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, RankedBid)> {
    let top = sum_bids::<u64, TopOffers>(events, |b, groups| {
        let offer = Offer {
            below: u64::MAX - *b.price,
            date_time: *b.date_time,
            bidder: *b.bidder,
            channel: text(b.channel),
            url: text(b.url),
            extra: text(b.extra),
        };
        groups.add(*b.auction, TopOffers(vec![offer]));
    });
    top.rows().flat_map(|(auction, TopOffers(offers))| {
        (1..).zip(offers).map(move |(rank, offer)| {
            let Offer { below, date_time, bidder, channel, url, extra } = offer;
            (auction, RankedBid { rank, bidder, price: u64::MAX - below, channel, url, date_time, extra })
        })
    })
}

fn q20<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, ExpandedBid)> {
    let items = auctions(events, |a| {
        let numbers = (*a.initial_bid, *a.reserve, *a.date_time, (*a.expires, *a.seller));
        (*a.category == CATEGORY).then(|| (*a.id, (text(a.item_name), text(a.description), text(a.extra), numbers)))
    });
    let offers = bids(events, |b| {
        let texts = (text(b.channel), text(b.url), text(b.extra));
        Some((*b.auction, (*b.bidder, *b.price, *b.date_time, texts)))
    });
    offers.join_map(items, |auction, (bidder, price, bid_date_time, (channel, url, bid_extra)), item| {
        let (item_name, description, auction_extra, (initial_bid, reserve, auction_date_time, (expires, seller))) = item;
        let expanded = ExpandedBid {
            bidder: *bidder,
            price: *price,
            channel: channel.clone(),
            url: url.clone(),
            bid_date_time: *bid_date_time,
            bid_extra: bid_extra.clone(),
            item_name: item_name.clone(),
            description: description.clone(),
            initial_bid: *initial_bid,
            reserve: *reserve,
            auction_date_time: *auction_date_time,
            expires: *expires,
            seller: *seller,
            auction_extra: auction_extra.clone(),
        };
        (*auction, expanded)
    })
}

fn q21<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, ChannelBid)> {
    bids(events, |b| {
        let channel = text(b.channel);
        let channel_id = match &*channel.to_lowercase() {
            "apple" => "0".to_owned(),
            "google" => "1".to_owned(),
            "facebook" => "2".to_owned(),
            "baidu" => "3".to_owned(),
            _ => text(b.url).split('&').find_map(|part| part.strip_prefix("channel_id="))?.to_owned(),
        };
        Some((*b.auction, ChannelBid { bidder: *b.bidder, price: *b.price, channel, channel_id }))
    })
}

fn q22<'s>(events: &SiteEvents<'s>) -> Flow<'s, (u64, UrlBid)> {
    bids(events, |b| {
        let mut parts = b.url.split(|byte| *byte == b'/').skip(3).map(text);
        let (dir1, dir2, dir3) = (parts.next(), parts.next(), parts.next());
        Some((*b.auction, UrlBid { bidder: *b.bidder, price: *b.price, channel: text(b.channel), dir1, dir2, dir3 }))
    })
}
