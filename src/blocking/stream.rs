//! A socket, encrypted or not.

use std::io::{self, Read, Write};
use std::time::Instant;

use redis::ConnectionAddr;

use super::socket::Socket;
use crate::command::reply;
use crate::config::Config;
use crate::error::{Error, Outage};

/// A socket, or TLS over one. Both end by the socket's deadline.
pub(crate) enum Stream {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Socket>>),
}

impl Stream {
    /// Connects, and agrees on encryption where the address asks for it.
    pub(crate) fn connect(
        config: &Config,
        addr: &ConnectionAddr,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let failed = |error| reply::io_error(error, Outage::Connect);
        match addr {
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { host, port, .. } => {
                let (tls, name) = (config.tls.client_config()?, config.tls.server_name(host)?);
                let mut session = rustls::ClientConnection::new(tls, name)
                    .map_err(|error| failed(io::Error::other(error)))?;
                let mut socket = Socket::connect_tcp(host, *port, deadline).map_err(failed)?;
                // The handshake now, and not at the first write: its errors are those of
                // connecting.
                while session.is_handshaking() {
                    session.complete_io(&mut socket).map_err(failed)?;
                }
                Ok(Self::Tls(Box::new(rustls::StreamOwned::new(
                    session, socket,
                ))))
            }
            ConnectionAddr::Tcp(host, port) => Socket::connect_tcp(host, *port, deadline)
                .map(Self::Plain)
                .map_err(failed),
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Socket::connect_unix(path, deadline)
                .map(Self::Plain)
                .map_err(failed),
            _ => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Whether something can be read without the socket: TLS decrypts whole records, so the rest of
    /// one may be here while `poll` says that the socket is quiet.
    #[cfg(feature = "near-cache")]
    #[allow(clippy::unnecessary_wraps, reason = "with TLS it can fail")]
    pub(crate) fn holds_data(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(false),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                let state = stream.conn.process_new_packets();
                let state = state.map_err(io::Error::other)?;
                Ok(state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
            }
        }
    }

    /// Takes in what has come over the socket, and tells whether something can be read now. What
    /// came may be of no concern to the reader: half a TLS record, or a session ticket.
    #[cfg(feature = "near-cache")]
    #[allow(clippy::unnecessary_wraps, reason = "with TLS it can fail")]
    pub(crate) fn take_in(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                let ended = stream.conn.read_tls(&mut stream.sock)? == 0;
                Ok(self.holds_data()? || ended)
            }
        }
    }

    /// Whether the server has sent nothing unasked. Under TLS the look is at the encrypted bytes: a
    /// session ticket that comes late may cost a connection, never an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.socket().is_quiet()
    }

    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(socket) => socket.set_deadline(deadline),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.sock.set_deadline(deadline),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}
