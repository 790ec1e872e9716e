//! The thread that follows Redis for a near cache.
//!
//! It polls the tracking connection and a [self-pipe](super::self_pipe), so that a caller can wake
//! it. It runs until the near cache is dropped.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::Value;

use super::connection::{Connection, Dialer};
use super::connections::Connections;
use super::run;
use super::self_pipe::SelfPipe;
use crate::command::reply;
use crate::command::request::Request;
use crate::config::Config;
use crate::discovery::{self, Opened};
use crate::error::{Error, Outage};
use crate::near::cache::SpawnListener;
use crate::near::instance::{Instance, ListenerHandle};
use crate::near::listener::{ListenerConnection, ListenerIo, listen};

/// How often the listener looks whether it is to end while another thread connects for it.
const LOOK: Duration = Duration::from_millis(20);

impl SpawnListener for Connections {
    fn spawn_listener(&self, instance: &Arc<Instance>) -> Result<Box<dyn ListenerHandle>, Error> {
        let failed = |error| reply::io_error(error, Outage::Connect);
        let shared = Arc::new(Shared {
            pipe: SelfPipe::new().map_err(failed)?,
            is_over: AtomicBool::new(false),
        });
        let io = ThreadIo {
            config: self.config.with_resp3(),
            shared: Arc::clone(&shared),
        };
        let instance = Arc::clone(instance);
        let thread = thread::Builder::new()
            .name("bifrost-near".to_owned())
            .spawn(move || run(listen(&io, &instance)))
            .map_err(failed)?;
        Ok(Box::new(ThreadHandle { shared, thread }))
    }
}

/// What the handle and the thread share.
struct Shared {
    pipe: SelfPipe,
    is_over: AtomicBool,
}

struct ThreadHandle {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl ListenerHandle for ThreadHandle {
    fn wake(&self) {
        self.shared.pipe.wake();
    }

    fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Tells the thread to end, and does not wait for it: the near cache may be dropped in a thread
/// that must not wait.
impl Drop for ThreadHandle {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        self.shared.pipe.wake();
    }
}

struct ThreadIo {
    config: Config,
    shared: Arc<Shared>,
}

impl ListenerIo for ThreadIo {
    type Connection = TrackingConnection;

    async fn connect(&self) -> Result<TrackingConnection, Error> {
        let config = self.config.clone();
        let deadline = Instant::now() + config.connect_timeout;
        let (sender, receiver) = mpsc::sync_channel(1);
        // Connecting can't be interrupted and may take its whole time-out, so another thread does
        // it, and this one ends as soon as the near cache is dropped.
        let work = move || {
            // Without a receiver, because the listener has ended, the connection is dropped here.
            let _ = sender.send(Connection::open(&config, deadline));
        };
        thread::Builder::new()
            .name("bifrost-connect".to_owned())
            .spawn(work)
            .map_err(|error| reply::io_error(error, Outage::Connect))?;
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(opened) => {
                    let Opened { connection, moves } = opened?;
                    return Ok(TrackingConnection {
                        connection,
                        moves,
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
            // Without a socket an error can only be the pipe's own, and it would come again at
            // once.
            if left.is_zero() || self.shared.pipe.wait(None, left).is_err() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(SeqCst)
    }
}

/// The tracking connection, which this thread alone reads and writes.
struct TrackingConnection {
    connection: Connection,
    moves: u64,
    config: Config,
    shared: Arc<Shared>,
}

impl ListenerConnection for TrackingConnection {
    async fn send(&mut self, request: Request) -> Result<(), Error> {
        let deadline = Instant::now() + self.config.response_timeout;
        self.connection
            .send(&request, deadline)
            .map_err(Error::not_applied)
    }

    async fn is_elsewhere(&mut self, limit: Duration) -> bool {
        let config = &self.config;
        discovery::confirm(&Dialer { config }, config, limit).await;
        config.known.moves() != self.moves
    }

    async fn receive(&mut self, limit: Duration) -> Result<Option<Value>, Error> {
        let failed = |error| reply::io_error(error, Outage::Lost);
        // What the parser or TLS holds already, `poll` doesn't know of.
        let held = self.connection.stream().holds_data().map_err(failed)?;
        if let Some(value) = self.connection.try_next(held)? {
            return Ok(Some(value));
        }
        let socket = self.connection.stream().socket();
        let has_come = self.shared.pipe.wait(Some(socket), limit);
        if !has_come.map_err(failed)? {
            return Ok(None);
        }
        // The socket is readable, so this read does not wait; the deadline is for TLS, which may
        // have to write.
        let deadline = Instant::now() + self.config.response_timeout;
        self.connection.stream().set_deadline(deadline);
        let has_come = self.connection.stream().take_in().map_err(failed)?;
        self.connection.try_next(has_come)
    }
}

/// Shut down and not merely closed: see [`shut_down`](super::socket::Socket::shut_down).
impl Drop for TrackingConnection {
    fn drop(&mut self) {
        self.connection.stream().socket().shut_down();
    }
}
