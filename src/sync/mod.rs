//! What writing in bulk takes and reports: options, progress, and a report for each kind of work.
//!
//! The calls themselves are methods of a facade's `ModuleWriter`:
//!
//! | Call | Takes | Returns |
//! | --- | --- | --- |
//! | `warm_from_db_with` | [`SyncOptions`] | [`WarmReport`] |
//! | `verify_with` | [`SyncOptions`] | [`Drift`] |
//! | `repair_with` | [`SyncOptions`] | [`RepairReport`] |
//! | `refresh`, `refresh_from` | paths | [`RefreshReport`] |
//! | `publish` | [`Change`]s | [`PublishReport`] |
//! | `publish_exact_with` | modules and [`SyncOptions`] | [`PublishReport`] |
//! | `clear` | nothing | [`ClearReport`] |
//!
//! Which protocol keeps an older module from being written over a newer one, and which faults it
//! was measured against: [consistency](crate::guide::design::consistency).

// Two pieces carry everything: `compare` tells what Redis holds and how that compares with a row;
// `reconcile` brings paths to what a source says now, under WATCH, so that a foreign write in
// between wins. Warm-up, verification and repair are made of them. Why: docs/design/consistency.md.

pub(crate) mod clear;
#[cfg(feature = "postgres")]
pub(crate) mod compare;
pub(crate) mod endpoints;
pub(crate) mod eviction;
pub(crate) mod inspect;
#[cfg(feature = "postgres")]
pub(crate) mod inventory;
pub(crate) mod mark;
pub(crate) mod options;
pub(crate) mod publish;
pub(crate) mod publish_exact;
pub(crate) mod reconcile;
pub(crate) mod refresh;
#[cfg(feature = "postgres")]
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod report_json;
pub(crate) mod scan;
pub(crate) mod source;
pub(crate) mod verdict;
#[cfg(feature = "postgres")]
pub(crate) mod verify;
#[cfg(feature = "postgres")]
pub(crate) mod warm;

pub use endpoints::{Endpoints, Found, Role};
pub use options::{Progress, Stage, SyncOptions};
pub use publish::Change;
pub use report::{
    ClearReport, Drift, DryRun, PublishReport, RefreshReport, RepairReport, Unverified, WarmReport,
};
