//! An operator of one's own, the keyed kind: state for each key that survives freezing.
//!
//! It finds each user's longest streak: days in a row with a visit. The state is the user's days as ranges, not the visits:
//! that is what a generation keeps of a user with ten years of visits.
//!
//! ```text
//! cargo run --example keyed
//! ```

use lambdaflow::prelude::*;
use lambdaflow::testing::{Law, check_layers};

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
pub struct Visit {
    pub user: String,
    /// Days since 1970.
    pub day: u32,
}

impl Event for Visit {
    const NAME: &'static str = "examples.Visit";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["user: String", "day: u32"];
}

/// The longest run of days of each key.
struct LongestStreak;

impl Keyed for LongestStreak {
    type Key = String;
    type Row = u32;
    /// Ranges of days, first and last, ascending, with a gap between each two. No days is the default, as it must be.
    type State = Vec<(u32, u32)>;
    type Out = u32;

    /// The days come from `distinct`: each appears once and disappears once, in any order.
    fn update(&mut self, _user: &String, ranges: &mut Self::State, changes: &[(u32, Diff)]) {
        for (day, times) in changes {
            if *times > 0 { insert(ranges, *day) } else { remove(ranges, *day) }
        }
    }

    fn results(&mut self, _user: &String, ranges: &Self::State, out: &mut Vec<(u32, Diff)>) {
        out.extend(ranges.iter().map(|(first, last)| last - first + 1).max().map(|longest| (longest, 1)));
    }
}

fn insert(ranges: &mut Vec<(u32, u32)>, day: u32) {
    let at = ranges.partition_point(|(_, last)| *last < day);
    let touches_before = at > 0 && ranges[at - 1].1 + 1 == day;
    let touches_after = ranges.get(at).is_some_and(|(first, _)| *first == day + 1);
    match (touches_before, touches_after) {
        (true, true) => {
            ranges[at - 1].1 = ranges[at].1;
            ranges.remove(at);
        }
        (true, false) => ranges[at - 1].1 = day,
        (false, true) => ranges[at].0 = day,
        (false, false) => ranges.insert(at, (day, day)),
    }
}

fn remove(ranges: &mut Vec<(u32, u32)>, day: u32) {
    let at = ranges.partition_point(|(_, last)| *last < day);
    let (first, last) = ranges.remove(at);
    if day < last {
        ranges.insert(at, (day + 1, last));
    }
    if first < day {
        ranges.insert(at, (first, day - 1));
    }
}

pub fn streaks(visits: Events<'_, Visit>, views: &mut Views) {
    let days = visits.map(|visit| (String::from_utf8_lossy(visit.user).into_owned(), *visit.day)).distinct();
    views.publish("streaks", days.keyed("LongestStreak", LongestStreak)).key(&["user"]).value(&["days"]);
}

pub fn main() {
    let users = ["ada", "blaise", "carl"];
    // Days come late and twice: each layer sees them in other epochs.
    let day = |i: u32| i.wrapping_mul(0x9E37_79B9) % 60;
    let visits = (0..120).map(|i| (Tick(u64::from(i / 4)), Visit { user: users[i as usize % 3].to_owned(), day: day(i) }));
    let (checks, answers) = check_layers(streaks, &visits.collect::<Vec<_>>(), &Law::default());
    for row in &answers["streaks"] {
        println!("{} {}", row.key, row.value);
    }
    println!("both layers agree at {checks} ticks");
}
