//! Where the modules live in Redis, and which paths may live there.
//!
//! The two names of the specification, [`MODULE_KEY_PREFIX`] and [`MODULE_INDEX_KEY`], are a
//! contract with Python code that is not ours. [`module_key`] is the only way from a path to a key:
//! it refuses every path that could damage the index or be read differently elsewhere.
//!
//! [`Keys`] are the same names behind a namespace, for the workspace of one tenant among several.

use crate::error::Error;

/// What every module's key begins with, as the specification fixes it.
pub const MODULE_KEY_PREFIX: &str = "bifrost:module:";

/// The SET of all module paths, as the specification fixes it.
///
/// It is also what the path `index` would be stored under, which is why that path is refused.
pub const MODULE_INDEX_KEY: &str = "bifrost:module:index";

/// The mark of a complete cache: written at the end of a warm-up, gone after a flush.
///
/// JSON `{"completed_at": <Unix seconds>, "modules": <count>, "verified": <bool>, "run_id":
/// <string>, "master_replid": <string>, "evicted_keys": <count>}`, of which the last three may be missing. Outside [`MODULE_KEY_PREFIX`], whose keys foreign readers take for modules.
pub const COMPLETE_KEY: &str = "bifrost:module-cache:complete";

/// What the key of the token begins with that a warm-up places while it runs. It lives for a day at
/// most. If it is gone at the end, the data was flushed meanwhile.
pub(crate) const WARMING_KEY_PREFIX: &str = "bifrost:module-cache:warming:";

/// What a guard says of itself while it guards; it expires after three of its intervals.
///
/// JSON `{"id": <string>, "since": <Unix seconds>, "checked": <Unix seconds>, "feed": "poll" or
/// "listen", "pending": <count>, "withheld": <count>, "standby_ms": <milliseconds>}`.
pub const GUARD_KEY: &str = "bifrost:module-cache:guard";

/// How many modules were cached before guards brought many that were missing, or when those without
/// a row became too many to be removed: by it the share is measured, by all guards.
#[cfg(all(feature = "postgres", feature = "near-cache"))]
pub(crate) const BASELINE_KEY: &str = "bifrost:module-cache:baseline";

/// Its value changes whenever the cache is cleared, which tells warm-ups under way not to mark it
/// as complete.
pub(crate) const GENERATION_KEY: &str = "bifrost:module-cache:generation";

/// How long a namespace may be, in bytes.
const MAX_NAMESPACE_BYTES: usize = 200;

/// What no namespace may contain: the keys of one would lie among those of another.
const OURS: &str = "bifrost:module";

/// The names of one workspace's keys: those of the specification, behind a namespace. Returned by
/// [`Config::keys`](crate::Config::keys), for programs that write beside this crate.
///
/// ```
/// use bifrost_module_cache::Config;
///
/// let config = Config::from_env()?.with_namespace("{tenant-a}:");
/// let keys = config.keys();
/// assert_eq!(keys.module("a.py")?, "{tenant-a}:bifrost:module:a.py");
/// assert_eq!(keys.index(), "{tenant-a}:bifrost:module:index");
/// # Ok::<(), bifrost_module_cache::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    namespace: String,
    module_prefix: String,
    index: String,
    complete: String,
    pub(crate) guard: String,
    #[cfg(all(feature = "postgres", feature = "near-cache"))]
    pub(crate) baseline: String,
    pub(crate) generation: String,
    pub(crate) warming_prefix: String,
    pub(crate) probe: String,
}

impl Keys {
    /// The names behind a namespace, which is [checked](Self::checked) later: setters can't fail.
    pub(crate) fn new(namespace: String) -> Self {
        let name = |name| format!("{namespace}{name}");
        Self {
            module_prefix: name(MODULE_KEY_PREFIX),
            index: name(MODULE_INDEX_KEY),
            complete: name(COMPLETE_KEY),
            guard: name(GUARD_KEY),
            #[cfg(all(feature = "postgres", feature = "near-cache"))]
            baseline: name(BASELINE_KEY),
            generation: name(GENERATION_KEY),
            warming_prefix: name(WARMING_KEY_PREFIX),
            probe: name(PROBE_KEY),
            namespace,
        }
    }

