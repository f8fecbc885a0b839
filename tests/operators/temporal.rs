//! Temporal filters: rows come and go as the clock advances, with and without events.

use lambdaflow::log::Tick;
use lambdaflow::operators::{Events, Views};
use lambdaflow::testing::{Law, Random, check_layers_by_tick};

use crate::harness::{Fact, Kind, Multiset, Row, answer, fact, facts, multiset, rows, rows_of};

/// First tick and end of a row; some end before they start.
fn ticks((_, (user, amount)): &Row) -> std::ops::Range<Tick> {
    let start = 5 * user;
    Tick(start)..Tick((start as i64 + 4 * amount).max(0) as u64)
}

/// Event time of a row.
fn at((_, (user, amount)): &Row) -> u64 {
    (3 * *user as i64 + amount + 2) as u64
}

const WIDTH: u64 = 7;

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("valid", rows.clone().valid_during(ticks));
    views.publish("recent", rows.clone().keep_last(WIDTH, at));
    views.publish("count_of_recent", rows.clone().keep_last(WIDTH, at).map(|(group, _)| group).count());
    views.publish("from_then_on", rows.valid_during(|row| ticks(row).start..Tick(u64::MAX)));
}

fn kept(rows: &Multiset<Row>, keep: impl Fn(&Row) -> bool) -> Multiset<Row> {
    rows.iter().filter(|(row, _)| keep(row)).map(|(row, n)| (row.clone(), *n)).collect()
}

fn matches_plain_rust(kind: Kind) {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for seed in seed..seed.saturating_add(4) {
        let mut log = facts(kind, seed);
        // The clock goes on while nothing comes.
        let last = log.last().expect("some facts").0;
        log.push((Tick(last.0 + 20), fact("/", 0, 0, 1)));
        let (_, by_tick) = check_layers_by_tick(dataflow, &log, &Law { seed, ..Law::default() });
        for (now, answers) in by_tick.iter().enumerate() {
            let now = Tick(now as u64);
            let so_far: Vec<Fact> = log.iter().filter(|(at, _)| *at <= now).map(|(_, fact)| fact.clone()).collect();
            let rows = rows_of(&so_far);
            let context = format!("tick {}, seed {seed}", now.0);
            assert_eq!(answers["valid"], answer(kept(&rows, |row| ticks(row).contains(&now))), "{context}");
            let recent = kept(&rows, |row| now.0 < at(row) + WIDTH);
            assert_eq!(answers["recent"], answer(recent.clone()), "{context}");
            let counts = multiset(recent.into_iter().map(|((group, _), n)| (group, n)));
            assert_eq!(answers["count_of_recent"], answer(multiset(counts.into_iter().map(|count| (count, 1)))), "{context}");
            assert_eq!(answers["from_then_on"], answer(kept(&rows, |row| ticks(row).start <= now)), "{context}");
        }
    }
}

#[test]
fn rows_come_and_go_with_the_clock() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn rows_that_are_missing_come_and_go_too() {
    matches_plain_rust(Kind::Unmatched);
}

/// Something is due at every tick, so whatever tick a batch ends at: left for the speed layer, it would come one tick late.
#[test]
fn a_batch_carries_out_what_is_due_at_its_last_tick() {
    const TICKS: u64 = 20;
    let log: Vec<_> = (0..=TICKS).map(|due| (Tick(if due == TICKS { due } else { due / 4 }), fact("/", due, 0, 1))).collect();
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        views.publish("now", rows(facts).valid_during(|(_, (due, _))| Tick(*due)..Tick(due + 1)));
    };
    let (_, by_tick) = check_layers_by_tick(dataflow, &log, &Law { cuts: 6, seed: 1, ..Law::default() });
    for (now, answers) in by_tick.iter().enumerate() {
        assert_eq!(answers["now"], answer(multiset([(("/", (now, 0)), 1)])), "tick {now}");
    }
}
