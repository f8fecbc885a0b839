//! As known at, versus as of event time.
//!
//! Temperatures are measured at one time and arrive at another. *As of event time* is a question about the world, so it is
//! part of the view's key: "the warmest hour of Monday". *As known at* is a question about us, so it is part of the read:
//! "the warmest hour of Monday, as we knew it on Monday evening". The second needs nothing in the dataflow: every answer is
//! exact at a tick, and a read can name one (`as_of`, as far back as history is kept).
//!
//! ```text
//! cargo run --example as_known_at
//! ```

use lambdaflow::prelude::*;
use lambdaflow::testing::{Law, check_layers_by_tick};

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
pub struct Reading {
    /// Event time: the hour of the measurement.
    pub hour: u64,
    /// Hundredths of a degree.
    pub temperature: i64,
}

impl Event for Reading {
    const NAME: &'static str = "examples.Reading";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["hour: u64", "temperature: i64"];
}

/// Ticks of the clock in an hour of it, in this example.
const HOUR: u64 = 10;

pub fn temperatures(readings: Events<'_, Reading>, views: &mut Views) {
    let warmest = readings.clone().aggregate::<u64, Max<i64>>(|reading, groups| groups.add(*reading.hour, Max::of(*reading.temperature)));
    views.publish("warmest", warmest).key(&["hour"]).value(&["temperature"]);

    // The last three hours by the clock: rows go by themselves when their time has come, events or not.
    let recent = readings.map(|reading| ((), (*reading.hour, *reading.temperature))).keep_last(3 * HOUR, |((), (hour, _))| hour * HOUR);
    views.publish("recent_warmest", recent.map(|((), (_, temperature))| ((), temperature)).max()).value(&["temperature"]);
}

/// What was measured at hours 1 to 6, each some time later; the reading of hour 2 comes three hours late.
pub fn log() -> Vec<(Tick, Reading)> {
    let arrivals = [(11, 1, 1_250), (31, 3, 1_400), (42, 4, 1_390), (52, 2, 1_910), (61, 6, 1_200), (99, 9, 900)];
    arrivals.map(|(tick, hour, temperature)| (Tick(tick), Reading { hour, temperature })).to_vec()
}

pub fn main() {
    let (checks, known_at) = check_layers_by_tick(temperatures, &log(), &Law::default());
    let warmest = |tick: usize, view: &str| {
        let rows = known_at[tick][view].iter().map(|row| format!("{}: {}", row.key, row.value));
        rows.collect::<Vec<_>>().join(", ")
    };
    for tick in [45, 55, 95] {
        println!("as known at tick {tick}: warmest of each hour {{{}}}", warmest(tick, "warmest"));
        println!("                     and of the last three hours {{{}}}", warmest(tick, "recent_warmest"));
    }
    println!("both layers agree at {checks} ticks");
}
