//! Quarantine: what an author's code cannot take is in the view `errors`, in both layers alike, and nothing of it elsewhere.

use lambdaflow::log::Tick;
use lambdaflow::operators::{Count, Diff, ERRORS, Events, Keyed, QUARANTINED_TEXT_MAX, Quarantined, Sum, Views};
use lambdaflow::testing::{Law, Random, answers_after_cuts, check_layers_by_tick};

use crate::harness::{Fact, Kind, Multiset, add, answer, by_key, fact, facts, multiset, pairs, rows, rows_of, text};

/// Each event's code fails for some events, each in another way. Every kind of operator that runs an author's code on rows
/// is here, with code that fails for some rows.
fn of_events(facts: Events<'_, Fact>, views: &mut Views) {
    views.publish(
        "map",
        facts.clone().map(|fact| {
            assert!(*fact.user != 1, "user {}", fact.user);
            (text(fact.group), *fact.user)
        }),
    );
    views.publish(
        "try_map",
        facts.clone().try_map(|fact| match *fact.amount {
            -1 => Err("an amount below zero"),
            amount => Ok((text(fact.group), amount)),
        }),
    );
    // The second row fails after the first was made.
    views.publish(
        "flat_map",
        facts.clone().flat_map(|fact| {
            let (group, user) = (text(fact.group), *fact.user);
            (0..3).map(move |i| {
                assert!(user != 2 || i == 0, "row {i}");
                (group.clone(), i)
            })
        }),
    );
    views.publish(
        "explode",
        facts.clone().explode(|fact| {
            assert!(*fact.times < 4, "many times");
            Some(((text(fact.group), *fact.amount), *fact.times as isize))
        }),
    );
    // What was added before the failure must not count.
    views.publish(
        "aggregate",
        facts.clone().aggregate::<String, (Count, Sum)>(|fact, groups| {
            groups.add(fact.group, (Count::one(), Sum::of(*fact.amount)));
            assert!(*fact.user != 0 || *fact.amount != 0, "user and amount are zero");
            groups.add("all", (Count::one(), Sum::of(*fact.amount)));
        }),
    );
    views.publish(
        "try_aggregate",
        facts.clone().try_aggregate::<u64, Count, String>(|fact, groups| {
            groups.add(*fact.user, Count::one());
            if *fact.user == 2 { Err(format!("group {}", text(fact.group))) } else { Ok(()) }
        }),
    );
    facts.validate(|fact| if *fact.times == 1 { Ok(()) } else { Err(format!("{} times", fact.times)) });
}

/// A fact with its offset and tick.
type Placed<'a> = (usize, u64, &'a Fact);

fn quarantined(operator: &str, (offset, tick, fact): Placed<'_>) -> Quarantined {
    let row = serde_json::to_string(fact).expect("facts are representable");
    Quarantined { operator: operator.to_owned(), partition: Some(0), tick: Some(tick), offset: Some(offset as u64), row }
}

