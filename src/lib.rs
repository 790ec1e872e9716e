#![doc = include_str!("lib.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "blocking", feature = "nonblocking")),
    allow(
        dead_code,
        unused_imports,
        reason = "without a facade only keys, modules and settings are used"
    )
)]

#[cfg(feature = "blocking")]
pub mod blocking;
mod breaker;
mod call;
mod commands;
mod config;
mod consistency;
#[cfg(feature = "postgres")]
mod database_url;
mod encode;
mod error;
mod identity;
pub mod keys;
mod module;
#[cfg(all(
    feature = "near-cache",
    any(feature = "blocking", feature = "nonblocking")
))]
mod near;
#[cfg(feature = "nonblocking")]
pub mod nonblocking;
mod operations;
mod reply;
mod resolution;
#[cfg(feature = "near-cache")]
mod rfc3339;
mod stats;
mod ties;
#[cfg(feature = "tls")]
mod tls;
mod transport;
#[cfg(feature = "postgres")]
mod workspace;

pub use breaker::BreakerState;
pub use config::{Config, DEFAULT_REDIS_URL, Integrity};
#[cfg(feature = "postgres")]
pub use consistency::{Cause, Diagnosis, RowState};
pub use consistency::{
    Change, Drift, DryRun, Endpoints, Explanation, Progress, PublishReport, RefreshReport,
    RepairReport, Stage, Status, SyncOptions, Unverified, WarmReport,
};
#[cfg(feature = "postgres")]
pub use database_url::postgres_address;
pub use error::{Error, Outage};
pub use module::CachedModule;
#[cfg(all(
    feature = "near-cache",
    any(feature = "blocking", feature = "nonblocking")
))]
pub use near::{Invalidation, NearCacheOptions, NearCacheStats, Snapshot};
pub use resolution::{NameCause, NameExplanation, Resolution, candidate_paths};
pub use stats::Stats;
#[cfg(feature = "tls")]
pub use tls::Tls;

#[cfg(feature = "postgres")]
pub use postgres;
#[cfg(feature = "blocking")]
pub use r2d2;
#[cfg(feature = "postgres")]
pub use tokio_postgres;

/// Compiles the examples of the README.
#[cfg(all(
    doctest,
    feature = "blocking",
    feature = "near-cache",
    feature = "nonblocking",
    feature = "postgres"
))]
#[doc = include_str!("../README.md")]
struct Readme;
