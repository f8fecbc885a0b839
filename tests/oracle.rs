//! Answers beside those of SQL: what is right matches, what is wrong is shown.

use std::sync::Arc;

#[path = "cluster_support/mod.rs"]
mod cluster_support;

use cluster_support::together;
use lambdaflow::layers::Dataflow;
use lambdaflow::operators::Codec;
use lambdaflow::prelude::*;
use lambdaflow::testing::{Oracle, OracleError, Random, Report, Scale};

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Payment {
    /// Who was paid; empty for nobody.
    payee: String,
    cents: i64,
}

impl Event for Payment {
    const NAME: &'static str = "tests.Payment";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["payee: String", "cents: i64"];
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(into = "MeanJson", from = "MeanJson")]
struct Mean {
    cents: i64,
    payments: i64,
}

#[derive(Serialize, Deserialize)]
struct MeanJson {
    mean: f64,
}

impl From<Mean> for MeanJson {
    fn from(row: Mean) -> Self {
        Self { mean: row.cents as f64 / row.payments as f64 }
    }
}

impl From<MeanJson> for Mean {
    fn from(row: MeanJson) -> Self {
        Self { cents: row.mean as i64, payments: 1 }
    }
}

fn payments(payments: Events<'_, Payment>, views: &mut Views) {
    let sums = payments.clone().aggregate::<String, (Count, Sum)>(|p, groups| groups.add(p.payee, (Count::one(), Sum::of(*p.cents))));
    views.publish("sums", sums.clone());
    let means = sums.rows().map(|(payee, (n, cents))| (payee, Mean { cents: cents.0, payments: n.0 as i64 }));
    views.publish("means", means);
    views.publish("cents", payments.clone().map(|p| (*p.cents, ())));
    views.publish("unchecked", payments.map(|p| (*p.cents, ())));
}

/// Names that CSV and JSON must quote, one of them empty.
const PAYEES: [&str; 5] = ["", "a", "b, \"c\"", "é\n", "'"];

fn events(seed: u64, count: u64) -> impl Iterator<Item = (Tick, Payment)> {
    let mut random = Random::new(seed);
    (0..count).map(move |at| {
        let payee = PAYEES[random.below(PAYEES.len() as u64) as usize].to_owned();
        (Tick(1_000 + at / 7), Payment { payee, cents: random.below(50) as i64 - 10 })
    })
}

fn oracle() -> Oracle<Payment> {
    Oracle::new(events, |mut events, tables| {
        tables.table("payments", &[("payee", "VARCHAR"), ("cents", "BIGINT")])?;
        events.try_for_each(|(_, payment)| tables.row("payments", &[(&payment.payee).into(), payment.cents.into()]))
    })
}

/// All of them are quarantined, though they are counted.
fn odd_payments(events: Events<'_, Payment>, views: &mut Views) {
    events.validate(|_| Err("odd"));
    payments(events, views);
}

