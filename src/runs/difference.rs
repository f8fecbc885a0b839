//! The exact difference between two versions of a view, as rows: new minus old.

use std::collections::BTreeMap;

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

/// New minus old, of the views that either has; at most `limit` rows of each are listed. Views whose digests are equal are
/// not looked at again; of the others both versions are held in memory.
pub fn differences<'v>(
    new: impl IntoIterator<Item = (&'v str, &'v dyn View)>,
    old: impl IntoIterator<Item = (&'v str, &'v dyn View)>,
    at: Tick,
    limit: usize,
) -> Result<Vec<Difference>, ReadError> {
    let mut pairs: BTreeMap<&str, (Option<&dyn View>, Option<&dyn View>)> = BTreeMap::new();
    new.into_iter().for_each(|(name, view)| pairs.entry(name).or_default().0 = Some(view));
    old.into_iter().for_each(|(name, view)| pairs.entry(name).or_default().1 = Some(view));
    let mut all = Vec::new();
    for (view, (new, old)) in pairs {
        let same = match (new, old) {
            (Some(new), Some(old)) => new.digest(at)? == old.digest(at)?,
            _ => false,
        };
        let mut rows = if same { Vec::new() } else { difference(new, old, at)? };
        let more = rows.len().saturating_sub(limit) as u64;
        rows.truncate(limit);
        all.push(Difference { view: view.to_owned(), rows, more, unread: false });
    }
    Ok(all)
}

fn difference(new: Option<&dyn View>, old: Option<&dyn View>, at: Tick) -> Result<Vec<AnswerRow>, ReadError> {
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
