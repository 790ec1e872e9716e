//! One multiplexed connection with the task that drives it, shared or dedicated.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{RedisResult, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::transport::{Answer, Budget, DedicatedConnection};
use crate::command::reply;
use crate::command::request::Request;
use crate::command::server_id::{Identity, Servers};
use crate::error::{Error, Outage};

/// A task that is aborted when this is dropped. Left alone, one that waits for a silent server
/// would hold its connection for very long.
pub(super) struct Task<T>(pub(super) JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends requests over a connection. Its clones share the socket.
#[derive(Clone)]
pub(super) struct Sender {
    multiplexed: MultiplexedConnection,
    /// Closed once the driver has ended.
    driver_runs: watch::Receiver<()>,
}

impl Sender {
    /// The replies, or an error once the driver has ended.
    ///
    /// The library alone would wait for ever for a request that was queued in the very instant in
    /// which the driver ended: its queue lives as long as a sender does.
    pub(super) async fn send(mut self, request: &Request) -> RedisResult<Vec<Value>> {
        let (pipeline, replies) = (&request.pipeline, request.replies());
        let mut sent = self.multiplexed.req_packed_commands(pipeline, 0, replies);
        let mut ended = pin!(self.driver_runs.changed());
        poll_fn(|context| {
            if let Poll::Ready(replies) = sent.as_mut().poll(context) {
                return Poll::Ready(replies);
            }
            // Nothing is ever sent on this channel.
            let _closed = ready!(ended.as_mut().poll(context));
            // They may have come between the two.
            match sent.as_mut().poll(context) {
                Poll::Pending => {
                    Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe).into()))
                }
                replies @ Poll::Ready(_) => replies,
            }
        })
        .await
    }
}

/// A connection, with the task that drives it.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) driver: Task<()>,
    server: OnceLock<Identity>,
    /// See [`Opened`](crate::discovery::Opened).
    moves: u64,
    /// How many requests were answered.
    answers: AtomicU64,
    /// Whether the server has refused it for want of a client slot.
    full: Arc<AtomicBool>,
    made: Instant,
    /// When the last answer came, in milliseconds since the connection was made.
    last_answer: AtomicU64,
}

impl Connection {
    /// Spawns `driver`, the library's task of `multiplexed`.
    pub(super) fn new(
        multiplexed: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
        full: Arc<AtomicBool>,
    ) -> Self {
        let (running, driver_runs) = watch::channel(());
        let driver = tokio::spawn(async move {
            driver.await;
            drop(running);
        });
        Self {
            sender: Sender {
                multiplexed,
                driver_runs,
            },
            driver: Task(driver),
            server: OnceLock::new(),
            moves: 0,
            answers: AtomicU64::new(0),
            made: Instant::now(),
            last_answer: AtomicU64::new(0),
            full,
        }
    }

    /// The replies if they came in time, or else an error. The request was sent, so the error says
    /// that it may have been applied, unless the server refused the connection as a whole.
    fn answered<E>(
        &self,
        in_time: Result<RedisResult<Vec<Value>>, E>,
    ) -> Result<Vec<Value>, Error> {
        match in_time {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(_)) if self.full.load(Ordering::Relaxed) => {
                Err(reply::outage(Outage::TooManyClients, None))
            }
            Ok(Err(error)) => Err(reply::client_error(&error, Outage::Lost).maybe_applied()),
            Err(_) => Err(reply::timed_out().maybe_applied()),
        }
    }

    /// The same, with the number under which it was opened.
    pub(super) fn led_by(self, moves: u64) -> Self {
        Self { moves, ..self }
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// A call that is cancelled compares this with its beginning: any answer shows that the server
    /// is alive.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// How long ago the last answer came.
    pub(super) fn idle(&self) -> Duration {
        let answered = Duration::from_millis(self.last_answer.load(Ordering::Relaxed));
        self.made.elapsed().saturating_sub(answered)
    }

    /// True once the server has closed it, or the runtime that drove it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
    }

    /// The answer to a request and which server gave it: the first request of a connection asks for
    /// that.
    pub(super) async fn answer(
        &self,
        servers: &Servers,
        request: &Request,
        budget: Budget,
    ) -> Result<Answer, Error> {
        // Several first calls at the same time may each ask the server for its id: harmless, and
        // cheaper than a lock in every call.
        let mut server = self.server.get().copied().unwrap_or_default();
        let ask = async |request: &Request| self.exchange(request, budget).await;
        let known = servers.ask(&mut server, ask).await?;
        if server != Identity::default() {
            let _ = self.server.set(server);
        }
        let replies = self.exchange(request, budget).await?;
        Ok(Answer {
            replies,
            server: known,
        })
    }

    pub(super) async fn exchange(
        &self,
        request: &Request,
        budget: Budget,
    ) -> Result<Vec<Value>, Error> {
        let sent = self.sender.clone().send(request);
        let replies = self.answered(timeout(budget.attempt(), sent).await)?;
        // Also an error of Redis is an answer: the connection is alive.
        self.answers.fetch_add(1, Ordering::Relaxed);
        let answered = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_answer.store(answered, Ordering::Relaxed);
        Ok(replies)
    }
}

/// A connection of one caller: for WATCH.
pub(crate) struct Dedicated {
    connection: Connection,
    begun: Option<Task<RedisResult<Vec<Value>>>>,
}

impl Dedicated {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            begun: None,
        }
    }
}

impl DedicatedConnection for Dedicated {
    async fn begin(&mut self, request: Request, _: Budget) -> Result<(), Error> {
        let sender = self.connection.sender.clone();
        // A task, so that the request is sent and answered while the caller does something else.
        let sent = tokio::spawn(async move { sender.send(&request).await });
        self.begun = Some(Task(sent));
        Ok(())
    }

    async fn finish(&mut self, budget: Budget) -> Result<Vec<Value>, Error> {
        let Some(mut begun) = self.begun.take() else {
            return Ok(Vec::new());
        };
        let Ok(joined) = timeout(budget.attempt(), &mut begun.0).await else {
            return self.connection.answered(Err(()));
        };
        match joined {
            Ok(replies) => self.connection.answered(Ok::<_, ()>(replies)),
            Err(_) => Err(reply::outage(Outage::Lost, None).maybe_applied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::{AsyncConnectionConfig, RedisConnectionInfo};

    use super::*;

    #[tokio::test]
    async fn a_request_in_the_queue_fails_when_the_driver_ends() {
        let (stream, _server) = tokio::io::duplex(64);
        let login = RedisConnectionInfo::default().set_skip_set_lib_name();
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&login, stream, settings).await;
        // Kept, and with it the queue, as by a request that was queued while it ended.
        let (multiplexed, _driver) = made.unwrap();
        let connection = Connection::new(multiplexed, async {}, Arc::default());
        let ping = crate::command::connection::ping();
        let sent = connection.sender.clone().send(&ping);
        let ended = timeout(Duration::from_secs(60), sent)
            .await
            .expect("it ends");
        assert!(ended.unwrap_err().is_io_error());
    }
}
