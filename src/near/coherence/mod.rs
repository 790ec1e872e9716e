//! What keeps the copy right: pure, without IO and without a clock of its own, so that a model can
//! drive it through orders that no test with sockets would meet.
//!
//! [`subscription`] says what to send on the tracking connection and what each message means,
//! [`session`] whether a copy is valid at all, [`protocol`] which answer may be stored, [`store`]
//! stores it, and [`names`] and [`index_delta`] do the same for names and for the index. Why
//! each rule is needed, and which test finds it broken: docs/design/near-cache.md.

pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod index_delta;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub(crate) mod names;
pub(crate) mod promise;
pub(crate) mod protocol;
pub(crate) mod rule;
pub(crate) mod session;
pub(crate) mod store;
pub(crate) mod subscription;
pub(crate) mod value;
