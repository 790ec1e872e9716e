//! A connection over TLS, from our own settings: the library would need a provider of cryptography
//! chosen for the whole process, and panics without one.

use std::io;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::tls::server_name;
use crate::{Config, Error, Outage, reply};

pub(super) async fn connect(
    config: &Config,
    host: &str,
    port: u16,
    settings: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), Error> {
    let failed = |error: io::Error| reply::io_error(error, Outage::Connect);
    let connector = TlsConnector::from(config.tls.client_config()?);
    let name = server_name(host)?;
    let socket = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let stream = connector.connect(name, socket).await.map_err(failed)?;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(config.redis.redis_settings(), stream, settings)
            .await
            .map_err(|error| reply::client_error(&error, Outage::Connect))?;
    Ok((connection, Driver(tokio::spawn(driver))))
}

/// The task that drives a connection. Left alone it would wait for answers that never come.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
