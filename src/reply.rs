//! Reads what Redis answered: plain values, and errors without their text.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, Value};

use crate::error::{Error, Outage};

/// The codes that this crate knows, and what they mean to its user. A server's own text never
/// leaves this module: it can echo a password or a module's source.
const KNOWN_CODES: &[(&str, &str)] = &[
    (
        "NOPERM",
        "the ACL user lacks a permission: the ACL lines in the README list all that is needed",
    ),
    (
        "NOAUTH",
        "a password is required: put it into the redis URL",
    ),
    (
        "WRONGPASS",
        "the user or the password in the redis URL is wrong",
    ),
    (
        "WRONGTYPE",
        "a key of the cache holds another type: something else writes to it",
    ),
    ("OOM", "it is out of memory: raise maxmemory or remove data"),
    (
        "READONLY",
        "it is a read-only replica: connect to the primary",
    ),
    (
        "MISCONF",
        "it can't write its snapshot to disk and stopped accepting writes",
    ),
    ("EXECABORT", "it refused a command of the transaction"),
    (
        "MOVED",
        "it is a cluster node, and this crate speaks to a single server",
    ),
    (
        "CROSSSLOT",
        "it is a cluster, and this crate speaks to a single server",
    ),
    ("NOREPLICAS", "too few replicas are connected"),
    (
        "NOPROTO",
        "it does not speak the protocol version that the redis URL asks for",
    ),
];

/// Codes that mean "ask again later" rather than "no".
const NOT_READY: &[&str] = &["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"];

fn refused(code: &str, detail: &str) -> Error {
    if NOT_READY.contains(&code) || no_client_slot(detail) {
        return outage(Outage::NotReady, None);
    }
    match KNOWN_CODES.iter().find(|(known, _)| *known == code) {
        Some(&(code, hint)) => Error::Refused { code, hint },
        None if detail.contains("DB index") => Error::Refused {
            code: "ERR",
            hint: "it has no database of that number",
        },
        None if detail.contains("unknown command") => Error::Refused {
            code: "ERR",
            hint: "it does not know the command: redis 6.2 or later is needed",
        },
        None => Error::Refused {
            code: "ERR",
            hint: "it failed or does not allow it",
        },
    }
}

pub(crate) fn outage(cause: Outage, source: Option<io::Error>) -> Error {
    Error::Unavailable {
        cause,
        may_have_been_applied: false,
        source: source.map(Into::into),
    }
}

/// No answer by the deadline.
#[cfg(feature = "nonblocking")]
pub(crate) fn timed_out() -> Error {
    outage(Outage::TimedOut, None)
}

/// A failure of the network; `otherwise` is what it means unless it was a time-out.
pub(crate) fn io_error(error: io::Error, otherwise: Outage) -> Error {
    let cause = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outage::TimedOut,
        #[cfg(feature = "tls")]
        _ if crate::tls::is_distrust(&error) => Outage::Untrusted,
        _ => otherwise,
    };
    outage(cause, Some(error))
}

/// An error of the client library; `otherwise` is what one of the network means unless it was a
/// time-out.
pub(crate) fn client_error(error: &RedisError, otherwise: Outage) -> Error {
    if let Some(io) = inner_io_error(error) {
        return io_error(copied(io), otherwise);
    }
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) => refused("WRONGPASS", ""),
        (ErrorKind::RESP3NotSupported, _) => refused("NOPROTO", ""),
        (_, Some(code)) => refused(code, error.detail().unwrap_or_default()),
        (ErrorKind::InvalidClientConfig, None) => {
            Error::invalid_config("the redis client refuses the connection settings")
        }
        _ if error.is_connection_dropped() || error.is_unrecoverable_error() => {
            outage(otherwise, None)
        }
        _ => outage(Outage::Protocol, None),
    }
}

/// The system's own words for its number, what TLS says, or the kind alone: all free of our data.
fn copied(error: &io::Error) -> io::Error {
    #[cfg(feature = "tls")]
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return io::Error::new(error.kind(), tls.clone());
    }
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// The I/O error inside, which the library keeps behind a shared pointer.
fn inner_io_error(error: &RedisError) -> Option<&io::Error> {
    let source = error.source()?;
    match source.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        Some(shared) => shared.downcast_ref(),
        None => source.downcast_ref(),
    }
}

/// An answer that no Redis gives to what was asked.
pub(crate) fn unexpected() -> Error {
    outage(Outage::Protocol, None)
}

/// The value, or the error it stands for.
pub(crate) fn ok(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(error) => {
            Err(refused(error.code(), error.details().unwrap_or_default()))
        }
        Value::Attribute { data, .. } => ok(*data),
        value => Ok(value),
    }
}

/// True for the refusal after which the server closes the connection.
pub(crate) fn ends_connection(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.details().is_some_and(no_client_slot))
}

