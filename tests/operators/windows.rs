//! Tumbling, hopping and sliding windows, and sessions.

use std::collections::BTreeMap;

use lambdaflow::log::Tick;
use lambdaflow::operators::{Count, Events, Flow, Views, Window};
use lambdaflow::testing::Law;

use crate::harness::{Fact, Kind, Multiset, add, answer, by_key, check, check_log, fact, multiset, rows, rows_of};

const WIDTH: u64 = 10;
const STEP: u64 = 3;
const GAP: u64 = 4;

/// When a fact happened: in the order in which facts come, anything but ascending.
fn at(user: u64, amount: i64) -> u64 {
    user * 7 + (amount + 2) as u64
}

fn timed<'s>(facts: Events<'s, Fact>) -> Flow<'s, (String, (u64, i64))> {
    rows(facts).map(|(group, (user, amount))| (group, (at(user, amount), amount)))
}

fn timed_of(facts: &[Fact]) -> Multiset<(String, (u64, i64))> {
    multiset(rows_of(facts).into_iter().map(|((group, (user, amount)), n)| ((group, (at(user, amount), amount)), n)))
}

/// The sum of the values, times the row's own: so the function must get the right row, too.
fn weigh(own: &(u64, i64), rows: &[(&(u64, i64), isize)]) -> (i64, u64) {
    (own.1 * rows.iter().map(|((_, val), n)| val * *n as i64).sum::<i64>(), rows.len() as u64)
}

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let by_events = facts.clone().aggregate::<(String, Window), Count>(|fact, groups| {
        Window::hopping(*fact.user, 3, 2).for_each(|window| groups.add((fact.group, window), Count::one()));
    });
    views.publish("of_events", by_events);
    let timed = timed(facts);
    views.publish("tumbling", timed.clone().tumbling(WIDTH));
    views.publish("hopping", timed.clone().hopping(WIDTH, STEP));
    views.publish("sliding", timed.clone().sliding(WIDTH, |_, own, rows| weigh(own, rows)));
    let from_the_end = timed.clone().map(|(group, (at, val))| (group, (u64::MAX - at, val)));
    views.publish("sliding_at_the_end_of_time", from_the_end.sliding(1, |_, own, rows| weigh(own, rows)));
    views.publish("sessions", timed.clone().sessions(GAP));
    views.publish("sizes_of_sessions", timed.sessions(GAP).aggregate(|_| Count::one()));
}

fn window(start: u64, width: u64) -> Window {
    Window { start, end: start + width }
}

/// The windows of a width that hold a time, found by trying all.
fn windows(at: u64, width: u64, step: u64) -> Vec<Window> {
    (0..=at).filter(|start| start % step == 0).map(|start| window(start, width)).filter(|window| at < window.end).collect()
}

fn windowed(facts: &[Fact], step: u64) -> Multiset<((String, Window), i64)> {
    let rows = timed_of(facts).into_iter();
    multiset(
        rows.flat_map(|((group, (at, val)), n)| {
            windows(at, WIDTH, step).into_iter().map(move |window| (((group.clone(), window), val), n))
        }),
    )
}

fn sliding(rows: Multiset<(String, (u64, i64))>, width: u64) -> Multiset<(String, (u64, i64, (i64, u64)))> {
    let mut all = Multiset::new();
    for ((group, own), n) in &rows {
        let within = rows.iter().filter(|((other, row), _)| other == group && row.0 <= own.0 && own.0 - row.0 < width);
        let result = weigh(own, &within.map(|((_, row), n)| (row, *n)).collect::<Vec<_>>());
        add(&mut all, (group.clone(), (own.0, own.1, result)), *n);
    }
    all
}

