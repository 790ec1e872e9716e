//! The rules of the protocol that can be broken one at a time, to see that the tests notice.

/// What keeps the copy right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "named where they are cached"))]
pub(crate) enum Rule {
    /// A hit must be of the session that runs.
    EpochOnHit,
    /// A hit must be covered by the lease.
    Lease,
    /// What was read in bulk is cached only if no neighbour changed meanwhile.
    Generation,
    /// A flight that lands must still be the one that is attached.
    UniqueFlight,
    /// An announced change detaches the flight.
    Detach,
    /// Nobody joins a flight of an earlier session.
    JoinInSession,
    /// An announced change removes the entry.
    Remove,
    /// A flush ends the session of all entries.
    Flush,
    /// With a new session, what was cached in the one before is void.
    Begin,
    /// What a tied writer wrote is removed when it has been written.
    LocalWrite,
    /// What another server said is not cached.
    SameServer,
    /// What was learnt and can't be cached replaces what was known before.
    Learn,
    /// That a name has no source takes one read that found none.
    OneRead,
    /// The session begins when Redis has confirmed that it announces changes.
    LiveAfterConfirmation,
    /// The lease counts from when the heartbeat was asked for.
    LeaseFromSending,
    /// What Redis announced before a heartbeat is applied before the lease is renewed.
    ApplyBeforeRenewal,
    /// A snapshot waits until what it could have seen has been announced.
    SnapshotBarrier,
}

/// The rules as they are in force: all of them, except in tests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    pub(crate) broken: Option<Rule>,
}

impl Rules {
    #[cfg(test)]
    pub(crate) fn enforces(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "tests look at it")]
    pub(crate) fn enforces(self, _: Rule) -> bool {
        true
    }
}
