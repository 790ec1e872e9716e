//! What a facade brings: connections, and a way to wait.
//!
//! Everything above this trait is written once, as async code that does no IO itself. In
//! `nonblocking` it runs on tokio. In `blocking` the transport does its work before it returns and
//! never waits, so that a single poll, by [`run`](crate::blocking), takes a call to its end: no
//! runtime, no thread, no bridge.

use std::time::{Duration, Instant};

use redis::Value;

use crate::command::request::{Class, Request};
use crate::command::server_id::ServerId;
use crate::config::Config;
use crate::error::Error;

/// A connection that was unused for longer than this is asked for a heartbeat before a write.
/// Servers, and what is between, close idle connections, and a write must not be the call that
/// finds out, because it is not repeated. A read is tried again anyway.
///
/// The heartbeat is a round trip of its own. Sent in one packet with the PING, the write would be
/// as lost as the PING on a connection where no server answers.
pub(crate) const TRUSTED_IDLE: Duration = Duration::from_secs(2);

/// How long one call may take, whatever it sends: waiting for a connection, connecting, the attempt
/// and one retry share it. Time-outs of single steps would add up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) class: Class,
    /// The request is not sent twice, so its connection must be known to be alive.
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

    /// The same budget for a request that is not tried again.
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

    /// How long opening a connection may take.
    pub(crate) fn connecting(&self, config: &Config) -> Duration {
        config.connect_timeout.min(self.left())
    }

    /// How long confirming where the keys are may take: the request still needs its time.
    pub(crate) fn confirming(&self, config: &Config) -> Duration {
        config.connect_timeout.min(self.attempt() / 2)
    }
}

/// What came back for a request.
pub(crate) struct Answer {
    /// A value for each command.
    pub(crate) replies: Vec<Value>,
    /// Which server answered, where [`Transport::identify_servers`] was called and the server
    /// tells.
    pub(crate) server: Option<ServerId>,
}

/// Connections that calls share.
pub(crate) trait Transport {
    type Dedicated: DedicatedConnection;

    /// From now on answers say which server gave them: one more request for each connection.
    #[cfg(feature = "near-cache")]
    fn identify_servers(&self);

    /// Takes none of the shared connections that are open now for another request: new ones go
    /// where the address leads now, after a failover to another server. Requests under way may end.
    #[cfg(feature = "near-cache")]
    fn reconnect(&self);

    /// How many connections are in use, or calls in flight.
    fn in_use(&self) -> usize;

    /// Sends a request and returns a value for each of its commands; one that Redis refused is a
    /// `Value::ServerError` among them. Ends within the budget.
    ///
    /// An error that says "may have been applied" comes from an attempt that sent something. After
    /// a lost or silent connection, and after an answer that the keys are elsewhere, the next
    /// exchange uses a fresh one.
    async fn exchange(&self, request: &Request, budget: Budget) -> Result<Answer, Error>;

    /// A connection for one caller alone, which ends with the value: for WATCH.
    async fn dedicated(&self, budget: Budget) -> Result<Self::Dedicated, Error>;

    /// Waits for so long: a backoff, or the interval of a poll.
    async fn pause(&self, duration: Duration);

    /// Waits for a future that other threads or tasks complete, at most for `limit`.
    #[cfg(feature = "near-cache")]
    async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output>;
}

/// A connection of one caller. Nothing can be sent after an error: a late answer may still be under
/// way, and would be taken for the next one.
pub(crate) trait DedicatedConnection {
    /// Sends a request; [`finish`](Self::finish) brings its answer. Between the two the caller can
    /// do something else while Redis works.
    async fn begin(&mut self, request: Request, budget: Budget) -> Result<(), Error>;

    /// The answer to what was begun, as [`Transport::exchange`] gives it.
    async fn finish(&mut self, budget: Budget) -> Result<Vec<Value>, Error>;
}
