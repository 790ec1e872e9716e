//! Follows Redis, session after session, over whatever connections a facade makes.
//!
//! It runs no code of the user and never waits for a reader. Redis feeds a tracking connection
//! that is not read without bound, and with `maxmemory` may empty its key space for that.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use redis::Value;

use super::coherence::clock::Tick;
use super::coherence::subscription::{Action, Tracker};
use super::instance::Instance;
use crate::command::reply;
use crate::command::request::Request;
use crate::error::{Error, Outage};
use crate::random::random;

/// How long after a loss the listener connects again. It doubles with each failure and is shortened
/// by chance, so that a fleet does not come back at once. At most 1 s, because until then every
/// read is a round trip.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(1);

/// How long after Redis said that it can't be followed (an ACL, an old version): that changes only
/// when an operator changes it.
const REFUSED_DELAY: Duration = Duration::from_secs(30);

/// How long a heartbeat may be held up by the question whether Redis is elsewhere.
const ASKING: Duration = Duration::from_millis(50);

/// What a facade gives the listener: connections, and a way to wait.
pub(crate) trait ListenerIo {
    type Connection: ListenerConnection;

    /// A fresh connection that speaks RESP3.
    async fn connect(&self) -> Result<Self::Connection, Error>;

    async fn pause(&self, duration: Duration);

    /// True when the near cache has been dropped and the listener is to end.
    fn is_over(&self) -> bool;
}

/// A connection that follows Redis.
pub(crate) trait ListenerConnection {
    async fn send(&mut self, request: Request) -> Result<(), Error>;

    /// Whether another server holds the keys now, as far as can be told: asks those who know, at
    /// most for so long, if it is time to.
    async fn is_elsewhere(&mut self, limit: Duration) -> bool;

    /// The next message, in the order in which Redis sent them. `None` if there is none within
    /// `limit`, or earlier if a caller wakes the listener: it then has something to send.
    async fn receive(&mut self, limit: Duration) -> Result<Option<Value>, Error>;
}

/// Follows Redis until the near cache is dropped. An error ends a session and never this: whatever
/// happens, it connects again.
pub(crate) async fn listen<Io: ListenerIo>(io: &Io, instance: &Instance) {
    // Callers that wait for a session now know that this thread or task really runs.
    instance.has_begun.store(true, SeqCst);
    let mut delay = FIRST_DELAY;
    let mut refusal = None;
    while !io.is_over() {
        let begin = Tick::now();
        let mut followed = false;
        let Err(why) = session(io, instance, &mut followed).await else {
            break;
        };
        // What changes from now on is not announced, so a hook must take anything for changed.
        if instance.protocol.end(&why) {
            instance.hooks.everything();
        }
        if followed {
            // A session that ends at once is no better than none, and must not be begun in a loop.
            if Tick::now().since(begin) >= LAST_DELAY {
                delay = FIRST_DELAY;
            }
            refusal = None;
            if !instance.hooks.have_sink() {
                log::info!("The near cache lost Redis and reads through: {why}");
            }
        }
        if why.is_transient() {
            log::debug!("The near cache can't follow Redis yet: {why}");
            io.pause(jittered(delay)).await;
            delay = (delay * 2).min(LAST_DELAY);
        } else {
            let why = why.to_string();
            // One warning for one reason, not one every 30 s.
            if refusal.as_ref() != Some(&why) && !instance.hooks.have_sink() {
                log::warn!("The near cache can't follow Redis and reads through: {why}");
                refusal = Some(why);
            }
            io.pause(jittered(REFUSED_DELAY)).await;
        }
    }
}

/// One session, from the connection to its loss; `Ok` when the listener is to end.
async fn session<Io: ListenerIo>(
    io: &Io,
    instance: &Instance,
    followed: &mut bool,
) -> Result<(), Error> {
    // Always a fresh connection: on one that was in use, replies to earlier commands might be taken
    // for answers to the greeting.
    let mut connection = io.connect().await?;
    let mut tracker = Tracker::new(
        &instance.protocol,
        &instance.hooks,
        &instance.keys,
        instance.heartbeat,
    );
    while !io.is_over() {
        match tracker.next(Tick::now())? {
            Action::Send(request) => {
                if tracker.is_following() && connection.is_elsewhere(ASKING).await {
                    return Err(reply::outage(Outage::Elsewhere, None));
                }
                connection.send(request).await?;
            }
            Action::Receive(limit) => {
                if let Some(value) = connection.receive(limit).await? {
                    tracker.received(value, Tick::now())?;
                    *followed |= tracker.is_following();
                }
            }
        }
    }
    Ok(())
}

/// Between half and all of the delay.
fn jittered(delay: Duration) -> Duration {
    let percent = u32::try_from(random() % 50).unwrap_or_default();
    delay * (100 - percent) / 100
}
