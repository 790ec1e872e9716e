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
mod client;
mod command;
mod config;
mod database;
pub mod diagnosis;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod discovery;
mod encode;
mod error;
#[cfg(all(
    feature = "near-cache",
    feature = "postgres",
    any(feature = "blocking", feature = "nonblocking")
))]
pub mod guard;
pub mod guide;
pub mod keys;
mod module;
#[cfg(all(
    feature = "near-cache",
    any(feature = "blocking", feature = "nonblocking")
))]
pub mod near;
#[cfg(feature = "nonblocking")]
pub mod nonblocking;
mod observe;
mod paths;
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "not every kind of metric is used under every set of features"
    )
)]
mod prometheus;
mod random;
mod resolution;
mod rfc3339;
pub mod sync;
#[cfg(feature = "tls")]
mod tls;

pub use client::breaker::BreakerState;
pub use client::stats::Stats;
pub use config::{Config, DEFAULT_REDIS_URL, Integrity};
#[cfg(feature = "postgres")]
pub use database::url::postgres_address;
pub use error::{Error, Outage};
pub use module::CachedModule;
pub use observe::{CallEnded, Observe, Outcome};
pub use resolution::Resolution;
#[cfg(feature = "tls")]
pub use tls::Tls;

#[cfg(feature = "postgres")]
pub use postgres;
#[cfg(feature = "blocking")]
pub use r2d2;
#[cfg(feature = "postgres")]
pub use tokio_postgres;

/// Compiles the examples of the README, so that they can't rot.
#[cfg(all(
    doctest,
    feature = "blocking",
    feature = "near-cache",
    feature = "nonblocking",
    feature = "postgres"
))]
#[doc = include_str!("../README.md")]
struct Readme;