fn check(dataflow: impl Dataflow<Payment>, oracle: &Oracle<Payment>) -> Option<Report> {
    let dir = tempfile::tempdir().expect("a directory");
    let dataflow: Arc<dyn Dataflow<Payment>> = Arc::new(dataflow);
    match oracle.check(&dataflow, Scale { events: 2_000, seed: 5, workers: 2 }, dir.path()) {
        Ok(report) => Some(report),
        Err(OracleError::Missing(what)) => {
            println!("SKIPPED: {what} is missing");
            assert!(std::env::var("LAMBDAFLOW_REQUIRE_FAULT_TOOLS").as_deref() != Ok("1"), "{what} must be here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What several processes find is what one does.
fn assert_same_in_a_cluster(dataflow: impl Dataflow<Payment>, oracle: &Oracle<Payment>, alone: &Report) {
    let dataflow: Arc<dyn Dataflow<Payment>> = Arc::new(dataflow);
    let reports = together(3, 2, |cluster| {
        let dir = tempfile::tempdir().expect("a directory");
        let scale = Scale { events: 2_000, seed: 5, workers: 2 };
        oracle.check_in(cluster, &dataflow, scale, Codec::default(), dir.path()).unwrap_or_else(|error| panic!("{error}"))
    });
    let [Some(report), None, None] = &reports[..] else { panic!("process 0 alone has a report: {reports:?}") };
    assert_eq!((report.processes, report.events, report.cuts, report.last_tick), (3, alone.events, alone.cuts, alone.last_tick));
    assert_eq!(report.not_compared, alone.not_compared);
    let found = |report: &Report| -> Vec<_> {
        let views = report.views.iter();
        views.map(|view| (view.view.clone(), view.rows, view.missing, view.extra, view.missing_shown.clone())).collect()
    };
    assert_eq!(found(report), found(alone));
}

#[test]
fn right_answers_match() {
    let oracle = oracle()
        .query("sums", "SELECT payee, count(*), sum(cents) FROM payments GROUP BY payee -- by payee")
        .query("means", "SELECT payee, avg(cents) FROM payments GROUP BY payee;")
        .query("cents", "SELECT cents FROM payments");
    let Some(report) = check(payments, &oracle) else { return };
    assert!(report.agrees(), "{report:#?}");
    let rows: Vec<(isize, isize)> = report.views.iter().map(|view| (view.rows, view.oracle_rows)).collect();
    assert_eq!(rows, [(5, 5), (5, 5), (2_000, 2_000), (0, 0)], "the last are the errors");
    assert_eq!(report.not_compared, ["unchecked"]);
    assert_same_in_a_cluster(payments, &oracle, &report);
    assert!(1_000 < report.cuts[0].0 && report.cuts[0] < report.cuts[1] && report.cuts[1] < report.last_tick, "{report:#?}");
}

/// With `python -c`, DuckDB takes itself for a shell and shows the progress of queries that take two seconds among our answers.
#[test]
fn long_queries_show_no_progress() {
    let quiet = "SELECT payee, count(*), sum(cents) FROM payments WHERE NOT current_setting('enable_progress_bar') GROUP BY payee";
    let Some(report) = check(payments, &oracle().query("sums", quiet)) else { return };
    assert!(report.agrees(), "{report:#?}");
}

#[test]
fn wrong_answers_are_shown() {
    let oracle = oracle()
        .query("sums", "SELECT payee, count(*), sum(cents) + (payee = 'a')::INT FROM payments GROUP BY payee")
        .query("means", "SELECT payee, avg(cents) + 1e-6 FROM payments WHERE payee <> '' GROUP BY payee")
        .query("cents", "SELECT cents FROM payments ORDER BY cents LIMIT 1999");
    let Some(report) = check(odd_payments, &oracle) else { return };
    assert!(!report.agrees());
    let found: Vec<(usize, usize)> = report.views.iter().map(|view| (view.missing, view.extra)).collect();
    assert_eq!(found, [(1, 1), (4, 5), (0, 1), (0, 2_000)]);
    assert!(report.views[0].missing_shown[0].starts_with("[\"a\","), "{report:#?}");
    assert_eq!(report.views[2].extra_shown, ["[39]"]);
    assert_same_in_a_cluster(odd_payments, &oracle, &report);
}

#[test]
fn a_query_that_fails_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let dataflow: Arc<dyn Dataflow<Payment>> = Arc::new(payments);
    let oracle = oracle().query("sums", "SELECT nothing FROM payments");
    match oracle.check(&dataflow, Scale { events: 10, seed: 1, workers: 1 }, dir.path()) {
        Err(OracleError::Query { view, error }) => assert!(view == "sums" && error.contains("nothing"), "{error}"),
        Err(OracleError::Missing(what)) => {
            assert!(std::env::var("LAMBDAFLOW_REQUIRE_FAULT_TOOLS").as_deref() != Ok("1"), "{what} must be here");
        }
        other => panic!("{other:?}"),
    }
}
