//! Makes a connection: plain or encrypted, and driven by a task of our own, which tells when it has
//! ended.

use std::io;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::link::{Connection, Task};
use crate::{Config, Error, Outage, reply};

/// Connects, encrypts where the address asks for it, authenticates and selects the database. The
/// time limit is the caller's.
pub(super) async fn connect(config: &Config) -> Result<Connection, Error> {
    // Deadlines are ours.
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    connect_with(config, settings).await
}

/// The same, with settings for the library.
pub(super) async fn connect_with(
    config: &Config,
    settings: AsyncConnectionConfig,
) -> Result<Connection, Error> {
    match config.redis.addr() {
        ConnectionAddr::Tcp(host, port) => greet(config, settings, tcp(host, *port).await?).await,
        #[cfg(feature = "tls")]
        ConnectionAddr::TcpTls { host, port, .. } => {
            let connector = tokio_rustls::TlsConnector::from(config.tls.client_config()?);
            let name = crate::tls::server_name(host)?;
            let socket = tcp(host, *port).await?;
            let mut stream = connector.connect(name, socket).await.map_err(failed)?;
            hear_back(&mut stream).await.map_err(failed)?;
            greet(config, settings, stream).await
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            greet(config, settings, stream).await
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

async fn greet<S>(
    config: &Config,
    settings: AsyncConnectionConfig,
    stream: S,
) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (multiplexed, driver) =
        MultiplexedConnection::new_with_config(config.redis.redis_settings(), stream, settings)
            .await
            .map_err(|error| reply::client_error(&error, Outage::Connect))?;
    let driver = Task(tokio::spawn(driver));
    Ok(Connection::new(multiplexed, driver))
}

/// Waits for the first line that the server sends. For our side the handshake of TLS 1.3 ends
/// before the server has judged our certificate, and the library would tell of its refusal only
/// that the connection was lost.
#[cfg(feature = "tls")]
async fn hear_back(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    // Whatever the answer: a server that wants a password first refuses to answer.
    let ping = crate::commands::ping().pipeline.get_packed_pipeline();
    stream.write_all(&ping).await?;
    stream.flush().await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(())
}

fn failed(error: io::Error) -> Error {
    reply::io_error(error, Outage::Connect)
}
