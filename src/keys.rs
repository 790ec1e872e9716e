//! Where the modules live in Redis, and which paths may live there.
//!
//! The two names of the specification, [`MODULE_KEY_PREFIX`] and [`MODULE_INDEX_KEY`], are a
//! contract with Python code that is not ours. [`module_key`] is the only way from a path to a key:
//! it refuses every path that could damage the index or be read differently elsewhere.

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
/// <string>, "master_replid": <string>}`. Outside [`MODULE_KEY_PREFIX`], whose keys foreign readers take for modules.
pub const COMPLETE_KEY: &str = "bifrost:module-cache:complete";

/// What the key of the token begins with that a warm-up places while it runs. It lives for a day at
/// most. If it is gone at the end, the data was flushed meanwhile.
pub(crate) const WARMING_KEY_PREFIX: &str = "bifrost:module-cache:warming:";

/// Its value changes whenever the cache is cleared, which tells warm-ups under way not to mark it
/// as complete.
pub(crate) const GENERATION_KEY: &str = "bifrost:module-cache:generation";

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
    Ok(module_key_unchecked(path))
}

/// The same for a path that has been checked.
pub(crate) fn module_key_unchecked(path: &str) -> String {
    let mut key = String::with_capacity(MODULE_KEY_PREFIX.len() + path.len());
    key.push_str(MODULE_KEY_PREFIX);
    key.push_str(path);
    key
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

    proptest! {
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
