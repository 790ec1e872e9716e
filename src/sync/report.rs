//! What was done, for a log line and for a decision.
//!
//! Each report is `Display` for a log line, and `Serialize` for the tool's `--json`, whose field
//! names are part of the tool's interface: docs/tool.md.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::Serializer;

use super::endpoints::Endpoints;
use super::report_json;

/// What `ModuleWriter::clear` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClearReport {
    /// How many modules there were.
    pub removed: u64,
    /// Whether the keys were looked through for entries that the index does not name: where SCAN
    /// is not permitted they stay.
    pub scanned: bool,
    /// Which servers this is about.
    pub servers: Endpoints,
}

impl fmt::Display for ClearReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} removed", self.removed)?;
        if !self.scanned {
            f.write_str(", and what the index does not name was not looked for")?;
        }
        Ok(())
    }
}

/// What `ModuleWriter::refresh` or `refresh_from` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefreshReport {
    /// Modules written.
    pub written: usize,
    /// Paths without a module, which were invalidated.
    pub removed: usize,
    /// Modules larger than the limit: they can't be cached, and their paths are among the removed.
    pub skipped: usize,
    /// How often a path was tried again because another writer changed it meanwhile.
    pub retried: usize,
    /// Bytes of content written.
    pub bytes: u64,
    /// Paths that others kept writing until the attempts were used up: refresh them again.
    pub unsettled: Vec<String>,
    /// Which servers this is about.
    pub servers: Endpoints,
}

impl fmt::Display for RefreshReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            removed,
            skipped,
            retried,
            bytes,
            unsettled,
            servers: _,
        } = self;
        let unsettled = unsettled.len();
        write!(
            f,
            "{written} written, {removed} removed, {skipped} skipped, {retried} retried, {unsettled} unsettled, {bytes} bytes"
        )
    }
}

impl RefreshReport {
    /// Adds the report of another pass. Written by destructuring, so that a new field can't be
    /// forgotten.
    #[cfg(feature = "postgres")]
    pub(crate) fn add(&mut self, more: Self) {
        let Self {
            written,
            removed,
            skipped,
            retried,
            bytes,
            unsettled,
            servers: _,
        } = more;
        self.written += written;
        self.removed += removed;
        self.skipped += skipped;
        self.retried += retried;
        self.bytes += bytes;
        self.unsettled.extend(unsettled);
    }
}

/// What a [dry run](crate::sync::options::SyncOptions::with_dry_run) would have written and
/// removed, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DryRun {
    /// Paths whose module is missing, or differs.
    pub written: Vec<String>,
    /// Paths that have none.
    pub removed: Vec<String>,
}

impl DryRun {
    pub(crate) fn new(mut written: Vec<String>, mut removed: Vec<String>) -> Self {
        written.sort_unstable();
        removed.sort_unstable();
        Self { written, removed }
    }

    /// What a repair would do about this drift.
    #[cfg(feature = "postgres")]
    pub(crate) fn of(drift: &Drift) -> Self {
        let written = [
            &drift.missing,
            &drift.stale,
            &drift.key_only,
            &drift.expiring,
            &drift.corrupt,
        ];
        let paths = |lists: &[&Vec<String>]| lists.iter().copied().flatten().cloned().collect();
        Self::new(paths(&written), paths(&[&drift.ghost, &drift.index_only]))
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, removed) = (self.written.len(), self.removed.len());
        write!(f, "a dry run: {written} to write, {removed} to remove")
    }
}

/// What `ModuleWriter::publish` or `publish_exact` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PublishReport {
    /// Modules written.
    pub written: usize,
    /// Paths removed.
    pub removed: usize,
    /// Modules that were there already (`publish_exact`).
    pub unchanged: usize,
    /// Bytes of content written.
    pub bytes: u64,
    /// Whether the cache is marked as complete now (`publish_exact`): not if it was flushed
    /// meanwhile.
    pub complete: bool,
    /// Which servers this is about.
    pub servers: Endpoints,
    /// What a [dry run](crate::sync::options::SyncOptions::with_dry_run) of `publish_exact` would
    /// have done; `None` if it was none.
    pub dry_run: Option<DryRun>,
}

impl fmt::Display for PublishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            removed,
            unchanged,
            bytes,
            complete: _,
            servers: _,
            dry_run,
        } = self;
        if let Some(dry_run) = dry_run {
            return write!(f, "{dry_run}, {unchanged} unchanged");
        }
        write!(
            f,
            "{written} written, {removed} removed, {unchanged} unchanged, {bytes} bytes"
        )
    }
}

