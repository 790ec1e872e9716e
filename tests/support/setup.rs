//! The ways to reach Redis under which everything must work.

use super::{Facade, Reader, RedisServer, Writer, patient};
use bifrost_module_cache::Config;

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

/// A server, and how readers and writers reach it.
pub struct Setup {
    pub server: RedisServer,
    pub reader_url: String,
    pub writer_url: String,
}

impl Setup {
    /// The protocol that a URL gets by default.
    pub fn resp2() -> Self {
        Self::with_urls("")
    }

    /// The newer protocol.
    pub fn resp3() -> Self {
        Self::with_urls("?protocol=resp3")
    }

    /// Users that may do no more than the README says.
    pub fn acl() -> Self {
        Self::with_users(&format!("{WRITER_ACL} {WRITER_OPTION}"))
    }

    /// The same without [`WRITER_OPTION`].
    pub fn narrow_acl() -> Self {
        Self::with_users(WRITER_ACL)
    }

    fn with_urls(parameters: &str) -> Self {
        let server = RedisServer::start();
        let url = format!("{}{parameters}", server.url());
        Self {
            server,
            reader_url: url.clone(),
            writer_url: url,
        }
    }

    fn with_users(writer: &str) -> Self {
        let server = RedisServer::start();
        server.command(&reader_acl().replace("PASSWORD", "reads"));
        server.command(&writer.replace("PASSWORD", "writes"));
        let reader_url = server.url_as("bifrost_reader", "reads");
        let writer_url = server.url_as("bifrost_writer", "writes");
        Self {
            server,
            reader_url,
            writer_url,
        }
    }

    /// A new reader.
    pub fn reader<F: Facade>(&self) -> F::Reader {
        F::Reader::new(self.reader_config()).expect("a usable configuration")
    }

    /// A new writer.
    pub fn writer<F: Facade>(&self) -> F::Writer {
        F::Writer::new(self.writer_config()).expect("a usable configuration")
    }

    /// For readers with settings of their own.
    pub fn reader_config(&self) -> Config {
        patient(&self.reader_url)
    }

    /// For writers with settings of their own.
    pub fn writer_config(&self) -> Config {
        patient(&self.writer_url)
    }
}

/// [`READER_ACL`], as the server that the tests run against must have it.
fn reader_acl() -> String {
    if RedisServer::is_old() {
        READER_ACL.replace(READ_ONLY_KEYS, OLD_READ_ONLY_KEYS)
    } else {
        READER_ACL.to_owned()
    }
}
