//! What keeps the copy right: pure, without IO and without a clock of its own, so that a model can
//! drive it. Why each rule is needed: `docs/design/near-cache.md`.

pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod index_delta;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub(crate) mod negative;
pub(crate) mod promise;
pub(crate) mod protocol;
pub(crate) mod rule;
pub(crate) mod session;
pub(crate) mod store;
pub(crate) mod subscription;
pub(crate) mod value;
