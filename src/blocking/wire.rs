//! One synchronous connection, with a time limit on everything it does.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, Value};

use crate::commands::Request;
use crate::transport::{Budget, Link};
use crate::{Error, reply};

/// An open connection. After an error it must be dropped: a late answer may still arrive on it.
pub(crate) struct Wire {
    connection: Connection,
    timeout: Duration,
}

impl Wire {
    /// Connects within `timeout`, all of name resolution, each address and the handshake together.
    ///
    /// The library bounds these one by one, or not at all, so a thread does it and we wait for it;
    /// it ends by itself and drops what comes too late.
    pub(crate) fn connect(client: &Client, timeout: Duration) -> Result<Self, Error> {
        if timeout.is_zero() {
            return Err(reply::timed_out());
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let client = client.clone();
        thread::Builder::new()
            .name("bifrost-connect".to_owned())
            .spawn(move || sender.send(client.get_connection_with_timeout(timeout)))
            .map_err(|error| reply::outage(crate::Outage::Connect, Some(error)))?;
        let connection = receiver
            .recv_timeout(timeout)
            .map_err(|_| reply::timed_out())?
            .map_err(|error| reply::client_error(&error, true))?;
        Ok(Self {
            connection,
            timeout: Duration::ZERO,
        })
    }

    /// Sends the request and reads all of its answers within the budget of one attempt.
    ///
    /// Reply by reply, because the library's own loop waits anew for each of them even after one
    /// has timed out.
    pub(crate) fn exchange(
        &mut self,
        request: &Request,
        budget: Budget,
    ) -> Result<Vec<Value>, Error> {
        let limit = budget.attempt();
        if limit.is_zero() {
            return Err(reply::timed_out());
        }
        let start = Instant::now();
        self.allow(limit)?;
        self.connection
            .send_packed_command(&request.pipeline.get_packed_pipeline())
            .map_err(|error| reply::client_error(&error, false).maybe_applied())?;
        let mut replies = Vec::with_capacity(request.replies());
        while replies.len() < request.replies() {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(reply::timed_out().maybe_applied());
            }
            // Saves two system calls a reply as long as little time has passed.
            if left < self.timeout / 8 * 7 {
                self.allow(left)?;
            }
            match self.connection.recv_response() {
                Ok(Value::Push { .. }) => {}
                Ok(value) => replies.push(value),
                Err(error) => return Err(reply::client_error(&error, false).maybe_applied()),
            }
        }
        Ok(replies)
    }

    fn allow(&mut self, timeout: Duration) -> Result<(), Error> {
        if self.timeout != timeout {
            let timeout = Some(timeout);
            self.connection
                .set_read_timeout(timeout)
                .and_then(|()| self.connection.set_write_timeout(timeout))
                .map_err(|error| reply::client_error(&error, false))?;
        }
        self.timeout = timeout;
        Ok(())
    }
}

impl Link for Wire {
    async fn exchange(&mut self, request: &Request, budget: Budget) -> Result<Vec<Value>, Error> {
        Self::exchange(self, request, budget)
    }
}
