//! Keys as JSON: which begin alike, and where they stand among each other.

use std::cmp::Ordering;

use serde_json::Value;

/// Whether keys of a type have the order of their JSON, so that those with a common beginning lie side by side: strings,
/// numbers, and tuples of them do. An enum is ordered by the declaration of its variants, but written by their names.
pub(super) fn sorted_as_json<K>() -> bool {
    const SORTED: [&str; 13] =
        ["alloc::string::String", "bool", "char", "i8", "i16", "i32", "i64", "isize", "u8", "u16", "u32", "u64", "usize"];
    let names = std::any::type_name::<K>().split(['(', ')', ',', ' ']);
    names.filter(|name| !name.is_empty()).all(|name| SORTED.contains(&name))
}

/// Where a key stands relative to all keys that begin with `prefix`.
pub(super) fn compare_beginning(key: &Value, prefix: &Value) -> Ordering {
    match (key, prefix) {
        (Value::String(key), Value::String(prefix)) => {
            let end = prefix.len().min(key.len());
            key.as_bytes()[..end].cmp(prefix.as_bytes())
        }
        (Value::Array(key), Value::Array(prefix)) => {
            for (at, (k, p)) in key.iter().zip(prefix).enumerate() {
                // The last component of a prefix may itself be a beginning.
                let order = if at + 1 == prefix.len() { compare_beginning(k, p) } else { compare_json(k, p) };
                if order.is_ne() {
                    return order;
                }
            }
            if key.len() < prefix.len() { Ordering::Less } else { Ordering::Equal }
        }
        _ => compare_json(key, prefix),
    }
}

/// The order of JSON values that come from ordered keys: numbers by value, strings bytewise, arrays by component.
fn compare_json(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            a.iter().zip(b).map(|(a, b)| compare_json(a, b)).find(|order| order.is_ne()).unwrap_or(a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}
