//! The thread that follows Redis for a near cache.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::Value;

use super::connection::Wire;
use super::connections::Pool;
use super::run;
use super::self_pipe::Bell;
use crate::client::transport::Transport as _;
use crate::command::reply;
use crate::command::request::Request;
use crate::config::Config;
use crate::error::{Error, Outage};
use crate::near::cache::Listen;
use crate::near::instance::{Life, Listening};
use crate::near::listener::{Feed, Follow, follow};

/// How often a thread that waits for a connection looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(20);

impl Listen for Pool {
    fn listen(self: &Arc<Self>, life: &Arc<Life>) -> Result<Box<dyn Listening>, Error> {
        let failed = |error| reply::io_error(error, Outage::Connect);
        let shared = Arc::new(Shared {
            bell: Bell::new().map_err(failed)?,
            is_over: AtomicBool::new(false),
        });
        let follower = Follower {
            config: self.config().with_resp3(),
            shared: Arc::clone(&shared),
        };
        let life = Arc::clone(life);
        let thread = thread::Builder::new()
            .name("bifrost-near".to_owned())
            .spawn(move || run(follow(&follower, &life)))
            .map_err(failed)?;
        Ok(Box::new(Handle { shared, thread }))
    }
}

struct Shared {
    bell: Bell,
    is_over: AtomicBool,
}

struct Handle {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Listening for Handle {
    fn wake(&self) {
        self.shared.bell.ring();
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        self.shared.bell.ring();
    }
}

struct Follower {
    config: Config,
    shared: Arc<Shared>,
}

impl Follow for Follower {
    type Feed = Connection;

    async fn connect(&self) -> Result<Connection, Error> {
        let config = self.config.clone();
        let deadline = Instant::now() + config.connect_timeout;
        let (sender, receiver) = mpsc::sync_channel(1);
        // Connecting can't be interrupted, so somebody else does it.
        let work = move || {
            // Nobody may wait any more.
            let _ = sender.send(Wire::connect(&config, deadline));
        };
        thread::Builder::new()
            .name("bifrost-connect".to_owned())
            .spawn(work)
            .map_err(|error| reply::io_error(error, Outage::Connect))?;
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(wire) => {
                    return Ok(Connection {
                        wire: wire?,
                        config: self.config.clone(),
                        shared: Arc::clone(&self.shared),
                    });
                }
                Err(mpsc::RecvTimeoutError::Timeout) if !self.is_over() => {}
                Err(_) => return Err(reply::outage(Outage::Connect, None)),
            }
        }
    }

    async fn pause(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            // An error would be the bell's own; then nobody can wait for it either.
            if left.is_zero() || self.shared.bell.wait(None, left).is_err() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(SeqCst)
    }
}

struct Connection {
    wire: Wire,
    config: Config,
    shared: Arc<Shared>,
}

impl Feed for Connection {
    async fn send(&mut self, request: Request) -> Result<(), Error> {
        let deadline = Instant::now() + self.config.response_timeout;
        self.wire
            .send(&request, deadline)
            .map_err(Error::not_applied)
    }

    async fn receive(&mut self, limit: Duration) -> Result<Option<Value>, Error> {
        let failed = |error| reply::io_error(error, Outage::Lost);
        let held = self.wire.channel().holds_data().map_err(failed)?;
        if let Some(value) = self.wire.try_next(held)? {
            return Ok(Some(value));
        }
        let socket = self.wire.channel().socket();
        let has_come = self.shared.bell.wait(Some(socket), limit);
        if !has_come.map_err(failed)? {
            return Ok(None);
        }
        // There is something, so this is never waited for.
        let deadline = Instant::now() + self.config.response_timeout;
        self.wire.channel().set_deadline(deadline);
        let has_come = self.wire.channel().take_in().map_err(failed)?;
        self.wire.try_next(has_come)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.wire.channel().socket().shut_down();
    }
}
