//! From a module's name to its source, as Python's `PathFinder` would find it on disk.
//!
//! [`Name`] and [`PathIndex`] know nothing of Redis; [`resolve`] asks it, with a listing of the
//! index that all calls of a transport share. The rules, for users: docs/resolution.md.

mod lookup;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) mod resolve;

use std::sync::Arc;

use crate::module::CachedModule;
use crate::paths::index::PathIndex;
use crate::paths::name::Name;

/// What a module's name stands for, as Python's `PathFinder` would find it if the cached paths
/// were files on a disk.
///
/// There will be no other answer, so a `match` needs no further arm: an outage, or an entry that
/// can't be read, is an error and never one of these. Returned by `resolve` of a reader, a near
/// cache and a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A regular package: `shared/halopsa/__init__.py`. It hides `shared/halopsa.py`.
    Package(Arc<CachedModule>),
    /// A module: `shared/halopsa.py`. It hides what lies below `shared/halopsa/`.
    Module(Arc<CachedModule>),
    /// A namespace package (PEP 420): there is neither of the two, and there are paths below.
    Namespace {
        /// Its directory, without a slash at its end: `shared/halopsa`.
        path: String,
    },
    /// There is nothing of that name: the next finder may try.
    NotFound,
}

impl Resolution {
    /// The answer for a name with a source, which is the first of its candidates that exists.
    pub(crate) fn sourced(name: &Name, module: Arc<CachedModule>) -> Self {
        // Compared with the whole path, not by its last segment: `a.__init__` names the module
        // `a/__init__.py`, which is no package of that name.
        if name.package() == Some(module.path.as_str()) {
            Self::Package(module)
        } else {
            Self::Module(module)
        }
    }

    /// The answer for a name that neither candidate has a source for: only the index can tell
    /// whether anything lies below it.
    pub(crate) fn without_source(name: &Name, index: &PathIndex) -> Self {
        if index.is_namespace(name) {
            let path = name.directory().to_owned();
            Self::Namespace { path }
        } else {
            Self::NotFound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(name: &str) -> Name {
        Name::parse(name).unwrap()
    }

    #[test]
    fn the_path_tells_a_package_from_a_module() {
        let resolve = |text: &str, path: &str| {
            let module = Arc::new(CachedModule::new(path, "").unwrap());
            Resolution::sourced(&name(text), module)
        };
        let is_package = |resolution| matches!(resolution, Resolution::Package(_));
        assert!(is_package(resolve("a.b", "a/b/__init__.py")));
        assert!(!is_package(resolve("a.b", "a/b.py")));
        assert!(!is_package(resolve("a.__init__", "a/__init__.py")));
        assert!(is_package(resolve("a.__init__", "a/__init__/__init__.py")));
    }

    #[test]
    fn without_a_source_the_paths_below_decide() {
        let index = PathIndex::from(HashSet::from(["a/b/c.py".to_owned()]));
        let resolve = |text| Resolution::without_source(&name(text), &index);
        let path = "a/b".to_owned();
        assert_eq!(resolve("a.b"), Resolution::Namespace { path });
        assert_eq!(resolve("a.b.c"), Resolution::NotFound);
    }
}
