//! Says which events are meant: comparisons of their fields, as JSON has them.
//!
//! ```text
//! user.id = 17        an event whose field `user` has a field `id` that equals 17
//! path ^= "/admin"    whose `path` begins so; quotes may be left out
//! tags.0 != draft     elements of arrays are numbered
//! ```
//!
//! `=`, `!=`, `<`, `<=`, `>`, `>=` compare numbers with numbers and strings with strings, byte by byte; `^=` compares the
//! beginning of strings. Where the field is missing or of another kind, no comparison holds, `!=` neither: what is meant to go
//! is named by what it is.
use super::error::LogError;
use serde_json::{Number, Value};
use std::cmp::Ordering;

/// Most bytes of a condition.
pub const CONDITION_BYTES_MAX: usize = 64 * 1024;

/// A comparison of a field with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    path: Vec<String>,
    comparison: Comparison,
    value: Value,
    /// The value as it was written, when that is no JSON string: strings are compared with this.
    word: Option<String>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Prefix,
}

/// Longer ones first: `<=` begins with `<`.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("!=", Comparison::Unequal),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("^=", Comparison::Prefix),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl std::str::FromStr for Condition {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let wrong = |why: &str| LogError::Condition {
            what: format!("condition `{text}`: {why}\n  hint: FIELD OPERATOR VALUE, operators are = != < <= > >= ^=, as in 'user.id = 17'"),
        };
        if text.len() > CONDITION_BYTES_MAX {
            return Err(wrong("too long"));
        }
        let at = text.find(['=', '!', '<', '>', '^']).ok_or_else(|| wrong("it has no operator"))?;
        let (path, rest) = text.split_at(at);
        let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(|| wrong("it has no operator"))?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(|part| part.is_empty() || part.contains(char::is_whitespace)) {
            return Err(wrong("it does not begin with a field"));
        }
        let written = rest[sign.len()..].trim();
        if written.is_empty() {
            return Err(wrong("it has no value; an empty string is \"\""));
        }
        let (value, word) = match serde_json::from_str::<Value>(written) {
            Ok(value @ Value::String(_)) => (value, None),
            Ok(value @ (Value::Array(_) | Value::Object(_))) => return Err(wrong(&format!("{value} cannot be compared with"))),
            Ok(value) => (value, Some(written.to_owned())),
            Err(_) if written.starts_with('"') => return Err(wrong("the quotes do not end")),
            Err(_) => (Value::String(written.to_owned()), None),
        };
        if *comparison == Comparison::Prefix && word.is_some() && !matches!(value, Value::Number(_)) {
            return Err(wrong("only strings have beginnings"));
        }
        Ok(Condition { text: text.to_owned(), path, comparison: *comparison, value, word })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

impl Condition {
    /// The field of an event that is compared, if it has one.
    pub(crate) fn field<'a>(&self, event: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(event, |value, part| match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            value => value.get(part),
        })
    }

    /// Whether it holds of a field.
    pub(crate) fn holds(&self, field: &Value) -> bool {
        if self.comparison == Comparison::Prefix {
            let wanted = self.word.as_deref().or(self.value.as_str()).unwrap_or_default();
            return field.as_str().is_some_and(|text| text.starts_with(wanted));
        }
        let order = match (field, &self.value) {
            (Value::String(text), Value::String(wanted)) => Some(text.as_str().cmp(wanted)),
            (Value::String(text), _) => self.word.as_ref().map(|word| text.as_str().cmp(word)),
            (Value::Number(number), Value::Number(wanted)) => compare(number, wanted),
            (Value::Bool(flag), Value::Bool(wanted)) => Some(flag.cmp(wanted)),
            (Value::Null, Value::Null) => Some(Ordering::Equal),
            _ => None,
        };
        order.is_some_and(|order| match self.comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
            Comparison::Prefix => unreachable!("compared above"),
        })
    }
}

/// Whole numbers are compared as such: beyond 2^53 neighbours are one float.
fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_u64().map(i128::from).or(number.as_i64().map(i128::from));
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn comparisons_hold_where_they_should() {
        let event = json!({
            "user": {"id": 17, "name": "Ann = Bob"}, "path": "/admin/x", "big": 9007199254740993u64, "minus": -3, "part": 0.5,
            "tags": ["a", "b"], "flag": true, "none": null, "digits": "17",
        });
        let cases = [
            ("user.id = 17", true),
            ("user.id=17", true),
            ("user.id != 17", false),
            ("user.id < 18", true),
            ("user.id <= 17", true),
            ("user.id > 17", false),
            ("user.id >= 17.0", true),
            ("user.id = \"17\"", false),
            ("user.name = Ann = Bob", true),
            ("user.name = \"Ann = Bob\"", true),
            ("path ^= /admin", true),
            ("path ^= \"/user\"", false),
            ("path > /admin", true),
            ("big = 9007199254740993", true),
            ("big = 9007199254740992", false),
            ("minus < 0", true),
            ("minus < 9007199254740993", true),
            ("part > 0.25", true),
            ("tags.1 = b", true),
            ("tags.2 = b", false),
            ("flag = true", true),
            ("none = null", true),
            ("digits = 17", true),
            ("digits ^= 1", true),
            ("missing != 1", false),
            ("path != 1", true),
        ];
        for (text, expected) in cases {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.field(&event).is_some_and(|field| condition.holds(field)), expected, "{text}");
            assert_eq!(condition.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_a_hint() {
        for text in ["", "user", "= 3", "user =", "user ! 3", "a b = 3", "a..b = 3", "a = [1]", "a = \"open", "a ^= true"] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.to_string().contains("hint: FIELD OPERATOR VALUE"), "{text}: {error}");
        }
    }
}
