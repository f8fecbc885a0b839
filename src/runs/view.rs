//! Reading a view: typed inside, JSON at the edge.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::data::{Change, Data, bucket};
use super::json_order::{compare_beginning, sorted_as_json};
use super::levels::Levels;
use super::merged::{Digest, Merged};
use super::published::{Changes, Published};
use super::run::Run;
use crate::log::Tick;

/// How the rows of a view are kept, and what a reader sees of them.
pub trait Shape: Send + Sync + 'static {
    /// What a reader asks by.
    type Key: Data;
    /// What is kept beside the key.
    type Val: Data;
    /// What is added up.
    type Change: Change;
    /// What a reader gets; rows of one key, and the rows of `top`, are ordered by it.
    type Answer: Serialize + DeserializeOwned + Ord;
    /// The answer of a row and its multiplicity.
    fn answer(val: &Self::Val, change: &Self::Change) -> (Self::Answer, isize);
}

/// A row as a reader gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// The row's key.
    pub key: Value,
    /// The row's value.
    pub value: Value,
    /// How often the row is in the view.
    pub count: isize,
}

/// What a view calls its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInfo {
    /// The name it was published under.
    pub name: String,
    /// Names of the key's components.
    pub key: Vec<String>,
    /// Names of the value's components.
    pub value: Vec<String>,
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReadError {
    /// The history at that tick is no longer kept.
    #[error("tick {} is no longer readable, the earliest is {}", .asked.0, .since.0)]
    TooOld {
        /// The tick asked for.
        asked: Tick,
        /// The earliest tick that can be read.
        since: Tick,
    },
    /// Not everything at or before that tick is in yet.
    #[error("tick {} is not complete yet, everything before {} is", .asked.0, .upper.0)]
    NotYet {
        /// The tick asked for.
        asked: Tick,
        /// The first tick that is not complete.
        upper: Tick,
    },
    /// A key in the question is not of the view's key type.
    #[error("{given} is not a key of view `{view}`: {reason}\n  hint: its key is [{fields}]")]
    NotAKey {
        /// The view's name.
        view: String,
        /// What was given, as JSON.
        given: String,
        /// Why it cannot be read as a key.
        reason: String,
        /// Names of the key's components.
        fields: String,
    },
}

/// Which rows a read wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// The rows of each of these keys, in the order given.
    Get(Vec<Value>),
    /// Rows with `from <= key < to`, by key.
    Range {
        /// First key, or from the first of all.
        from: Option<Value>,
        /// End, not included, or to the last of all.
        to: Option<Value>,
        /// Most rows in the answer.
        limit: usize,
    },
    /// Rows whose key begins like this: a string's first characters, a tuple's first components.
    Prefix {
        /// The beginning.
        prefix: Value,
        /// Most rows in the answer.
        limit: usize,
    },
    /// The rows with the greatest values, greatest first; ties by key.
    Top(usize),
    /// All rows, by key.
    Scan {
        /// Most rows in the answer.
        limit: usize,
    },
}

/// What an audit compares the speed graph's rows with: by shard, the runs that a batch froze, each an `Arc<Run>`.
pub enum Audited<'a> {
    /// The changes between two generations.
    Changes(Vec<Vec<&'a (dyn Any + Send + Sync)>>),
    /// All rows, computed from scratch.
    Whole(Vec<Vec<&'a (dyn Any + Send + Sync)>>),
}

/// The result of comparing the two layers on one view.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// The view's name.
    pub view: String,
    /// Digest of what the batch layer computed.
    pub batch: Digest,
    /// Digest of what the speed layer had at the same tick.
    pub speed: Digest,
    /// Some rows in which they differ: what the batch layer has, then what the speed layer has.
    pub differing: Vec<(Option<AnswerRow>, Option<AnswerRow>)>,
}

impl Audit {
    /// Whether both layers agree.
    pub fn agrees(&self) -> bool {
        self.batch == self.speed
    }

    /// Adds the audit of the same view on another process.
    pub fn add(&mut self, other: Self) {
        self.batch = self.batch.plus(other.batch);
        self.speed = self.speed.plus(other.speed);
        self.differing.extend(other.differing);
        self.differing.truncate(AUDIT_ROWS_SHOWN);
    }
}

/// Which of a view's shards are at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The first.
    pub first: usize,
    /// How many there are, here and on other processes.
    pub of: usize,
}

impl Portion {
    /// All of so many.
    pub fn whole(of: usize) -> Self {
        Self { first: 0, of }
    }
}

