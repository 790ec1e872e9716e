//! Why a name is not found, for the user of a worker and its operator.

use std::fmt;

use super::explain::{Explanation, explain_all};
use crate::client::transport::Transport;
use crate::error::{Error, shown};
use crate::paths::name::Name;
use crate::resolution::Resolution;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
use crate::resolution::resolve::resolve_many;

/// Why a name is not found, or that it is. Shown, it is a sentence that a worker can put into its
/// `ImportError`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NameExplanation {
    /// The name that is not found: the one asked for, or the first of its parents.
    pub name: String,
    /// Which of the causes it is.
    pub cause: NameCause,
}

/// Why a name is not found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameCause {
    /// It is found, and so are all of its parents.
    Found,
    /// No path can have such a name.
    NotAPath,
    /// A parent is a module and no package, so that Python looks for nothing below it.
    #[non_exhaustive]
    Hidden {
        /// The path of that module.
        by: String,
    },
    /// The cache is complete and has never had it, or it was removed: a module that was just
    /// created and not cached, or one that does not exist.
    NeverCached,
    /// The index names it and its value is gone: it expired or was evicted, or a foreign writer
    /// is between its two commands.
    #[non_exhaustive]
    ValueGone {
        /// The path of the module.
        path: String,
    },
    /// The whole cache is cold: it was never warmed, or flushed since.
    CacheCold,
    /// The cache was complete and its index has lost most of what it named: it was evicted or
    /// deleted. See [`Status::Incomplete`](crate::diagnosis::status::Status::Incomplete).
    IndexGone,
    /// What is stored is of another Redis type than a string.
    #[non_exhaustive]
    Corrupt {
        /// The path of the module.
        path: String,
    },
}

impl NameExplanation {
    pub(super) fn new(name: &str, cause: NameCause) -> Self {
        Self {
            name: name.to_owned(),
            cause,
        }
    }
}

impl NameCause {
    /// From the explanations of the paths that the name may have, in their order.
    pub(super) fn of(paths: &[&str], explanations: &[Explanation]) -> Self {
        let at = |wanted| {
            let at = explanations.iter().position(|found| *found == wanted);
            at.map(|at| paths[at].to_owned())
        };
        if explanations.contains(&Explanation::Cached) {
            // It came meanwhile.
            Self::Found
        } else if let Some(path) = at(Explanation::Corrupt) {
            Self::Corrupt { path }
        } else if let Some(path) = at(Explanation::ValueGone) {
            Self::ValueGone { path }
        } else if paths.is_empty() {
            // It is so long that only a directory can have it.
            Self::NotAPath
        } else if explanations.contains(&Explanation::CacheCold) {
            Self::CacheCold
        } else if explanations.contains(&Explanation::IndexGone) {
            Self::IndexGone
        } else {
            Self::NeverCached
        }
    }
}

impl fmt::Display for NameExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shown(&self.name);
        let reason = match &self.cause {
            NameCause::Found => return write!(f, "the module {name} is cached"),
            NameCause::NotAPath => "no path can have such a name".to_owned(),
            NameCause::Hidden { by } => format!(
                "{} is a module and no package, so it has nothing below it: rename one of the two",
                shown(by)
            ),
            NameCause::NeverCached => {
                let parsed = Name::parse(&self.name);
                let paths = parsed.iter().flat_map(Name::candidates).map(shown);
                format!(
                    "there is no {} in the cache: check the name, and if it is right, save the module again",
                    paths.collect::<Vec<_>>().join(" and no ")
                )
            }
            NameCause::ValueGone { path } => format!(
                "{} is in the index, but its source has expired or was evicted: refresh it or warm the cache again",
                shown(path)
            ),
            NameCause::CacheCold => {
                "the cache was flushed or never warmed: warm it, then try again".to_owned()
            }
            NameCause::IndexGone => {
                "the cache has lost its index, and maybe more: warm it, then try again".to_owned()
            }
            NameCause::Corrupt { path } => format!(
                "what is stored for {} is no module: refresh it or warm the cache again",
                shown(path)
            ),
        };
        write!(f, "no module named {name}: {reason}")
    }
}

