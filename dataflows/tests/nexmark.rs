//! Nexmark's answers: those of the plain reference wherever the layers are cut, and those of SQL.

use std::collections::BTreeMap;

use lambdaflow::log::Tick;
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::{Answers, Law, OracleError, Random, Scale, answers_after_cuts, check_layers_by_tick};
use lambdaflow_dataflows::nexmark::generate::{GeneratorOptions, events};
use lambdaflow_dataflows::nexmark::{Auction, Bid, NexmarkEvent, Person, nexmark, program, reference};

/// Random logs of the law, and events in each.
const ROUNDS: u64 = 3;
const EVENTS: u64 = 130;

#[track_caller]
fn assert_same(want: &BTreeMap<String, Vec<AnswerRow>>, got: &Answers, context: &str) {
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>(), "the views; {context}");
    for (view, want) in want {
        for (want, got) in want.iter().zip(&got[view]) {
            assert_eq!(want, got, "view {view}; {context}");
        }
        assert_eq!(want.len(), got[view].len(), "rows of view {view}; {context}");
    }
}

/// Few persons, auctions, prices and times, so that bids tie, fall on the borders of windows and come too early or late.
fn dense(seed: u64) -> Vec<(Tick, NexmarkEvent)> {
    let mut random = Random::new(seed);
    // Borders of windows, minutes, hours and days, in 1970 too.
    let origins = [0, 20_000, 86_400_000 - 15_000, 7 * 3_600_000 - 5_000, 1_436_918_400_000 + 19 * 3_600_000 - 9_000];
    let origin = origins[random.below(origins.len() as u64) as usize];
    let (mut persons, mut auctions, mut tick) = (0, 0, 3);
    let mut log = Vec::new();
    for _ in 0..EVENTS {
        tick += random.below(4) / 3;
        // Whole seconds meet the borders; some are one millisecond beside them.
        let date_time = origin + random.below(36) * 1_000 + random.below(8) / 7;
        let event = match random.below(12) {
            0 => {
                persons += 1;
                let state = ["OR", "ID", "CA", "WA"][random.below(4) as usize].to_owned();
                NexmarkEvent::Person(Person {
                    id: persons,
                    name: format!("name {}", random.below(3)),
                    email_address: "a@b.c".to_owned(),
                    credit_card: "0000 0000 0000 0000".to_owned(),
                    city: "Bend".to_owned(),
                    state,
                    date_time,
                    extra: String::new(),
                })
            }
            1 | 2 => {
                auctions += 1;
                NexmarkEvent::Auction(Auction {
                    id: auctions * 41,
                    item_name: format!("item {auctions}"),
                    description: String::new(),
                    initial_bid: 5,
                    reserve: 7,
                    date_time,
                    expires: date_time + random.below(20) * 1_000,
                    seller: 1 + random.below(persons + 2),
                    category: 10 + random.below(2),
                    extra: "é".to_owned(),
                })
            }
            _ => NexmarkEvent::Bid(Bid {
                auction: (1 + random.below(auctions + 2).min(random.below(auctions + 2))) * 41,
                bidder: 1 + random.below(5),
                price: [1, 9_999, 10_000, 999_999, 1_000_000, 1_101_322, 55_066_080][random.below(7) as usize],
                channel: ["Apple", "gOOgle", "channel-1", "channel-2"][random.below(4) as usize].to_owned(),
                url: [
                    "https://www.nexmark.com/a/b/c/item.htm?query=1&channel_id=7",
                    "channel_id=&x",
                    "https://www.nexmark.com/a/item.htm?my_channel_id=1",
                    "",
                ][random.below(4) as usize]
                    .to_owned(),
                date_time,
                extra: ["", "c", "cocoa"][random.below(3) as usize].to_owned(),
            }),
        };
        log.push((Tick(tick), event));
    }
    log
}

#[test]
fn the_law_and_the_reference_hold_at_every_tick_of_dense_logs() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in (0..ROUNDS).map(|round| seed.wrapping_add(round)) {
        let log = dense(seed);
        let (checks, by_tick) = check_layers_by_tick(nexmark, &log, &Law { seed, ..Law::default() });
        // Three cuts, four graphs on each, and at least the last tick in each.
        assert!(checks >= 12, "{checks} checks");
        for (tick, got) in by_tick.iter().enumerate() {
            let so_far = log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, event)| event);
            assert_same(&reference::answers(so_far), got, &format!("tick {tick}, seed {seed}"));
        }
        let last = by_tick.into_iter().next_back().expect("a tick");
        last.into_iter().for_each(|(view, rows)| *seen.entry(view).or_default() += rows.len());
    }
    let empty: Vec<&String> = seen.iter().filter(|(_, n)| **n == 0).map(|(view, _)| view).collect();
    assert_eq!(empty, ["errors"], "a query without rows proves nothing");
}

#[test]
fn generated_events_are_answered_as_by_the_reference_wherever_they_are_cut() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);
    for workers in 1..=3 {
        let options =
            GeneratorOptions { events_per_second: 1 + random.below(200) as usize, out_of_order: 300, ..GeneratorOptions::default() };
        let log: Vec<_> = (0..3_000).zip(events(seed, &options)).map(|(at, event)| (Tick(at / 25), event)).collect();
        let want = reference::answers(log.iter().map(|(_, event)| event));
        let mut cuts: Vec<Tick> = (0..random.below(4)).map(|_| Tick(random.below(121))).collect();
        cuts.sort_unstable();
        let got = answers_after_cuts(nexmark, &log, &cuts, workers, seed);
        assert_same(&want, &got, &format!("{workers} workers, cuts {cuts:?}, seed {seed}"));
    }
}

#[test]
fn sql_gives_the_same_answers() {
    let program = program();
    let dir = tempfile::tempdir().expect("a directory");
    let scale = Scale { events: 20_000, seed: 1 + Random::seed_from_environment() % 1_000, workers: 2 };
    println!("LAMBDAFLOW_SEED={}", scale.seed - 1);
    match program.oracle.expect("it has one").check(&program.dataflow, scale, dir.path()) {
        Ok(report) => {
            assert!(report.agrees(), "{report:#?}");
            assert_eq!((report.views.len(), report.not_compared.len()), (24, 0), "23 queries and the errors");
            let empty: Vec<&str> = report.views.iter().filter(|view| view.rows == 0).map(|view| &*view.view).collect();
            assert_eq!(empty, ["errors"], "a query without rows proves nothing");
        }
        Err(OracleError::Missing(what)) => {
            println!("SKIPPED: {what} is missing");
            assert!(std::env::var("LAMBDAFLOW_REQUIRE_FAULT_TOOLS").as_deref() != Ok("1"), "{what} must be here");
        }
        Err(error) => panic!("{error}"),
    }
}