fn no_client_slot(detail: &str) -> bool {
    detail.contains("max number of clients")
}

/// The only reply of a request of one command.
pub(crate) fn single(replies: Vec<Value>) -> Result<Value, Error> {
    let [reply] = exactly(replies)?;
    ok(reply)
}

/// The replies of a request of that many commands.
pub(crate) fn exactly<const N: usize>(replies: Vec<Value>) -> Result<[Value; N], Error> {
    replies.try_into().map_err(|_| unexpected())
}

/// A string or nil. A status such as PONG counts as a string.
pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>, Error> {
    match ok(value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            Ok(Some(text.into_bytes()))
        }
        _ => Err(unexpected()),
    }
}

pub(crate) fn integer(value: Value) -> Result<i64, Error> {
    match ok(value)? {
        Value::Int(number) => Ok(number),
        _ => Err(unexpected()),
    }
}

/// An array, or RESP3's set.
pub(crate) fn sequence(value: Value) -> Result<Vec<Value>, Error> {
    match ok(value)? {
        Value::Array(items) | Value::Set(items) => Ok(items),
        _ => Err(unexpected()),
    }
}

/// The replies to `MULTI … EXEC`: what the commands between answered, or `None` if a watched key
/// had changed and nothing was done.
///
/// The refusal of a single command is found before EXEC's own `EXECABORT`, so that the error says
/// what was refused.
pub(crate) fn transaction(replies: Vec<Value>) -> Result<Option<Vec<Value>>, Error> {
    let mut last = Err(unexpected());
    for reply in replies {
        last = Ok(ok(reply)?);
    }
    match last? {
        Value::Nil => Ok(None),
        Value::Array(results) => results
            .into_iter()
            .map(ok)
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library makes of an error line.
    fn server_error(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn an_io_error_keeps_its_cause() {
        let io = io::Error::from_raw_os_error(111);
        let error = client_error(&RedisError::from(io), Outage::Connect);
        let source = StdError::source(&error).expect("a source");
        assert!(source.to_string().contains("refused"), "{source}");
        let error = client_error(
            &RedisError::from(io::Error::from(io::ErrorKind::WouldBlock)),
            Outage::Lost,
        );
        assert!(matches!(
            error,
            Error::Unavailable {
                cause: Outage::TimedOut,
                ..
            }
        ));
    }

    #[test]
    fn codes_become_their_kinds() {
        for (line, unavailable, transient) in [
            ("LOADING Redis is loading the dataset in memory", true, true),
            ("BUSY Redis is busy running a script.", true, true),
            ("MASTERDOWN Link with MASTER is down", true, true),
            ("CLUSTERDOWN The cluster is down", true, true),
            ("TRYAGAIN Multiple keys request", true, true),
            ("ERR max number of clients reached", true, true),
            (
                "READONLY You can't write against a read only replica.",
                false,
                true,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                false,
                true,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                false,
                true,
            ),
            ("NOPERM this user has no permissions", false, false),
            ("NOAUTH Authentication required.", false, false),
            ("WRONGPASS invalid username-password pair", false, false),
            ("WRONGTYPE Operation against a key", false, false),
            ("ERR DB index is out of range", false, false),
            ("EXTRAORDINARY new code", false, false),
        ] {
            let error = ok(server_error(line)).unwrap_err();
            assert_eq!(error.is_unavailable(), unavailable, "{line}");
            assert_eq!(error.is_refused(), !unavailable, "{line}");
            assert_eq!(error.is_transient(), transient, "{line}");
        }
    }

    #[test]
    fn a_server_that_echoes_its_arguments_is_not_quoted() {
        for line in [
            "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'user' 'hunter2'",
            "hunter2 is not known here",
            "NOPERM hunter2",
        ] {
            let error = ok(server_error(line)).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn an_aborted_transaction_is_not_a_success() {
        let queued = Value::SimpleString("QUEUED".into());
        assert_eq!(
            transaction(vec![Value::Okay, queued.clone(), Value::Nil]).unwrap(),
            None
        );
        let done = Value::Array(vec![Value::Int(1)]);
        assert_eq!(
            transaction(vec![Value::Okay, queued.clone(), done]).unwrap(),
            Some(vec![Value::Int(1)])
        );
        let inner = Value::Array(vec![server_error("WRONGTYPE x")]);
        assert!(
            transaction(vec![Value::Okay, queued.clone(), inner])
                .unwrap_err()
                .is_refused()
        );
        let error = transaction(vec![
            Value::Okay,
            server_error("OOM x"),
            server_error("EXECABORT x"),
        ])
        .unwrap_err();
        assert!(
            matches!(error, Error::Refused { code: "OOM", .. }),
            "{error:?}"
        );
        assert!(transaction(vec![]).is_err());
        assert!(transaction(vec![Value::Okay, queued]).is_err());
    }
}
