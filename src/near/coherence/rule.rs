//! The rules of the protocol that can be broken one at a time, to see that the tests notice.
//!
//! A test that can't see a fault proves nothing, so each rule has a test that must fail without it:
//! the table in docs/design/near-cache.md.

/// What keeps the copy right. Each is checked where it applies, by [`Rules::enforces`], which
/// without tests is always true and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "read only by tests, which break one")
)]
pub(crate) enum Rule {
    /// A hit must be of the session that runs.
    EpochOnHit,
    /// A hit must be covered by the lease.
    Lease,
    /// What was read in bulk is stored only if no path of the same stripe changed meanwhile.
    Generation,
    /// A flight that lands must still be the one that is attached.
    UniqueFlight,
    /// An announced change detaches the flight.
    Detach,
    /// A reader joins no flight of an earlier session.
    JoinInSession,
    /// An announced change removes the entry.
    Remove,
    /// A flush ends the session of all entries.
    Flush,
    /// With a new session, what was stored in the one before is void.
    Begin,
    /// What a writer wrote that this near cache observes is removed when it has been written.
    LocalWrite,
    /// What another server than the followed one said is not stored.
    SameServer,
    /// An answer that may not be served later still replaces an older one: else `stale_if_error`
    /// would bring back what is known to have changed.
    Learn,
    /// A name is negative only if one and the same read found neither of its two paths.
    OneRead,
    /// The session begins when Redis has confirmed that it announces changes.
    LiveAfterConfirmation,
    /// The lease counts from when the heartbeat was asked for.
    LeaseFromSending,
    /// A heartbeat proves that the server has the place in which it is followed, and not only that
    /// it is alive.
    HeartbeatProvesPlace,
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
