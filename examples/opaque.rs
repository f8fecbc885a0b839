//! An operator of one's own, the opaque kind: any fragment of differential dataflow.
//!
//! It finds circles of accounts that money can go around in: the strongly connected components of the payments, by the
//! algorithm that comes with differential. The fragment knows nothing of layers: it gets the whole collection.
//!
//! ```text
//! cargo run --example opaque
//! ```

use lambdaflow::differential_dataflow::algorithms::graphs::scc::strongly_connected;
use lambdaflow::prelude::*;
use lambdaflow::testing::{Law, check_layers};

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
pub struct Payment {
    pub from: u64,
    pub to: u64,
    /// 1, or -1 when it is called back.
    pub times: i8,
}

impl Event for Payment {
    const NAME: &'static str = "examples.Payment";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["from: u64", "to: u64", "times: i8"];
}

pub fn circles(payments: Events<'_, Payment>, views: &mut Views) {
    let edges = payments.explode(|payment| Some(((*payment.from, *payment.to), *payment.times as Diff))).distinct();
    let in_circles = edges.opaque("Circles", |edges| strongly_connected(edges));
    views.publish("circles", in_circles).key(&["from"]).value(&["to"]);
}

pub fn main() {
    let payment = |tick, from, to, times| (Tick(tick), Payment { from, to, times });
    let payments = [
        payment(0, 1, 2, 1),
        payment(1, 2, 3, 1),
        payment(2, 3, 1, 1),
        payment(3, 3, 4, 1),
        payment(4, 4, 5, 1),
        payment(5, 5, 4, 1),
        payment(6, 2, 3, -1),
    ];
    let law = Law { cuts: 6, ..Law::default() };
    for seen in [3, 6, 7] {
        let (checks, answers) = check_layers(circles, &payments[..seen], &law);
        let rows: Vec<String> = answers["circles"].iter().map(|row| format!("{}->{}", row.key, row.value)).collect();
        println!("after {seen} payments: {}; both layers agree at {checks} ticks", rows.join(" "));
    }
}
