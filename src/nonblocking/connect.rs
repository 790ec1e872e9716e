//! Makes a connection: plain or encrypted, and driven by a task of our own, which tells when it has
//! ended.
//!
//! Not the library's connection manager: on a dead server its commands wait for the reconnection,
//! 9.45 s with a response time-out of 500 ms.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, PushInfo, RedisConnectionInfo, RedisError, Value,
    parse_redis_value_async,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::connection::Connection;
use crate::command::request::Request;
use crate::command::{connection, reply};
use crate::config::Config;
use crate::discovery::{self, Dial, Opened, Server};
use crate::error::{Error, Outage};

/// Opens a connection to the server that holds the keys now, by `deadline`. Every connection of
/// this facade is opened here. A push that comes over it goes to `pushes`.
pub(super) async fn open(
    config: &Config,
    pushes: Option<UnboundedSender<PushInfo>>,
    deadline: Instant,
) -> Result<Opened<Connection>, Error> {
    discovery::open(&Dialer { config, pushes }, config, deadline).await
}

/// Connects for a [`discovery`].
pub(super) struct Dialer<'a> {
    pub(super) config: &'a Config,
    pub(super) pushes: Option<UnboundedSender<PushInfo>>,
}

impl Dial for Dialer<'_> {
    type Connection = Connection;

    async fn dial(&self, to: Server<'_>, limit: Duration) -> Result<Connection, Error> {
        // The library's own time-out neither closes a connection nor replaces it. Every wait is
        // wrapped in a deadline instead.
        let mut settings = AsyncConnectionConfig::new().set_response_timeout(None);
        // Sentinels are asked in RESP2, which has no pushes.
        if let Some(pushes) = &self.pushes
            && to.login.protocol().supports_resp3()
        {
            settings = settings.set_push_sender(pushes.clone());
        }
        let connecting = connect(self.config, to, settings);
        timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| Err(reply::timed_out()))
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        request: &Request,
        limit: Duration,
    ) -> Result<Vec<Value>, Error> {
        let asked = connection.sender.clone().send(request);
        match timeout(limit, asked).await {
            Ok(answer) => answer.map_err(|error| connect_failed(&error)),
            Err(_) => Err(reply::timed_out()),
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Connects to this server, encrypts where the address asks for it, authenticates and selects the
/// database. It has no time-out of its own: the caller wraps it in one.
#[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "TLS needs it"))]
async fn connect(
    config: &Config,
    to: Server<'_>,
    settings: AsyncConnectionConfig,
) -> Result<Connection, Error> {
    match to.addr {
        ConnectionAddr::Tcp(host, port) => {
            let stream = tcp(host, *port).await?;
            greet(to.login, settings, stream, false).await
        }
        #[cfg(feature = "tls")]
        ConnectionAddr::TcpTls { host, port, .. } => {
            let connector = tokio_rustls::TlsConnector::from(config.tls.client_config()?);
            let name = config.tls.server_name(host)?;
            let socket = tcp(host, *port).await?;
            let stream = connector.connect(name, socket).await.map_err(failed)?;
            // For the client the handshake of TLS 1.3 ends before the server has judged the
            // client's certificate. So wait for an answer here: a refusal must be told as one of
            // trust.
            greet(to.login, settings, stream, true).await
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            greet(to.login, settings, stream, false).await
        }
        _ => Err(failed(io::ErrorKind::Unsupported.into())),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Error> {
    let host = host.trim_matches(['[', ']']);
    let socket = TcpStream::connect((host, port)).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    Ok(socket)
}

/// Logs in and selects the database. Not left to the library, which calls each refusal of a login a
/// wrong password; `NOPERM` or a missing user have other remedies.
async fn greet<S>(
    login: &RedisConnectionInfo,
    settings: AsyncConnectionConfig,
    stream: S,
    hear_back: bool,
) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let full = Arc::new(AtomicBool::new(false));
    let mut stream = Overheard {
        stream,
        full: Some(Arc::clone(&full)),
    };
    let protocol = login.protocol();
    let login = connection::greeting(login);
    let granted = login.as_ref().map_or(0, Request::replies);
    let sign = hear_back.then(crate::command::connection::ping);
    // In one go, as far as the socket takes it: login and heartbeat cost one round trip.
    for request in login.iter().chain(&sign) {
        let bytes = request.pipeline.get_packed_pipeline();
        stream.write_all(&bytes).await.map_err(failed)?;
    }
    stream.flush().await.map_err(failed)?;
    #[allow(
        clippy::default_trait_access,
        reason = "the type is a dependency's of the library"
    )]
    let mut decoder = Default::default();
    for answered in 0..granted + usize::from(hear_back) {
        let value = parse_redis_value_async(&mut decoder, &mut stream).await;
        let value = value.map_err(|error| connect_failed(&error))?;
        // Any answer to the PING will do, also that the ACL forbids it: it shows that the server
        // accepted the connection.
        if answered < granted || reply::ends_connection(&value) {
            reply::ok(value)?;
        }
    }
    // The library is given no login and no database: it would send both again.
    let said = RedisConnectionInfo::default()
        .set_protocol(protocol)
        .set_skip_set_lib_name();
    let (multiplexed, driver) = MultiplexedConnection::new_with_config(&said, stream, settings)
        .await
        .map_err(|error| connect_failed(&error))?;
    Ok(Connection::new(multiplexed, driver, full))
}

/// A stream that notes whether the first bytes were the refusal for want of a client slot. The
/// library drops these where it waits for another answer, or for none yet, and reports a lost
/// connection; the remedy is another one.
struct Overheard<S> {
    stream: S,
    /// Where to note it; `None` once the first bytes have come.
    full: Option<Arc<AtomicBool>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        let news = &buffer.filled()[before..];
        if !news.is_empty()
            && let Some(full) = self.full.take()
        {
            full.store(reply::is_full(news), Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn connect_failed(error: &RedisError) -> Error {
    reply::client_error(error, Outage::Connect)
}

fn failed(error: io::Error) -> Error {
    reply::io_error(error, Outage::Connect)
}
