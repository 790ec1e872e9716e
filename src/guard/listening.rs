//! What comes over the connection that listens: paths, "everything", or our own nonce.
//!
//! `PgBouncer` in transaction mode accepts LISTEN, and whoever uses the server's connection next gets
//! the notifications. So a nonce is sent over another connection, again and again: where it does
//! not come back, nothing else would.

use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::trigger::EVERYTHING;
use crate::random::random;

/// How often a nonce is sent: a connection that has died in silence is found out so soon.
const NONCE_EVERY: Duration = Duration::from_secs(10);

/// How long a nonce may take. It comes back within a millisecond, unless the machine is busy.
pub(super) const ECHO_LIMIT: Duration = Duration::from_secs(2);

/// What a nonce begins with: no path does.
const NONCE: &str = "/nonce/";

/// What to notify, to hear this nonce again.
pub(super) fn echo(nonce: u64) -> String {
    format!("{NONCE}{nonce:x}")
}

/// Puts a notification into the inbox.
pub(crate) fn notified(inbox: &Inbox, payload: &str) {
    if payload == EVERYTHING {
        inbox.everything();
    } else if let Some(nonce) = payload
        .strip_prefix(NONCE)
        .filter(|_| !payload.contains('\n'))
    {
        if let Ok(nonce) = u64::from_str_radix(nonce, 16) {
            inbox.echo(nonce);
        }
    } else {
        // The triggers end each path with a line feed, so a path that looks like a nonce is none.
        inbox.add(payload.lines().map(str::to_owned));
    }
}

/// A connection that listens, and whether what is notified comes through.
pub(super) struct Listening<L> {
    /// The connection ends when it is dropped.
    _connection: L,
    sent: Option<(u64, Instant)>,
    next: Instant,
    /// Whether a nonce has come back.
    pub(super) is_proven: bool,
}

/// What is to be done for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upkeep {
    Nothing,
    /// Notify this nonce.
    Send(u64),
    /// Nothing comes through.
    GiveUp,
}

impl<L> Listening<L> {
    pub(super) fn new(connection: L, now: Instant) -> Self {
        Self {
            _connection: connection,
            sent: None,
            next: now,
            is_proven: false,
        }
    }

    /// Nonces that came back; answers whether the first one has, just now. One of another guard
    /// proves nothing about our own.
    pub(super) fn came_back(&mut self, nonces: &[u64]) -> bool {
        let ours = self.sent.filter(|(nonce, _)| nonces.contains(nonce));
        if ours.is_some() {
            self.sent = None;
        }
        ours.is_some() && !std::mem::replace(&mut self.is_proven, true)
    }

    pub(super) fn upkeep(&mut self, now: Instant) -> Upkeep {
        match self.sent {
            Some((_, sent)) if now >= sent + ECHO_LIMIT => Upkeep::GiveUp,
            None if now >= self.next => {
                let nonce = random();
                self.sent = Some((nonce, now));
                self.next = now + NONCE_EVERY;
                Upkeep::Send(nonce)
            }
            _ => Upkeep::Nothing,
        }
    }

    /// When `upkeep` has something to do next.
    pub(super) fn due(&self) -> Instant {
        let limit = |(_, sent): (u64, Instant)| sent + ECHO_LIMIT;
        self.sent.map_or(self.next, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_paths_or_everything_or_a_nonce() {
        let inbox = Inbox::default();
        notified(&inbox, "a.py\nb/c.py\n/absolute\nindex\n");
        let now = Instant::now();
        let mut paths: Vec<_> = inbox.take(now, now).into_iter().map(|it| it.path).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["a.py", "b/c.py"]);
        assert!(!inbox.take_everything());
        notified(&inbox, EVERYTHING);
        assert!(inbox.take_everything());
        notified(&inbox, &echo(255));
        notified(&inbox, "/nonce/no");
        notified(&inbox, "/nonce/1\nbeside.py\n");
        assert!(inbox.has("beside.py"));
        inbox.take(Instant::now(), Instant::now());
        assert_eq!(inbox.take_echoes(), [255]);
        assert_eq!(inbox.len(), 0);
    }

    #[test]
    fn a_nonce_that_does_not_come_back_ends_it() {
        let start = Instant::now();
        let mut listening = Listening::new((), start);
        let nonce = |listening: &mut Listening<()>, now| match listening.upkeep(now) {
            Upkeep::Send(nonce) => nonce,
            other => panic!("{other:?}"),
        };
        let first = nonce(&mut listening, start);
        assert!(!listening.came_back(&[first ^ 1]), "of another guard");
        assert_eq!(listening.upkeep(start), Upkeep::Nothing);
        assert_eq!(listening.due(), start + ECHO_LIMIT);
        assert!(listening.came_back(&[first ^ 1, first]) && listening.is_proven);
        assert_eq!(listening.due(), start + NONCE_EVERY);
        let second = nonce(&mut listening, start + NONCE_EVERY);
        assert!(!listening.came_back(&[second]), "it was proven before");
        nonce(&mut listening, start + 2 * NONCE_EVERY);
        let late = start + 2 * NONCE_EVERY + ECHO_LIMIT;
        assert_eq!(listening.upkeep(late), Upkeep::GiveUp);
    }
}
