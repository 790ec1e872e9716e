//! Whether the cache is complete, and why a module or a name is absent or old.
//!
//! | Question | Call of `ModuleReader` | Answer |
//! | --- | --- | --- |
//! | Is the whole cache complete? | `status` | [`Status`] |
//! | Why is this path missing, by Redis alone? | `explain` | [`Diagnosis`] |
//! | Why is this name not found, by Redis alone? | `explain_name` | [`Diagnosis`] |
//! | The same, with the database beside it? | `diagnose`, `diagnose_name` | [`Diagnosis`] |
//!
//! The [`Cause`] of a diagnosis says what is the matter, why, and what to do.
//!
//! ```no_run
//! # #[cfg(feature = "blocking")] {
//! # use bifrost_module_cache::{Config, blocking::ModuleReader};
//! let reader = ModuleReader::new(Config::from_env()?)?;
//! let diagnosis = reader.explain_name("shared.halopsa")?;
//! if !diagnosis.cause.is_fine() {
//!     println!("ImportError: {diagnosis}"); // says what to do, too
//! }
//! # }
//! # Ok::<(), bifrost_module_cache::Error>(())
//! ```
//!
//! All causes with their remedies: [the operator's tool](crate::guide::tool).

pub(crate) mod cause;
#[cfg(feature = "postgres")]
pub(crate) mod diagnose;
mod entry;
pub(crate) mod explain;
pub(crate) mod guarded;
pub(crate) mod status;

pub use crate::database::row::RowState;
pub use cause::Cause;
pub use guarded::Guarded;
pub use status::{CacheState, Status};

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::config::Config;
use crate::error::shown;
use crate::module::CachedModule;
use crate::paths::name::Name;
use crate::rfc3339;
use crate::sync::endpoints::Endpoints;

/// What cache and database say about a module, and what follows from that: returned by `explain`,
/// `explain_name`, `diagnose` and `diagnose_name`.
///
/// Shown, it is a sentence that a worker can put into its `ImportError`. As JSON it has the sizes
/// and hashes of what was found, never its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What follows.
    pub cause: Cause,
    /// The name that was asked for, or the first of its parents that is not found; `None` if a path
    /// was asked for.
    pub name: Option<String>,
    /// The path that this is about: of a name the one that it stands for or that is to blame, and
    /// `None` where there is none.
    pub path: Option<String>,
    /// What a reader gets: `None` where there is no entry, or none that can be read.
    pub cached: Option<CachedModule>,
    /// What the database has at the path; `None` if it was not asked, or there is no such path.
    pub row: Option<RowState>,
    /// When the row was last changed: by its `updated_at`, if there is one, and by our clock. A
    /// plain `timestamp` is taken for UTC.
    pub changed: Option<SystemTime>,
    /// Whether the cache is complete, and since when. `None` where the cause does not depend on it,
    /// and of a snapshot.
    pub status: Option<Status>,
    /// Which servers this is about; the names are empty of a snapshot, which asks none.
    pub servers: Endpoints,
}

impl Diagnosis {
    /// A diagnosis of a name with nothing else known, to be completed by its caller.
    pub(crate) fn of_name(cause: Cause, name: &str, path: Option<&str>) -> Self {
        Self {
            cause,
            name: Some(name.to_owned()),
            path: path.map(str::to_owned),
            cached: None,
            row: None,
            changed: None,
            status: None,
            servers: Endpoints::default(),
        }
    }

    pub(crate) fn from(self, config: &Config) -> Self {
        let servers = Endpoints::new(config, None);
        Self { servers, ..self }
    }

