//! Computes the answers of every view with plain loops and maps: the oracle for the dataflow.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Line, TOP_WORDS};

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// The answers of every view after those lines; their order does not matter.
pub fn answers<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Answers {
    let mut words: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        let mut word = String::new();
        // The end of the line ends the last word.
        for c in line.text.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '\'' {
                word.push(c);
            } else if !word.is_empty() {
                *words.entry(std::mem::take(&mut word).to_lowercase()).or_default() += 1;
            }
        }
    }
    let mut lengths: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for (word, count) in &words {
        let (distinct, occurrences) = lengths.entry(word.chars().count()).or_default();
        *distinct += 1;
        *occurrences += count;
    }
    // Ties go to the word that comes later.
    let mut ranked: Vec<(u64, String)> = words.iter().map(|(word, count)| (*count, word.clone())).collect();
    ranked.sort_by(|a, b| b.cmp(a));
    ranked.truncate(TOP_WORDS);
    let top: BTreeMap<String, u64> = ranked.into_iter().map(|(count, word)| (word, count)).collect();
    BTreeMap::from([("words", rows(words)), ("top_words", rows(top)), ("lengths", rows(lengths))])
}

fn rows<K: Serialize, V: Serialize>(rows: BTreeMap<K, V>) -> Vec<Value> {
    rows.into_iter().map(|(key, value)| json!({"key": key, "value": value, "count": 1})).collect()
}
