//! Which servers a report or a diagnosis is about.

use serde::Serialize;

use crate::config::Config;
use crate::config::place::{Place, shown};

/// Which servers a report is about: those that answered, not those that were meant. A URL with
/// several hosts, or a pooler, may lead to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Endpoints {
    /// As [`Config::redis_address`](crate::config::Config::redis_address) has it.
    pub redis: String,
    /// `host:port` of the Redis that holds the keys, as far as it is known.
    pub server: Option<String>,
    /// How it is found.
    pub found: Found,
    /// What it is; `None` where it was not asked, or does not tell.
    pub role: Option<Role>,
    /// `host:port/database` as Postgres itself says, or the database alone through a local socket;
    /// `None` where no database was asked.
    pub database: Option<String>,
    /// What goes before every key, as [`Config::with_namespace`](crate::Config::with_namespace) has
    /// it; empty for none.
    pub namespace: String,
}

/// How the Redis that holds the keys is found: `found` of [`Endpoints`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Found {
    /// It is the server behind the address in the URL.
    #[default]
    Address,
    /// Sentinels name it.
    Sentinels,
    /// The nodes of a cluster name it.
    Cluster,
}

/// What a Redis is: `role` of [`Endpoints`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It repeats what a primary does.
    Replica,
}

impl Role {
    /// As INFO names it.
    pub(crate) fn of_info(role: &str) -> Option<Self> {
        match role {
            "master" => Some(Self::Primary),
            "slave" => Some(Self::Replica),
            _ => None,
        }
    }
}

impl Endpoints {
    pub(crate) fn new(config: &Config, database: Option<&str>) -> Self {
        let holder = config.known.holder();
        let (server, found) = match config.place {
            Place::Fixed => (Some(shown(config.redis.addr())), Found::Address),
            Place::Sentinels(_) => (holder.as_deref().map(shown), Found::Sentinels),
            Place::Cluster(_) => (holder.as_deref().map(shown), Found::Cluster),
        };
        Self {
            redis: config.redis_address(),
            // It has proved to be one, or the search would not have ended.
            role: holder.map(|_| Role::Primary),
            server,
            found,
            database: database.map(str::to_owned),
            namespace: config.keys.namespace().to_owned(),
        }
    }
}
