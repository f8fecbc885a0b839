//! The exact difference between two versions of a view, as rows: new minus old.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
    let mut all = Vec::new();
    for name in names {
        let (new, old) = (new.get(name), old.get(name));
        if let (Some(new), Some(old)) = (new, old)
            && new.digest(last)? == old.digest(last)?
        {
            continue;
        }
        let mut rows = difference(new, old, last)?;
        let more = rows.len().saturating_sub(limit) as u64;
        rows.truncate(limit);
        all.push(Difference { view: name.clone(), rows, more, unread: false });
    }
    all.retain(|difference| !difference.is_empty());
    all.extend(unread.iter().map(|view| Difference { view: view.clone(), unread: true, ..Difference::default() }));
    Ok(all)
}

fn difference(new: Option<&Arc<dyn View>>, old: Option<&Arc<dyn View>>, at: Tick) -> Result<Vec<AnswerRow>, ReadError> {
    // In the order in which each view gives them; a row that only the old one has comes after those of the new.
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut rows: Vec<AnswerRow> = Vec::new();
    for (view, sign) in [(new, 1), (old, -1)] {
        let Some(view) = view else { continue };
        for row in view.read(at, &Query::Scan { limit: usize::MAX })? {
            let place = *places.entry((row.key.to_string(), row.value.to_string())).or_insert(rows.len());
            match rows.get_mut(place) {
                Some(known) => known.count += sign * row.count,
                None => rows.push(AnswerRow { count: sign * row.count, ..row }),
            }
        }
    }
    rows.retain(|row| row.count != 0);
    Ok(rows)
}
