//! Which node of a cluster owns the slot in which our keys lie.

use redis::Value;

use super::request::{Class, Request};
use crate::keys::Keys;

/// Who owns the slot, as one node says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The node that was asked. It answers with `ASK` where the slot is on its way to another one.
    Here,
    At {
        host: String,
        port: u16,
    },
}

/// Asks for a key of ours that is never there.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
pub(crate) fn ask(keys: &Keys) -> Request {
    let mut command = redis::cmd("EXISTS");
    command.arg(&keys.probe);
    Request::one(command, Class::Lookup)
}

/// What a node's answer says of the owner; `None` if nothing.
pub(crate) fn answer(value: &Value) -> Option<Owner> {
    match value {
        Value::Int(_) => Some(Owner::Here),
        Value::ServerError(error) if error.code() == "ASK" => Some(Owner::Here),
        Value::ServerError(error) if error.code() == "MOVED" => {
            let (host, port) = address(error.details()?)?;
            Some(Owner::At { host, port })
        }
        _ => None,
    }
}

/// The address in `slot host:port`; the host is empty where the node does not know its own name.
pub(crate) fn address(detail: &str) -> Option<(String, u16)> {
    let (_, address) = detail.split_once(' ')?;
    // The last colon: an IPv6 address has no brackets here.
    let (host, port) = address.trim().rsplit_once(':')?;
    let host = if host == "?" { "" } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Option<Owner> {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        answer(&value.unwrap())
    }

    #[test]
    fn a_node_owns_the_slot_or_names_its_owner() {
        assert_eq!(answer(&Value::Int(0)), Some(Owner::Here));
        assert_eq!(said("ASK 1 h:1"), Some(Owner::Here));
        let at = |host: &str, port| {
            let host = host.to_owned();
            Some(Owner::At { host, port })
        };
        assert_eq!(said("MOVED 3999 127.0.0.1:6381"), at("127.0.0.1", 6381));
        assert_eq!(said("MOVED 1 ::1:7"), at("::1", 7));
        assert_eq!(said("MOVED 1 :7"), at("", 7));
        assert_eq!(said("MOVED 1 ?:7"), at("", 7));
        for other in ["MOVED 1", "MOVED 1 h:x", "CLUSTERDOWN no", "NOPERM no"] {
            assert_eq!(said(other), None, "{other}");
        }
        assert_eq!(answer(&Value::Nil), None);
    }
}
