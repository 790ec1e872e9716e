//! What is said on the tracking connection: built and read here.

use redis::{Pipeline, PushKind, Value};

use super::rule::{Rule, Rules};
use crate::command::reign::{self, Reign};
use crate::command::reply;
use crate::command::request::{Class, Request};
use crate::command::server_id::{ServerId, ask_server_id, server_id};
use crate::command::{migrating, owner};
use crate::error::{Error, Outage};
use crate::keys::Keys;

/// Asks Redis to announce all changes below our prefix, has it confirm that and tell who it is. All
/// in one packet: the answers come in the order of the commands.
pub(crate) fn greeting(keys: &Keys) -> Request {
    let mut pipeline = Pipeline::new();
    pipeline
        .cmd("CLIENT")
        .arg(&["TRACKING", "ON", "BCAST", "PREFIX"])
        .arg(keys.module_prefix());
    pipeline.cmd("CLIENT").arg("TRACKINGINFO");
    ask_server_id(&mut pipeline);
    Request {
        pipeline,
        class: Class::Lookup,
    }
}

/// How many values answer the greeting.
pub(crate) const GREETING_REPLIES: usize = 4;

/// The server that is followed from now on, and its place, by its answers to the greeting.
///
/// # Errors
///
/// Why this server can't be followed.
pub(crate) fn confirmed(answers: Vec<Value>, keys: &Keys) -> Result<(ServerId, Reign), Error> {
    let [tracking, info, server, replication] = reply::exactly::<GREETING_REPLIES>(answers)?;
    reply::ok(tracking)?;
    if !is_tracking(reply::ok(info)?, keys) {
        return Err(untracked("it does not announce changes"));
    }
    let reign = reign::answer(replication.clone())?;
    // Answers are stored only if they come from the server that is followed. Without its run id
    // that can't be told: after a failover any server might answer.
    let server = server_id([server, replication])?;
    let server =
        server.ok_or_else(|| untracked("it does not tell its run id: INFO is not allowed"))?;
    match reign {
        reign::Answer::Reign(reign) => Ok((server, reign)),
        reign::Answer::Loading => Err(reply::outage(Outage::Loading, None)),
        reign::Answer::Silent => Err(untracked("it does not tell its role in INFO replication")),
    }
}

/// A refusal that is not transient: the listener tries again only every 30 s.
fn untracked(hint: &'static str) -> Error {
    reply::refusal("ERR", hint)
}

/// Whether tracking really is on. Under RESP2, or behind a proxy, Redis answers OK to CLIENT
/// TRACKING and never announces anything: a copy would be stale for ever.
fn is_tracking(info: Value, keys: &Keys) -> bool {
    // RESP2 has no maps. If this one came as an array, the connection does not speak RESP3.
    let Value::Map(fields) = info else {
        return false;
    };
    let (mut on, mut prefixed) = (false, false);
    for (name, value) in fields {
        let (Ok(Some(name)), Ok(values)) = (reply::bytes(name), reply::sequence(value)) else {
            continue;
        };
        let says = |text: &str| {
            let wanted = text.as_bytes();
            let mut values = values.iter().cloned().map(reply::bytes);
            values.any(|value| value.is_ok_and(|value| value.as_deref() == Some(wanted)))
        };
        match name.as_slice() {
            b"flags" => on = says("on") && says("bcast"),
            b"prefixes" => prefixed = says(keys.module_prefix()),
            _ => {}
        }
    }
    on && prefixed
}

/// What a heartbeat asks for, so that it proves the place and not life alone: a demoted primary and
/// a slot's old owner answer PING, and do not announce what their successor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// The reign of a server.
    Reign,
    /// Whether a node of a cluster still owns the slot, all of it.
    Owner,
}

pub(crate) fn heartbeat(kind: Heartbeat, keys: &Keys) -> Request {
    match kind {
        Heartbeat::Reign => Request::one(reign::ask(), Class::Lookup),
        Heartbeat::Owner => owner::ask(keys),
    }
}