/// A view that can be read at any tick from its base's frontier on. On a cluster, a process's portion of it: each key's rows
/// are on one process.
pub trait View: Send + Sync {
    /// What it calls its columns.
    fn info(&self) -> &ViewInfo;
    /// Everything below is complete on all shards.
    fn upper(&self) -> Tick;
    /// The rows at a tick, of those that are here.
    fn read(&self, at: Tick, query: &Query) -> Result<Vec<AnswerRow>, ReadError>;
    /// The shard that has a key's rows, by its number among all.
    fn owner(&self, key: &Value) -> Result<usize, ReadError>;
    /// The answer to a query for several keys, from the answers of all portions to it.
    fn merge(&self, query: &Query, parts: Vec<Vec<AnswerRow>>) -> Result<Vec<AnswerRow>, ReadError>;
    /// Compares the rows at a tick with what the batch layer computed.
    fn audit(&self, at: Tick, audited: &Audited<'_>) -> Result<Audit, ReadError>;
    /// A hash of all rows at a tick: equal for equal rows, in whatever order and shards.
    fn digest(&self, at: Tick) -> Result<Digest, ReadError>;
}

/// One worker's part of a view.
pub struct ViewShard<S: Shape> {
    /// Rows of the base.
    pub base: Arc<Levels<S::Key, S::Val, S::Change>>,
    /// Changes since.
    pub published: Arc<Published<S::Key, S::Val, S::Change>>,
}

impl<S: Shape> ViewShard<S> {
    /// A shard that stands at `frontier`: what the levels hold, and no changes since.
    ///
    /// # Panics
    /// If the levels are not of the view's types.
    pub fn standing(levels: Arc<dyn Any + Send + Sync>, frontier: Tick) -> Arc<dyn Any + Send + Sync> {
        let base = levels.downcast().expect("a view's slot has the view's types");
        Arc::new(Self { base, published: Arc::new(Published::new(frontier.0)) })
    }
}

/// A view over the shards of this process's workers.
pub struct ShardedView<S: Shape> {
    info: ViewInfo,
    shards: Vec<Arc<ViewShard<S>>>,
    portion: Portion,
}

/// Rows that differ, shown by an audit.
const AUDIT_ROWS_SHOWN: usize = 10;

type Runs<S> = Arc<Vec<Arc<Run<<S as Shape>::Key, <S as Shape>::Val, <S as Shape>::Change>>>>;
type ChangesOf<S> = Arc<Changes<<S as Shape>::Key, <S as Shape>::Val, <S as Shape>::Change>>;

impl<S: Shape> ShardedView<S> {
    /// Puts the shards of workers together, in worker order.
    ///
    /// # Panics
    /// If a shard is of another view's type.
    pub fn assemble(info: ViewInfo, shards: Vec<Arc<dyn Any + Send + Sync>>, portion: Portion) -> Arc<dyn View> {
        let shards = shards.into_iter().map(|shard| shard.downcast::<ViewShard<S>>().expect("shards of one view have one type")).collect();
        Arc::new(Self { info, shards, portion })
    }

    /// Loads all shards at a tick, if it can be read there. All before the first is walked: what is loaded stays readable,
    /// however long the walk takes.
    fn load(&self, at: Tick) -> Result<Vec<(Runs<S>, ChangesOf<S>)>, ReadError> {
        let load = |shard: &Arc<ViewShard<S>>| {
            let changes = shard.published.load();
            if at.0 < changes.since {
                return Err(ReadError::TooOld { asked: at, since: Tick(changes.since) });
            }
            if at.0 >= changes.upper {
                return Err(ReadError::NotYet { asked: at, upper: Tick(changes.upper) });
            }
            Ok((shard.base.runs(), changes))
        };
        self.shards.iter().map(load).collect()
    }

    fn key(&self, given: &Value) -> Result<S::Key, ReadError> {
        S::Key::deserialize(given).map_err(|reason| self.not_a_key(given, reason))
    }

    /// A struct in a key is an object in JSON, and objects are not ordered here as structs are: one has no place among the
    /// keys, so it cannot be part of a prefix.
    fn check_prefix(&self, prefix: &Value) -> Result<(), ReadError> {
        match prefix {
            Value::Object(_) => Err(self.not_a_key(prefix, "a prefix is a string, or an array of a tuple's first components")),
            Value::Array(components) => components.iter().try_for_each(|component| self.check_prefix(component)),
            _ => Ok(()),
        }
    }

    fn not_a_key(&self, given: &Value, reason: impl ToString) -> ReadError {
        let (view, fields) = (self.info.name.clone(), self.info.key.join(", "));
        ReadError::NotAKey { view, given: given.to_string(), reason: reason.to_string(), fields }
    }

