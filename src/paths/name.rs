//! From a module's name to the paths that it may be cached under. Hot: each import asks for a name,
//! so both paths share one allocation.

use crate::keys::{MAX_PATH_CHARS, validate_path};

const PACKAGE: &str = "/__init__.py";
const MODULE: &str = ".py";

/// A name that can stand for a path.
///
/// It is taken to the letter, as Python's finder takes it: a segment may be `my-mod`, `__init__`
/// or `日本語`, and nothing is normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// The package's path, then the module's: both begin with the directory.
    text: String,
    /// How many bytes the directory has.
    directory: usize,
}

impl Name {
    /// `None` for what can be neither a path nor a directory of one. An empty segment is among
    /// that: Python would take it for a file called `.py`, which no `import` can name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let directory = name.len();
        let mut text = String::with_capacity(2 * directory + PACKAGE.len() + MODULE.len());
        // ASCII letters, digits and `_` can break no rule of a path: most names need no validation.
        let mut is_plain = directory <= MAX_PATH_CHARS - 2;
        for segment in name.split('.') {
            // Only dots separate segments: with a slash, two names would stand for one path.
            if segment.is_empty() || segment.contains('/') {
                return None;
            }
            is_plain &= segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            text.push_str(segment);
            text.push('/');
        }
        // A directory is possible if a path of one character below it is: the shortest one that the
        // name can have to do with.
        text.push_str(&PACKAGE[1..]);
        if !is_plain {
            validate_path(&text[..directory + 2]).ok()?;
        }
        text.extend_from_within(..directory);
        text.push_str(MODULE);
        Some(Self { text, directory })
    }

    /// Where all that lies below the name lies: `shared/halopsa`.
    pub(crate) fn directory(&self) -> &str {
        &self.text[..self.directory]
    }

    /// The path of the regular package: `shared/halopsa/__init__.py`.
    pub(crate) fn package(&self) -> Option<&str> {
        fitting(&self.text[..self.directory + PACKAGE.len()])
    }

    /// The path of the module: `shared/halopsa.py`.
    pub(crate) fn module(&self) -> Option<&str> {
        fitting(&self.text[self.directory + PACKAGE.len()..])
    }

    /// Both paths that can be cached, the one that Python prefers first.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &str> {
        self.package().into_iter().chain(self.module())
    }
}

/// The path, unless it is too long. By all other rules it is as valid as its directory, which was
/// checked.
fn fitting(path: &str) -> Option<&str> {
    (path.len() <= MAX_PATH_CHARS || path.chars().count() <= MAX_PATH_CHARS).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(name: &str) -> Vec<String> {
        let name = Name::parse(name).expect(name);
        name.candidates().map(String::from).collect()
    }

    #[test]
    fn a_name_has_the_paths_of_cpython_in_its_order() {
        for (name, package, module) in [
            ("a", "a/__init__.py", "a.py"),
            ("index", "index/__init__.py", "index.py"),
            (
                "shared.halopsa",
                "shared/halopsa/__init__.py",
                "shared/halopsa.py",
            ),
            ("a.__init__", "a/__init__/__init__.py", "a/__init__.py"),
            ("my-mod.2 x", "my-mod/2 x/__init__.py", "my-mod/2 x.py"),
            (
                "über.日本語.🦀",
                "über/日本語/🦀/__init__.py",
                "über/日本語/🦀.py",
            ),
            ("x.py", "x/py/__init__.py", "x/py.py"),
        ] {
            assert_eq!(candidates(name), [package, module]);
            let directory = package.strip_suffix("/__init__.py").unwrap();
            assert_eq!(Name::parse(name).unwrap().directory(), directory);
        }
    }

    #[test]
    fn what_cannot_be_a_path_is_no_name() {
        for name in [
            "", ".", "..", ".a", "a.", "a..b", "a/b", "/", "a\\b", "a\0", "a\nb", "\u{85}",
        ] {
            assert_eq!(Name::parse(name), None, "{name:?}");
        }
        assert_eq!(Name::parse(&"x".repeat(999)), None);
    }

    #[test]
    fn a_long_name_has_the_paths_that_fit() {
        for letter in ["x", "🦀"] {
            let name = |length| letter.repeat(length);
            assert_eq!(candidates(&name(988)).len(), 2);
            assert_eq!(candidates(&name(989)), [format!("{}.py", name(989))]);
            assert_eq!(candidates(&name(997)).len(), 1);
            // It still can be the directory of `…/x`.
            assert_eq!(candidates(&name(998)), [""; 0]);
        }
    }

    proptest! {
        #[test]
        fn a_candidate_is_a_valid_path_and_belongs_to_one_name(
            name in "[a.b/\\\\]{0,6}|\\PC{1,30}|(a|__init__|\\.){1,6}",
        ) {
            if let Some(parsed) = Name::parse(&name) {
                prop_assert_eq!(parsed.directory().replace('/', "."), name);
                for path in parsed.candidates() {
                    prop_assert!(validate_path(path).is_ok());
                    prop_assert!(path.starts_with(parsed.directory()));
                }
            }
        }

        #[test]
        fn parsing_never_panics(name in any::<String>()) {
            let _ = Name::parse(&name);
        }
    }
}
