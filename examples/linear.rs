//! An operator of one's own, the linear kind: a timely operator written by hand.
//!
//! It looks up which country an address belongs to, with a cache on each worker. A cache may be kept: it changes no answer.
//! Anything else that outlived a row would break the law, since batch and speed layer see other rows before it.
//!
//! ```text
//! cargo run --example linear
//! ```

use std::collections::HashMap;

use lambdaflow::differential_dataflow::{AsCollection, VecCollection};
use lambdaflow::prelude::*;
use lambdaflow::testing::{Law, check_layers};
use lambdaflow::timely::dataflow::channels::pact::Pipeline;
use lambdaflow::timely::dataflow::operators::generic::Operator;

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
pub struct Visit {
    pub address: u32,
}

impl Event for Visit {
    const NAME: &'static str = "examples.Visit";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["address: u32"];
}

/// A table that is slow to ask: in earnest a file of address ranges.
fn country_of(address: u32) -> &'static str {
    ["NO", "NZ", "PE", "ZM"][(address >> 24) as usize % 4]
}

/// Each address's country, with the same times and multiplicities: what makes an operator linear.
fn countries<'s>(addresses: VecCollection<'s, u64, u32, Diff>) -> VecCollection<'s, u64, (String, ()), Diff> {
    let countries = addresses.inner.unary(Pipeline, "Countries", |_capability, _info| {
        let mut cache: HashMap<u32, &'static str> = HashMap::new();
        move |input, output| {
            input.for_each(|time, addresses| {
                let mut session = output.session(&time);
                for (address, tick, times) in addresses.drain(..) {
                    let country = *cache.entry(address >> 24).or_insert_with(|| country_of(address));
                    session.give(((country.to_owned(), ()), tick, times));
                }
            });
        }
    });
    countries.as_collection()
}

pub fn visits_by_country(visits: Events<'_, Visit>, views: &mut Views) {
    let countries = visits.map(|visit| *visit.address).linear(countries);
    views.publish("visits", countries.aggregate::<Count>(|()| Count::one())).key(&["country"]).value(&["visits"]);
}

pub fn main() {
    let visits = (0..1_000u32).map(|i| (Tick(u64::from(i / 20)), Visit { address: i.wrapping_mul(0x9E37_79B9) }));
    let (checks, answers) = check_layers(visits_by_country, &visits.collect::<Vec<_>>(), &Law::default());
    for row in &answers["visits"] {
        println!("{} {}", row.key, row.value);
    }
    println!("both layers agree at {checks} ticks");
}
