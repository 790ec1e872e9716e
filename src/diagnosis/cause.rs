//! Every cause that a diagnosis can name, with its words: once, for workers and operators. One enum
//! for paths, names and the database, so that a script compares one set of codes.

use serde::{Serialize, Serializer};

/// Why a module or a name is absent or old, or that it is neither.
///
/// The specification's three causes are [`JustCreated`](Self::JustCreated),
/// [`CacheCold`](Self::CacheCold) and its "bug in invalidation", which has more than one form:
/// [`WronglyRemoved`](Self::WronglyRemoved), [`Stale`](Self::Stale), [`Ghost`](Self::Ghost).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It is cached, and equals its row where the database was asked: nothing is wrong.
    Cached,
    /// The name is a directory that has modules below it, and no source of its own.
    Namespace,
    /// The cache is complete and has no entry. Redis alone can't tell whether there should be one;
    /// with the database, there should be, and its row does not tell when it was changed.
    NotCached,
    /// The row was changed after the cache was completed, and is not cached: the service that saved
    /// it did not bring it to the cache.
    JustCreated,
    /// The row is older than the complete cache, so its entry was there and was removed: a bug in
    /// invalidation.
    WronglyRemoved,
    /// The whole cache is cold: it was never warmed, or flushed since.
    CacheCold,
    /// The cache may have come back from disk or from a replica without this module: see
    /// [`CacheState::Restored`](super::status::CacheState::Restored).
    CacheRestored,
    /// The index was evicted or deleted since the cache was complete, and this module may have gone
    /// with it. See [`CacheState::Incomplete`](super::status::CacheState::Incomplete).
    IndexGone,
    /// The index names it and its value is gone: it expired or was evicted, or a foreign writer
    /// is between its two commands.
    ValueGone,
    /// The entry can't be read: it is not this module's JSON (`get` fails), or of another Redis
    /// type than a string (`get` says absent).
    Corrupt,
    /// The entry says something else than its row: a bug in invalidation.
    Stale,
    /// An entry, or a place in the index, without a row: a bug in invalidation.
    Ghost,
    /// The entry equals its row and has no place in the index.
    Unlisted,
    /// The row is larger than the limit, so it can't be cached.
    TooLarge,
    /// The database has no such module, and neither has the cache.
    NoSuchModule,
    /// No path can have such a name.
    NotAPath,
    /// A parent of the name is a module and no package, so that Python looks for nothing below it.
    Hidden,
}

/// What there is to say of a cause.
struct Words {
    /// For scripts.
    code: &'static str,
    summary: &'static str,
    reason: &'static str,
    remedy: &'static str,
}

const TELL_SERVICE: &str = "`bifrost-modules repair` mends it now; the service that saves, deletes or moves must call refresh after its commit";
const WARM: &str = "`bifrost-modules warm` completes it from the database";

impl Cause {
    /// True if the cache does not hold what the database says.
    #[must_use]
    pub fn is_drift(self) -> bool {
        matches!(
            self,
            Self::NotCached
                | Self::JustCreated
                | Self::WronglyRemoved
                | Self::CacheCold
                | Self::CacheRestored
                | Self::IndexGone
                | Self::ValueGone
                | Self::Corrupt
                | Self::Stale
                | Self::Ghost
                | Self::Unlisted
        )
    }

    /// True if a worker finds what it asks for, as it should be.
    #[must_use]
    pub fn is_fine(self) -> bool {
        matches!(self, Self::Cached | Self::Namespace)
    }

    /// The cause for a script: its name in `snake_case`, as in the JSON of a diagnosis.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.words().code
    }

    /// What is the matter, in a few words.
    #[must_use]
    pub fn summary(self) -> &'static str {
        self.words().summary
    }

    /// How it comes to that.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.words().reason
    }

    /// What to do; empty where there is nothing to do.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        self.words().remedy
    }

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn words(self) -> Words {
        let (code, summary, reason, remedy) = match self {
            Self::Cached => (
                "cached",
                "cached",
                "workers get it; a worker that sees something else has loaded it before, or reads another Redis",
                "",
            ),
            Self::Namespace => (
                "namespace",
                "a namespace package",
                "it has no source of its own, and there are modules below it",
                "",
            ),
            Self::NotCached => (
                "not_cached",
                "not cached, though the cache is complete",
                "there is no such module, or it was just created and not cached, or wrongly removed",
                "check the spelling; if the name is right, save the module again",
            ),
            Self::JustCreated => (
                "just_created",
                "just created or saved, and not cached",
                "the row was changed after the cache was completed, and no writer brought it to the cache",
                TELL_SERVICE,
            ),
            Self::WronglyRemoved => (
                "wrongly_removed",
                "removed, though the database has it: a bug in invalidation",
                "the row is older than the complete cache, so it was cached, and a writer removed it",
                TELL_SERVICE,
            ),
            Self::CacheCold => (
                "cache_cold",
                "not cached, because the whole cache is cold",
                "the whole cache is cold: it was flushed, cleared or never warmed",
                WARM,
            ),
            Self::CacheRestored => (
                "cache_restored",
                "not cached, and the cache may have come back without it",
                "Redis was restarted, or another server took over, and may be older than the database",
                WARM,
            ),
            Self::IndexGone => (
                "index_gone",
                "lost with the index",
                "the index was evicted (maxmemory-policy) or deleted, and so may entries have been",
                "`bifrost-modules warm` completes it; a Redis with this cache needs maxmemory-policy noeviction",
            ),
            Self::ValueGone => (
                "value_gone",
                "in the index, without its value",
                "it expired (a writer sets a time to live) or was evicted (maxmemory-policy)",
                "`bifrost-modules repair` brings it back; give Redis more memory, or warm more often",
            ),
            Self::Corrupt => (
                "corrupt",
                "an entry that can't be read",
                "what is stored is not this module's JSON: every import fails, or finds nothing if it is no string at all",
                "`bifrost-modules repair` replaces it",
            ),
            Self::Stale => (
                "stale",
                "cached in another version than the database has: a bug in invalidation",
                "the last writer did not bring it to the cache, or an older write came later",
                TELL_SERVICE,
            ),
            Self::Ghost => (
                "ghost",
                "still in the cache, though the database has no such module: a bug in invalidation",
                "the service that deleted or moved it did not tell the cache",
                TELL_SERVICE,
            ),
            Self::Unlisted => (
                "unlisted",
                "cached, and missing in the index",
                "a foreign writer is between its two commands, or failed there",
                "`bifrost-modules repair` adds it",
            ),
            Self::TooLarge => (
                "too_large",
                "too large to be cached",
                "its content is larger than the limit",
                "split the module, or raise the limit everywhere: --max-content-bytes here",
            ),
            Self::NoSuchModule => (
                "no_such_module",
                "neither cached nor a module of the database",
                "there is no such module: look at the spelling, and at the row",
                "",
            ),
            Self::NotAPath => (
                "not_a_path",
                "no module can have that name",
                "no path can have such a name",
                "",
            ),
            Self::Hidden => (
                "hidden",
                "hidden by a module that is no package",
                "a parent is a module and no package, so that Python looks for nothing below it",
                "rename one of the two",
            ),
        };
        Words {
            code,
            summary,
            reason,
            remedy,
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
