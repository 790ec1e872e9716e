//! All cached paths, and which directories they make: what tells a namespace package from nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::name::Name;

/// A set of paths that knows its directories: a question about one is a lookup in a map, and never
/// a search through the paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathIndex {
    /// Shared with callers that asked for all paths, so that giving them out copies nothing.
    paths: Arc<HashSet<String>>,
    /// How many entries each directory has: paths and further directories directly in it.
    directories: HashMap<String, usize>,
    /// How long the names of both are together.
    text: usize,
}

impl PathIndex {
    #[cfg(feature = "near-cache")]
    pub(crate) fn paths(&self) -> &Arc<HashSet<String>> {
        &self.paths
    }

    /// How many bytes it takes, at most. A map that has just grown is half empty, hence twice the
    /// slots.
    #[cfg(any(test, feature = "near-cache"))]
    pub(crate) fn bytes(&self) -> usize {
        let names = self.paths.len() + self.directories.len();
        let (slot, allocation) = (size_of::<String>() + 1, 16);
        names * (2 * slot + allocation) + self.text
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether anything lies in a directory.
    #[cfg(feature = "near-cache")]
    pub(crate) fn has_directory(&self, directory: &str) -> bool {
        self.directories.contains_key(directory)
    }

    /// True if it was not there.
    #[cfg(any(test, feature = "near-cache"))]
    pub(crate) fn insert(&mut self, path: String) -> bool {
        if self.paths.contains(&path) {
            return false;
        }
        self.enter(&path);
        self.text += path.len();
        Arc::make_mut(&mut self.paths).insert(path)
    }

    /// Counts a new path in its directory, and new directories in theirs.
    fn enter(&mut self, path: &str) {
        let mut directory = parent(path);
        while let Some(name) = directory {
            if let Some(entries) = self.directories.get_mut(name) {
                *entries += 1;
                break;
            }
            self.directories.insert(name.to_owned(), 1);
            self.text += name.len();
            // This directory is new, so it is itself a new entry of the one above.
            directory = parent(name);
        }
    }

    /// True if it was there.
    #[cfg(any(test, feature = "near-cache"))]
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        if !self.paths.contains(path) || !Arc::make_mut(&mut self.paths).remove(path) {
            return false;
        }
        self.text -= path.len();
        let mut directory = parent(path);
        while let Some(name) = directory {
            match self.directories.get_mut(name) {
                Some(entries) if *entries > 1 => {
                    *entries -= 1;
                    break;
                }
                _ => {
                    self.directories.remove(name);
                    self.text -= name.len();
                }
            }
            directory = parent(name);
        }
        true
    }

    /// Whether paths lie below the name. Its own `__init__.py` does not count: the caller has found
    /// that there is no such module, so the path has lost its value, or was removed since.
    pub(crate) fn is_namespace(&self, name: &Name) -> bool {
        match self.directories.get(name.directory()) {
            None => false,
            Some(1) => !name.package().is_some_and(|path| self.contains(path)),
            Some(_) => true,
        }
    }
}

impl From<HashSet<String>> for PathIndex {
    fn from(paths: HashSet<String>) -> Self {
        let mut index = Self::default();
        for path in &paths {
            index.enter(path);
            index.text += path.len();
        }
        Self {
            paths: Arc::new(paths),
            ..index
        }
    }
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(directory, _)| directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn index(paths: &[&str]) -> PathIndex {
        let paths: HashSet<String> = paths.iter().map(ToString::to_string).collect();
        paths.into()
    }

    fn is_namespace(paths: &[&str], name: &str) -> bool {
        index(paths).is_namespace(&Name::parse(name).unwrap())
    }

    #[test]
    fn what_lies_below_a_name_makes_a_namespace() {
        for path in ["a/b/c.py", "a/b/c/d/e.py", "a/b/data.txt", "a/b/.x"] {
            assert!(is_namespace(&[path], "a.b"), "{path}");
            assert!(is_namespace(&[path], "a"), "{path}");
        }
        for path in ["a/b.py", "a/b", "a/bc/d.py", "a/b.py/c.py", "b/a/b/c.py"] {
            assert!(!is_namespace(&[path], "a.b"), "{path}");
        }
        assert!(is_namespace(&["a", "a/b.py"], "a"));
        assert!(is_namespace(&["index/a.py"], "index"));
    }

    #[test]
    fn its_own_init_alone_makes_none() {
        assert!(!is_namespace(&["a/__init__.py"], "a"));
        assert!(is_namespace(&["a/__init__.py", "a/b.py"], "a"));
        assert!(is_namespace(&["a/__init__.py/b.py"], "a"));
        assert!(is_namespace(&["a/b/__init__.py"], "a"));
    }

    /// Few names, so that paths meet, and are each other's directories.
    fn path() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "a.py", "__init__.py"]);
        prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_search_through_all_paths(
            changes in prop::collection::vec((any::<bool>(), path()), 0..40),
        ) {
            let (mut index, mut model) = (PathIndex::default(), BTreeSet::new());
            for (add, path) in changes {
                if add {
                    prop_assert_eq!(index.insert(path.clone()), model.insert(path));
                } else {
                    prop_assert_eq!(index.remove(&path), model.remove(&path));
                }
                for name in ["a", "b", "a.a", "a.b", "b.a", "a.a.b", "a.__init__", "__init__"] {
                    let name = Name::parse(name).unwrap();
                    let below = format!("{}/", name.directory());
                    let expected = model
                        .iter()
                        .any(|path| path.starts_with(&below) && Some(path.as_str()) != name.package());
                    prop_assert_eq!(index.is_namespace(&name), expected, "{:?} in {:?}", name, model);
                }
                prop_assert_eq!(&*index.paths, &model.iter().cloned().collect());
            }
            let at_once = PathIndex::from((*index.paths).clone());
            prop_assert_eq!(&at_once.directories, &index.directories);
            prop_assert_eq!(at_once.bytes(), index.bytes());
            for path in &model {
                index.remove(path);
            }
            prop_assert!(index.directories.is_empty() && index.bytes() == 0);
        }
    }
}
