//! Which settings can't be used.

use std::sync::Arc;
use std::time::Duration;

use super::place::Place;
use super::{Config, quoted_table};
use crate::error::Error;

impl Config {
    /// Refuses what can't be used; every constructor that takes a `Config` calls it. Setters don't,
    /// so that they chain.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        let this = Self {
            known: Arc::default(),
            ..self
        };
        this.check().map(|()| this)
    }

    fn check(&self) -> Result<(), Error> {
        let durations = [
            (self.connect_timeout, "the connect time-out"),
            (self.response_timeout, "the response time-out"),
            (self.pool_timeout, "the pool time-out"),
            (self.lookup_deadline, "the lookup deadline"),
            (self.bulk_deadline, "the bulk deadline"),
            (self.ttl.unwrap_or(Duration::MAX), "the time to live"),
        ];
        // A socket's time-out of zero is an error, and PX takes whole milliseconds above zero.
        if let Some((_, what)) = durations
            .iter()
            .find(|(d, _)| *d < Duration::from_millis(1))
        {
            return Err(Error::invalid_config(format!(
                "{what} must be at least a millisecond"
            )));
        }
        // Above a day a deadline is none, and `Instant` overflows when much more is added.
        let longest = Duration::from_secs(24 * 3_600);
        if let Some((_, what)) = durations[..5].iter().find(|(d, _)| *d > longest) {
            return Err(Error::invalid_config(format!(
                "{what} must be at most a day"
            )));
        }
        if self.index_max_age.max(self.discovery_max_age) > longest {
            return Err(Error::invalid_config(
                "the age of the index and of a discovery must be at most a day",
            ));
        }
        if self.max_in_flight > 1_000_000 {
            return Err(Error::invalid_config(
                "the calls in flight must be at most a million",
            ));
        }
        if self
            .ttl
            .is_some_and(|ttl| ttl > Duration::from_secs(100 * 365 * 86_400))
        {
            return Err(Error::invalid_config(
                "the time to live must be below 100 years",
            ));
        }
        if self.pool_size == 0 || self.max_in_flight == 0 {
            return Err(Error::invalid_config(
                "the pool size and the calls in flight must be at least 1",
            ));
        }
        self.keys.checked()?;
        if matches!(self.place, Place::Cluster(_)) && !self.keys.has_hash_tag() {
            return Err(Error::invalid_config(
                "in a cluster a workspace must lie in one slot: set a namespace with a hash tag, such as {tenant-a}:",
            ));
        }
        self.quoted_table().map(drop)
    }

    /// The workspace's table as SQL has it.
    pub(crate) fn quoted_table(&self) -> Result<String, Error> {
        quoted_table(&self.workspace_table).ok_or_else(|| {
            Error::invalid_config("the workspace table must be a name or schema.name, without NUL")
        })
    }
}
