//! The exact difference between two versions of a view, as rows: new minus old.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::{AnswerRow, Query, ReadError, View};
use crate::log::Tick;

/// How a view's rows differ from those of its predecessor at the same tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The view's name.
    pub view: String,
    /// Rows with what was added (`count` above zero) or taken away (below), by key.
    pub rows: Vec<AnswerRow>,
    /// Rows that differ beyond those listed.
    pub more: u64,
    /// The old view cannot be read by this program: its types changed, or the view is gone.
    pub unread: bool,
}

impl Difference {
    /// Whether the view is as it was.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.more == 0 && !self.unread
    }

    /// Adds what another process found in the same view. At most `limit` rows are listed.
    pub fn add(&mut self, other: Self, limit: usize) {
        self.rows.extend(other.rows);
        self.more += other.more + self.rows.len().saturating_sub(limit) as u64;
        self.rows.truncate(limit);
        self.unread |= other.unread;
    }
}

/// Views by name.
pub type ViewsByName = BTreeMap<String, Arc<dyn View>>;

/// New minus old of all views that differ, at the tick before a frontier; at most `limit` rows of each are listed. `unread`
/// are old views that cannot be read. Views whose digests are equal are not looked at again; of the others both versions are
/// held in memory.
pub fn differences(
    new: &ViewsByName,
    old: &ViewsByName,
    unread: &[String],
    frontier: Tick,
    limit: usize,
) -> Result<Vec<Difference>, ReadError> {
    let Some(last) = frontier.0.checked_sub(1).map(Tick) else { return Ok(Vec::new()) };
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).filter(|name| !unread.contains(name)).collect();
    let mut all: Vec<Difference> = Vec::new();
    for name in names {
        let (new, old) = (new.get(name), old.get(name));
        if let (Some(new), Some(old)) = (new, old)
            && new.digest(last)? == old.digest(last)?
        {
            continue;
        }
        all.push(DifferencePart::of(name, new, old, last, limit, |_| Ok(true))?.into());
    }
    all.retain(|difference| !difference.is_empty());
    all.extend(unread.iter().map(|view| Difference { view: view.clone(), unread: true, ..Difference::default() }));
    Ok(all)
}

/// A part of a [`Difference`], as one of several processes finds it: the rows whose keys are its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DifferencePart {
    view: String,
    /// Rows that the new view has, in its order.
    new: Vec<AnswerRow>,
    /// Rows that only the old view has, in its order.
    old: Vec<AnswerRow>,
    /// How many there are beyond those.
    more: u64,
}

impl DifferencePart {
    /// New minus old, of the rows whose keys are `own`, at a tick.
    pub fn of(
        view: &str,
        new: Option<&Arc<dyn View>>,
        old: Option<&Arc<dyn View>>,
        at: Tick,
        limit: usize,
        own: impl Fn(&Value) -> Result<bool, ReadError>,
    ) -> Result<Self, ReadError> {
        let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut rows: Vec<AnswerRow> = Vec::new();
        let mut of_new = 0;
        for (view, sign) in [(new, 1), (old, -1)] {
            let Some(view) = view else { continue };
            for row in view.read(at, &Query::Scan { limit: usize::MAX })? {
                if !own(&row.key)? {
                    continue;
                }
                let place = *places.entry((row.key.to_string(), row.value.to_string())).or_insert(rows.len());
                match rows.get_mut(place) {
                    Some(known) => known.count += sign * row.count,
                    None => rows.push(AnswerRow { count: sign * row.count, ..row }),
                }
            }
            if sign > 0 {
                of_new = rows.len();
            }
        }
        let mut old = rows.split_off(of_new);
        let mut new = rows;
        let mut more = 0;
        for rows in [&mut new, &mut old] {
            rows.retain(|row| row.count != 0);
            more += rows.len().saturating_sub(limit) as u64;
            rows.truncate(limit);
        }
        let mut part = Self { view: view.to_owned(), new, old, more };
        part.shorten(limit);
        Ok(part)
    }

    /// The parts of all processes in one; `order` is a view of the new program that has the name.
    pub fn merge(parts: Vec<Self>, order: &dyn View, limit: usize) -> Result<Self, ReadError> {
        let mut all = Self { view: order.info().name.clone(), new: Vec::new(), old: Vec::new(), more: 0 };
        let (mut new, mut old) = (Vec::new(), Vec::new());
        for part in parts {
            new.push(part.new);
            old.push(part.old);
            all.more += part.more;
        }
        let scan = Query::Scan { limit: usize::MAX };
        (all.new, all.old) = (order.merge(&scan, new)?, order.merge(&scan, old)?);
        all.shorten(limit);
        Ok(all)
    }

    /// Keeps the first rows: those of the new view come before those of the old.
    fn shorten(&mut self, limit: usize) {
        for (rows, room) in [(self.new.len(), limit), (self.old.len(), limit.saturating_sub(self.new.len()))] {
            self.more += rows.saturating_sub(room) as u64;
        }
        self.new.truncate(limit);
        self.old.truncate(limit - self.new.len());
    }
}

impl From<DifferencePart> for Difference {
    fn from(part: DifferencePart) -> Self {
        let DifferencePart { view, mut new, old, more } = part;
        new.extend(old);
        Self { view, rows: new, more, unread: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_processes_find_in_a_view_is_one_difference() {
        let found = |keys: std::ops::Range<u64>, more| {
            let rows = keys.map(|key| AnswerRow { key: key.into(), value: Value::Null, count: 1 }).collect();
            Difference { view: "v".to_owned(), rows, more, unread: false }
        };
        let mut all = found(0..2, 0);
        all.add(found(2..5, 7), 3);
        assert_eq!(all, found(0..3, 9));
        all.add(Difference { unread: true, ..Difference::default() }, 3);
        assert!(all.unread && all.rows.len() == 3 && all.more == 9);
    }
}
