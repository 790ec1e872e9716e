//! A guard keeps the cache right, whatever others write.

mod convergence;
mod feeds;
mod foreign;
mod grace;
mod outages;
mod removals;
mod several;
mod signs;
#[path = "../support/mod.rs"]
mod support;
