//! One session of following Redis, from the greeting to its loss: what to send, how long to wait,
//! what each message means. Pure: time and messages are given to it, and the listener only does
//! what [`Action`] says.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::clock::Tick;
use super::message;
use super::message::{GREETING_REPLIES, Heartbeat, Message};
use super::promise::Promise;
use super::protocol::Protocol;
use super::rule::Rule;
use super::value::INDEX_PATH;
use crate::command::reign::Reign;
use crate::command::reply;
use crate::command::request::Request;
use crate::error::{Error, Outage};
use crate::keys::Keys;
use crate::near::hooks::Hooks;

/// A heartbeat is asked for so many times in the staleness bound, so that an answer may be late for
/// most of it and not cost the session.
const HEARTBEATS: u32 = 4;

/// A session in progress. A new one is made for each connection.
pub(crate) struct Tracker<'p> {
    protocol: &'p Protocol,
    hooks: &'p Hooks,
    keys: &'p Keys,
    heartbeat: Heartbeat,
    stage: Stage,
}

/// How far the session has come.
enum Stage {
    New,
    Greeting {
        sent: Tick,
        answers: Vec<Value>,
    },
    Following {
        /// The place of the server when the session began.
        place: Reign,
        beat: Option<Beat>,
        next: Tick,
    },
}

/// A heartbeat that was asked for and is not answered yet. There is one at a time, so its answer
/// needs no number to be told from another.
struct Beat {
    sent: Tick,
    barriers: Vec<Arc<Promise<bool>>>,
}

impl Drop for Beat {
    fn drop(&mut self) {
        // The first value counts: a barrier that was fulfilled with true stays so.
        for barrier in &self.barriers {
            barrier.fulfil(false);
        }
    }
}

/// What is to be done next.
pub(crate) enum Action {
    Send(Request),
    /// Wait for a message, or for so long, or until a caller wakes the listener.
    Receive(Duration),
}

impl<'p> Tracker<'p> {
    pub(crate) fn new(
        protocol: &'p Protocol,
        hooks: &'p Hooks,
        keys: &'p Keys,
        heartbeat: Heartbeat,
    ) -> Self {
        Self {
            protocol,
            hooks,
            keys,
            heartbeat,
            stage: Stage::New,
        }
    }

    pub(crate) fn is_following(&self) -> bool {
        matches!(self.stage, Stage::Following { .. })
    }

    /// What to do now.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub(crate) fn next(&mut self, now: Tick) -> Result<Action, Error> {
        let session = &self.protocol.session;
        let bound = session.bound();
        match &mut self.stage {
            Stage::New => {
                let answers = Vec::with_capacity(GREETING_REPLIES);
                self.stage = Stage::Greeting { sent: now, answers };
                Ok(Action::Send(message::greeting(self.keys)))
            }
            Stage::Greeting { sent, .. } => receive_until(sent.plus(bound), now),
            // A reader was answered by another server: leave this one, and follow where the address
            // leads now.
            Stage::Following { .. } if session.is_suspected() => {
                Err(reply::outage(Outage::Lost, None))
            }
            Stage::Following { beat, next, .. } => {
                if beat.is_none() && (now >= *next || session.has_barriers()) {
                    *beat = Some(Beat {
                        sent: now,
                        barriers: session.take_barriers(),
                    });
                    *next = now.plus(bound / HEARTBEATS);
                    return Ok(Action::Send(message::heartbeat(self.heartbeat, self.keys)));
                }
                // While a heartbeat is unanswered the only thing left to do is to notice that the lease
                // lapsed.
                let lapse = session.lease();
                let until = if beat.is_none() {
                    lapse.min(*next)
                } else {
                    lapse
                };
                if now >= lapse {
                    return Err(reply::timed_out());
                }
                receive_until(until, now)
            }
        }
    }

    /// Applies a message. Redis's order is kept: what was announced before a heartbeat is applied
    /// before the lease is renewed.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub(crate) fn received(&mut self, value: Value, now: Tick) -> Result<(), Error> {
        match message::read(value, self.keys) {
            Message::Changed(paths) => {
                self.changed(paths, now);
                Ok(())
            }
            Message::Flushed => {
                self.protocol.flush();
                self.hooks.everything();
                Ok(())
            }
            Message::Answer(answer) => self.answered(answer, now),
            Message::Other => Ok(()),
        }
    }

    fn changed(&self, mut paths: Vec<String>, now: Tick) {
        self.protocol.counters.invalidations.add(paths.len());
        // Before the entries are invalidated, see `IndexDelta::add`. Hooks come last: when one is
        // called, asking this cache must bring what is new.
        self.protocol.index_delta.add(&paths, now);
        for path in &paths {
            self.protocol.invalidate(path);
        }
        self.hooks.announced(&paths);
        paths.retain(|path| path != INDEX_PATH);
        self.hooks.paths(paths);
    }

    /// Applies an answer: to the greeting, or to the one heartbeat that is out. Any other is a server
    /// that we don't understand, and ends the session.
    fn answered(&mut self, answer: Value, now: Tick) -> Result<(), Error> {
        let session = &self.protocol.session;
        let from = |sent: Tick| {
            let right = self.protocol.rules.enforces(Rule::LeaseFromSending);
            if right { sent } else { now }
        };
        match &mut self.stage {
            Stage::New => Err(reply::unexpected()),
            Stage::Greeting { sent, answers } => {
                answers.push(answer);
                if answers.len() == GREETING_REPLIES {
                    let (sent, answers) = (*sent, std::mem::take(answers));
                    let (server, place) = message::confirmed(answers, self.keys)?;
                    self.protocol.index_delta.begin();
                    self.protocol.begin(server, from(sent));
                    // Until now no change was announced, so any module may have changed.
                    self.hooks.everything();
                    self.stage = Stage::Following {
                        place,
                        beat: None,
                        next: sent.plus(session.bound() / HEARTBEATS),
                    };
                }
                Ok(())
            }
            Stage::Following { place, beat, .. } => {
                let Some(beat) = beat.take() else {
                    return Err(reply::unexpected());
                };
                if message::proves_place(self.heartbeat, answer, place, self.protocol.rules)? {
                    session.renew(from(beat.sent));
                    for barrier in &beat.barriers {
                        barrier.fulfil(true);
                    }
                }
                Ok(())
            }
        }
    }
}

/// Waits until then; if that is past, the session is over.
fn receive_until(until: Tick, now: Tick) -> Result<Action, Error> {
    if now >= until {
        return Err(reply::timed_out());
    }
    Ok(Action::Receive(until.since(now)))
}
