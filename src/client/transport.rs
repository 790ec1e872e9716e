//! What a facade brings: connections, and a way to wait.
//!
//! Everything above this trait is written once, as async code that does no IO itself. In
//! `nonblocking` it runs on tokio. In `blocking` the transport does its work before it returns and
//! never waits, so that a single poll, by [`run`](crate::blocking), takes a call to its end:
//! no runtime, no thread, no bridge.

use std::time::{Duration, Instant};

use redis::Value;

use crate::command::request::{Class, Request};
use crate::command::server_id::ServerId;
use crate::config::Config;
use crate::error::Error;

/// A connection unused for longer than this is asked for a heartbeat before a write: servers and
/// what is between close idle ones, and a write must not be the one to find out. A round trip of its
/// own: beside a question that nobody answers, in the same packet, the write would be as lost. A
/// read is tried again anyway.
pub(crate) const TRUSTED_IDLE: Duration = Duration::from_secs(2);

/// How long one call may take, whatever it sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) class: Class,
    /// Nothing is sent twice: the connection must be known to be alive.
    pub(crate) once: bool,
    deadline: Instant,
    response: Duration,
}

impl Budget {
    pub(crate) fn new(config: &Config, class: Class) -> Self {
        let (whole, response) = match class {
            Class::Lookup => (config.lookup_deadline, config.response_timeout),
            Class::Bulk => (config.bulk_deadline, config.bulk_deadline),
        };
        Self {
            class,
            once: false,
            deadline: Instant::now() + whole,
            response,
        }
    }

    /// For what is not tried again.
    pub(crate) fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// How much of the whole call is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long an attempt that starts now may wait for its answer.
    pub(crate) fn attempt(&self) -> Duration {
        self.left().min(self.response)
    }
}

/// What came back for a request.
pub(crate) struct Answer {
    /// A value for each command.
    pub(crate) replies: Vec<Value>,
    /// Who answered, where [`Transport::identify_servers`] was called and the server tells.
    pub(crate) server: Option<ServerId>,
}

/// Connections that calls share.
pub(crate) trait Transport {
    type Dedicated: DedicatedConnection;

    /// From now on answers say which server gave them: one more request for each connection.
    #[cfg(feature = "near-cache")]
    fn identify_servers(&self);

    /// Uses none of the shared connections again that are open now: new ones go where the address
    /// leads now. Requests under way may end.
    #[cfg(feature = "near-cache")]
    fn reconnect(&self);

    /// How many connections are in use, or calls in flight.
    fn in_use(&self) -> usize;

    /// Sends a request and returns a value for each of its commands; one that Redis refused is a
    /// `Value::ServerError` among them. Ends within the budget.
    ///
    /// An error that says "may have been applied" comes from an attempt that sent something. After
    /// a lost or silent connection the next exchange uses a fresh one.
    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error>;

    /// A connection for one caller alone, which ends with the value: for WATCH.
    async fn dedicated(&self, budget: Budget) -> Result<Self::Dedicated, Error>;

    /// Waits.
    async fn pause(&self, duration: Duration);

    /// Waits for what others do, at most so long.
    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output>;
}

/// A connection that nobody shares. Nothing can be sent after an error.
pub(crate) trait DedicatedConnection {
    /// Sends a request; [`finish`](Self::finish) brings its answer. Between the two the caller can
    /// do something else while Redis works.
    async fn begin(&mut self, request: Request, budget: Budget) -> Result<(), Error>;

    /// The answer to what was begun, as [`Transport::exchange`] gives it.
    async fn finish(&mut self, budget: Budget) -> Result<Vec<Value>, Error>;
}