fn errors_of_events(placed: &[Placed<'_>]) -> Multiset<(String, Quarantined)> {
    let mut errors = Multiset::new();
    for at in placed {
        let fact = at.2;
        let mut fails = |holds: bool, message: String, operator| {
            if holds {
                add(&mut errors, (message, quarantined(operator, *at)), 1);
            }
        };
        fails(fact.user == 1, "user 1".into(), "map 1");
        fails(fact.amount == -1, "an amount below zero".into(), "try_map 2");
        fails(fact.user == 2, "row 1".into(), "flat_map 3");
        fails(fact.times >= 4, "many times".into(), "explode 4");
        fails(fact.user == 0 && fact.amount == 0, "user and amount are zero".into(), "aggregate 5");
        fails(fact.user == 2, format!("group {}", fact.group), "try_aggregate 6");
        fails(fact.times != 1, format!("{} times", fact.times), "validate 7");
    }
    errors
}

#[test]
fn events_that_code_cannot_take_are_quarantined_whole() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for seed in seed..seed.saturating_add(4) {
        let log = facts(Kind::Unmatched, seed);
        let (_, by_tick) = check_layers_by_tick(of_events, &log, &Law { seed, ..Law::default() });
        for (tick, answers) in by_tick.iter().enumerate() {
            let placed: Vec<Placed> = log.iter().enumerate().map(|(i, (tick, fact))| (i, tick.0, fact)).collect();
            let placed: Vec<Placed> = placed.into_iter().filter(|(_, at, _)| *at <= tick as u64).collect();
            let all = placed.iter().map(|(_, _, fact)| *fact);
            assert_eq!(answers[ERRORS], answer(errors_of_events(&placed)), "tick {tick}, seed {seed}");

            let taken = all.clone().filter(|fact| fact.user != 1);
            assert_eq!(answers["map"], answer(multiset(taken.map(|fact| ((fact.group.clone(), fact.user), 1)))));
            let taken = all.clone().filter(|fact| fact.amount != -1);
            assert_eq!(answers["try_map"], answer(multiset(taken.map(|fact| ((fact.group.clone(), fact.amount), 1)))));
            let taken = all.clone().filter(|fact| fact.user != 2);
            let each = taken.flat_map(|fact| (0..3).map(|i| ((fact.group.clone(), i), 1)));
            assert_eq!(answers["flat_map"], answer(multiset(each)));
            let taken = all.clone().filter(|fact| fact.times < 4);
            let each = taken.map(|fact| ((fact.group.clone(), fact.amount), fact.times as isize));
            assert_eq!(answers["explode"], answer(multiset(each)));
            let taken = all.clone().filter(|fact| fact.user != 2);
            let counts = multiset(taken.map(|fact| (fact.user, 1)));
            assert_eq!(answers["try_aggregate"], answer(multiset(counts.into_iter().map(|count| (count, 1)))));
            let taken = all.filter(|fact| fact.user != 0 || fact.amount != 0);
            let each = taken.flat_map(|fact| [(fact.group.as_str(), fact.amount), ("all", fact.amount)]);
            let mut sums = std::collections::BTreeMap::<&str, (i64, i64)>::new();
            for (group, amount) in each {
                let sum = sums.entry(group).or_default();
                *sum = (sum.0 + 1, sum.1 + amount);
            }
            assert_eq!(answers["aggregate"], answer(multiset(sums.into_iter().map(|sum| (sum, 1)))));
        }
    }
}

/// How many rows a group has, if that is an even number.
struct Even;

impl Keyed for Even {
    type Key = String;
    type Row = (u64, i64);
    type State = i64;
    type Out = i64;

    fn update(&mut self, _: &String, rows: &mut i64, changes: &[((u64, i64), Diff)]) {
        *rows += changes.iter().map(|(_, n)| *n as i64).sum::<i64>();
    }

    fn results(&mut self, _: &String, rows: &i64, out: &mut Vec<(i64, Diff)>) {
        out.push((*rows, 1));
        assert!(rows % 2 == 0, "an odd number");
    }
}

fn of_rows(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish(
        "map",
        rows.clone().map(|(group, (user, amount))| {
            assert!(user != 1, "user {user}");
            (group, amount)
        }),
    );
    views.publish(
        "filter",
        rows.clone().filter(|(_, (_, amount))| {
            assert!(*amount != 0, "no amount");
            true
        }),
    );
    // A group that grows past what the code takes is one error; when it shrinks again it is back.
    views.publish(
        "reduce",
        rows.clone().reduce_named("Few", |_, vals, out| {
            assert!(vals.len() < 3, "{} rows", vals.len());
            out.push((vals.len() as u64, 1));
        }),
    );
    views.publish(
        "threshold",
        rows.clone().threshold(|_, n| {
            assert!(n != 2, "twice");
            n.signum()
        }),
    );
    views.publish("keyed", rows.clone().keyed("Even", Even));
    let users = rows.clone().map(|(group, (user, _))| (group, user));
    views.publish(
        "join_map",
        rows.clone().join_map(users, |group, (user, amount), other| {
            assert!(user != other, "the same user");
            (group.clone(), *amount)
        }),
    );
    views.publish(
        "aggregate",
        rows.clone().aggregate::<Sum>(|(user, amount)| {
            assert!(*user != 0, "user zero");
            Sum::of(*amount)
        }),
    );
    // The second row fails after the first was made.
    views.publish(
        "flat_map",
        rows.flat_map(|(group, (user, _))| {
            (0..2).map(move |i| {
                assert!(user != 2 || i == 0, "row {i}");
                (group.clone(), i)
            })
        }),
    );
}

