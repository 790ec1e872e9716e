//! What is said on a connection for its own sake: login, protocol, database, heartbeat.

use redis::Pipeline;
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
use redis::RedisConnectionInfo;

use super::request::{Class, Request};

/// What a new connection says first: login, protocol and database. `None` if the defaults of a new
/// connection are what is wanted, which saves a round trip.
///
/// Not the library's own greeting: in `blocking` there is none, because the socket is ours, and the
/// asynchronous one calls each refusal of a login a wrong password.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn greeting(settings: &RedisConnectionInfo) -> Option<Request> {
    let mut pipeline = Pipeline::new();
    let (user, password) = (settings.username(), settings.password());
    if settings.protocol().supports_resp3() {
        let hello = pipeline.cmd("HELLO").arg(3);
        if let Some(password) = password {
            hello
                .arg("AUTH")
                .arg(user.unwrap_or("default"))
                .arg(password);
        }
    } else if let Some(password) = password {
        pipeline.cmd("AUTH").arg(user).arg(password);
    }
    if settings.db() != 0 {
        pipeline.cmd("SELECT").arg(settings.db());
    }
    (!pipeline.is_empty()).then_some(Request {
        pipeline,
        class: Class::Lookup,
    })
}

/// Asks for a heartbeat.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn ping() -> Request {
    Request::one(redis::cmd("PING"), Class::Lookup)
}
