//! The dataflow's answers, byte for byte those of the plain reference, wherever the layers are cut.

use std::collections::BTreeMap;

use lambdaflow::log::Tick;
use lambdaflow::testing::{Answers, Law, Random, answers_after_cuts, check_layers};
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};
use lambdaflow_dataflows::web_analytics::{Request, parse, reference, web_analytics};
use serde_json::{Value, json};

const ACCESS_LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/access.log");
/// Ticks over which the requests of the access log are spread.
const TICKS: u64 = 200;

/// The real log as it would arrive: in the order of its lines, a few dozen at a tick. None where the log is absent.
fn access_log() -> Option<Vec<(Tick, Request)>> {
    let Ok(bytes) = std::fs::read(ACCESS_LOG) else {
        println!("SKIPPED: ../shared/data/access.log is absent");
        return None;
    };
    let requests: Vec<Request> = bytes.split(|byte| *byte == b'\n').filter_map(|line| parse::parse_any(line).ok()).collect();
    assert_eq!(requests.len(), 9_999, "one line of the log is malformed");
    Some(spread(requests, TICKS))
}

fn spread(requests: Vec<Request>, ticks: u64) -> Vec<(Tick, Request)> {
    let n = requests.len() as u64;
    requests.into_iter().enumerate().map(|(i, request)| (Tick(i as u64 * ticks / n), request)).collect()
}

/// The answers in the reference's form, without the sketch, which has bounds and not one right answer.
fn render(answers: &Answers) -> String {
    let rows = |view: &str| -> Vec<Value> {
        answers[view].iter().map(|row| json!({"key": row.key, "value": row.value, "count": row.count})).collect()
    };
    let names = ["bounce_rate", "errors", "hits", "referrers", "sessions", "status", "top_paths", "visitors"];
    let mut views = BTreeMap::from(names.map(|name| (name, rows(name))));
    views.insert("errors", reference::odd_requests(&views["errors"]));
    reference::render(&views)
}

#[track_caller]
fn assert_same(want: &str, got: &str, context: &str) {
    if let Some((want, got)) = want.lines().zip(got.lines()).find(|(want, got)| want != got) {
        panic!("{context}:\n want {want}\n got  {got}");
    }
    assert_eq!(want.len(), got.len(), "{context}: rows are missing or too many");
}

#[test]
fn the_access_log_is_answered_as_by_the_reference_wherever_it_is_cut() {
    let Some(events) = access_log() else { return };
    let want = reference::render(&reference::answers(events.iter().map(|(_, request)| request)));
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);

    let mut cuts: Vec<Vec<u64>> = vec![vec![], vec![0], vec![1], vec![TICKS - 1], vec![TICKS], vec![1, 2, TICKS]];
    for _ in 0..9 {
        let mut some: Vec<u64> = (0..1 + random.below(4)).map(|_| random.below(TICKS + 1)).collect();
        some.sort_unstable();
        cuts.push(some);
    }
    for (round, cuts) in cuts.into_iter().enumerate() {
        let workers = 1 + round % 3;
        let ticks: Vec<Tick> = cuts.iter().map(|cut| Tick(*cut)).collect();
        let answers = answers_after_cuts(web_analytics, &events, &ticks, workers, seed);
        assert_same(&want, &render(&answers), &format!("{workers} workers, cuts {cuts:?}, seed {seed}"));
    }
}

#[test]
fn the_sketch_counts_visitors_within_four_standard_errors() {
    let Some(events) = access_log() else { return };
    let answers = answers_after_cuts(web_analytics, &events, &[Tick(TICKS / 3)], 2, 1);
    let view = |name: &str| -> BTreeMap<String, u64> {
        answers[name].iter().map(|row| (row.key.to_string(), row.value.as_u64().expect("a number"))).collect()
    };
    let (exact, sketched) = (view("visitors"), view("visitors_hll"));
    assert_eq!(exact.len(), sketched.len());
    // Two values that meet in a register look like one: with 22 visitors in 4,096 registers that happens now and then.
    let bound = |exact: f64| (4.0 * 1.04 / 64.0 * exact).max(3.0);
    let mut total = (0.0, 0.0);
    for (path, exact) in exact {
        let (exact, sketched) = (exact as f64, sketched[&path] as f64);
        assert!((sketched - exact).abs() <= bound(exact), "{path}: {exact} visitors, sketched {sketched}");
        total = (total.0 + exact, total.1 + sketched);
    }
    // Paths share their visitors and so their collisions: the sum errs like one sketch, not like 1,498 independent ones.
    assert!((total.1 / total.0 - 1.0).abs() < 2.0 * 1.04 / 64.0, "the estimates are biased: {total:?}");
}

#[test]
fn the_law_holds_at_every_tick_for_generated_requests() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for round in 0..3 {
        let options = GeneratorOptions { paths: 12, visitors: 9, referrers: 4, events_per_second: 1, ..GeneratorOptions::default() };
        let events = spread(Generator::new(seed.wrapping_add(round), options).take(400).collect(), 30);
        let law = Law { seed: seed.wrapping_add(round), cuts: 3, ..Law::default() };
        let (checks, answers) = check_layers(web_analytics, &events, &law);
        let want = reference::render(&reference::answers(events.iter().map(|(_, request)| request)));
        assert_same(&want, &render(&answers), &format!("seed {}", law.seed));
        // Three cuts, four graphs on each, and at least the last tick in each.
        assert!(checks >= 12, "{checks} checks");
    }
}
