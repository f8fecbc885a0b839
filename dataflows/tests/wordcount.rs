//! Counting words: as plain loops count them, wherever the layers are cut.

use lambdaflow::log::Tick;
use lambdaflow::testing::{Law, Random, check_layers_by_tick};
use lambdaflow_dataflows::wordcount::{Generator, Line, program, reference, wordcount};
use serde_json::{Value, json};

/// Words that begin alike, differ in case or in accents only, and signs around them.
const PARTS: [&str; 20] =
    ["a", "A", "ab", "be", "BE", "to", "To", "don't", "'", "é", "É", "ΟΔΟΣ", "οδος", "ß", "İ", "42", "\u{0}", "-", "日本", "_"];
const SIGNS: [&str; 6] = [" ", "  ", ".", ", ", "\t", ""];

fn log(seed: u64) -> Vec<(Tick, Line)> {
    let mut random = Random::new(seed);
    let mut tick = 0;
    let lines = 40 + random.below(60);
    (0..lines)
        .map(|_| {
            tick += u64::from(random.below(3) == 0);
            let parts = random.below(9);
            let pick = |of: &[&'static str], random: &mut Random| of[random.below(of.len() as u64) as usize];
            let text = (0..parts).flat_map(|_| [pick(&PARTS, &mut random), pick(&SIGNS, &mut random)]).collect();
            (Tick(tick), Line { text })
        })
        .collect()
}

fn check(log: &[(Tick, Line)], law: &Law) {
    let (checks, by_tick) = check_layers_by_tick(wordcount, log, law);
    assert!(checks > 0);
    for (tick, answers) in by_tick.iter().enumerate() {
        let want = reference::answers(log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, line)| line));
        for (view, got) in answers {
            let got: Vec<Value> = got.iter().map(|row| json!({"key": row.key, "value": row.value, "count": row.count})).collect();
            let want = if view == "errors" { &Vec::new() } else { &want[view.as_str()] };
            assert_eq!(got, *want, "{view} at tick {tick}, seed {}", law.seed);
        }
    }
}

#[test]
fn the_law_holds_and_every_tick_is_answered_as_by_the_reference() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for seed in seed..seed.saturating_add(6) {
        check(&log(seed), &Law { seed, ..Law::default() });
    }
}

#[test]
fn generated_text_is_counted_as_by_the_reference() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let lines = Generator::new(seed).take(400).map(|text| Line { text });
    let log: Vec<(Tick, Line)> = (0..).zip(lines).map(|(i, line)| (Tick(i / 50), line)).collect();
    check(&log, &Law { seed, ..Law::default() });
}

#[test]
fn a_known_text_has_known_answers() {
    let program = program();
    let lines = [&b"To be, or not to be:"[..], b"{\"text\": \"that is the question.\"}", b""];
    let log: Vec<(Tick, Line)> = (0..).zip(lines).map(|(tick, line)| (Tick(tick), program.parse(line).expect("a line"))).collect();
    let law = Law { seed: 1, ..Law::default() };
    check(&log, &law);
    let (_, by_tick) = check_layers_by_tick(wordcount, &log, &law);
    let view = |name: &str| -> Vec<(Value, Value)> {
        let last = by_tick.last().expect("ticks").iter().find(|(view, _)| *view == name).expect("a view");
        last.1.iter().map(|row| (row.key.clone(), row.value.clone())).collect()
    };
    let counts = [("be", 2), ("is", 1), ("not", 1), ("or", 1), ("question", 1), ("that", 1), ("the", 1), ("to", 2)];
    assert_eq!(view("words"), counts.map(|(word, n)| (json!(word), json!(n))));
    assert_eq!(view("lengths"), [(2, [4, 6]), (3, [2, 2]), (4, [1, 1]), (8, [1, 1])].map(|(n, counts)| (json!(n), json!(counts))));
    assert!(program.parse(b"\xff").is_err(), "text is UTF-8");
}