fn sessions(facts: &[Fact]) -> Multiset<((String, Window), i64)> {
    let present = timed_of(facts).into_iter().filter(|(_, n)| *n > 0).collect();
    let mut all = Multiset::new();
    for (group, rows) in by_key(&present) {
        for ((at, val), n) in &rows {
            // Walks from the row to the ends of its session.
            let (mut start, mut last) = (*at, *at);
            while let Some(((earlier, _), _)) = rows.iter().find(|((other, _), _)| *other < start && start - other <= GAP) {
                start = *earlier;
            }
            while let Some(((later, _), _)) = rows.iter().find(|((other, _), _)| *other > last && other - last <= GAP) {
                last = *later;
            }
            add(&mut all, ((group.clone(), Window { start, end: last + 1 }), *val), *n);
        }
    }
    all
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("of_events", &|facts| {
                let each = facts.iter().flat_map(|fact| windows(fact.user, 3, 2).into_iter().map(|window| (fact.group.clone(), window)));
                answer(multiset(each.map(|key| (key, 1))).into_iter().map(|row| (row, 1)).collect())
            }),
            ("tumbling", &|facts| answer(windowed(facts, WIDTH))),
            ("hopping", &|facts| answer(windowed(facts, STEP))),
            ("sliding", &|facts| answer(sliding(timed_of(facts), WIDTH))),
            ("sliding_at_the_end_of_time", &|facts| {
                let reversed = timed_of(facts).into_iter().map(|((group, (at, val)), n)| ((group, (u64::MAX - at, val)), n));
                answer(sliding(reversed.collect(), 1))
            }),
            ("sessions", &|facts| answer(sessions(facts))),
            ("sizes_of_sessions", &|facts| {
                let mut sizes = BTreeMap::new();
                sessions(facts).into_iter().for_each(|((key, _), n)| *sizes.entry(key).or_insert(0) += n);
                answer(sizes.into_iter().map(|row| (row, 1)).collect())
            }),
        ],
    );
}

#[test]
fn windows_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn windows_of_missing_rows_match_plain_rust() {
    matches_plain_rust(Kind::Unmatched);
}

/// Event times 0 and 8 are sessions of their own, until 4 arrives late and joins them; when it is retracted they part
/// again. The sums over windows that were answered long ago change with it.
#[test]
fn late_rows_correct_windows_and_sessions_of_the_past() {
    let log = [
        (Tick(0), fact("/a", 0, -2, 1)),
        (Tick(1), fact("/a", 1, -1, 1)),
        (Tick(3), fact("/a", 3, -2, 1)),
        (Tick(6), fact("/a", 0, 2, 1)),
        (Tick(7), fact("/a", 0, 2, -1)),
    ];
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        let timed = timed(facts);
        let session_of = timed.clone().sessions(GAP).map(|((_, window), val)| (val, (window.start, window.end)));
        views.publish("session_by_value", session_of);
        views.publish("recent", timed.sliding(WIDTH, |_, _, rows| rows.len() as u64).map(|(_, (at, _, recent))| (at, recent)));
    };
    // They happen at 0, 8, 21 and 4; see `at`.
    let apart = [(-2, (0, 1)), (-1, (8, 9)), (-2, (21, 22))];
    let joined = [(-2, (0, 9)), (-1, (0, 9)), (-2, (21, 22)), (2, (0, 9))];
    let once = |rows: &[(i64, (u64, u64))]| answer(multiset(rows.iter().map(|row| (*row, 1))));
    let recent = |rows: &[(u64, u64)]| answer(multiset(rows.iter().map(|row| (*row, 1))));
    check_log(
        &log,
        &Law { cuts: 18, seed: 1, ..Law::default() },
        dataflow,
        &[
            ("session_by_value", &|facts| once(if facts.len() == 4 { &joined } else { &apart[..facts.len().min(3)] })),
            ("recent", &|facts| match facts.len() {
                4 => recent(&[(0, 1), (4, 2), (8, 3), (21, 1)]),
                n => recent(&[(0, 1), (8, 2), (21, 1)][..n.min(3)]),
            }),
        ],
    );
}
