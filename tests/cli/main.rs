//! `bifrost-modules` as a program, against real servers.

mod failing;
mod guard;
mod killed;
mod namespaces;
mod naming;
mod publishing;
mod reading;
mod schema;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod syncing;
mod terminal;
mod tls;
mod tool;
mod waiting;
mod watching;
