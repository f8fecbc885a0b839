//! Stub of the log's types until the log lands.
#![allow(missing_docs)]
use columnar::{Borrow, BorrowedOf, Columnar, Len, Push};
use std::{ops::Range, sync::Arc};

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Tick(pub u64);
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Partition(pub u32);
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Offset(pub u64);

pub trait Event:
    Columnar<Container: Send + Sync> + Clone + Send + Sync + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned + 'static
{
    const NAME: &'static str;
    const VERSION: u32;
    const FIELDS: &'static [&'static str];
}

pub struct Block<E: Event> {
    body: Arc<(E::Container, Vec<(Tick, usize)>)>,
    range: Range<usize>,
}
impl<E: Event> Clone for Block<E> {
    fn clone(&self) -> Self {
        Self { body: Arc::clone(&self.body), range: self.range.clone() }
    }
}
impl<E: Event> Block<E> {
    pub fn from_events(events: impl IntoIterator<Item = (Tick, E)>) -> Self {
        let mut c = E::Container::default();
        let mut ticks: Vec<(Tick, usize)> = Vec::new();
        for (t, e) in events {
            c.push(&e);
            match ticks.last_mut() {
                Some((last, end)) if *last == t => *end += 1,
                _ => {
                    let n = ticks.last().map_or(0, |x| x.1);
                    ticks.push((t, n + 1))
                }
            }
        }
        let n = c.len();
        Self { body: Arc::new((c, ticks)), range: 0..n }
    }
    pub fn len(&self) -> usize {
        self.range.len()
    }
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
    pub fn columns(&self) -> BorrowedOf<'_, E> {
        self.body.0.borrow()
    }
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
    pub fn tick_runs(&self) -> impl Iterator<Item = (Tick, Range<usize>)> + '_ {
        let mut start = 0;
        self.body.1.iter().filter_map(move |(t, end)| {
            let r = start.max(self.range.start)..(*end).min(self.range.end);
            start = *end;
            (!r.is_empty()).then_some((*t, r))
        })
    }
    pub fn slice_ticks(&self, ticks: Range<Tick>) -> Self {
        let mut r: Option<Range<usize>> = None;
        for (t, x) in self.tick_runs() {
            if ticks.contains(&t) {
                r = Some(match r {
                    None => x,
                    Some(o) => o.start..x.end,
                })
            }
        }
        Self { body: Arc::clone(&self.body), range: r.unwrap_or(0..0) }
    }
    pub fn first_tick(&self) -> Tick {
        self.tick_runs().next().unwrap().0
    }
    pub fn last_tick(&self) -> Tick {
        self.tick_runs().last().unwrap().0
    }
}
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct LogError;
pub struct Cursor<E>(std::marker::PhantomData<E>);
impl<E: Event> Cursor<E> {
    pub fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        Ok(None)
    }
    pub fn complete(&self) -> Tick {
        Tick(0)
    }
}
