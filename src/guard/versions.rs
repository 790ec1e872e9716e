//! Which version of each row was last seen, and what that says about changes.
//!
//! A version is what the database says of a row that is another one after each change: `xmin`, the
//! transaction that wrote it. A listing brings all rows. Between two listings it is enough to be told
//! of the rows that were written since: as long as there are as many as are known here, none has
//! gone.

use std::collections::HashMap;

/// The rows as they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    rows: HashMap<Box<str>, Seen>,
    round: u32,
    /// Whether all rows have been seen once.
    is_known: bool,
}

#[derive(Debug)]
struct Seen {
    version: u64,
    /// In which listing.
    round: u32,
}

impl Versions {
    /// A listing begins. One that is given up half-way has done no harm: the next looks again.
    pub(crate) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// A row of the listing, or one that was written since; answers whether it is new or has changed.
    pub(crate) fn row(&mut self, path: &str, version: u64) -> bool {
        let seen = Seen {
            version,
            round: self.round,
        };
        // Not `insert` at once: it would copy every path, and most are there.
        if let Some(row) = self.rows.get_mut(path) {
            return std::mem::replace(row, seen).version != version;
        }
        self.rows.insert(path.into(), seen);
        true
    }

    /// The listing has ended; answers the paths whose rows have gone.
    pub(crate) fn end(&mut self) -> Vec<String> {
        let (round, mut gone) = (self.round, Vec::new());
        self.rows.retain(|path, seen| {
            let is_there = seen.round == round;
            if !is_there {
                gone.push(path.to_string());
            }
            is_there
        });
        self.is_known = true;
        gone
    }

    /// A row has gone, as its database says.
    pub(crate) fn remove(&mut self, path: &str) {
        self.rows.remove(path);
    }

    /// Whether a listing has come to its end, so that what differs from it is a change.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.rows.contains_key(path)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn list(versions: &mut Versions, rows: &BTreeMap<String, u64>) -> Vec<String> {
        versions.begin();
        let mut changed: Vec<String> = rows
            .iter()
            .filter(|(path, version)| versions.row(path, **version))
            .map(|(path, _)| path.clone())
            .collect();
        changed.extend(versions.end());
        changed.sort_unstable();
        changed
    }

    fn rows() -> impl Strategy<Value = BTreeMap<String, u64>> {
        prop::collection::btree_map("[a-e]", 0..3_u64, 0..5)
    }

    proptest! {
        #[test]
        fn exactly_what_differs_from_the_last_listing_is_told(
            listings in prop::collection::vec(rows(), 1..8)
        ) {
            let mut versions = Versions::default();
            let mut before = BTreeMap::new();
            for now in listings {
                let all = before.keys().chain(now.keys());
                let mut differ: Vec<String> = all
                    .filter(|path| before.get(*path) != now.get(*path))
                    .cloned()
                    .collect();
                differ.sort_unstable();
                differ.dedup();
                prop_assert_eq!(list(&mut versions, &now), differ);
                prop_assert_eq!(versions.len(), now.len());
                before = now;
            }
        }

        #[test]
        fn a_listing_that_breaks_off_loses_nothing(first in rows(), second in rows(), cut in 0..5_usize) {
            let mut versions = Versions::default();
            list(&mut versions, &first);
            versions.begin();
            let mut told: Vec<String> = second
                .iter()
                .take(cut)
                .filter(|(path, version)| versions.row(path, **version))
                .map(|(path, _)| path.clone())
                .collect();
            told.extend(list(&mut versions, &second));
            for path in first.keys().chain(second.keys()) {
                let differs = first.get(path) != second.get(path);
                prop_assert!(!differs || told.contains(path), "{path}");
            }
        }
    }
}