    /// Rows by key over all shards: those whose key `place` calls equal. Keys for which `before` holds come first and are
    /// passed over without being looked at; the first that `place` calls greater ends the read.
    fn ordered(
        &self,
        at: Tick,
        limit: usize,
        before: &dyn Fn(&S::Key) -> bool,
        place: &dyn Fn(&S::Key) -> Ordering,
    ) -> Result<Vec<AnswerRow>, ReadError> {
        let mut found: BTreeMap<S::Key, Vec<(S::Answer, isize)>> = BTreeMap::new();
        for (runs, changes) in self.load(at)? {
            let mut left = limit;
            Merged { runs: &runs, batches: &changes.batches, through: at.0 }.walk(before, &mut |key, rows| {
                match place(&key) {
                    Ordering::Less => return ControlFlow::Continue(()),
                    Ordering::Equal if left > 0 => {}
                    _ => return ControlFlow::Break(()),
                }
                left = left.saturating_sub(rows.len());
                found.insert(key, answers::<S>(rows));
                ControlFlow::Continue(())
            });
        }
        let rows = found.into_iter().flat_map(|(key, answers)| {
            let key = json(&key);
            answers.into_iter().map(move |(answer, count)| AnswerRow { key: key.clone(), value: json(&answer), count })
        });
        Ok(rows.take(limit).collect())
    }

    fn top(&self, at: Tick, n: usize) -> Result<Vec<AnswerRow>, ReadError> {
        let mut best: BTreeMap<(std::cmp::Reverse<S::Answer>, S::Key), isize> = BTreeMap::new();
        for (runs, changes) in self.load(at)? {
            Merged { runs: &runs, batches: &changes.batches, through: at.0 }.walk(&|_| false, &mut |key, rows| {
                for (answer, count) in answers::<S>(rows) {
                    if best.len() < n || best.last_key_value().is_some_and(|((worst, _), _)| answer >= worst.0) {
                        best.insert((std::cmp::Reverse(answer), key.clone()), count);
                        if best.len() > n {
                            best.pop_last();
                        }
                    }
                }
                ControlFlow::Continue(())
            });
        }
        Ok(best.into_iter().map(|((answer, key), count)| AnswerRow { key: json(&key), value: json(&answer.0), count }).collect())
    }

    /// Rows in which two collections differ.
    fn differences(
        &self,
        batch: BTreeMap<(S::Key, S::Val), S::Change>,
        mut speed: BTreeMap<(S::Key, S::Val), S::Change>,
    ) -> Vec<(Option<AnswerRow>, Option<AnswerRow>)> {
        let row = |(key, val): &(S::Key, S::Val), change: &S::Change| {
            let (answer, count) = S::answer(val, change);
            AnswerRow { key: json(key), value: json(&answer), count }
        };
        let mut differing = Vec::new();
        for (row_of, change) in &batch {
            let other = speed.remove(row_of);
            if other.as_ref() != Some(change) {
                differing.push((Some(row(row_of, change)), other.map(|other| row(row_of, &other))));
            }
        }
        differing.extend(speed.iter().map(|(row_of, change)| (None, Some(row(row_of, change)))));
        differing.truncate(AUDIT_ROWS_SHOWN);
        differing
    }
}

impl<S: Shape> View for ShardedView<S> {
    fn info(&self) -> &ViewInfo {
        &self.info
    }

    fn upper(&self) -> Tick {
        Tick(self.shards.iter().map(|shard| shard.published.load().upper).min().unwrap_or(0))
    }

    fn read(&self, at: Tick, query: &Query) -> Result<Vec<AnswerRow>, ReadError> {
        match query {
            Query::Get(keys) => {
                let mut found = Vec::new();
                let shards = self.load(at)?;
                for given in keys {
                    let key = self.key(given)?;
                    let shard = (bucket(&key) as usize % self.portion.of).wrapping_sub(self.portion.first);
                    let Some((runs, changes)) = shards.get(shard) else { continue };
                    let rows = Merged { runs, batches: &changes.batches, through: at.0 }.get(&key);
                    let key = json(&key);
                    found.extend(answers::<S>(&rows).into_iter().map(|(answer, count)| AnswerRow {
                        key: key.clone(),
                        value: json(&answer),
                        count,
                    }));
                }
                Ok(found)
            }
            Query::Range { from, to, limit } => {
                let from = from.as_ref().map(|from| self.key(from)).transpose()?;
                let to = to.as_ref().map(|to| self.key(to)).transpose()?;
                let place = |key: &S::Key| match (&from, &to) {
                    (Some(from), _) if key < from => Ordering::Less,
                    (_, Some(to)) if key >= to => Ordering::Greater,
                    _ => Ordering::Equal,
                };
                self.ordered(at, *limit, &|key| place(key).is_lt(), &place)
            }
            Query::Prefix { prefix, limit } => {
                self.check_prefix(prefix)?;
                let place = |key: &S::Key| compare_beginning(&json(key), prefix);
                if sorted_as_json::<S::Key>() {
                    self.ordered(at, *limit, &|key| place(key).is_lt(), &place)
                } else {
                    let apart = |key: &S::Key| if place(key).is_eq() { Ordering::Equal } else { Ordering::Less };
                    self.ordered(at, *limit, &|_| false, &apart)
                }
            }
            Query::Top(n) => self.top(at, *n),
            Query::Scan { limit } => self.ordered(at, *limit, &|_| false, &|_| Ordering::Equal),
        }
    }

