//! What a cluster says of keys that are on their way from one node to another, and how they are
//! asked for meanwhile.

use redis::{Arg, Cmd, Pipeline, Value};

use super::owner::address;
use super::request::{Class, Request};

/// True for an answer that says that keys are on their way, or are divided between two nodes.
pub(crate) fn on_its_way(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if matches!(error.code(), "ASK" | "TRYAGAIN"))
}

/// True if a request was refused as a whole because its keys are on their way: nothing of it was
/// carried out, and it will be possible again when they have arrived.
pub(crate) fn was_refused_meanwhile(replies: &[Value]) -> bool {
    let is_error = |value: &Value| matches!(value, Value::ServerError(_));
    let last_failed = replies.last().is_some_and(is_error);
    let is_transaction = matches!(replies.first(), Some(Value::Okay));
    (replies.iter().all(is_error) || (is_transaction && last_failed))
        && replies.iter().any(on_its_way)
}

/// Where a key is on its way to.
pub(crate) fn target(value: &Value) -> Option<(String, u16)> {
    match value {
        Value::ServerError(error) if error.code() == "ASK" => address(error.details()?),
        _ => None,
    }
}

/// Whether a command asks for several keys: the only one of ours that reads is MGET.
pub(crate) fn has_many_keys(command: &Cmd) -> bool {
    words(command).next() == Some(b"MGET")
}

/// A command for each key.
pub(crate) fn singly(command: &Cmd) -> Vec<Cmd> {
    if !has_many_keys(command) {
        return vec![command.clone()];
    }
    let get = |key| {
        let mut get = redis::cmd("GET");
        get.arg(key);
        get
    };
    words(command).skip(1).map(get).collect()
}

fn words(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => &[][..],
    })
}

/// These commands for a node that does not own the slot yet: each behind an `ASKING`.
pub(crate) fn asking(commands: &[&Cmd], class: Class) -> Request {
    let mut pipeline = Pipeline::with_capacity(2 * commands.len());
    for command in commands {
        pipeline.cmd("ASKING");
        pipeline.add_command((*command).clone());
    }
    Request { pipeline, class }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn what_is_on_its_way_is_told_from_other_refusals() {
        let (ask, again) = (error("ASK 1 h:7"), error("TRYAGAIN Multiple keys"));
        assert_eq!(target(&ask), Some(("h".to_owned(), 7)));
        assert_eq!(target(&again), None);
        assert!(on_its_way(&ask) && on_its_way(&again));
        assert!(!on_its_way(&error("MOVED 1 h:7")) && !on_its_way(&Value::Nil));
        let aborted = || error("EXECABORT Transaction discarded because of previous errors.");
        assert!(was_refused_meanwhile(&[
            Value::Okay,
            ask.clone(),
            aborted()
        ]));
        assert!(was_refused_meanwhile(std::slice::from_ref(&again)));
        assert!(!was_refused_meanwhile(&[Value::Int(1), again]));
        assert!(!was_refused_meanwhile(&[
            Value::Okay,
            ask,
            Value::Array(vec![])
        ]));
        assert!(!was_refused_meanwhile(&[]));
    }

    #[test]
    fn many_keys_are_asked_for_one_by_one() {
        let mut command = redis::cmd("MGET");
        command.arg("a").arg("b");
        let single = singly(&command);
        let mut get = redis::cmd("GET");
        get.arg("b");
        assert_eq!(single.len(), 2);
        assert_eq!(single[1].get_packed_command(), get.get_packed_command());
        assert_eq!(singly(&get).len(), 1);
        let asked = asking(&[&get], Class::Lookup);
        assert_eq!(asked.replies(), 2);
    }
}
