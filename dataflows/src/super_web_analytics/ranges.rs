//! Answers for any range of hours, from the rows of few buckets.
//!
//! ```text
//! |  month  |  month  |            the hours asked for
//!       [hhhdd w  w  month  w ddhh]   the buckets that are read
//! ```
//!
//! Pageviews of buckets add up. Visitors do not, since somebody may be in several: of one bucket the count is read, of more the
//! sets.

use std::collections::BTreeSet;
use std::ops::Range;

use lambdaflow::runs::{AnswerRow, Query};
use serde_json::{Value, json};

use super::views::Granularity;

/// The fewest buckets that make up a range of hours, each with its first hour, in order. Hours are counted from
/// 1970-01-01T00:00:00Z. A range is made up of at most 23 hours, 6 days and 3 weeks on either side of its months.
pub fn cover(hours: Range<u64>) -> Vec<(Granularity, u64)> {
    let mut buckets = Vec::new();
    let mut next = hours.start;
    while next < hours.end {
        // Taking the longest that fits is never a mistake, since buckets lie within coarser ones.
        let fits = |of: &Granularity| of.bucket(next) == next && of.hours() <= hours.end - next;
        let longest = Granularity::ALL.into_iter().rfind(fits).expect("an hour fits");
        buckets.push((longest, next));
        next += longest.hours();
    }
    buckets
}

/// The pageviews of a normalized URL in a range of hours. `read` asks a view, by name; any reader will do.
///
/// # Errors
/// Those of `read`.
pub fn pageviews<E>(url: &str, hours: Range<u64>, read: impl FnOnce(&str, Query) -> Result<Vec<AnswerRow>, E>) -> Result<u64, E> {
    let rows = read("pageviews", Query::Get(keys(url, &cover(hours))))?;
    Ok(rows.iter().filter_map(|row| row.value.as_u64()).sum())
}

/// How many persons looked at a normalized URL in a range of hours. `read` asks a view, by name; any reader will do.
///
/// # Errors
/// Those of `read`.
pub fn uniques<E>(url: &str, hours: Range<u64>, read: impl FnOnce(&str, Query) -> Result<Vec<AnswerRow>, E>) -> Result<u64, E> {
    let buckets = cover(hours);
    let keys = Query::Get(keys(url, &buckets));
    if buckets.len() == 1 {
        let rows = read("uniques", keys)?;
        return Ok(rows.iter().filter_map(|row| row.value.as_u64()).sum());
    }
    // JSON has no order of its own; its text has.
    let persons: BTreeSet<String> = read("visitors", keys)?.iter().map(|row| row.value.to_string()).collect();
    Ok(persons.len() as u64)
}

fn keys(url: &str, buckets: &[(Granularity, u64)]) -> Vec<Value> {
    buckets.iter().map(|(of, first)| json!([url, of, first])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least number of buckets for the first `n` hours of the range, by trying all.
    fn fewest(hours: Range<u64>) -> usize {
        let mut fewest = vec![0];
        for end in hours.start + 1..=hours.end {
            let lengths = [1, 24, 168, 672].into_iter().filter(|length| end % length == 0 && end - hours.start >= *length);
            fewest.push(1 + lengths.map(|length| fewest[(end - hours.start - length) as usize]).min().expect("an hour fits"));
        }
        fewest[(hours.end - hours.start) as usize]
    }

    #[test]
    fn ranges_are_covered_once_by_the_fewest_buckets() {
        // Every remainder of both ends modulo a day, and enough of them modulo a week and a month.
        for start in (0..700).step_by(29).chain([0, 24, 167, 168, 671, 672, 500_000]) {
            for length in (0..2_100).step_by(23).chain([1, 24, 168, 672, 1_344]) {
                let buckets = cover(start..start + length);
                let covered: Vec<u64> = buckets.iter().flat_map(|(of, first)| *first..first + of.hours()).collect();
                assert!(covered.into_iter().eq(start..start + length), "{start} + {length}: {buckets:?}");
                assert!(buckets.iter().all(|(of, first)| first % of.hours() == 0), "{start} + {length}: {buckets:?}");
                assert_eq!(buckets.len(), fewest(start..start + length), "{start} + {length}: {buckets:?}");
            }
        }
    }

    #[test]
    fn a_range_takes_no_more_buckets_than_stated() {
        // An hour after a month begins to an hour before one ends.
        assert_eq!(cover(1..10 * 672 - 1).len(), 2 * (23 + 6 + 3) + 8);
        assert_eq!(cover(7..7), []);
    }
}
