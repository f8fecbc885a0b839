//! The rows of the views: what the dataflow publishes and the reference recomputes.

use columnar::Columnar;
use serde::{Deserialize, Serialize};

/// A person who is away from a domain for longer than this comes back in a new visit.
pub const VISIT_GAP_SECONDS: u64 = 30 * 60;

/// How long the buckets are that pageviews and visitors are counted in. Buckets of each start at its multiples since
/// 1970-01-01T00:00:00Z, a Thursday; so do weeks, and months of four weeks, which have only weeks in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Granularity {
    Hour,
    Day,
    Week,
    /// 28 days.
    Month,
}

impl Granularity {
    /// From the finest to the coarsest: buckets of each are made up of buckets of the one before.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// The hours in a bucket.
    pub const fn hours(self) -> u64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 28 * 24,
        }
    }

    /// The bucket that an hour is in. Hours are counted from 1970-01-01T00:00:00Z; a bucket goes by its first.
    pub const fn bucket(self, hour: u64) -> u64 {
        hour - hour % self.hours()
    }
}

/// Key of `pageviews`, `visitors` and `uniques`: a normalized URL, and the first hour of a bucket.
pub type Bucket = (String, Granularity, u64);

/// Row of `bounce_rate`, by domain.
///
/// Its JSON has a third field, `rate`. It follows from the other two, so it is neither stored nor compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(into = "BouncesJson", from = "BouncesJson")]
pub struct Bounces {
    /// Visits; never zero.
    pub visits: u64,
    /// Visits of one pageview.
    pub bounces: u64,
}

#[derive(Serialize, Deserialize)]
struct BouncesJson {
    visits: u64,
    bounces: u64,
    rate: f64,
}

impl From<Bounces> for BouncesJson {
    fn from(Bounces { visits, bounces }: Bounces) -> Self {
        Self { visits, bounces, rate: bounces as f64 / visits as f64 }
    }
}

impl From<BouncesJson> for Bounces {
    fn from(BouncesJson { visits, bounces, .. }: BouncesJson) -> Self {
        Self { visits, bounces }
    }
}
