//! Reads what Redis answered: plain values, and errors without their text.
//!
//! A server's own words never leave this file. It may echo what it was given, for example
//! `HELLO 3 AUTH user password`, and an error ends in logs.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};

use crate::error::{Error, Outage};

/// The codes that this crate knows, and what they mean to its user.
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
        "it is a node of a cluster: use redis+cluster:// and a namespace with a hash tag",
    ),
    (
        "CROSSSLOT",
        "it is a cluster: use redis+cluster:// and a namespace with a hash tag",
    ),
    ("NOREPLICAS", "too few replicas are connected"),
    (
        "NOPROTO",
        "it does not speak the protocol version that the redis URL asks for",
    ),
];

/// Refusals that Redis tells apart by words only, all with the code `ERR`: recognised by a part of
/// the words, and told in ours.
const KNOWN_WORDS: &[(&str, &str)] = &[
    ("DB index", "it has no database of that number"),
    (
        "unknown command",
        "it does not know the command: redis 6.2 or later is needed",
    ),
    (
        "without any password configured",
        "it asks for no password: take the one in the redis URL away, or set requirepass there",
    ),
    ("", "it failed or does not allow it"),
];

/// Codes that mean "ask again later" rather than "no".
const NOT_READY: &[(&str, Outage)] = &[
    ("LOADING", Outage::Loading),
    ("BUSY", Outage::Scripting),
    ("MASTERDOWN", Outage::PrimaryDown),
    ("CLUSTERDOWN", Outage::NotReady),
    ("TRYAGAIN", Outage::NotReady),
    ("ASK", Outage::NotReady),
];

/// The hint for WRONGTYPE in a write. SET replaces a value of any type, so only SADD and SREM of
/// the index can be refused so.
const INDEX_TYPE: &str = "bifrost:module:index (behind the namespace, if there is one) holds another type than a set: delete it and warm the cache again";

/// How Redis says that it does not hold the keys, or not any more. It keeps the connection open,
/// over which it would say so for ever.
const ELSEWHERE: [&str; 4] = ["READONLY", "MOVED", "CLUSTERDOWN", "MASTERDOWN"];

/// Where EXEC alone was refused, because the server's place changed after the commands were queued,
/// the real refusal stands behind this.
const DISCARDED: &str = "because of: ";

/// The error for a code that Redis sent. `detail` is looked at and never shown.
fn refused(code: &str, detail: &str) -> Error {
    let (code, detail) = told(code, detail);
    // First of all: it has the code ERR, and is an outage that passes, not a refusal.
    if no_client_slot(detail) {
        return outage(Outage::TooManyClients, None);
    }
    if let Some((_, cause)) = NOT_READY.iter().find(|(known, _)| *known == code) {
        return outage(*cause, None);
    }
    let known = KNOWN_CODES.iter().find(|(known, _)| *known == code);
    let (code, hint) = known.copied().unwrap_or_else(|| {
        let said = KNOWN_WORDS.iter().find(|(words, _)| detail.contains(words));
        ("ERR", said.map_or("", |(_, hint)| hint))
    });
    refusal(code, hint)
}

/// The code that a refusal is about, and what follows it.
fn told<'a>(code: &'a str, detail: &'a str) -> (&'a str, &'a str) {
    let inner = detail.split_once(DISCARDED).map(|(_, inner)| inner);
    match inner.filter(|_| code == "EXECABORT") {
        Some(inner) => inner.split_once(' ').unwrap_or((inner, "")),
        None => (code, detail),
    }
}

/// An answer that is no.
pub(crate) fn refusal(code: &'static str, hint: &'static str) -> Error {
    Error::Refused {
        server: String::new(),
        code,
        hint,
        may_have_been_applied: false,
    }
}

/// The value of one command of a write, or its error. Redis does not roll back: the other commands
/// of the transaction were carried out, and the error says so.
pub(crate) fn part(value: Value) -> Result<Value, Error> {
    ok(value).map_err(|error| match error {
        Error::Refused {
            server, code, hint, ..
        } => Error::Refused {
            server,
            code,
            // Only the index can be meant, see `INDEX_TYPE`.
            hint: if code == "WRONGTYPE" {
                INDEX_TYPE
            } else {
                hint
            },
            may_have_been_applied: true,
        },
        other => other,
    })
}

pub(crate) fn outage(cause: Outage, source: Option<io::Error>) -> Error {
    Error::Unavailable {
        server: String::new(),
        cause,
        may_have_been_applied: false,
        source: source.map(Into::into),
    }
}

/// No answer by the deadline.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn timed_out() -> Error {
    outage(Outage::TimedOut, None)
}