/// Why a result does not claim that the cache equals the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unverified {
    /// A transaction that was open stayed open for longer than the barrier's time-out. What it
    /// changes may be missing from the cache when it commits.
    OpenTransaction,
    /// Others kept changing what was mended.
    Contended,
    /// The table has no module and the cache has some. Nothing was removed, because the caller did
    /// not say that an empty workspace is meant: see
    /// [`SyncOptions::with_allow_empty`](crate::sync::options::SyncOptions::with_allow_empty).
    EmptyWorkspace,
    /// The cache was flushed each time while it was warmed.
    Flushed,
    /// Redis evicted what was written: it needs `maxmemory-policy noeviction`, or a `volatile-`
    /// one where entries have no time to live, and a larger `maxmemory`.
    Evicted,
    /// It was a [dry run](crate::sync::options::SyncOptions::with_dry_run).
    DryRun,
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenTransaction => "a transaction stayed open for too long",
            Self::Contended => "others kept changing it",
            Self::EmptyWorkspace => "the workspace is empty and that was not said to be meant",
            Self::Flushed => "the cache was flushed meanwhile",
            Self::Evicted => {
                "redis evicts what is written: set its maxmemory-policy to noeviction, or to a volatile one where entries have no time to live, and raise maxmemory"
            }
            Self::DryRun => "it was a dry run",
        })
    }
}

/// What `ModuleWriter::warm_from_db` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WarmReport {
    /// How many of the database's modules are in the cache now: the specification's count.
    pub modules: usize,
    /// Modules written because they were missing or differed.
    pub written: usize,
    /// Modules that were right already.
    pub unchanged: usize,
    /// Paths removed because they have no row.
    pub pruned: usize,
    /// Rows that can't be cached: a bad path, or too large. Each is logged.
    pub skipped: usize,
    /// How many rows the table has, not counting deleted ones, if none of them is a module: then
    /// something is wrong with their `entity_type` or content, or it is the wrong table.
    pub not_modules: usize,
    /// How often a path was tried again because another writer changed it meanwhile.
    pub retried: usize,
    /// Paths that others kept writing until the attempts were used up.
    pub unsettled: Vec<String>,
    /// Bytes of content written.
    pub bytes: u64,
    /// How long loading took.
    #[serde(rename = "load_seconds", serialize_with = "report_json::seconds")]
    pub load_elapsed: Duration,
    /// How long it took altogether.
    #[serde(rename = "seconds", serialize_with = "report_json::seconds")]
    pub elapsed: Duration,
    /// `None` if the cache was compared with the database after every transaction that was open
    /// had ended, and equalled it; else why that can't be said.
    #[serde(flatten, serialize_with = "report_json::verified")]
    pub unverified: Option<Unverified>,
    /// Whether the cache is marked as complete now.
    pub complete: bool,
    /// Whether the keys were looked through for entries that the index does not name: where SCAN
    /// is not permitted they stay.
    pub scanned: bool,
    /// Which servers this is about.
    pub servers: Endpoints,
    /// What a [dry run](crate::sync::options::SyncOptions::with_dry_run) would have done: then
    /// nothing is counted as done. `None` if it was none.
    pub dry_run: Option<DryRun>,
}

impl WarmReport {
    /// True if the cache was found equal to the database: see [`unverified`](Self::unverified).
    #[must_use]
    pub fn verified(&self) -> bool {
        self.unverified.is_none()
    }
}

impl fmt::Display for WarmReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            modules,
            written,
            unchanged,
            pruned,
            skipped,
            not_modules,
            retried,
            unsettled,
            bytes,
            elapsed,
            dry_run,
            ..
        } = self;
        if let Some(dry_run) = dry_run {
            return write!(f, "{modules} modules in the cache: {dry_run}");
        }
        let unsettled = unsettled.len();
        write!(
            f,
            "{modules} modules in the cache: {written} written ({bytes} bytes), {unchanged} unchanged, {pruned} pruned, \
             {skipped} skipped, {retried} retried, {unsettled} unsettled in {:.2} s, ",
            elapsed.as_secs_f64()
        )?;
        if *not_modules > 0 {
            write!(f, "{not_modules} rows that are no modules, ")?;
        }
        match self.unverified {
            None => f.write_str("verified"),
            Some(why) => write!(f, "unverified: {why}"),
        }
    }
}

