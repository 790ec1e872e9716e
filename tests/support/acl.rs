//! The Redis users of the README.

use super::RedisServer;

/// All that a reader may do. `>PASSWORD` is to be replaced.
pub const READER_ACL: &str = "ACL SETUSER bifrost_reader reset on >PASSWORD %R~bifrost:module:* %R~bifrost:module-cache:* resetchannels -@all +get +mget +exists +smembers +sismember +smismember +sscan +scard +ping +hello +info +client|id +client|setname +client|tracking +client|trackinginfo";

/// How [`READER_ACL`] names keys, and how Redis 6 must have it.
pub const READ_ONLY_KEYS: &str = "%R~";
pub const OLD_READ_ONLY_KEYS: &str = "~";

/// All that a writer may do.
pub const WRITER_ACL: &str = "ACL SETUSER bifrost_writer reset on >PASSWORD ~bifrost:module:* ~bifrost:module-cache:* resetchannels -@all +get +mget +exists +smembers +sismember +smismember +sscan +scard +ping +hello +info +client|id +client|setname +client|tracking +client|trackinginfo +set +setex +mset +del +sadd +srem +watch +unwatch +multi +exec +discard +pttl";

/// What a writer may be given besides: it finds entries that the index does not name, and shows
/// the names of foreign keys.
pub const WRITER_OPTION: &str = "+scan";

/// [`READER_ACL`], as the server that the tests run against must have it.
pub fn reader() -> String {
    if RedisServer::is_old() {
        READER_ACL.replace(READ_ONLY_KEYS, OLD_READ_ONLY_KEYS)
    } else {
        READER_ACL.to_owned()
    }
}

/// The same line for the users of a namespace.
pub fn behind(namespace: &str, line: &str) -> String {
    line.replace("~bifrost:", &format!("~{namespace}bifrost:"))
}