fn errors_of_rows(rows: &Multiset<(String, (u64, i64))>) -> Multiset<(String, Quarantined)> {
    let mut errors = Multiset::new();
    let mut fails = |message: String, operator: &str, row: String, n: isize| {
        let operator = operator.to_owned();
        add(&mut errors, (message, Quarantined { operator, partition: None, tick: None, offset: None, row }), n);
    };
    for (row @ (_, (user, amount)), n) in rows {
        if *user == 1 {
            fails("user 1".into(), "map 2", String::new(), *n);
        }
        if *amount == 0 {
            fails("no amount".into(), "filter 3", String::new(), *n);
        }
        if *n == 2 {
            fails("twice".into(), "threshold 5", format!("{row:?}"), 1);
        }
        if *user == 0 {
            fails("user zero".into(), "aggregate 9", format!("{row:?}"), *n);
        }
        if *user == 2 {
            fails("row 1".into(), "flat_map 10", String::new(), *n);
        }
    }
    for (group, vals) in by_key(rows) {
        if vals.len() >= 3 {
            fails(format!("{} rows", vals.len()), "Few 4", format!("{group:?}"), 1);
        }
        if vals.iter().map(|(_, n)| n).sum::<isize>() % 2 != 0 {
            fails("an odd number".into(), "Even 6", format!("{group:?}"), 1);
        }
    }
    let users = multiset(rows.iter().map(|((group, (user, _)), n)| ((group.clone(), *user), *n)));
    for ((group, (row, other)), n) in pairs(rows, &users) {
        if row.0 == other {
            fails("the same user".into(), "join_map 8", format!("{:?}", (group, row, other)), n);
        }
    }
    errors
}

/// An error belongs to its row: it comes and goes with it.
#[test]
fn errors_of_rows_are_retracted_with_them() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for seed in seed..seed.saturating_add(4) {
        let log = facts(Kind::Matched, seed);
        let (_, by_tick) = check_layers_by_tick(of_rows, &log, &Law { seed, ..Law::default() });
        for (tick, answers) in by_tick.iter().enumerate() {
            let so_far: Vec<Fact> = log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, fact)| fact.clone()).collect();
            let rows = rows_of(&so_far);
            assert_eq!(answers[ERRORS], answer(errors_of_rows(&rows)), "tick {tick}, seed {seed}");

            let kept = |keep: &dyn Fn(&(u64, i64)) -> bool| -> Multiset<_> {
                rows.iter().filter(|((_, val), _)| keep(val)).map(|(row, n)| (row.clone(), *n)).collect()
            };
            let each = kept(&|(user, _)| *user != 1).into_iter().map(|((group, (_, amount)), n)| ((group, amount), n));
            assert_eq!(answers["map"], answer(multiset(each)));
            assert_eq!(answers["filter"], answer(kept(&|(_, amount)| *amount != 0)));
            let both = kept(&|(user, _)| *user != 2).into_iter().flat_map(|((group, _), n)| (0..2).map(move |i| ((group.clone(), i), n)));
            assert_eq!(answers["flat_map"], answer(multiset(both)));
            let few = by_key(&rows).into_iter().filter(|(_, vals)| vals.len() < 3);
            assert_eq!(answers["reduce"], answer(multiset(few.map(|(group, vals)| ((group, vals.len()), 1)))));
            let sums = by_key(&rows).into_iter().map(|(group, vals)| (group, vals.iter().map(|(_, n)| n).sum::<isize>()));
            assert_eq!(answers["keyed"], answer(multiset(sums.filter(|(_, n)| n % 2 == 0 && *n != 0).map(|row| (row, 1)))));
            let signs = rows.iter().filter(|(_, n)| **n != 2).map(|(row, n)| (row.clone(), n.signum()));
            assert_eq!(answers["threshold"], answer(multiset(signs)));
            let users = multiset(rows.iter().map(|((group, (user, _)), n)| ((group.clone(), *user), *n)));
            let others = pairs(&rows, &users).into_iter().filter(|((_, (row, other)), _)| row.0 != *other);
            assert_eq!(answers["join_map"], answer(multiset(others.map(|((group, (row, _)), n)| ((group, row.1), n)))));
            let mut sums = std::collections::BTreeMap::<String, i64>::new();
            kept(&|(user, _)| *user != 0)
                .into_iter()
                .for_each(|((group, (_, amount)), n)| *sums.entry(group).or_default() += amount * n as i64);
            assert_eq!(answers["aggregate"], answer(multiset(sums.into_iter().map(|sum| (sum, 1)))));
        }
    }
}

#[test]
fn a_long_event_is_shown_in_part() {
    let dataflow = |facts: Events<'_, Fact>, _: &mut Views| facts.validate(|_| Err("too long"));
    let log = [(Tick(1), fact(&"é".repeat(QUARANTINED_TEXT_MAX), 1, 1, 1))];
    let shown = answers_after_cuts(dataflow, &log, &[Tick(1)], 1, 1)[ERRORS][0].value["row"].as_str().expect("text").to_owned();
    assert!((QUARANTINED_TEXT_MAX - 1..=QUARANTINED_TEXT_MAX + '…'.len_utf8()).contains(&shown.len()), "{}", shown.len());
    assert!(shown.ends_with("é…"), "{shown}");
}
