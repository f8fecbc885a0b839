//! The queries in SQL, over the events as tables.

use lambdaflow::log::Tick;
use lambdaflow::testing::Oracle;

use super::event::NexmarkEvent;
use super::generate::{GeneratorOptions, events};
use super::views::{SIDE_INPUT_ROWS, side_input};

/// Events that arrive at one tick: a tick is then 10 ms at the rate of the generator.
const EVENTS_PER_TICK: u64 = 100;
/// Events are shuffled in groups of this size, so that some are late.
const OUT_OF_ORDER: usize = 1_000;

macro_rules! queries {
    ($oracle:expr, $($view:literal)+) => {
        $oracle$(.query($view, include_str!(concat!("sql/", $view, ".sql"))))+
    };
}

/// Least span of event time. Midnight is in its middle.
const SECONDS_MIN: u64 = 100;

/// Tables `person`, `auction`, `bid` and `side_input`, and a query for each view.
pub(super) fn oracle() -> Oracle<NexmarkEvent> {
    let arriving = |seed, count| {
        let standard = GeneratorOptions::default();
        let options = GeneratorOptions {
            // Few events are spread, so that they fill several windows, too.
            events_per_second: standard.events_per_second.min((count / SECONDS_MIN) as usize),
            out_of_order: OUT_OF_ORDER,
            start: standard.start - SECONDS_MIN * 500,
        };
        (0..count).zip(events(seed, &options)).map(|(at, event)| (Tick(at / EVENTS_PER_TICK), event))
    };
    let oracle = Oracle::new(arriving, |events, tables| {
        let (number, text) = ("BIGINT", "VARCHAR");
        tables.table(
            "person",
            &[
                ("id", number),
                ("name", text),
                ("email_address", text),
                ("credit_card", text),
                ("city", text),
                ("state", text),
                ("date_time", number),
                ("extra", text),
            ],
        )?;
        tables.table(
            "auction",
            &[
                ("id", number),
                ("item_name", text),
                ("description", text),
                ("initial_bid", number),
                ("reserve", number),
                ("date_time", number),
                ("expires", number),
                ("seller", number),
                ("category", number),
                ("extra", text),
            ],
        )?;
        tables.table(
            "bid",
            &[
                ("auction", number),
                ("bidder", number),
                ("price", number),
                ("channel", text),
                ("url", text),
                ("date_time", number),
                ("extra", text),
            ],
        )?;
        tables.table("side_input", &[("key", number), ("value", text)])?;
        for key in 0..SIDE_INPUT_ROWS {
            tables.row("side_input", &[key.into(), (&side_input(key)).into()])?;
        }
        for (_, event) in events {
            match &event {
                NexmarkEvent::Person(p) => tables.row(
                    "person",
                    &[
                        p.id.into(),
                        (&p.name).into(),
                        (&p.email_address).into(),
                        (&p.credit_card).into(),
                        (&p.city).into(),
                        (&p.state).into(),
                        p.date_time.into(),
                        (&p.extra).into(),
                    ],
                ),
                NexmarkEvent::Auction(a) => tables.row(
                    "auction",
                    &[
                        a.id.into(),
                        (&a.item_name).into(),
                        (&a.description).into(),
                        a.initial_bid.into(),
                        a.reserve.into(),
                        a.date_time.into(),
                        a.expires.into(),
                        a.seller.into(),
                        a.category.into(),
                        (&a.extra).into(),
                    ],
                ),
                NexmarkEvent::Bid(b) => tables.row(
                    "bid",
                    &[
                        b.auction.into(),
                        b.bidder.into(),
                        b.price.into(),
                        (&b.channel).into(),
                        (&b.url).into(),
                        b.date_time.into(),
                        (&b.extra).into(),
                    ],
                ),
            }?;
        }
        Ok(())
    });
    queries!(oracle, "q0" "q1" "q2" "q3" "q4" "q5" "q6" "q7" "q8" "q9" "q10" "q11" "q12" "q13" "q14" "q15" "q16" "q17" "q18" "q19" "q20" "q21" "q22")
}
