//! Reachability, components, degrees and triangles: as plain loops find them, wherever the layers are cut.

use std::collections::BTreeMap;

use lambdaflow::log::Tick;
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::{Answers, Law, Random, answers_after_cuts, check_layers_by_tick};
use lambdaflow_dataflows::graph::{Edge, Generator, GeneratorOptions, GraphChange, Root, graph, program, reference};
use serde_json::{Value, json};

fn values(rows: &[AnswerRow]) -> Vec<Value> {
    rows.iter().map(|row| json!({"key": row.key, "value": row.value, "count": row.count})).collect()
}

#[track_caller]
fn assert_same(want: &reference::Answers, got: &Answers, context: &str) {
    assert_eq!(want.len() + 1, got.len(), "the views; {context}");
    for (view, got) in got {
        let want = if view == "errors" { &Vec::new() } else { &want[view.as_str()] };
        assert_eq!(values(got), *want, "{view}; {context}");
    }
}

fn insert(from: u64, to: u64) -> GraphChange {
    GraphChange::InsertEdge(Edge { from, to })
}

fn delete(from: u64, to: u64) -> GraphChange {
    GraphChange::DeleteEdge(Edge { from, to })
}

/// Few nodes, so that edges are there twice, in both directions, and lead to themselves; some are deleted that were never
/// inserted, or not yet.
fn dense(seed: u64) -> Vec<(Tick, GraphChange)> {
    let mut random = Random::new(seed);
    let nodes = 4 + random.below(8);
    let mut tick = 0;
    let mut log: Vec<(Tick, GraphChange)> = Vec::new();
    for _ in 0..70 {
        tick += u64::from(random.below(3) == 0);
        let (from, to) = (random.below(nodes), random.below(nodes));
        let change = match random.below(20) {
            0 => GraphChange::InsertRoot(Root { node: from }),
            1 => GraphChange::DeleteRoot(Root { node: from }),
            2..5 => delete(from, to),
            // What was done is undone.
            5..10 if !log.is_empty() => match log[random.below(log.len() as u64) as usize].1 {
                GraphChange::InsertEdge(edge) => GraphChange::DeleteEdge(edge),
                GraphChange::DeleteEdge(edge) => GraphChange::InsertEdge(edge),
                GraphChange::InsertRoot(root) => GraphChange::DeleteRoot(root),
                GraphChange::DeleteRoot(root) => GraphChange::InsertRoot(root),
            },
            _ => insert(from, to),
        };
        log.push((Tick(tick), change));
    }
    log
}

#[test]
fn the_law_holds_and_every_tick_is_answered_as_by_the_reference() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seed..seed.saturating_add(3) {
        let log = dense(seed);
        let (checks, by_tick) = check_layers_by_tick(graph, &log, &Law { seed, ..Law::default() });
        assert!(checks > 10, "{checks} checks");
        for (tick, answers) in by_tick.iter().enumerate() {
            let want = reference::answers(log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, change)| change));
            assert_same(&want, answers, &format!("tick {tick}, seed {seed}"));
            want.iter().for_each(|(view, want)| *rows.entry(view).or_default() += want.len());
        }
    }
    assert!(rows.values().all(|rows| *rows > 0), "views without rows show nothing: {rows:?}");
}

#[test]
fn a_generated_graph_is_answered_as_by_the_reference_wherever_it_is_cut() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let options = GeneratorOptions { nodes: 300, edges: 330, roots: 3 };
    let log: Vec<(Tick, GraphChange)> =
        (0..).zip(Generator::new(seed, options).take(1_500)).map(|(i, change)| (Tick(i / 15), change)).collect();
    let want = reference::answers(log.iter().map(|(_, change)| change));
    let mut random = Random::new(seed);
    for workers in 1..=3 {
        let mut cuts: Vec<Tick> = (0..workers as u64).map(|_| Tick(random.below(101))).collect();
        cuts.sort_unstable();
        let got = answers_after_cuts(graph, &log, &cuts, workers, seed);
        assert_same(&want, &got, &format!("{workers} workers, cuts {cuts:?}, seed {seed}"));
    }
}

/// The one bridge between two halves comes, and goes after a generation was made with it.
#[test]
fn a_bridge_joins_and_its_deletion_parts() {
    let program = program();
    let lines = [
        r#"{"insert_root": {"node": 1}}"#,
        r#"{"insert_edge": {"from": 1, "to": 2}}"#,
        r#"{"insert_edge": {"from": 2, "to": 3}}"#,
        r#"{"insert_edge": {"from": 3, "to": 1}}"#,
        r#"{"insert_edge": {"from": 7, "to": 8}}"#,
    ];
    let change = |line: &str| program.parse(line.as_bytes()).expect("a change");
    let halves: Vec<(Tick, GraphChange)> = lines.into_iter().map(|line| (Tick(0), change(line))).collect();
    let view = |log: &[(Tick, GraphChange)], cut: u64, view: &str| -> Vec<(u64, Value)> {
        let answers = answers_after_cuts(graph, log, &[Tick(cut)], 2, 1);
        answers[view].iter().map(|row| (row.key.as_u64().expect("a node"), row.value.clone())).collect()
    };
    let apart = [(1, json!(3)), (7, json!(2))];
    assert_eq!(view(&halves, 1, "component_sizes"), apart);
    assert_eq!(view(&halves, 1, "triangles"), [1, 2, 3].map(|node| (node, json!(1))));
    assert_eq!(view(&halves, 1, "degrees"), [(1, [1, 1]), (2, [1, 1]), (3, [1, 1]), (7, [1, 0]), (8, [0, 1])].map(|(n, d)| (n, json!(d))));

    let mut joined = halves;
    joined.push((Tick(4), insert(2, 7)));
    for cut in [0, 1, 5] {
        assert_eq!(view(&joined, cut, "component_sizes"), [(1, json!(5))], "cut {cut}");
        assert_eq!(view(&joined, cut, "distances"), [(1, 0), (2, 1), (3, 2), (7, 2), (8, 3)].map(|(n, d)| (n, json!(d))), "cut {cut}");
    }
    let mut parted = joined;
    parted.push((Tick(8), delete(2, 7)));
    for cut in [0, 1, 5, 9] {
        assert_eq!(view(&parted, cut, "component_sizes"), apart, "cut {cut}");
        let reached: Vec<u64> = view(&parted, cut, "reachable").into_iter().map(|(node, _)| node).collect();
        assert_eq!(reached, [1, 2, 3], "cut {cut}");
    }
}

#[test]
fn generated_lines_are_read_back() {
    let program = program();
    let lines = (program.samples.as_ref().expect("samples"))(3);
    let changes: Vec<GraphChange> = lines.take(30_000).map(|line| program.parse(line.as_bytes()).expect("a change")).collect();
    assert!(changes.iter().eq(&Generator::new(3, GeneratorOptions::default()).take(30_000).collect::<Vec<_>>()));
    let deleted = changes.iter().filter(|change| matches!(change, GraphChange::DeleteEdge(_))).count();
    assert!(deleted > 5_000, "{deleted} edges of 20,000 changes after the first are deleted");
}
