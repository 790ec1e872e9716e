//! Follows Redis, session after session, over whatever connections a facade makes.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use redis::Value;

use super::coherence::clock::Tick;
use super::coherence::subscription::{Action, Tracker};
use super::instance::Instance;
use crate::command::request::Request;
use crate::error::Error;
use crate::random::random;

/// How long after a loss it is tried again; doubled each time, and shortened by chance, so that a
/// fleet does not come back at once.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(1);

/// How long after Redis said that it can't be followed.
const REFUSED_DELAY: Duration = Duration::from_secs(30);

/// Makes connections that follow Redis, and waits.
pub(crate) trait ListenerIo {
    type Connection: ListenerConnection;

    /// A fresh connection that speaks RESP3.
    async fn connect(&self) -> Result<Self::Connection, Error>;

    async fn pause(&self, duration: Duration);

    /// True when nobody needs it any more.
    fn is_over(&self) -> bool;
}

/// A connection that follows Redis.
pub(crate) trait ListenerConnection {
    async fn send(&mut self, request: Request) -> Result<(), Error>;

    /// The next message, in the order in which Redis sent them; `None` if there is none for so
    /// long, or before that if somebody wants something.
    async fn receive(&mut self, limit: Duration) -> Result<Option<Value>, Error>;
}

pub(crate) async fn listen<Io: ListenerIo>(io: &Io, instance: &Instance) {
    instance.has_begun.store(true, SeqCst);
    let mut delay = FIRST_DELAY;
    let mut refusal = None;
    while !io.is_over() {
        let begin = Tick::now();
        let mut followed = false;
        let Err(why) = session(io, instance, &mut followed).await else {
            break;
        };
        if instance.protocol.end(&why) {
            instance.hooks.everything();
        }
        if followed {
            // One that never lasts is no better than none.
            if Tick::now().since(begin) >= LAST_DELAY {
                delay = FIRST_DELAY;
            }
            refusal = None;
            log::info!("The near cache lost Redis and reads through: {why}");
        }
        if why.is_transient() {
            log::debug!("The near cache can't follow Redis yet: {why}");
            io.pause(jittered(delay)).await;
            delay = (delay * 2).min(LAST_DELAY);
        } else {
            let why = why.to_string();
            // Once, not at each try.
            if refusal.as_ref() != Some(&why) {
                log::warn!("The near cache can't follow Redis and reads through: {why}");
                refusal = Some(why);
            }
            io.pause(jittered(REFUSED_DELAY)).await;
        }
    }
}

/// From the connection to its loss; `Ok` when nobody needs it any more.
async fn session<Io: ListenerIo>(
    io: &Io,
    instance: &Instance,
    followed: &mut bool,
) -> Result<(), Error> {
    let mut connection = io.connect().await?;
    let mut tracker = Tracker::new(&instance.protocol, &instance.hooks);
    while !io.is_over() {
        match tracker.next(Tick::now())? {
            Action::Send(request) => connection.send(request).await?,
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

fn jittered(delay: Duration) -> Duration {
    let percent = u32::try_from(random() % 50).unwrap_or_default();
    delay * (100 - percent) / 100
}
