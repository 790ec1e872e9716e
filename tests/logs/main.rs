//! What is printed and logged, and what never is.
//!
//! A process has one logger, and the tests look through all that it has taken in: no other tests
//! belong here.

mod captured;
mod integrity;
#[cfg(feature = "postgres")]
mod secrets;
#[path = "../support/mod.rs"]
mod support;
