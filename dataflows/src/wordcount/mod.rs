//! Counts words: the first dataflow to read, and to copy.
//!
//! ```text
//! printf 'to be or not to be\n' | lambdaflow ingest wordcount --log /tmp/words -
//! lambdaflow run wordcount --log /tmp/words &
//! lambdaflow query top_words
//! ```
//!
//! A dataflow is three things, and all of them are on this page: the event ([`Line`]), the views as a function of the events
//! ([`wordcount`]), and a name for the command line ([`program`]). What it must not have is a clock, a file, or anything else
//! that would let the same events give other answers: the batch layer computes the views from the whole log, the speed layer
//! keeps them up to date, and both run this one definition.
//!
//! [`mod@reference`] computes the same answers with plain loops; tests hold the dataflow against it, wherever the two layers
//! are cut. **It must not share logic with the dataflow.**

mod generate;
pub mod reference;

pub use generate::Generator;

use columnar::Columnar;
use lambdaflow::prelude::{Count, Event, Events, Program, Views};
use serde::{Deserialize, Serialize};

/// A line of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The text, without its end of line.
    pub text: String,
}

// What the log says of its events. It is compared whenever a log is opened, since its bytes carry no types.
impl Event for Line {
    const NAME: &'static str = "wordcount.Line";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["text: String"];
}

/// Rows of `top_words`.
pub const TOP_WORDS: usize = 10;

/// Publishes `words`, `top_words` and `lengths`.
///
/// A word is a run of letters, digits and apostrophes, in lower case.
pub fn wordcount(lines: Events<'_, Line>, views: &mut Views) {
    // Words are combined before they leave the worker that read them, by the borrowed word: it is copied once, when it is new.
    let words = lines.aggregate::<String, Count>(|line, groups| each_word(line.text, |word| groups.add(word, Count::one())));
    views.publish("words", words.clone()).key(&["word"]).value(&["count"]);

    // A row for each word, replaced as its count changes: from here on rows are taken back, and every operator copes with it.
    let rows = words.rows().map(|(word, Count(n))| (word, n));
    let top = rows.clone().top_k(TOP_WORDS, |(_word, n)| *n);
    views.publish("top_words", top).key(&["word"]).value(&["count"]);

    // How many words have so many characters, and how often they occur.
    let by_length = rows.map(|(word, n)| (word.chars().count() as u64, n));
    let lengths = by_length.aggregate(|n| (Count::one(), Count(*n)));
    views.publish("lengths", lengths).key(&["characters"]).value(&["words", "occurrences"]);
}

/// The program: reads lines of text as they are, or as JSON, `{"text": ".."}`. A line that begins with `{` is JSON.
pub fn program() -> Program<Line> {
    Program::new("wordcount", wordcount)
        .summary("how often words occur in lines of text, the top words, and how long words are")
        .lines(|line| std::str::from_utf8(line).map(|text| Line { text: text.to_owned() }))
        .samples(Generator::new)
}

/// Calls `found` with each word of a text, in lower case.
fn each_word(text: &[u8], mut found: impl FnMut(&str)) {
    let text = String::from_utf8_lossy(text);
    let mut lower = String::new();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()) {
        if word.is_ascii() {
            lower.clear();
            lower.push_str(word);
            lower.make_ascii_lowercase();
        } else {
            // The lower case of a letter may depend on its neighbours, and need more bytes.
            lower = word.to_lowercase();
        }
        found(&lower);
    }
}