/// Whether this heartbeat shows that the server still has the place in which it is followed. False
/// while a script keeps the server busy: it then answers `BUSY`, which is no loss, and proves
/// nothing about announcements either.
///
/// # Errors
///
/// It has another place, or does not say.
pub(crate) fn proves_place(
    kind: Heartbeat,
    beat: Value,
    followed: &Reign,
    rules: Rules,
) -> Result<bool, Error> {
    if kind == Heartbeat::Owner {
        return owns_all(beat);
    }
    match reign::answer(beat) {
        Ok(reign::Answer::Reign(now)) if now == *followed => Ok(true),
        Ok(_) if !rules.enforces(Rule::HeartbeatProvesPlace) => Ok(true),
        Ok(reign::Answer::Reign(_)) => Err(reply::outage(Outage::Elsewhere, None)),
        Ok(reign::Answer::Loading) => Ok(false),
        Ok(reign::Answer::Silent) => Err(reply::unexpected()),
        Err(Error::Unavailable { cause, .. }) if cause.was_answered() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the node owns the slot and none of it is on its way to another one, where a module could
/// be created unannounced.
fn owns_all(beat: Value) -> Result<bool, Error> {
    if reply::leads_elsewhere(&beat) || migrating::on_its_way(&beat) {
        return Err(reply::outage(Outage::Elsewhere, None));
    }
    match reply::integer(beat) {
        Ok(_) => Ok(true),
        Err(Error::Unavailable { cause, .. }) if cause.was_answered() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What comes from Redis, in the order in which it said it.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// What these paths hold has changed, or what the index names ([`INDEX_PATH`] among them).
    ///
    /// [`INDEX_PATH`]: super::value::INDEX_PATH
    Changed(Vec<String>),
    /// FLUSHALL or FLUSHDB: everything has gone.
    Flushed,
    /// An answer to what was sent.
    Answer(Value),
    /// Nothing to us.
    Other,
}

pub(crate) fn read(value: Value, keys: &Keys) -> Message {
    let Value::Push { kind, data } = value else {
        return Message::Answer(value);
    };
    if kind != PushKind::Invalidate {
        return Message::Other;
    }
    let mut paths = Vec::new();
    for part in data {
        match part {
            Value::Nil => return Message::Flushed,
            Value::Array(changed) => {
                paths.extend(changed.into_iter().filter_map(|key| path(key, keys)));
            }
            _ => {}
        }
    }
    Message::Changed(paths)
}

/// The path of a key. A key that is not UTF-8 is no path, so it was never stored.
fn path(key: Value, keys: &Keys) -> Option<String> {
    let key = reply::bytes(key).ok().flatten()?;
    let path = key.strip_prefix(keys.module_prefix().as_bytes())?;
    String::from_utf8(path.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MODULE_KEY_PREFIX;

    fn keys() -> Keys {
        Keys::new(String::new())
    }

    fn read(value: Value) -> Message {
        super::read(value, &keys())
    }

    fn confirmed(answers: Vec<Value>) -> Result<(ServerId, Reign), Error> {
        super::confirmed(answers, &keys())
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn invalidation(data: Value) -> Value {
        Value::Push {
            kind: PushKind::Invalidate,
            data: vec![data],
        }
    }

    fn info(flags: &[&str], prefix: &str) -> Value {
        let flags = flags.iter().map(|flag| text(flag)).collect();
        Value::Map(vec![
            (text("flags"), Value::Set(flags)),
            (text("redirect"), Value::Int(-1)),
            (text("prefixes"), Value::Array(vec![text(prefix)])),
        ])
    }

    fn as_in_resp2(map: Value) -> Value {
        let fields = map.into_map_iter().unwrap();
        Value::Array(fields.flat_map(|(name, value)| [name, value]).collect())
    }

    #[test]
    fn only_a_server_that_announces_our_keys_and_tells_its_run_id_is_followed() {
        let run_id = "run_id:00000000000000ff\r\n";
        let on = || info(&["on", "bcast"], MODULE_KEY_PREFIX);
        let role = || text("role:master\r\n");
        let told = |info, run_id, role| confirmed(vec![Value::Okay, info, text(run_id), role]);
        let answers = |info, run_id| told(info, run_id, role());
        assert_eq!(answers(on(), run_id).unwrap().0, ServerId::new(255));
        assert!(told(on(), run_id, text("")).unwrap_err().is_refused());
        for bad in [
            info(&["off"], MODULE_KEY_PREFIX),
            info(&["on"], MODULE_KEY_PREFIX),
            info(&["on", "bcast"], "other:"),
            as_in_resp2(on()),
            Value::Okay,
        ] {
            assert!(answers(bad, run_id).unwrap_err().is_refused());
        }
        assert!(answers(on(), "").unwrap_err().is_refused());
        assert!(confirmed(vec![Value::Okay, on(), text(run_id)]).is_err());
    }

    #[test]
    fn messages_are_told_apart() {
        let changed =
            |keys: &[&str]| invalidation(Value::Array(keys.iter().map(|key| text(key)).collect()));
        assert_eq!(
            read(changed(&[
                "bifrost:module:a.py",
                "bifrost:module:index",
                "other"
            ])),
            Message::Changed(vec!["a.py".into(), "index".into()])
        );
        assert_eq!(read(invalidation(Value::Nil)), Message::Flushed);
        let not_utf8 = Value::BulkString(b"bifrost:module:\xff".to_vec());
        assert_eq!(
            read(invalidation(Value::Array(vec![not_utf8]))),
            Message::Changed(vec![])
        );
        assert_eq!(read(Value::Okay), Message::Answer(Value::Okay));
        let other = Value::Push {
            kind: PushKind::Message,
            data: vec![],
        };
        assert_eq!(read(other), Message::Other);
    }
}