/// All connections were in use for so long.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn busy(waited: Duration) -> Error {
    Error::Busy {
        server: String::new(),
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
    }
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
    // The library may call an I/O error by several kinds; the error inside says what happened.
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

/// A copy of an I/O error that holds none of our data: the system's words for its number, what TLS
/// says, or the kind alone. The library's own error may quote what was sent.
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

/// True if there merely was nothing to read.
#[cfg(all(feature = "near-cache", feature = "blocking"))]
pub(crate) fn would_block(error: &RedisError) -> bool {
    inner_io_error(error).is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The I/O error inside. Its number and kind tell an outage from a time-out, which the library's
/// own kinds do not; the library holds it behind a shared pointer.
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

/// True for the refusal after which the server closes the connection: `max number of clients`. It
/// comes as the answer to whatever was sent first, and no other answer follows.
pub(crate) fn ends_connection(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.details().is_some_and(no_client_slot))
}

fn no_client_slot(detail: &str) -> bool {
    detail.contains(NO_CLIENT_SLOT)
}

const NO_CLIENT_SLOT: &str = "max number of clients";

/// True for a refusal because the keys are elsewhere, or not there at this moment: the connection
/// is of no use any more, though the server keeps it open.
pub(crate) fn leads_elsewhere(value: &Value) -> bool {
    let Value::ServerError(error) = value else {
        return false;
    };
    let (code, _) = told(error.code(), error.details().unwrap_or_default());
    ELSEWHERE.contains(&code)
}

/// True if a request was refused as a whole because the keys are elsewhere, so that nothing of it
/// was carried out: it can be sent again, to another server. Of a MULTI all is refused where its
/// EXEC is.
pub(crate) fn was_sent_elsewhere(replies: &[Value]) -> bool {
    let is_error = |value: &Value| matches!(value, Value::ServerError(_));
    let is_queued = |value: &Value| match value {
        Value::Okay => true,
        Value::SimpleString(text) => text == "QUEUED",
        value => is_error(value),
    };
    let is_refused = match replies {
        [Value::Okay, queued @ .., last] => is_error(last) && queued.iter().all(is_queued),
        replies => replies.iter().all(is_error),
    };
    is_refused && replies.iter().any(leads_elsewhere)
}

/// The same for the first bytes that came over a connection, before any parser has seen them.
#[cfg(feature = "nonblocking")]
pub(crate) fn is_full(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"-ERR ");
    text.is_some_and(|text| text.starts_with(NO_CLIENT_SLOT.as_bytes()))
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

/// A string, or `None` for nil. A status such as PONG counts as a string, because RESP2 and RESP3
/// use different types for the same answer.
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

