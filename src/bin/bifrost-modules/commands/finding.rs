//! What is to be said of a module, by what was found.

use std::borrow::Cow;

use bifrost_module_cache::{Cause, Explanation, NameCause, NameExplanation};

use crate::failure::Exit;

/// What is to be said of a path or a name.
pub struct Finding {
    /// For scripts.
    pub cause: &'static str,
    pub title: &'static str,
    pub why: Cow<'static, str>,
    pub remedy: &'static str,
    pub exit: Exit,
}

const UNDECIDED: &str =
    "there is no such module, or it was just created and not cached, or wrongly removed";

const TELL_SERVICE: &str = "`bifrost-modules repair` mends it now; the service that saves, deletes or moves must call refresh after its commit";

pub fn from_redis(explanation: Explanation) -> Finding {
    match explanation {
        Explanation::Cached => Finding {
            cause: "cached",
            title: "cached",
            why: "workers get it".into(),
            remedy: "",
            exit: Exit::Fine,
        },
        Explanation::ValueGone => from_both(Cause::ValueGone),
        Explanation::CacheCold => from_both(Cause::CacheCleared),
        Explanation::IndexGone => from_both(Cause::IndexGone),
        Explanation::Corrupt => from_both(Cause::Corrupt),
        _ => Finding {
            cause: "never_cached",
            title: "not cached, though the cache is complete",
            why: UNDECIDED.into(),
            remedy: "",
            exit: Exit::No,
        },
    }
}

pub fn from_both(cause: Cause) -> Finding {
    let (cause, title, why, remedy) = words(cause);
    let exit = match cause {
        "right" => Exit::Fine,
        "corrupt" => Exit::Corrupt,
        _ => Exit::No,
    };
    Finding {
        cause,
        title,
        why: why.into(),
        remedy,
        exit,
    }
}

/// For scripts: the cause. For people: what is the matter, why, and what to do.
fn words(cause: Cause) -> (&'static str, &'static str, &'static str, &'static str) {
    match cause {
        Cause::Right => (
            "right",
            "cached as the database has it",
            "workers that see something else have loaded it before, or read another Redis",
            "",
        ),
        Cause::JustCreated => (
            "just_created",
            "just created or saved, and not cached",
            "the row was changed after the cache was completed, and nobody brought it to the cache",
            TELL_SERVICE,
        ),
        Cause::CacheCleared => (
            "cache_cleared",
            "not cached, because the whole cache is cold",
            "the cache was never completed, or cleared or flushed since",
            "`bifrost-modules warm` completes it from the database",
        ),
        Cause::CacheRestored => (
            "cache_restored",
            "not cached, because the cache came back without it",
            "Redis was restarted from disk, or a replica took over, older than the database",
            "`bifrost-modules warm` completes it from the database",
        ),
        Cause::WronglyRemoved => (
            "wrongly_removed",
            "removed, though the database has it: a bug in invalidation",
            "the row is older than the complete cache, so it was cached, and somebody removed it",
            TELL_SERVICE,
        ),
        Cause::NotCached => (
            "not_cached",
            "not cached, though the cache is complete and the database has it",
            "just created or wrongly removed: the row does not tell when it was changed",
            TELL_SERVICE,
        ),
        Cause::IndexGone => (
            "index_gone",
            "lost with the index",
            "the index was evicted (maxmemory-policy) or deleted, and so may entries have been",
            "`bifrost-modules warm` completes it; a Redis with this cache needs maxmemory-policy noeviction",
        ),
        Cause::Stale => (
            "stale",
            "the cache has another version: a bug in invalidation",
            "whoever saved it last did not bring it to the cache, or an older write came later",
            TELL_SERVICE,
        ),
        Cause::Ghost => (
            "ghost",
            "still in the cache, though the database has no such module: a bug in invalidation",
            "whoever deleted or moved it did not tell the cache",
            TELL_SERVICE,
        ),
        Cause::ValueGone => (
            "value_gone",
            "in the index, without its value",
            "it expired (a writer sets a time to live) or was evicted (maxmemory-policy)",
            "`bifrost-modules repair` brings it back; give Redis more memory, or warm more often",
        ),
        Cause::Corrupt => (
            "corrupt",
            "an entry that can't be read",
            "what is stored is not this module's JSON: every import fails, or finds nothing if it is no string at all",
            "`bifrost-modules repair` replaces it",
        ),
        Cause::Unlisted => (
            "unlisted",
            "cached, and missing in the index",
            "a foreign writer is between its two commands, or failed there",
            "`bifrost-modules repair` adds it",
        ),
        Cause::TooLarge => (
            "too_large",
            "too large to be cached",
            "its content is larger than the limit",
            "split the module, or raise the limit everywhere: --max-content-bytes here",
        ),
        Cause::NoSuchModule => (
            "no_such_module",
            "neither cached nor a module of the database",
            "there is no such module: look at the spelling, and at the row",
            "",
        ),
        _ => (
            "unknown",
            "unknown",
            "this tool does not know that cause",
            "",
        ),
    }
}

/// Of a name of which Redis has no source.
pub fn from_name(explanation: &NameExplanation) -> Finding {
    let finding = match explanation.cause {
        NameCause::NotAPath => Finding {
            cause: "not_a_path",
            title: "no module can have that name",
            ..from_redis(Explanation::NeverCached)
        },
        NameCause::Hidden { .. } => Finding {
            cause: "hidden",
            title: "hidden by a module that is no package",
            ..from_redis(Explanation::NeverCached)
        },
        NameCause::CacheCold => return from_both(Cause::CacheCleared),
        NameCause::IndexGone => return from_both(Cause::IndexGone),
        _ => return from_redis(Explanation::NeverCached),
    };
    Finding {
        why: explanation.to_string().into(),
        ..finding
    }
}

/// Of a name that is a directory.
pub fn namespace() -> Finding {
    Finding {
        cause: "namespace",
        title: "a namespace package",
        why: "it has no source of its own, and there are modules below it".into(),
        remedy: "",
        exit: Exit::Fine,
    }
}