#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) async fn explain_name<T: Transport>(
    transport: &T,
    name: &str,
) -> Result<NameExplanation, Error> {
    if Name::parse(name).is_none() {
        return Ok(NameExplanation::new(name, NameCause::NotAPath));
    }
    // As Python asks: `a`, `a.b`, `a.b.c`.
    let ends = name.match_indices('.').map(|(end, _)| end);
    let chain: Vec<&str> = ends.chain([name.len()]).map(|end| &name[..end]).collect();
    let answers = resolve_many(transport, &chain).await?;
    for (part, answer) in chain.into_iter().zip(answers) {
        match answer {
            Resolution::Module(module) if part != name => {
                let by = module.path.clone();
                return Ok(NameExplanation::new(name, NameCause::Hidden { by }));
            }
            Resolution::NotFound => {
                let parsed = Name::parse(part);
                let paths: Vec<&str> = parsed.iter().flat_map(Name::candidates).collect();
                let explanations = explain_all(transport, &paths).await?;
                let cause = NameCause::of(&paths, &explanations);
                return Ok(NameExplanation::new(part, cause));
            }
            _ => {}
        }
    }
    Ok(NameExplanation::new(name, NameCause::Found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_that_helps_is_told() {
        use Explanation::{CacheCold, Cached, Corrupt, IndexGone, NeverCached, ValueGone};
        let paths = ["a/__init__.py", "a.py"];
        let gone = |path: &str| NameCause::ValueGone { path: path.into() };
        for (explanations, cause) in [
            ([NeverCached, NeverCached], NameCause::NeverCached),
            ([CacheCold, CacheCold], NameCause::CacheCold),
            ([CacheCold, ValueGone], gone("a.py")),
            ([ValueGone, NeverCached], gone("a/__init__.py")),
            ([ValueGone, Cached], NameCause::Found),
            ([IndexGone, IndexGone], NameCause::IndexGone),
            ([IndexGone, ValueGone], gone("a.py")),
            (
                [NeverCached, Corrupt],
                NameCause::Corrupt {
                    path: "a.py".into(),
                },
            ),
        ] {
            assert_eq!(NameCause::of(&paths, &explanations), cause);
        }
        assert_eq!(NameCause::of(&[], &[]), NameCause::NotAPath);
    }

    #[test]
    fn it_is_shown_as_a_sentence_that_says_what_to_do() {
        let path = "shared/halopsa.py".to_owned();
        for (cause, words) in [
            (NameCause::NotAPath, "no path can"),
            (
                NameCause::Hidden {
                    by: "shared.py".into(),
                },
                "\"shared.py\" is a module",
            ),
            (
                NameCause::NeverCached,
                "no \"shared/halopsa/__init__.py\" and no \"shared/halopsa.py\" in the cache",
            ),
            (
                NameCause::ValueGone { path },
                "\"shared/halopsa.py\" is in the index",
            ),
            (NameCause::CacheCold, "warm it"),
            (NameCause::IndexGone, "lost its index"),
            (
                NameCause::Corrupt {
                    path: "shared.py".into(),
                },
                "for \"shared.py\" is no module",
            ),
        ] {
            let text = NameExplanation::new("shared.halopsa", cause).to_string();
            assert!(
                text.starts_with("no module named \"shared.halopsa\": "),
                "{text}"
            );
            assert!(text.contains(words), "{text}");
        }
        let found = NameExplanation::new("a", NameCause::Found).to_string();
        assert_eq!(found, "the module \"a\" is cached");
    }

    #[test]
    fn a_foreign_name_is_escaped_and_cut() {
        let name = format!("a\n{}", "x".repeat(5_000));
        let text = NameExplanation::new(&name, NameCause::NotAPath).to_string();
        assert!(!text.contains('\n') && text.len() < 300, "{text}");
    }
}
