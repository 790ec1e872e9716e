//! One synchronous connection: a channel with a deadline and the library's parser.

#[cfg(feature = "near-cache")]
use std::io;
use std::io::{BufReader, Write as _};
use std::time::Instant;

use redis::{Parser, Value};

use super::stream::Channel;
use crate::client::transport::{Budget, Link};
use crate::command::request::Request;
use crate::command::{connection, reply};
use crate::config::Config;
use crate::error::{Error, Outage};

/// An open connection. After an error it must be dropped: a late answer may still arrive on it.
pub(crate) struct Wire {
    channel: BufReader<Channel>,
    parser: Parser,
    /// How many replies are still to be read.
    awaited: usize,
}

/// The parser asks for 8 KiB at a time, which is many system calls for a large answer.
const READ_BUFFER: usize = 64 * 1024;

impl Wire {
    /// Connects, authenticates and selects the database by `deadline`.
    pub(crate) fn connect(config: &Config, deadline: Instant) -> Result<Self, Error> {
        let channel = Channel::connect(config, deadline)?;
        let mut wire = Self {
            channel: BufReader::with_capacity(READ_BUFFER, channel),
            parser: Parser::new(),
            awaited: 0,
        };
        if let Some(greeting) = connection::greeting(config.redis.redis_settings()) {
            let replies = wire
                .exchange_by(&greeting, deadline)
                .map_err(Error::not_applied)?;
            replies
                .into_iter()
                .try_for_each(|reply| reply::ok(reply).map(drop))?;
        }
        Ok(wire)
    }

    /// True if the server has neither closed the connection nor sent what nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.channel.buffer().is_empty() && self.channel.get_ref().is_quiet()
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
    pub(crate) fn channel(&mut self) -> &mut Channel {
        self.channel.get_mut()
    }

    /// The next value, if all of it is here. `has_come` allows one look at the socket; half a value
    /// stays for the next time.
    #[cfg(feature = "near-cache")]
    pub(crate) fn try_next(&mut self, has_come: bool) -> Result<Option<Value>, Error> {
        let channel = &mut self.channel;
        match self.parser.parse_value(Here { channel, has_come }) {
            Ok(value) => Ok(Some(value)),
            Err(error) if reply::would_block(&error) => Ok(None),
            Err(error) => Err(reply::client_error(&error, Outage::Lost)),
        }
    }

    pub(crate) fn send(&mut self, request: &Request, deadline: Instant) -> Result<(), Error> {
        let channel = self.channel.get_mut();
        channel.set_deadline(deadline);
        channel
            .write_all(&request.pipeline.get_packed_pipeline())
            .and_then(|()| channel.flush())
            .map_err(|error| reply::io_error(error, Outage::Lost).maybe_applied())?;
        self.awaited = request.replies();
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<Value>, Error> {
        let awaited = std::mem::take(&mut self.awaited);
        let mut replies = Vec::with_capacity(awaited);
        while replies.len() < awaited {
            match self.parser.parse_value(&mut self.channel) {
                Ok(Value::Push { .. }) => {}
                // Nothing follows.
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

/// What can be read without waiting.
#[cfg(feature = "near-cache")]
struct Here<'a> {
    channel: &'a mut BufReader<Channel>,
    has_come: bool,
}

#[cfg(feature = "near-cache")]
impl io::Read for Here<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.channel.buffer().is_empty() && !std::mem::take(&mut self.has_come) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.channel.read(buffer)
    }
}

impl Link for Wire {
    async fn begin(&mut self, request: Request, budget: Budget) -> Result<(), Error> {
        self.send(&request, Instant::now() + budget.attempt())
    }

    async fn finish(&mut self, budget: Budget) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + budget.attempt();
        self.channel.get_mut().set_deadline(deadline);
        self.receive()
    }
}