    /// Refuses a namespace that can't be used. It goes into patterns of SCAN and ACL, where some
    /// characters mean something else.
    pub(crate) fn checked(&self) -> Result<(), Error> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/{}".contains(c);
        if !self.namespace.chars().all(is_plain) {
            return Err(Error::invalid_config(
                "the namespace may hold only letters and digits of ASCII, and - _ . : / { }",
            ));
        }
        if self.namespace.len() > MAX_NAMESPACE_BYTES {
            return Err(Error::invalid_config(
                "the namespace must be at most 200 characters",
            ));
        }
        if self.namespace.contains(OURS) {
            return Err(Error::invalid_config(
                "the namespace must not contain bifrost:module: its keys would lie among those of another",
            ));
        }
        Ok(())
    }

    /// Whether all keys lie in one slot of a cluster: by the first pair of braces with something
    /// between.
    pub(crate) fn has_hash_tag(&self) -> bool {
        let tag = self.namespace.split_once('{');
        let tag = tag.and_then(|(_, rest)| rest.split_once('}'));
        tag.is_some_and(|(tag, _)| !tag.is_empty())
    }

    /// What goes before every key; empty where the keys are the specification's own.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The key under which the module at `path` is stored, as [`module_key`].
    ///
    /// # Errors
    ///
    /// As [`module_key`].
    pub fn module(&self, path: &str) -> Result<String, Error> {
        validate_path(path)?;
        Ok(self.module_unchecked(path))
    }

    /// The same for a path that has been checked.
    pub(crate) fn module_unchecked(&self, path: &str) -> String {
        let mut key = String::with_capacity(self.module_prefix.len() + path.len());
        key.push_str(&self.module_prefix);
        key.push_str(path);
        key
    }

    /// What every module's key begins with, and the index: [`MODULE_KEY_PREFIX`].
    #[must_use]
    pub fn module_prefix(&self) -> &str {
        &self.module_prefix
    }

    /// The SET of all module paths: [`MODULE_INDEX_KEY`].
    #[must_use]
    pub fn index(&self) -> &str {
        &self.index
    }

    /// The mark of a complete cache: [`COMPLETE_KEY`].
    #[must_use]
    pub fn complete(&self) -> &str {
        &self.complete
    }

    /// What a guard says of itself: [`GUARD_KEY`].
    #[must_use]
    pub fn guard(&self) -> &str {
        &self.guard
    }
}

/// A key that is never written: which node of a cluster owns it tells where all others are. The
/// owner itself says `ASK` for an absent key, and only for such a one, as soon as its slot is on its
/// way to another node.
pub(crate) const PROBE_KEY: &str = "bifrost:module-cache:probe";

/// How long a path may be, in characters, not bytes: the width of its column in the specification's
/// `workspace_files`.
pub const MAX_PATH_CHARS: usize = 1_000;

/// The key under which the module at `path` is stored.
///
/// A path is relative to the workspace and `/`-separated, 1 to [`MAX_PATH_CHARS`] characters. It is
/// taken to the letter: no normalisation, Unicode or other.
///
/// ```
/// use bifrost_module_cache::keys;
///
/// assert_eq!(keys::module_key("shared/halopsa.py")?, "bifrost:module:shared/halopsa.py");
/// assert!(keys::module_key("index").is_err());
/// # Ok::<(), bifrost_module_cache::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::InvalidPath`] for a path that is empty or too long, is exactly `index` (it would
/// overwrite the index), begins with `/`, has an empty, `.` or `..` segment, or contains a
/// backslash or a control character.
pub fn module_key(path: &str) -> Result<String, Error> {
    validate_path(path)?;
    Ok([MODULE_KEY_PREFIX, path].concat())
}

/// Checks a path by the rules of [`module_key`] without building its key.
///
/// # Errors
///
/// As [`module_key`].
pub fn validate_path(path: &str) -> Result<(), Error> {
    match fault_in(path) {
        None => Ok(()),
        Some(reason) => Err(Error::invalid_path(path, reason)),
    }
}

