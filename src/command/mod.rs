//! Every Redis command that this crate sends, as data: built here, decoded here, sent elsewhere. So
//! each is tested without a server, and the two facades can't drift apart.
//!
//! Commands of one piece of work (the mark, SCAN, the reservation of `refresh`) stand beside that
//! work in `sync` and `near`, by the same trait [`Command`](request::Command).

pub(crate) mod connection;
pub(crate) mod index;
pub(crate) mod info;
pub(crate) mod mark;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) mod migrating;
pub(crate) mod modules;
pub(crate) mod owner;
pub(crate) mod reign;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server_id;
