//! Handovers of a running server under appends and reads, with as little history as can be asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Log, LogOptions, SystemClock, Tick};
use lambdaflow::operators::{Count, Events, Views};
use lambdaflow::runs::Query;
use lambdaflow::runtime::service::Format;
use lambdaflow::runtime::{OnError, Program, Server, ServerOptions};
use lambdaflow::serving::Read;
use lambdaflow::storage::RealDisk;

use super::Number;

fn numbers(events: Events<'_, Number>, views: &mut Views) {
    views.publish("all", events.clone().aggregate::<u64, Count>(|_, groups| groups.add(0u64, Count::one())));
    let counts = events.map(|number| *number.n % 100).count();
    views.publish("counts", counts.clone());
    views.publish("best", counts.map(|(n, times)| (times as u64, n)).top_k(3, |row| *row));
}

/// A reader with the token of its append must find all that it appended so far, whichever generation answers; the frontier in
/// answers must never go back; and both layers must agree at every cut. The cut's tick used to be held after it was chosen:
/// a graph that keeps one tick could be past it by then, and the audit failed.
#[test]
fn answers_are_exact_across_handovers() {
    for workers in [1, 2] {
        let dir = tempfile::tempdir().expect("a directory");
        let log =
            Log::<Number>::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path().join("log"), LogOptions::default()).expect("a log");
        let options = ServerOptions {
            workers,
            tick: Duration::from_millis(1),
            batch_interval: None,
            history: Duration::ZERO,
            ..ServerOptions::default()
        };
        let server = Server::start(Program::new("numbers", numbers), log, options).expect("it starts");
        let (service, stop) = (server.service(), Arc::new(AtomicBool::new(false)));
        let appends = std::thread::spawn({
            let (service, stop) = (Arc::clone(&service), Arc::clone(&stop));
            move || {
                let (mut n, mut frontier) = (0u64, Tick(0));
                while !stop.load(Ordering::Acquire) {
                    let lines: String = (n..n + 50).map(|n| format!("{{\"n\":{n}}}\n")).collect();
                    let appended = service.append(lines.as_bytes(), Format::Json, OnError::Stop).expect("an append");
                    n += 50;
                    let read = |view: &str, query| Read { at_least: appended.token, ..Read::latest(view, query) };
                    let answer = service.read(&read("all", Query::Scan { limit: 9 })).expect("an answer");
                    assert_eq!(answer.rows[0].value, serde_json::json!(n), "as of {}", answer.as_of.0);
                    assert!(answer.frontier >= frontier, "the frontier went back");
                    frontier = answer.frontier;
                    let counts = service.read(&read("counts", Query::Scan { limit: 1000 })).expect("an answer");
                    let sum: u64 = counts.rows.iter().map(|row| row.value.as_u64().expect("a number")).sum();
                    assert_eq!(sum, n, "as of {}", counts.as_of.0);
                }
            }
        });
        for round in 0..12 {
            let cycle = if round % 4 == 3 { Cycle::Full } else { Cycle::Incremental };
            let handover = service.cycle(cycle).expect("the layers agree");
            assert_eq!(handover.agreed, Some(true));
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Release);
        appends.join().expect("answers were exact");
        server.close().expect("it closes");
    }
}
