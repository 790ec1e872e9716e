//! One synchronous connection: a stream with a deadline and the library's parser.
//!
//! Only the parser is the library's. Its synchronous connection has no absolute deadline: see
//! [`socket`](super::socket).

#[cfg(feature = "near-cache")]
use std::io;
use std::io::{BufReader, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Parser, Value};

use super::run;
use super::stream::Stream;
use crate::client::transport::{Budget, DedicatedConnection};
use crate::command::request::Request;
use crate::command::{connection, reply};
use crate::config::Config;
use crate::discovery::{self, Dial, Opened, Server};
use crate::error::{Error, Outage};

/// An open connection. After an error it must be dropped: a late answer may still arrive on it, and
/// would be taken for the answer to the next request.
pub(crate) struct Connection {
    stream: BufReader<Stream>,
    parser: Parser,
    /// How many replies are still to be read.
    awaited: usize,
}

/// The parser asks for 8 KiB at a time, which is many system calls for a large answer.
const READ_BUFFER: usize = 64 * 1024;

impl Connection {
    /// Opens a connection to the server that holds the keys now, by `deadline`. Every connection
    /// of this facade is opened here.
    pub(crate) fn open(config: &Config, deadline: Instant) -> Result<Opened<Self>, Error> {
        run(discovery::open(&Dialer { config }, config, deadline))
    }

    /// Connects to this server, authenticates and selects the database by `deadline`.
    fn connect(config: &Config, to: Server<'_>, deadline: Instant) -> Result<Self, Error> {
        let stream = Stream::connect(config, to.addr, deadline)?;
        let mut connection = Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            parser: Parser::new(),
            awaited: 0,
        };
        if let Some(greeting) = connection::greeting(to.login) {
            let replies = connection
                .exchange_by(&greeting, deadline)
                .map_err(Error::not_applied)?;
            replies
                .into_iter()
                .try_for_each(|reply| reply::ok(reply).map(drop))?;
        }
        Ok(connection)
    }

    /// True if the server has neither closed the connection nor sent anything unasked. Then it is
    /// likely to be alive.
    pub(crate) fn is_quiet(&self) -> bool {
        self.stream.buffer().is_empty() && self.stream.get_ref().is_quiet()
    }

    /// Sends the request and reads all of its answers within the budget of one attempt.
    pub(crate) fn exchange(
        &mut self,
        request: &Request,
        budget: Budget,
    ) -> Result<Vec<Value>, Error> {
        self.exchange_by(request, Instant::now() + budget.attempt())
    }

    fn exchange_by(&mut self, request: &Request, deadline: Instant) -> Result<Vec<Value>, Error> {
        self.send(request, deadline)?;
        self.receive()
    }

    #[cfg(feature = "near-cache")]
    pub(crate) fn stream(&mut self) -> &mut Stream {
        self.stream.get_mut()
    }

    /// The next value, if all of it is here. `has_come` permits one read of the socket, which then
    /// does not wait; the parser holds half a value until the next call.
    #[cfg(feature = "near-cache")]
    pub(crate) fn try_next(&mut self, has_come: bool) -> Result<Option<Value>, Error> {
        let stream = &mut self.stream;
        match self.parser.parse_value(Here { stream, has_come }) {
            Ok(value) => Ok(Some(value)),
            Err(error) if reply::would_block(&error) => Ok(None),
            Err(error) => Err(reply::client_error(&error, Outage::Lost)),
        }
    }

    pub(crate) fn send(&mut self, request: &Request, deadline: Instant) -> Result<(), Error> {
        let stream = self.stream.get_mut();
        stream.set_deadline(deadline);
        stream
            .write_all(&request.pipeline.get_packed_pipeline())
            .and_then(|()| stream.flush())
            .map_err(|error| reply::io_error(error, Outage::Lost).maybe_applied())?;
        self.awaited = request.replies();
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<Value>, Error> {
        let awaited = std::mem::take(&mut self.awaited);
        let mut replies = Vec::with_capacity(awaited);
        while replies.len() < awaited {
            match self.parser.parse_value(&mut self.stream) {
                // A push is no answer. Only a tracking connection gets any.
                Ok(Value::Push { .. }) => {}
                // The server closes the connection after this: no other answer follows.
                Ok(value) if reply::ends_connection(&value) => reply::ok(value).map(drop)?,
                Ok(value) => replies.push(value),
                Err(error) => {
                    return Err(reply::client_error(&error, Outage::Lost).maybe_applied());
                }
            }
        }
        Ok(replies)
    }
}

/// Connects for a [`discovery`].
pub(super) struct Dialer<'a> {
    pub(super) config: &'a Config,
}

impl Dial for Dialer<'_> {
    type Connection = Connection;

    async fn dial(&self, to: Server<'_>, limit: Duration) -> Result<Connection, Error> {
        Connection::connect(self.config, to, Instant::now() + limit)
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        request: &Request,
        limit: Duration,
    ) -> Result<Vec<Value>, Error> {
        let answer = connection.exchange_by(request, Instant::now() + limit);
        answer.map_err(Error::not_applied)
    }

    async fn pause(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// A reader that never waits: the buffer, and at most one read of the socket. Where the library's
/// connection times out in the middle of a value, it skips a later reply.
#[cfg(feature = "near-cache")]
struct Here<'a> {
    stream: &'a mut BufReader<Stream>,
    has_come: bool,
}

#[cfg(feature = "near-cache")]
impl io::Read for Here<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stream.buffer().is_empty() && !std::mem::take(&mut self.has_come) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream.read(buffer)
    }
}

impl DedicatedConnection for Connection {
    async fn begin(&mut self, request: Request, budget: Budget) -> Result<(), Error> {
        self.send(&request, Instant::now() + budget.attempt())
    }

    async fn finish(&mut self, budget: Budget) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + budget.attempt();
        self.stream.get_mut().set_deadline(deadline);
        self.receive()
    }
}