/// An integer. A server that answers a set or a count by anything else is not one that we know.
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
        // `+OK` of MULTI and `+QUEUED` of each command are passed over; an error ends this at once.
        last = Ok(ok(reply)?);
    }
    match last? {
        Value::Nil => Ok(None),
        Value::Array(results) => results
            .into_iter()
            .map(part)
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

    #[cfg(feature = "tls")]
    #[test]
    fn distrust_is_told_from_a_broken_connection() {
        use rustls::{CertificateError, Error as Tls};
        let distrust = || Tls::InvalidCertificate(CertificateError::UnknownIssuer);
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for (error, expected) in [
            (
                io_error(io::Error::other(distrust()), Outage::Lost),
                Outage::Untrusted,
            ),
            (
                io_error(io::Error::other(Tls::HandshakeNotComplete), Outage::Lost),
                Outage::Lost,
            ),
            (io_error(reset(), Outage::Lost), Outage::Lost),
            (
                client_error(&io::Error::other(distrust()).into(), Outage::Lost),
                Outage::Untrusted,
            ),
            (client_error(&reset().into(), Outage::Lost), Outage::Lost),
        ] {
            assert!(
                matches!(error, Error::Unavailable { cause, .. } if cause == expected),
                "{error:?}"
            );
        }
    }

    #[test]
    fn codes_become_their_kinds() {
        for (line, unavailable, transient) in [
            ("LOADING Redis is loading the dataset in memory", true, true),
            ("BUSY Redis is busy running a script.", true, true),
            (
                "MASTERDOWN DedicatedConnection with MASTER is down",
                true,
                true,
            ),
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

    fn redis_error(kind: ErrorKind) -> RedisError {
        RedisError::from((kind, "hunter2"))
    }

    #[test]
    fn an_error_of_the_library_becomes_its_kind() {
        let converted = |error: RedisError| client_error(&error, Outage::Lost);
        let refusal = |error: &Error| match error {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        };
        for (error, code) in [
            (redis_error(ErrorKind::AuthenticationFailed), "WRONGPASS"),
            (redis_error(ErrorKind::RESP3NotSupported), "NOPROTO"),
            (
                server_error("NOPERM hunter2").extract_error().unwrap_err(),
                "NOPERM",
            ),
        ] {
            assert_eq!(refusal(&converted(error)), Some(code));
        }
        let error = converted(redis_error(ErrorKind::InvalidClientConfig));
        assert!(error.is_invalid_config(), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        // What can't be read ends the connection, an answer of the wrong kind does not.
        let unreadable = redis::parse_redis_value(b"HTTP/1.1 400\r\n").unwrap_err();
        for (error, outage) in [
            (unreadable, Outage::Lost),
            (
                redis_error(ErrorKind::UnexpectedReturnType),
                Outage::Protocol,
            ),
        ] {
            let error = converted(error);
            assert!(
                matches!(error, Error::Unavailable { cause, .. } if cause == outage),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_refusal_without_a_code_of_its_own_says_what_it_is_about() {
        for (line, word) in [
            ("ERR DB index is out of range", "database"),
            ("ERR unknown command 'SMISMEMBER'", "command"),
            ("ERR syntax error", "failed"),
            (
                "ERR AUTH <password> called without any password configured for the default user",
                "no password",
            ),
        ] {
            let error = ok(server_error(line)).unwrap_err();
            let others = [
                "database of that",
                "know the command",
                "it failed",
                "no password",
            ];
            let said: Vec<_> = others
                .iter()
                .filter(|text| error.to_string().contains(**text))
                .collect();
            assert!(said.len() == 1 && said[0].contains(word), "{error}");
        }
    }

    #[test]
    fn only_the_lack_of_a_client_slot_ends_the_connection() {
        let full = server_error("ERR max number of clients reached");
        assert!(ends_connection(&full));
        for other in [server_error("ERR syntax error"), Value::Okay, Value::Nil] {
            assert!(!ends_connection(&other), "{other:?}");
        }
    }

    #[test]
    fn what_is_refused_as_elsewhere_was_not_carried_out() {
        let queued = || Value::SimpleString("QUEUED".into());
        let readonly = || server_error("READONLY You can't write against a read only replica.");
        let discarded = |why: &str| server_error(&format!("EXECABORT Transaction discarded {why}"));
        let late = || discarded("because of: READONLY You can't write against a replica.");
        for refused in [
            vec![readonly()],
            vec![
                server_error("MOVED 1 127.0.0.1:1"),
                server_error("MOVED 2 127.0.0.1:1"),
            ],
            vec![server_error("CLUSTERDOWN The cluster is down")],
            vec![server_error("MASTERDOWN Link with MASTER is down")],
            vec![
                Value::Okay,
                readonly(),
                readonly(),
                discarded("because of previous errors."),
            ],
            vec![Value::Okay, queued(), queued(), late()],
        ] {
            assert!(was_sent_elsewhere(&refused), "{refused:?}");
            assert!(refused.iter().any(leads_elsewhere), "{refused:?}");
        }
        for other in [
            vec![],
            vec![server_error("NOPERM no")],
            vec![Value::Okay],
            vec![Value::Int(1), readonly()],
            vec![
                Value::Okay,
                queued(),
                discarded("because of previous errors."),
            ],
            vec![Value::Okay, queued(), Value::Array(vec![Value::Int(1)])],
        ] {
            assert!(!was_sent_elsewhere(&other), "{other:?}");
        }
        let error = transaction(vec![Value::Okay, queued(), late()]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    code: "READONLY",
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn values_are_read_as_what_they_are_and_as_nothing_else() {
        let text = || Value::BulkString(b"text".to_vec());
        assert_eq!(single(vec![text()]).unwrap(), text());
        assert!(single(vec![]).is_err() && single(vec![text(), text()]).is_err());

        assert_eq!(bytes(text()).unwrap().unwrap(), b"text");
        assert_eq!(bytes(Value::Nil).unwrap(), None);
        let status = Value::SimpleString("PONG".to_owned());
        assert_eq!(bytes(status).unwrap().unwrap(), b"PONG");
        assert!(bytes(Value::Int(1)).is_err());

        assert_eq!(integer(Value::Int(-7)).unwrap(), -7);
        assert!(integer(text()).is_err());

        let items = vec![Value::Int(1), text()];
        for value in [Value::Array(items.clone()), Value::Set(items.clone())] {
            assert_eq!(sequence(value).unwrap(), items);
        }
        assert!(sequence(Value::Nil).is_err());

        for error in [
            single(vec![server_error("WRONGTYPE x")]).map(drop),
            bytes(server_error("WRONGTYPE x")).map(drop),
            integer(server_error("WRONGTYPE x")).map(drop),
            sequence(server_error("WRONGTYPE x")).map(drop),
        ] {
            assert!(error.unwrap_err().is_refused());
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
