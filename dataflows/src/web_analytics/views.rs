//! The rows of the views: what the dataflow publishes and the reference recomputes.
//!
//! Only shapes and parameters are shared; how a row comes about is written twice on purpose.
//! The order of the fields is the order of the rows and of the JSON.

use columnar::Columnar;
use serde::{Deserialize, Serialize};

/// A visitor who is away for longer than this comes back in a new session.
pub const SESSION_GAP_SECONDS: u64 = 1800;
/// Rows per key of the view `top_paths`.
pub const TOP_PATHS: usize = 10;
/// Key of the view `errors` for a request whose method is empty.
pub const ODD_REQUEST: &str = "request line is not METHOD TARGET PROTOCOL";

/// Row of `hits`, by `(path, hour)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Traffic {
    pub hits: u64,
    /// Sum of the answers' sizes, modulo 2^64 (sums of changes must form a group).
    pub bytes: u64,
}

/// Row of `sessions`, by host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Session {
    /// Event time of the first request.
    pub start: u64,
    /// Event time of the last request.
    pub end: u64,
    pub hits: u64,
    /// Path of the first request in the order of `(at, path)`.
    pub entry: String,
}

/// Row of `bounce_rate`, by the day on which the sessions start.
///
/// Its JSON has a third field, `rate`. It follows from the other two, so it is neither stored nor compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(into = "BouncesJson", from = "BouncesJson")]
pub struct Bounces {
    pub sessions: u64,
    /// Sessions with one hit.
    pub bounces: u64,
}

impl Bounces {
    /// Bounces per session; 0 where there are no sessions, since JSON has no NaN.
    pub fn rate(&self) -> f64 {
        if self.sessions == 0 { 0.0 } else { self.bounces as f64 / self.sessions as f64 }
    }
}

#[derive(Serialize, Deserialize)]
struct BouncesJson {
    sessions: u64,
    bounces: u64,
    rate: f64,
}

impl From<Bounces> for BouncesJson {
    fn from(row: Bounces) -> Self {
        BouncesJson { sessions: row.sessions, bounces: row.bounces, rate: row.rate() }
    }
}

impl From<BouncesJson> for Bounces {
    fn from(row: BouncesJson) -> Self {
        Bounces { sessions: row.sessions, bounces: row.bounces }
    }
}

/// Row of `referrers`, by referrer: one per status that the path was ever answered with, by anyone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Link {
    pub path: String,
    /// Requests for the path with this referrer, whatever their status.
    pub hits: u64,
    pub status: u16,
}

/// What the reference knows of a row of `errors`, by reason; equal requests are one row with a count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Odd {
    pub at: u64,
    pub host: String,
    /// The request line.
    pub request: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounces_show_their_rate_and_read_back() {
        let row = Bounces { sessions: 8, bounces: 2 };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(json, r#"{"sessions":8,"bounces":2,"rate":0.25}"#);
        assert_eq!(serde_json::from_str::<Bounces>(&json).unwrap(), row);
        let none = Bounces { sessions: 0, bounces: 0 };
        assert_eq!(none.rate(), 0.0);
    }
}