/// How the cache differs from the database: what `ModuleWriter::verify` found. Each path is in one
/// list only, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drift {
    /// How many modules the database has.
    pub modules: usize,
    /// Rows that can't be cached: a bad path, or too large.
    pub skipped: usize,
    /// As in [`WarmReport::not_modules`].
    pub not_modules: usize,
    /// A row without an entry.
    pub missing: Vec<String>,
    /// An entry that says something else than its row.
    pub stale: Vec<String>,
    /// An entry without a row.
    pub ghost: Vec<String>,
    /// A place in the index with neither entry nor row.
    pub index_only: Vec<String>,
    /// An entry that equals its row and has no place in the index.
    pub key_only: Vec<String>,
    /// An entry that equals its row and will expire otherwise than
    /// [`Config::with_ttl`](crate::config::Config::with_ttl) wants.
    pub expiring: Vec<String>,
    /// An entry that can't be read.
    pub corrupt: Vec<String>,
    /// How many members of the index can't be paths.
    pub bad_members: usize,
    /// Whether the keys were looked through for entries that the index does not name.
    pub scanned: bool,
    /// Set by `ModuleWriter::verify`: why what differs may be right all the same. A transaction
    /// that stayed open may belong to a writer under way. `None` if it was looked at again after
    /// all transactions of that time had ended.
    pub unverified: Option<Unverified>,
    /// Which servers this is about.
    pub servers: Endpoints,
}

impl Drift {
    /// True if nothing differs.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.paths() == 0 && self.bad_members == 0
    }

    /// How many paths differ.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.lists().iter().map(|(_, paths)| paths.len()).sum()
    }

    /// Each kind of drift by its name, with its paths.
    #[must_use]
    pub fn lists(&self) -> [(&'static str, &[String]); 7] {
        [
            ("missing", &self.missing),
            ("stale", &self.stale),
            ("ghost", &self.ghost),
            ("index_only", &self.index_only),
            ("key_only", &self.key_only),
            ("expiring", &self.expiring),
            ("corrupt", &self.corrupt),
        ]
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} modules in the database", self.modules)?;
        for (kind, paths) in self
            .lists()
            .into_iter()
            .filter(|(_, paths)| !paths.is_empty())
        {
            write!(f, ", {} {kind}", paths.len())?;
        }
        if self.not_modules > 0 {
            write!(f, ", {} rows that are no modules", self.not_modules)?;
        }
        if self.bad_members > 0 {
            write!(f, ", {} bad members of the index", self.bad_members)?;
        }
        if self.is_clean() {
            f.write_str(", no drift")?;
        }
        match self.unverified {
            None => Ok(()),
            Some(why) => write!(f, ", unverified: {why}"),
        }
    }
}

/// What `ModuleWriter::repair` found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was found before anything was mended.
    pub drift: Drift,
    /// Modules written.
    pub written: usize,
    /// Paths removed.
    pub removed: usize,
    /// How often a path was tried again because another writer changed it meanwhile.
    pub retried: usize,
    /// Paths that others kept writing until the attempts were used up.
    pub unsettled: Vec<String>,
    /// `None` if the cache equalled the database in the end, else why that can't be said.
    #[serde(flatten, serialize_with = "report_json::verified")]
    pub unverified: Option<Unverified>,
    /// What a [dry run](crate::sync::options::SyncOptions::with_dry_run) would have done: then
    /// nothing is counted as done. `None` if it was none.
    pub dry_run: Option<DryRun>,
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            drift,
            written,
            removed,
            retried,
            unsettled,
            unverified,
            dry_run,
        } = self;
        if let Some(dry_run) = dry_run {
            return write!(f, "{drift}: {dry_run}");
        }
        let unsettled = unsettled.len();
        write!(
            f,
            "{drift}: {written} written, {removed} removed, {retried} retried, {unsettled} unsettled, "
        )?;
        match unverified {
            None => f.write_str("verified"),
            Some(why) => write!(f, "unverified: {why}"),
        }
    }
}

/// Counts and paths of each kind apart, because there may be many paths.
impl Serialize for Drift {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            clean: bool,
            modules: usize,
            counts: BTreeMap<&'a str, usize>,
            paths: BTreeMap<&'a str, &'a [String]>,
            bad_members: usize,
            skipped: usize,
            not_modules: usize,
            scanned: bool,
            unverified: Option<Unverified>,
            servers: &'a Endpoints,
        }
        let lists = self.lists();
        let shown = Shown {
            clean: self.is_clean(),
            modules: self.modules,
            counts: lists.map(|(kind, paths)| (kind, paths.len())).into(),
            paths: lists.into(),
            bad_members: self.bad_members,
            skipped: self.skipped,
            not_modules: self.not_modules,
            scanned: self.scanned,
            unverified: self.unverified,
            servers: &self.servers,
        };
        shown.serialize(serializer)
    }
}
