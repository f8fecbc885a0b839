//! Computes the answers of every view with plain loops and maps: the oracle for the dataflow.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::Transfer;

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// The answers of every view after those transfers; their order does not matter.
pub fn answers<'a>(transfers: impl IntoIterator<Item = &'a Transfer>) -> Answers {
    let mut credits: BTreeMap<u64, i64> = BTreeMap::new();
    let mut debits: BTreeMap<u64, i64> = BTreeMap::new();
    let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
    let mut daily: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for transfer in transfers {
        let midnight = transfer.at / 86_400 * 86_400;
        *credits.entry(transfer.to).or_default() += transfer.amount;
        *debits.entry(transfer.from).or_default() += transfer.amount;
        for (account, change) in [(transfer.to, transfer.amount), (transfer.from, -transfer.amount)] {
            *balance.entry(account).or_default() += change;
            *daily.entry((midnight, account)).or_default() += change;
        }
    }
    // What no transfer can change is stated, not computed.
    let total: BTreeMap<(), i64> = balance.keys().map(|_| ((), 0)).collect();
    let daily_total: BTreeMap<u64, i64> = daily.keys().map(|(day, _)| (*day, 0)).collect();
    BTreeMap::from([
        ("credits", rows(credits)),
        ("debits", rows(debits)),
        ("balance", rows(balance)),
        ("total", rows(total)),
        ("daily", rows(daily)),
        ("daily_total", rows(daily_total)),
    ])
}

fn rows<K: Serialize>(rows: BTreeMap<K, i64>) -> Vec<Value> {
    rows.into_iter().map(|(key, value)| json!({"key": key, "value": value, "count": 1})).collect()
}
