//! What INFO tells of a server. All of it is optional: an ACL may forbid INFO, and a service that
//! offers Redis may leave fields out.

use redis::Value;

use super::reply;
use crate::error::Error;

/// The text of INFO; empty where Redis refuses to tell.
pub(crate) struct Info(String);

impl Info {
    pub(crate) fn new(info: Value) -> Result<Self, Error> {
        let text = match reply::bytes(info) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) if error.is_refused() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self(String::from_utf8_lossy(&text).into_owned()))
    }

    /// A field by its whole name: `run_id` must not find `my_run_id`, nor a part of a value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            (field == name).then_some(value.trim())
        })
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// A server's run id, which is new at each of its starts.
    pub(crate) fn run_id(&self) -> Option<&str> {
        self.field("run_id")
    }

    /// The id of the history that it holds, which is new at each promotion, and that of its primary
    /// where it is a replica. With the run id it tells one reign of a server from another.
    pub(crate) fn replid(&self) -> Option<&str> {
        self.field("master_replid")
    }

    /// `master` or `slave`, as INFO says it.
    pub(crate) fn role(&self) -> Option<&str> {
        self.field("role")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\ntcp_port:1\r\n";
        let info = Info::new(Value::BulkString(text.into())).unwrap();
        assert_eq!(
            (info.run_id(), info.number("tcp_port")),
            (Some("abc"), Some(1))
        );
        assert_eq!((info.field("id"), info.number("run_id")), (None, None));
        assert_eq!(Info::new(Value::Nil).unwrap().run_id(), None);
    }
}
