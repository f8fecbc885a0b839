//! A program: a dataflow with a name, and how to read its input.

use std::sync::Arc;

use crate::layers::Dataflow;
use crate::log::Event;
use crate::testing::Oracle;

use super::build::build_id;

/// Reads one line of input as an event, or says why it is none.
pub type LineParser<E> = Arc<dyn Fn(&[u8]) -> Result<E, String> + Send + Sync>;
/// Makes lines of input from a seed, without end.
pub type SampleLines = Arc<dyn Fn(u64) -> Box<dyn Iterator<Item = String>> + Send + Sync>;

/// A dataflow that can be run by name.
pub struct Program<E: Event> {
    /// What the command line calls it.
    pub name: String,
    /// One line for the list of dataflows.
    pub summary: String,
    /// The dataflow.
    pub dataflow: Arc<dyn Dataflow<E>>,
    /// The author's word on when answers change, if given: see [`Program::version`].
    pub version: Option<String>,
    /// How a line of input that is not JSON is read, if there is such a format.
    pub lines: Option<LineParser<E>>,
    /// Sample input, if there is any.
    pub samples: Option<SampleLines>,
    /// The same views in SQL, if somebody wrote them down.
    pub oracle: Option<Oracle<E>>,
}

impl<E: Event> Clone for Program<E> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            summary: self.summary.clone(),
            dataflow: Arc::clone(&self.dataflow),
            version: self.version.clone(),
            lines: self.lines.clone(),
            samples: self.samples.clone(),
            oracle: self.oracle.clone(),
        }
    }
}

impl<E: Event> Program<E> {
    /// A program that reads its events as JSON, one a line.
    pub fn new(name: &str, dataflow: impl Dataflow<E>) -> Self {
        Self {
            name: name.to_owned(),
            summary: String::new(),
            dataflow: Arc::new(dataflow),
            version: None,
            lines: None,
            samples: None,
            oracle: None,
        }
    }

    /// Says in one line what it computes.
    pub fn summary(self, summary: &str) -> Self {
        Self { summary: summary.to_owned(), ..self }
    }

    /// Promises that the dataflow answers as every other program of this version does, given the same events.
    ///
    /// What a dataflow keeps and publishes can be seen from outside, and a change of it is noticed. The code of its closures
    /// cannot. So without this promise, generations are used again only by the very same executable: each new build computes
    /// its views from the log, while the old ones stand. With it, they are used by every build; an author who changes what a
    /// closure computes and forgets to change the version gets answers that mix both, until `rebuild`.
    pub fn version(self, version: &str) -> Self {
        Self { version: Some(version.to_owned()), ..self }
    }

    /// Reads lines of another format than JSON, too. The parser gets lines that do not begin with `{`.
    pub fn lines<Error: std::fmt::Display>(self, parse: impl Fn(&[u8]) -> Result<E, Error> + Send + Sync + 'static) -> Self {
        Self { lines: Some(Arc::new(move |line| parse(line).map_err(|error| error.to_string()))), ..self }
    }

    /// Offers sample input, made from a seed.
    pub fn samples<I: Iterator<Item = String> + 'static>(self, samples: impl Fn(u64) -> I + Send + Sync + 'static) -> Self {
        Self { samples: Some(Arc::new(move |seed| Box::new(samples(seed)))), ..self }
    }

    /// Says what its views are in SQL, so that their answers can be compared with those of a database.
    pub fn oracle(self, oracle: Oracle<E>) -> Self {
        Self { oracle: Some(oracle), ..self }
    }

    /// What generations of this program are told apart by: the version, or the build.
    pub(crate) fn identity(&self) -> String {
        self.version.as_ref().map_or_else(|| build_id().to_owned(), |version| format!("version {version}"))
    }

    /// Reads one line as JSON.
    pub fn parse_json(&self, line: &[u8]) -> Result<E, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    /// Reads one line in either format.
    pub fn parse(&self, line: &[u8]) -> Result<E, String> {
        match &self.lines {
            Some(parse) if line.first() != Some(&b'{') => parse(line),
            _ => self.parse_json(line),
        }
    }
}

/// What happens to a line that is no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum OnError {
    /// Nothing of the batch is taken.
    #[default]
    Stop,
    /// The others are taken; it is reported.
    Skip,
}
