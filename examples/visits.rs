//! A whole program of one's own: an event, a dataflow, and every subcommand.
//!
//! ```text
//! echo '{"user": 7, "page": "/start"}' | cargo run --release --example visits -- ingest --log /tmp/visits -
//! cargo run --release --example visits -- run --log /tmp/visits -w 2
//! curl -G --data-urlencode 'key="/start"' http://127.0.0.1:7070/v1/views/visits/get
//! ```

use std::process::ExitCode;

use lambdaflow::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Visit {
    user: u64,
    page: String,
}

impl Event for Visit {
    const NAME: &'static str = "visits.Visit";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["user: u64", "page: String"];
}

/// How often each page was visited, by how many users, and the three pages with the most users.
fn visits(events: Events<'_, Visit>, views: &mut Views) {
    // `visit` is borrowed from the log: the page is copied only when it is the first of its group.
    let visits = events.clone().aggregate::<String, Count>(|visit, groups| groups.add(visit.page, Count::one()));
    views.publish("visits", visits).key(&["page"]).value(&["visits"]);

    let pairs = events.aggregate::<(String, u64), Count>(|visit, groups| groups.add((visit.page, *visit.user), Count::one()));
    let users = pairs.keys().map(|(page, _user)| page).count();
    views.publish("users", users.clone()).key(&["page"]).value(&["users"]);

    let top = users.top_k(3, |(_page, users)| *users);
    views.publish("top", top).key(&["page"]).value(&["users"]);
}

fn main() -> ExitCode {
    lambdaflow::main("visits", visits)
}
