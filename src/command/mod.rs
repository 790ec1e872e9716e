//! Every Redis command that this crate sends, as data: built here, decoded here, sent elsewhere.

pub(crate) mod connection;
pub(crate) mod index;
pub(crate) mod info;
pub(crate) mod mark;
pub(crate) mod modules;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server_id;