/// The rule that `path` breaks, if any.
fn fault_in(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    // A character takes at most four bytes: most paths need no count.
    if path.len() > MAX_PATH_CHARS && path.chars().count() > MAX_PATH_CHARS {
        return Some("it is longer than 1,000 characters");
    }
    if MODULE_INDEX_KEY.strip_prefix(MODULE_KEY_PREFIX) == Some(path) {
        return Some("it would overwrite the index of all modules");
    }
    if path.starts_with('/') {
        return Some("it is absolute, and must be relative to the workspace");
    }
    if path.chars().any(char::is_control) {
        return Some("it contains a control character");
    }
    if path.contains('\\') {
        return Some("it contains a backslash, and segments are separated by '/'");
    }
    path.split('/').find_map(|segment| match segment {
        "" => Some("it has an empty segment"),
        "." | ".." => Some("it has a '.' or '..' segment"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_names_are_the_specification_s() {
        assert_eq!(MODULE_KEY_PREFIX, "bifrost:module:");
        assert_eq!(MODULE_INDEX_KEY, "bifrost:module:index");
        assert_eq!(module_key("a/b.py").unwrap(), "bifrost:module:a/b.py");
    }

    #[test]
    fn ordinary_and_odd_paths_are_accepted() {
        for path in [
            "a",
            "index.py",
            "Index",
            "index/index",
            "shared/halopsa.py",
            "modules/extensions/__init__.py",
            "my-mod/über/日本語/🦀.py",
            "...",
            "a/.hidden",
            "a b/c\u{2028}d.py",
            " ",
        ] {
            assert_eq!(fault_in(path), None, "{path:?}");
        }
    }

    #[test]
    fn each_rule_refuses_and_says_why() {
        for (path, word) in [
            ("", "empty"),
            ("index", "index"),
            ("/a", "absolute"),
            ("/", "absolute"),
            ("a//b", "empty segment"),
            ("a/", "empty segment"),
            ("./a", "segment"),
            ("a/../b", "segment"),
            ("..", "segment"),
            (".", "segment"),
            ("a\\b", "backslash"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("a\u{7f}", "control"),
            ("a\u{85}b", "control"),
        ] {
            let error = module_key(path).unwrap_err();
            assert!(error.is_invalid_path(), "{path:?}");
            assert!(error.to_string().contains(word), "{path:?}: {error}");
        }
    }

    #[test]
    fn the_length_is_counted_in_characters() {
        assert_eq!(fault_in(&"x".repeat(1_000)), None);
        assert!(fault_in(&"x".repeat(1_001)).is_some());
        assert_eq!(fault_in(&"🦀".repeat(1_000)), None);
        assert!(fault_in(&"🦀".repeat(1_001)).is_some());
    }

    #[test]
    fn a_namespace_goes_before_every_key() {
        let keys = Keys::new("{a}:".to_owned());
        assert_eq!(keys.module("a.py").unwrap(), "{a}:bifrost:module:a.py");
        assert!(keys.module("index").is_err());
        for key in [
            keys.module_prefix(),
            keys.index(),
            keys.complete(),
            &keys.generation,
        ] {
            assert!(key.starts_with("{a}:bifrost:module"), "{key}");
        }
        let none = Keys::new(String::new());
        assert_eq!(
            (none.index(), none.complete()),
            (MODULE_INDEX_KEY, COMPLETE_KEY)
        );
        assert_eq!(none.module("a.py").unwrap(), module_key("a.py").unwrap());
    }

    #[test]
    fn a_hash_tag_is_what_the_first_braces_hold() {
        for (namespace, has) in [
            ("{a}:", true),
            ("x{a}", true),
            ("{a}{b}", true),
            ("{}a", false),
            ("{}{a}", false),
            ("a", false),
            ("{a", false),
            ("}a{", false),
        ] {
            let keys = Keys::new(namespace.to_owned());
            assert_eq!(keys.has_hash_tag(), has, "{namespace}");
        }
    }

    #[test]
    fn a_namespace_that_means_something_else_is_refused() {
        for good in [
            "",
            "a",
            "{tenant-a}:",
            "prod/eu_1.x:",
            "bifrost:",
            &"x".repeat(200),
        ] {
            assert!(Keys::new(good.to_owned()).checked().is_ok(), "{good}");
        }
        for bad in [
            "*",
            "a?",
            "[a]",
            "a\\",
            "a b",
            "a\n",
            "ü",
            "~a",
            "bifrost:module:",
            "xbifrost:module",
            &"x".repeat(201),
        ] {
            let error = Keys::new(bad.to_owned()).checked().unwrap_err();
            assert!(error.is_invalid_config(), "{bad}");
        }
    }

    proptest! {
        /// What is found below one namespace's prefix is of no other namespace.
        #[test]
        fn no_key_of_a_namespace_lies_in_another(
            one in "[ab:bifrost]{0,6}(bifrost:)?(modul)?",
            two in "[ab:bifrost]{0,6}(bifrost:)?(modul)?",
            path in "[a:bifrostmodule]{1,9}",
        ) {
            let [one, two] = [one, two].map(Keys::new);
            prop_assume!(one.checked().is_ok() && two.checked().is_ok() && one != two);
            let foreign = two.module_unchecked(&path);
            prop_assert!(!foreign.starts_with(one.module_prefix()));
            for key in [two.complete(), &two.generation, &two.warming_prefix] {
                prop_assert!(!key.starts_with(one.module_prefix()));
            }
        }

        #[test]
        fn a_key_never_is_the_index_and_always_gives_its_path_back(path in "\\PC{1,40}|[./a\\\\]{1,8}|index/?") {
            if let Ok(key) = module_key(&path) {
                prop_assert_ne!(key.as_str(), MODULE_INDEX_KEY);
                prop_assert_eq!(key.strip_prefix(MODULE_KEY_PREFIX), Some(path.as_str()));
                let segments: Vec<_> = path.split('/').collect();
                prop_assert!(!segments.iter().any(|s| matches!(*s, "" | "." | "..")));
                prop_assert!(!path.contains('\\'));
            }
        }

        #[test]
        fn a_refusal_never_panics(path in any::<String>()) {
            let _ = module_key(&path);
        }
    }
}
