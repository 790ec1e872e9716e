#![doc = include_str!("lib.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod call;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod commands;
mod config;
mod error;
pub mod keys;
mod module;
#[cfg(feature = "nonblocking")]
pub mod nonblocking;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod operations;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod reply;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
mod transport;

pub use config::{Config, DEFAULT_REDIS_URL};
pub use error::{Error, Outage};
pub use module::CachedModule;
