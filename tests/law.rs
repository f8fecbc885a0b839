//! The layer law for every operator, against plain Rust.
use std::collections::BTreeMap;

use columnar::Columnar;
use lambdaflow::log::{Event, Tick};
use lambdaflow::operators::{Count, Events, Sum, Views};
use lambdaflow::testing::{Law, Random, check_layers};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Fact {
    user: u64,
    page: String,
    amount: i64,
    sign: i64,
}
impl Event for Fact {
    const NAME: &'static str = "tests.Fact";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["user: u64", "page: String", "amount: i64", "sign: i64"];
}
fn facts(seed: u64) -> Vec<(Tick, Fact)> {
    let mut random = Random::new(seed);
    let n = 60 + random.below(300);
    let span = 10 + random.below(40);
    let mut all: Vec<(Tick, Fact)> = Vec::new();
    for i in 0..n {
        let tick = Tick(i * span / n);
        if random.below(10) < 3 && !all.is_empty() {
            let mut old = all[random.below(all.len() as u64) as usize].1.clone();
            old.sign = -old.sign;
            all.push((tick, old));
        } else {
            all.push((
                tick,
                Fact { user: random.below(12), page: format!("/p{}", random.below(25)), amount: random.below(50) as i64, sign: 1 },
            ));
        }
    }
    all
}
fn everything(facts: Events<'_, Fact>, views: &mut Views) {
    views.publish(
        "hits",
        facts
            .clone()
            .aggregate::<(String, u64), (Count, Sum)>(|f, groups| groups.add((f.page, *f.user % 3), (Count::one(), Sum::of(*f.amount)))),
    );
    let rows = facts.explode(|f| Some(((String::from_utf8_lossy(f.page).into_owned(), (*f.user, *f.amount)), *f.sign as isize)));
    let per_page = rows.clone().map(|(p, _)| p).count();
    views.publish("count", per_page.clone());
    views.publish("distinct", rows.clone().map(|(p, (u, _))| (p, u)).distinct());
    views.publish("sums", rows.clone().aggregate::<Sum>(|(_, a)| Sum::of(*a)));
    views.publish("sum_rows", rows.clone().aggregate::<Sum>(|(_, a)| Sum::of(*a)).rows());
    let least = rows.clone().reduce(|_, vals, out| out.push((*vals[0].0, 1)));
    views.publish("reduce", least.clone());
    views.publish("join", least.join(per_page.clone()));
    views.publish("top", per_page.top_k(3, |(_, n)| *n));
    views.publish("opaque", rows.opaque("distinct", |c| c.distinct()));
}
#[test]
fn the_law_holds_for_all_operators_at_once() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for round in 0..6 {
        let (checks, answers) = check_layers(everything, &facts(seed + round), &Law { seed: seed + round, ..Law::default() });
        let sizes: BTreeMap<_, _> = answers.iter().map(|(n, r)| (n.clone(), r.len())).collect();
        println!("{checks} checks, {sizes:?}");
    }
}
