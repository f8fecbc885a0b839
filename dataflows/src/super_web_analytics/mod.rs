//! Pageviews, unique visitors and bounces of web sites, when visitors are known by several names: the example that Nathan
//! Marz and James Warren's "Big Data" (Manning, 2015) builds a Lambda Architecture around.
//!
//! A fact is a pageview or an equivalence ([`Fact`]): two identities, cookies or users, turn out to be one person. It may
//! become known long after their pageviews, and then corrects what was answered before. Facts are delivered at least once:
//! equal ones count once.
//!
//! | view | what it has | how |
//! | --- | --- | --- |
//! | `pageviews` | pageviews by URL and hour, day, week and month ([`Granularity`]) | linear, behind the set of pageviews |
//! | `visitors` | who they were, by URL and hour, day, week and month | distinct, hours in days in weeks in months |
//! | `uniques` | how many they were | aggregate of `visitors` |
//! | `bounce_rate` | by domain, visits, and those of one pageview | reduce by person and domain |
//! | `errors` | pageviews whose URL is none ([`url::normalized`]); nothing else knows of them | |
//!
//! A range of hours is answered from few rows, those of the fewest buckets that make it up: [`ranges`].
//!
//! What is meant by:
//!
//! - **A person**: the least of the identities that equivalences connect, through any number of steps. Users are less than
//!   cookies, so a person has the name of a user once there is one.
//! - **Equal pageviews**: the same identity as it was delivered, normalized URL, time and nonce. An equivalence does not make
//!   two pageviews one.
//! - **A visit**: pageviews of a person on a domain of which none is more than 30 minutes after the one before.
//!   **A bounce**: a visit of one pageview.
//!
//! The book defines the views twice, and its two definitions differ: its batch layer ends a visit after 15 minutes and its
//! speed layer after 30; its batch layer looks at each pageview by itself, so that every visit is a bounce; its speed layer
//! knows neither equivalences nor duplicates, and its unique visitors are estimates. Here there is one definition, the one
//! above, and both layers run it. Counts are exact: no sketch that merges can take a visitor back, which is what an
//! equivalence does, so `visitors` has the sets themselves, and a range that is no bucket is the union of a few.
//!
//! What it costs: the set of pageviews is kept, since a duplicate may be of any age, and so are a person's pageviews, since an
//! equivalence may move all of them. Persons are [`components`](lambdaflow::operators::graphs::components), which run over
//! all equivalences in each graph; a new one costs the pageviews of the identities that change their name.
//!
//! [`mod@reference`] computes the same with plain loops, and **must not share logic with the dataflow**.

mod dataflow;
mod event;
mod generate;
pub mod ranges;
pub mod reference;
pub mod url;
pub mod views;

pub use dataflow::super_web_analytics;
pub use event::{Equiv, Fact, Pageview, Person};
pub use generate::{Generator, GeneratorOptions};
pub use views::Granularity;

use lambdaflow::prelude::Program;

/// The program: reads facts as JSON, one a line.
pub fn program() -> Program<Fact> {
    let json = |fact| serde_json::to_string(&fact).expect("a fact is representable as JSON");
    Program::new("super_web_analytics", super_web_analytics)
        .summary("pageviews, unique visitors and bounce rates of web sites, with visitors recognized after the fact")
        .samples(move |seed| Generator::new(seed, GeneratorOptions::default()).map(json))
}
