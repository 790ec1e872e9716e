//! A connection over TLS, from our own settings: the library would need a provider of cryptography
//! chosen for the whole process, and panics without one.

use std::io;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::link::Task;
use crate::tls::server_name;
use crate::{Config, Error, Outage, reply};

pub(super) async fn connect(
    config: &Config,
    host: &str,
    port: u16,
    settings: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Task<()>), Error> {
    let failed = |error: io::Error| reply::io_error(error, Outage::Connect);
    let connector = TlsConnector::from(config.tls.client_config()?);
    let name = server_name(host)?;
    let socket = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let mut stream = connector.connect(name, socket).await.map_err(failed)?;
    hear_back(&mut stream).await.map_err(failed)?;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(config.redis.redis_settings(), stream, settings)
            .await
            .map_err(|error| reply::client_error(&error, Outage::Connect))?;
    Ok((connection, Task(tokio::spawn(driver))))
}

/// Waits for the first line that the server sends. For our side the handshake of TLS 1.3 ends
/// before the server has judged our certificate, and the library would tell of its refusal only
/// that the connection was lost.
async fn hear_back(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    // Whatever the answer: a server that wants a password first refuses to answer PING.
    stream.write_all(b"PING\r\n").await?;
    stream.flush().await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(())
}
