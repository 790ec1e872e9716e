//! A guard keeps the cache right, whatever others write.

mod foreign;
#[path = "../support/mod.rs"]
mod support;
