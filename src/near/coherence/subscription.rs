//! One session of following Redis, from the greeting to its loss: what to send, how long to wait,
//! what each message means. Pure: time and messages are given to it.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::clock::Tick;
use super::message;
use super::message::{GREETING_REPLIES, Message};
use super::promise::Promise;
use super::protocol::Protocol;
use super::rule::Rule;
use super::value::INDEX_PATH;
use crate::command::reply;
use crate::command::request::Request;
use crate::error::{Error, Outage};
use crate::near::hooks::Hooks;

/// A heartbeat is asked for so many times in the staleness bound.
const HEARTBEATS: u32 = 4;

pub(crate) struct Tracker<'p> {
    protocol: &'p Protocol,
    hooks: &'p Hooks,
    stage: Stage,
}

enum Stage {
    New,
    Greeting { sent: Tick, answers: Vec<Value> },
    Following { ping: Option<Ping>, next: Tick },
}

/// A heartbeat asked for and not given yet.
struct Ping {
    sent: Tick,
    barriers: Vec<Arc<Promise<bool>>>,
}

impl Drop for Ping {
    fn drop(&mut self) {
        // Those that were cached stay so.
        for barrier in &self.barriers {
            barrier.fulfil(false);
        }
    }
}

/// What is to be done next.
pub(crate) enum Action {
    Send(Request),
    /// Wait for a message, or for so long, or until somebody wants something.
    Receive(Duration),
}

impl<'p> Tracker<'p> {
    pub(crate) fn new(protocol: &'p Protocol, hooks: &'p Hooks) -> Self {
        Self {
            protocol,
            hooks,
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
                Ok(Action::Send(message::greeting()))
            }
            Stage::Greeting { sent, .. } => receive_until(sent.plus(bound), now),
            Stage::Following { .. } if session.is_suspected() => {
                Err(reply::outage(Outage::Lost, None))
            }
            Stage::Following { ping, next } => {
                if ping.is_none() && (now >= *next || session.has_barriers()) {
                    *ping = Some(Ping {
                        sent: now,
                        barriers: session.take_barriers(),
                    });
                    *next = now.plus(bound / HEARTBEATS);
                    return Ok(Action::Send(message::ping()));
                }
                let lapse = session.lease();
                let until = if ping.is_none() {
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

    /// Takes in what came.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub(crate) fn received(&mut self, value: Value, now: Tick) -> Result<(), Error> {
        match message::read(value) {
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
        self.protocol.index_delta.add(&paths, now);
        for path in &paths {
            self.protocol.invalidate(path);
        }
        paths.retain(|path| path != INDEX_PATH);
        self.hooks.paths(paths);
    }

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
                    let server = message::confirmed(answers)?;
                    self.protocol.index_delta.begin();
                    self.protocol.begin(server, from(sent));
                    // Before now nobody told them what changed.
                    self.hooks.everything();
                    self.stage = Stage::Following {
                        ping: None,
                        next: sent.plus(session.bound() / HEARTBEATS),
                    };
                }
                Ok(())
            }
            Stage::Following { ping, .. } => {
                let Some(ping) = ping.take() else {
                    return Err(reply::unexpected());
                };
                if message::is_alive(answer)? {
                    session.renew(from(ping.sent));
                    for barrier in &ping.barriers {
                        barrier.fulfil(true);
                    }
                }
                Ok(())
            }
        }
    }
}

fn receive_until(until: Tick, now: Tick) -> Result<Action, Error> {
    if now >= until {
        return Err(reply::timed_out());
    }
    Ok(Action::Receive(until.since(now)))
}