    fn owner(&self, key: &Value) -> Result<usize, ReadError> {
        Ok(bucket(&self.key(key)?) as usize % self.portion.of)
    }

    fn merge(&self, query: &Query, parts: Vec<Vec<AnswerRow>>) -> Result<Vec<AnswerRow>, ReadError> {
        let rows = parts.into_iter().flatten();
        match query {
            // Each key's rows are in one part, and there in order.
            Query::Get(_) => Ok(rows.collect()),
            Query::Range { limit, .. } | Query::Prefix { limit, .. } | Query::Scan { limit } => {
                let mut keyed = rows.map(|row| Ok((self.key(&row.key)?, row))).collect::<Result<Vec<_>, ReadError>>()?;
                keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
                Ok(keyed.into_iter().map(|(_, row)| row).take(*limit).collect())
            }
            Query::Top(n) => {
                let mut keyed = Vec::new();
                for row in rows {
                    let answer = S::Answer::deserialize(&row.value).map_err(|reason| self.not_a_key(&row.value, reason))?;
                    keyed.push((std::cmp::Reverse(answer), self.key(&row.key)?, row));
                }
                keyed.sort_by(|(a, x, _), (b, y, _)| a.cmp(b).then_with(|| x.cmp(y)));
                Ok(keyed.into_iter().map(|(.., row)| row).take(*n).collect())
            }
        }
    }

    fn audit(&self, at: Tick, audited: &Audited<'_>) -> Result<Audit, ReadError> {
        let (whole, frozen) = match audited {
            Audited::Changes(runs) => (false, runs),
            Audited::Whole(runs) => (true, runs),
        };
        let mut audit = Audit { view: self.info.name.clone(), ..Audit::default() };
        let (mut batch_rows, mut speed_rows) = (BTreeMap::new(), BTreeMap::new());
        for (frozen, (base, changes)) in frozen.iter().zip(self.load(at)?) {
            let typed = |run: &&(dyn Any + Send + Sync)| run.downcast_ref::<Arc<Run<S::Key, S::Val, S::Change>>>().map(Arc::clone);
            let frozen: Option<Vec<_>> = frozen.iter().map(typed).collect();
            let frozen = frozen.expect("a view's runs have the view's types");
            let runs = if whole { &base[..] } else { &[] };
            let batch = Merged { runs: &frozen, batches: &[], through: at.0 };
            let speed = Merged { runs, batches: &changes.batches, through: at.0 };
            let (b, s) = (batch.digest(), speed.digest());
            audit.batch = audit.batch.plus(b);
            audit.speed = audit.speed.plus(s);
            if b != s {
                batch_rows.append(&mut all_rows(&batch));
                speed_rows.append(&mut all_rows(&speed));
            }
        }
        audit.differing = self.differences(batch_rows, speed_rows);
        Ok(audit)
    }

    fn digest(&self, at: Tick) -> Result<Digest, ReadError> {
        let shards = self.load(at)?;
        let digests = shards.iter().map(|(runs, changes)| Merged { runs, batches: &changes.batches, through: at.0 }.digest());
        Ok(digests.fold(Digest::default(), Digest::plus))
    }
}

fn all_rows<K: Data, V: Data, R: Change>(merged: &Merged<'_, K, V, R>) -> BTreeMap<(K, V), R> {
    let mut all = BTreeMap::new();
    merged.walk(&|_| false, &mut |key, rows| {
        all.extend(rows.iter().map(|(val, change)| ((key.clone(), val.clone()), change.clone())));
        ControlFlow::Continue(())
    });
    all
}

/// A key's rows as answers, in the order of the answers.
fn answers<S: Shape>(rows: &[(S::Val, S::Change)]) -> Vec<(S::Answer, isize)> {
    let mut answers: Vec<_> = rows.iter().map(|(val, change)| S::answer(val, change)).collect();
    answers.sort();
    answers
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("not representable as JSON: {error}")))
}
