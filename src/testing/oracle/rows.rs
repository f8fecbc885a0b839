//! Comparing the rows of a view with those of a query.
//!
//! Both are flattened to lists of plain values, since SQL knows no keys and values; what is a struct on one side and a row
//! on the other meets in the order of the fields.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value;

use crate::runs::AnswerRow;

/// Floats that differ by less than this share of the greater one are equal: the order of summation is not the same.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// What two multisets of rows differ in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Differences {
    /// Rows that only the oracle has, as JSON arrays, each as often as it is missing.
    pub missing: Vec<String>,
    /// Rows that only the view has.
    pub extra: Vec<String>,
}

/// Rows of a view minus rows of a query, as JSON arrays.
#[derive(Default)]
pub(super) struct Rows(HashMap<String, isize>);

impl Rows {
    /// Adds a view's row: the values of its key, then those of its value. A value of `null` is none.
    pub fn add_ours(&mut self, row: AnswerRow) {
        let mut values = Vec::new();
        flatten(row.key, &mut values);
        if !row.value.is_null() {
            flatten(row.value, &mut values);
        }
        *self.0.entry(text(&values)).or_default() += row.count;
    }

    /// Takes away a row that the oracle has: a JSON object, its columns in order.
    pub fn take_oracle(&mut self, line: &str) -> serde_json::Result<()> {
        let mut values = Vec::new();
        flatten(serde_json::from_str(line)?, &mut values);
        *self.0.entry(text(&values)).or_default() -= 1;
        Ok(())
    }

    /// What is left once equal rows, and those that differ in the last bits of floats only, are paired off.
    pub fn differences(self) -> Differences {
        let rows = |sign: isize| -> Vec<Vec<Value>> {
            let left = self.0.iter().filter(|(_, n)| **n * sign > 0);
            left.flat_map(|(row, n)| vec![parse(row); n.unsigned_abs()]).collect()
        };
        let (ours, oracle) = (rows(1), rows(-1));
        let floats = (0..).take_while(|at| ours.iter().chain(&oracle).any(|row| row.len() > *at));
        let floats: Vec<bool> =
            floats.map(|at| ours.iter().chain(&oracle).any(|row| row.get(at).is_some_and(|value| value.is_f64()))).collect();
        let (mut ours, mut oracle) = (split(ours, &floats), split(oracle, &floats));
        ours.sort_by(order);
        oracle.sort_by(order);

        let mut differences = Differences::default();
        let (mut ours, mut oracle) = (ours.into_iter().peekable(), oracle.into_iter().peekable());
        loop {
            match (ours.peek(), oracle.peek()) {
                (Some(a), Some(b)) if a.matches(b) => {
                    ours.next();
                    oracle.next();
                }
                (Some(a), Some(b)) if order(a, b).is_lt() => differences.extra.extend(ours.next().map(|row| text(&row.whole))),
                (Some(_), None) => differences.extra.extend(ours.next().map(|row| text(&row.whole))),
                (_, Some(_)) => differences.missing.extend(oracle.next().map(|row| text(&row.whole))),
                (None, None) => return differences,
            }
        }
    }
}

/// A row with its columns apart: those that must be equal, and those that are floats on either side.
struct Split {
    whole: Vec<Value>,
    exact: Vec<String>,
    floats: Vec<f64>,
}

impl Split {
    fn matches(&self, other: &Self) -> bool {
        let close = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(b.abs());
        self.exact == other.exact && self.floats.len() == other.floats.len() && self.floats.iter().zip(&other.floats).all(close)
    }
}

fn split(rows: Vec<Vec<Value>>, floats: &[bool]) -> Vec<Split> {
    let of_row = |whole: Vec<Value>| {
        let (mut exact, mut numbers) = (Vec::new(), Vec::new());
        for (at, value) in whole.iter().enumerate() {
            match value.as_f64().filter(|_| floats[at]) {
                Some(number) => numbers.push(number),
                None => exact.push(value.to_string()),
            }
        }
        Split { whole, exact, floats: numbers }
    };
    rows.into_iter().map(of_row).collect()
}

fn order(a: &Split, b: &Split) -> Ordering {
    let floats = a.floats.iter().zip(&b.floats).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    a.exact.cmp(&b.exact).then(floats.unwrap_or_else(|| a.floats.len().cmp(&b.floats.len())))
}

/// The plain values in a value, in order.
fn flatten(value: Value, values: &mut Vec<Value>) {
    match value {
        Value::Array(parts) => parts.into_iter().for_each(|part| flatten(part, values)),
        Value::Object(fields) => fields.into_iter().for_each(|(_, part)| flatten(part, values)),
        plain => values.push(plain),
    }
}

fn text(values: &[Value]) -> String {
    serde_json::to_string(values).expect("values are representable as JSON")
}

fn parse(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a row was written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compared(ours: &[(Value, Value, isize)], oracle: &[Value]) -> Differences {
        let mut rows = Rows::default();
        for (key, value, count) in ours {
            rows.add_ours(AnswerRow { key: key.clone(), value: value.clone(), count: *count });
        }
        oracle.iter().for_each(|row| rows.take_oracle(&row.to_string()).unwrap());
        rows.differences()
    }

    #[test]
    fn rows_meet_by_position_whatever_their_structure() {
        let ours = [(json!(["a", 1]), json!({"hits": 2, "seen": [3, {"x": null}]}), 2), (json!("b"), json!(null), 1)];
        let row = json!({"p": "a", "q": 1, "r": 2, "s": 3, "t": null});
        assert_eq!(compared(&ours, &[row.clone(), row, json!({"p": "b"})]), Differences::default());
    }

    #[test]
    fn every_row_counts() {
        let ours = [(json!(1), json!(10), 2), (json!(2), json!(20), 1), (json!(3), json!(30), -1)];
        let differences = compared(&ours, &[json!({"k": 1, "v": 10}), json!({"k": 2, "v": 21})]);
        assert_eq!(differences.extra, ["[1,10]", "[2,20]"]);
        assert_eq!(differences.missing, ["[2,21]", "[3,30]"]);
    }

    #[test]
    fn floats_may_differ_in_their_last_bits_and_integers_may_not() {
        let ours = [(json!("a"), json!(0.1 + 0.2), 1), (json!("a"), json!(2.0), 1), (json!("b"), json!(1.0), 1)];
        let oracle = [json!({"k": "a", "v": 2}), json!({"k": "a", "v": 0.3}), json!({"k": "b", "v": 1.000_001})];
        let differences = compared(&ours, &oracle);
        assert_eq!((differences.extra, differences.missing), (vec!["[\"b\",1.0]".to_owned()], vec!["[\"b\",1.000001]".to_owned()]));

        let large = 9_007_199_254_740_993_i64;
        assert_eq!(compared(&[(json!(large), json!(1), 1)], &[json!({"k": large - 1, "v": 1})]).extra.len(), 1);
    }
}