    /// What is the matter, in a few words: as [`Cause::summary`], as exactly as it is known here.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        match (self.cause, &self.row, &self.status) {
            (Cause::Cached, Some(_), _) => "cached as the database has it",
            (Cause::NotCached, Some(_), _) => {
                "not cached, though the cache is complete and the database has it"
            }
            (Cause::NotCached, None, None) => "not in the snapshot",
            (cause, ..) => cause.summary(),
        }
    }

    /// How it comes to that: as [`Cause::reason`], with the paths that it is about.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        match (self.cause, &self.name, &self.path, &self.row) {
            (Cause::Hidden, _, Some(path), _) => Cow::Owned(format!(
                "{} is a module and no package, so it has nothing below it",
                shown(path)
            )),
            (Cause::NotCached, _, _, Some(_)) => Cow::Borrowed(
                "it was just created or wrongly removed: the row does not tell when it was changed",
            ),
            (Cause::NotCached | Cause::NoSuchModule, Some(name), None, row) => {
                let parsed = Name::parse(name);
                let paths = parsed.iter().flat_map(Name::candidates).map(shown);
                let paths = paths.collect::<Vec<_>>().join(" and no ");
                let place = match (row, &self.status) {
                    (Some(_), _) => "cache or database",
                    (None, Some(_)) => "the cache",
                    (None, None) => "the snapshot",
                };
                Cow::Owned(format!("there is no {paths} in {place}"))
            }
            (cause, ..) => Cow::Borrowed(cause.reason()),
        }
    }

    /// What to do: as [`Cause::remedy`]; empty where there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        let is_guarded = matches!(&self.status, Some(status) if status.guard.is_some());
        match (self.cause, &self.row) {
            (Cause::NotCached, None) if is_guarded => {
                "check the spelling: a guard keeps the cache equal to the database"
            }
            (cause, _) if is_guarded && cause.is_drift() => {
                "a guard mends it: ask again in a moment; if it stays, look at the guard's log"
            }
            (Cause::NotCached, Some(_)) => Cause::JustCreated.remedy(),
            (cause, _) => cause.remedy(),
        }
    }

    /// Whether a reader finds something, right or wrong, or an entry that it can't read: that is no
    /// absence, and must not be told as one.
    fn is_found(&self) -> bool {
        self.cached.is_some() || self.cause == Cause::Corrupt
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_deref().map(shown).unwrap_or_default();
        match &self.name {
            Some(name) if self.cause.is_fine() => {
                return write!(f, "{} is {}", shown(name), self.summary());
            }
            Some(name) if self.is_found() => {
                write!(f, "{}: {path} is {}: ", shown(name), self.summary())?;
            }
            Some(name) => {
                write!(f, "no module named {}: ", shown(name))?;
                if self.path.is_some() && self.cause != Cause::Hidden {
                    write!(f, "{path} is {}: ", self.summary())?;
                }
            }
            None if self.cause.is_fine() => return write!(f, "{path} is {}", self.summary()),
            None => write!(f, "{path} is {}: ", self.summary())?,
        }
        f.write_str(&self.reason())?;
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl Serialize for Diagnosis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Module<'a> {
            bytes: usize,
            hash: &'a str,
        }
        #[derive(Serialize)]
        struct Shown<'a> {
            name: &'a Option<String>,
            path: &'a Option<String>,
            cause: Cause,
            why: Cow<'static, str>,
            remedy: &'static str,
            cached: Option<Module<'a>>,
            row: &'a Option<RowState>,
            #[serde(serialize_with = "rfc3339::serialize_option")]
            changed: Option<SystemTime>,
            status: &'a Option<Status>,
            servers: &'a Endpoints,
        }
        let Self {
            cause,
            name,
            path,
            cached,
            row,
            changed,
            status,
            servers,
        } = self;
        let shown = Shown {
            name,
            path,
            cause: *cause,
            why: self.reason(),
            remedy: self.remedy(),
            cached: cached.as_ref().map(|module| Module {
                bytes: module.content.len(),
                hash: &module.hash,
            }),
            row,
            changed: *changed,
            status,
            servers,
        };
        shown.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cause: Cause, path: Option<&str>) -> String {
        Diagnosis::of_name(cause, "shared.halopsa", path).to_string()
    }

    #[test]
    fn a_name_is_shown_as_a_sentence_that_says_what_to_do() {
        for (cause, path, words) in [
            (Cause::NotAPath, None, "no path can"),
            (
                Cause::Hidden,
                Some("shared.py"),
                "\"shared.py\" is a module",
            ),
            (
                Cause::NotCached,
                None,
                "no \"shared/halopsa/__init__.py\" and no \"shared/halopsa.py\" in the snapshot; check",
            ),
            (
                Cause::ValueGone,
                Some("shared/halopsa.py"),
                "\"shared/halopsa.py\" is in the index, without its value",
            ),
            (Cause::CacheCold, None, "`bifrost-modules warm`"),
            (Cause::IndexGone, None, "the index was evicted"),
        ] {
            let text = of(cause, path);
            assert!(
                text.starts_with("no module named \"shared.halopsa\": "),
                "{text}"
            );
            assert!(text.contains(words), "{text}");
        }
        // What is there is no absence, not even if it can't be read.
        let corrupt = of(Cause::Corrupt, Some("shared.py"));
        let begin = "\"shared.halopsa\": \"shared.py\" is an entry that can't be read: ";
        assert!(corrupt.starts_with(begin), "{corrupt}");
        let cached = of(Cause::Cached, Some("shared/halopsa.py"));
        assert_eq!(cached, "\"shared.halopsa\" is cached");
        let namespace = of(Cause::Namespace, Some("shared/halopsa"));
        assert_eq!(namespace, "\"shared.halopsa\" is a namespace package");
    }

    #[test]
    fn a_path_is_shown_as_such() {
        let text = |cause| {
            let diagnosis = Diagnosis::of_name(cause, "", Some("a.py"));
            let name = None;
            Diagnosis { name, ..diagnosis }.to_string()
        };
        assert_eq!(text(Cause::Cached), "\"a.py\" is cached");
        let unlisted = text(Cause::Unlisted);
        assert!(unlisted.starts_with("\"a.py\" is cached, and missing in the index: a foreign"));
        assert!(unlisted.ends_with("; `bifrost-modules repair` adds it"));
    }

    #[test]
    fn a_foreign_name_is_escaped_and_cut() {
        let name = format!("a\n{}", "x".repeat(5_000));
        let text = Diagnosis::of_name(Cause::NotAPath, &name, None).to_string();
        assert!(!text.contains('\n') && text.len() < 300, "{text}");
    }
}
