//! Every setting, its unit and its default.
//!
//! Defaults are those of an import hook: a lookup that hangs is a workflow that hangs. Why each
//! time-out is as it is: docs/failures.md.

mod check;
pub(crate) mod known;
pub(crate) mod place;
mod show;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "near-cache")]
use redis::ProtocolVersion;
use redis::{ConnectionAddr, ConnectionInfo};

use self::known::Known;
use self::place::Place;
pub(crate) use self::place::address;
use crate::error::Error;
use crate::keys::Keys;
use crate::observe::Observe;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What [`Config::from_env`] takes when `REDIS_URL` is not set, as the specification does.
pub const DEFAULT_REDIS_URL: &str = "redis://localhost:6379/0";

/// How to reach Redis, how long to wait for it, and what to write: the argument of every reader and
/// writer.
///
/// Setters return the changed configuration, so that they chain; a setting that can't be used is
/// refused by the constructor that takes the configuration.
///
/// ```
/// use std::time::Duration;
/// use bifrost_module_cache::Config;
///
/// let config = Config::new("redis://localhost:6379/0")?
///     .with_pool_size(4)
///     .with_response_timeout(Duration::from_millis(100));
/// # Ok::<(), bifrost_module_cache::Error>(())
/// ```
#[derive(Clone)]
pub struct Config {
    /// How to log in. Its address counts where the place is fixed.
    pub(crate) redis: ConnectionInfo,
    pub(crate) place: Place,
    pub(crate) discovery_max_age: Duration,
    pub(crate) address_map: Option<AddressMap>,
    /// What all connections of one client know: a constructor begins with nothing.
    pub(crate) known: Arc<Known>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Tls,
    pub(crate) keys: Arc<Keys>,
    pub(crate) pool_size: u32,
    pub(crate) max_in_flight: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) pool_timeout: Duration,
    pub(crate) lookup_deadline: Duration,
    pub(crate) bulk_deadline: Duration,
    pub(crate) index_max_age: Duration,
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_content_bytes: usize,
    pub(crate) integrity: Integrity,
    pub(crate) workspace_table: String,
    pub(crate) observer: Option<Arc<dyn Observe>>,
}

/// Where a server is really reached that is announced as this host and port.
pub(crate) type AddressMap = Arc<dyn Fn(&str, u16) -> (String, u16) + Send + Sync>;

/// Whether a read compares a module's content with its hash: see [`Config::with_integrity`].
///
/// It costs half a microsecond a kilobyte and finds damage, not a forger, who writes both. An empty
/// hash says nothing and passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Integrity {
    /// It does not. The default.
    #[default]
    Off,
    /// A module that does not match is logged, counted and returned.
    Warn,
    /// A module that does not match is [`Error::Corrupt`].
    Enforce,
}

impl Config {
    /// A configuration with all defaults for the Redis at `redis_url`:
    /// `redis://[user:password@]host[:port][/database][?protocol=resp3]`, or `unix:///path`.
    ///
    /// Where sentinels name the primary: `redis+sentinel://[user:password@]host[:port][,host…]/service[/database]`,
    /// with `?sentinel_username=…&sentinel_password=…` for the sentinels' own users. Where a cluster
    /// holds the keys: `redis+cluster://[user:password@]host[:port][,host…]`, with a
    /// [namespace](Self::with_namespace) that has a hash tag. `rediss` in place of `redis` is TLS to
    /// all of them (feature `tls`). Which to choose: [where Redis is](crate::guide::where_redis_is).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the URL can't be parsed or asks for what this build doesn't
    /// have. The error does not contain the URL.
    pub fn new(redis_url: impl AsRef<str>) -> Result<Self, Error> {
        let parsed = place::parse(redis_url.as_ref())?;
        let info = parsed.redis;
        match info.addr() {
            ConnectionAddr::Tcp(..) => {}
            #[cfg(unix)]
            ConnectionAddr::Unix(_) => {}
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(Error::invalid_config(
                    "the redis URL turns the verification of certificates off, which this crate never does",
                ));
            }
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { .. } => {}
            _ => {
                return Err(Error::invalid_config(
                    "the redis URL asks for a transport that this build lacks: rediss:// needs the feature `tls`",
                ));
            }
        }
        // Off by default in the library: small requests would wait for the acknowledgement of
        // others.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        // The library sends CLIENT SETINFO by itself. The reader's ACL does not permit it: Redis
        // 7.0 refuses an ACL line that names it.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        Ok(Self {
            redis: info.set_tcp_settings(tcp).set_redis_settings(settings),
            place: parsed.place,
            discovery_max_age: Duration::from_secs(1),
            address_map: None,
            known: Arc::default(),
            #[cfg(feature = "tls")]
            tls: Tls::default(),
            keys: Arc::new(Keys::new(String::new())),
            pool_size: 8,
            max_in_flight: 256,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(250),
            pool_timeout: Duration::from_millis(250),
            lookup_deadline: Duration::from_millis(600),
            bulk_deadline: Duration::from_secs(5),
            index_max_age: Duration::from_secs(1),
            ttl: None,
            max_content_bytes: 16 * 1024 * 1024,
            integrity: Integrity::Off,
            workspace_table: "workspace_files".to_owned(),
            observer: None,
        })
    }

    /// The same with RESP3, for a connection on which Redis announces changes: under RESP2 it
    /// answers OK to CLIENT TRACKING, and announces nothing.
    #[cfg(feature = "near-cache")]
    pub(crate) fn with_resp3(&self) -> Self {
        let mut config = self.clone();
        let settings = config.redis.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        config.redis = config.redis.set_redis_settings(settings);
        config
    }

    /// A configuration from the environment.
    ///
    /// | Variable | Meaning | Default |
    /// | --- | --- | --- |
    /// | `REDIS_URL` | as in [`Config::new`] | [`DEFAULT_REDIS_URL`] |
    /// | `BIFROST_NAMESPACE` | as in [`with_namespace`](Self::with_namespace) | none |
    ///
    /// # Errors
    ///
    /// As [`Config::new`]; also if a variable is not valid Unicode.
    pub fn from_env() -> Result<Self, Error> {
        let url = variable("REDIS_URL")?;
        let config = Self::new(url.as_deref().unwrap_or(DEFAULT_REDIS_URL))?;
        Ok(config.with_namespace(variable("BIFROST_NAMESPACE")?.unwrap_or_default()))
    }

    /// What goes before every key: one namespace is one workspace, such as that of a tenant.
    /// Default: nothing, so that the keys are exactly the specification's.
    ///
    /// Everything is apart: modules, index, the mark of a complete cache, what a near cache follows
    /// and what `verify` compares. ASCII letters and digits, and `- _ . : / { }`; see
    /// [security](crate::guide::security) for the users of one.
    ///
    /// ```
    /// # use bifrost_module_cache::Config;
    /// let config = Config::from_env()?.with_namespace("{tenant-a}:");
    /// # Ok::<(), bifrost_module_cache::Error>(())
    /// ```
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.keys = Arc::new(Keys::new(namespace.into()));
        self
    }

    /// The names of the keys, behind the namespace.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Where Redis is: `host:port/database`, or `path?db=database` for a socket, for a message.
    /// `service@host:port,host:port/database` for sentinels, `host:port,host:port` for a cluster.
    /// Never the user or the password.
    #[must_use]
    pub fn redis_address(&self) -> String {
        let database = self.redis.redis_settings().db();
        match &self.place {
            Place::Fixed => {}
            Place::Sentinels(sentinels) => {
                let asked = place::all_shown(&sentinels.addresses);
                return format!("{}@{asked}/{database}", sentinels.service);
            }
            Place::Cluster(nodes) => return place::all_shown(nodes),
        }
        match self.redis.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{}/{database}", address(host, *port))
            }
            other => format!("{other}?db={database}"),
        }
    }

    /// How old the sentinels' answer may be with which a connection is used or a near cache follows
    /// Redis. Default 1 s: so much longer writes may go to a primary that is no longer one, and are
    /// lost. One call in that time asks.
    #[must_use]
    pub fn with_discovery_max_age(mut self, age: Duration) -> Self {
        self.discovery_max_age = age;
        self
    }

    /// Where servers are really reached that sentinels or a cluster announce by another address, as
    /// behind a NAT: called with host and port as announced.
    #[must_use]
    pub fn with_address_map(
        mut self,
        map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static,
    ) -> Self {
        self.address_map = Some(Arc::new(map));
        self
    }

    /// Which certificate authorities to trust where the URL is `rediss://`, and which certificate
    /// to show. Default: the authorities of the system, and none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How many connections `blocking` holds at most. Default 8.
    ///
    /// A connection is opened when all others are in use, so a worker that imports from one thread
    /// holds one. Eight let as many threads import at once, and keep a fleet of 1,000 workers
    /// below Redis's default of 10,000 clients even when all of them do.
    #[must_use]
    pub fn with_pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// How many calls `nonblocking` has in flight at most. Default 256; a call above that waits
    /// for [`with_pool_timeout`](Self::with_pool_timeout), then fails as [`Error::Busy`].
    #[must_use]
    pub fn with_max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// How long connecting may take: name resolution, TCP and the handshake. Default 1 s, and
    /// never longer than the call that needs the connection.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long Redis may take to answer one attempt of a lookup or a write. Default 250 ms, so
    /// that a second attempt fits into [`with_lookup_deadline`](Self::with_lookup_deadline).
    #[must_use]
    pub fn with_response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How long a call waits for a connection that another call uses. Default 250 ms.
    #[must_use]
    pub fn with_pool_timeout(mut self, timeout: Duration) -> Self {
        self.pool_timeout = timeout;
        self
    }

    /// How long a whole lookup or write may take: waiting, connecting and one retry of a read
    /// included. Default 600 ms. A removal that Redis refuses for want of memory is sent in another
    /// form, with as much time again.
    #[must_use]
    pub fn with_lookup_deadline(mut self, deadline: Duration) -> Self {
        self.lookup_deadline = deadline;
        self
    }

    /// The same for calls whose request or answer may be large: `get_many`, `resolve_many`,
    /// `paths`, a write of more than 256 KiB, one batch of the warm-up, and one round trip of a
    /// prefetch or a snapshot. Default 5 s.
    #[must_use]
    pub fn with_bulk_deadline(mut self, deadline: Duration) -> Self {
        self.bulk_deadline = deadline;
        self
    }

    /// How old the index may be of which `resolve` asks whether a name is a namespace. Default 1 s:
    /// names that are not ours cost one `SMEMBERS` a second. Zero has every such call ask anew.
    ///
    /// A directory whose last module is removed is a namespace for so long, one that is new is not
    /// found for so long; modules and packages are never older than the call.
    #[must_use]
    pub fn with_index_max_age(mut self, age: Duration) -> Self {
        self.index_max_age = age;
        self
    }

    /// How long an entry that we write lives. Default: for ever, as the specification has it.
    /// Rounded to milliseconds. The index has no time to live.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    /// How large a module's content may be, in bytes. Default 16 MiB.
    ///
    /// A stored entry may have six times that and 8 KiB more, because `\uXXXX` takes six bytes;
    /// a larger one is corrupt.
    #[must_use]
    pub fn with_max_content_bytes(mut self, bytes: usize) -> Self {
        self.max_content_bytes = bytes;
        self
    }

    /// Whether a read compares a module's content with its hash. Default: off.
    #[must_use]
    pub fn with_integrity(mut self, integrity: Integrity) -> Self {
        self.integrity = integrity;
        self
    }

    /// The table that holds the workspace. Default `workspace_files`. It needs these columns:
    ///
    /// | Column | Type | |
    /// | --- | --- | --- |
    /// | `path` | `varchar` or `text` | unique; relative, such as `shared/halopsa.py` |
    /// | `content` | `text` | the source; a row with NULL is no module |
    /// | `content_hash` | `varchar` or `text` | SHA-256 of the content in hex, or NULL |
    /// | `entity_type` | `varchar` or `text` | `'module'`: all other rows are passed over |
    /// | `is_deleted` | `boolean` | FALSE, not NULL |
    /// | `updated_at` | `timestamp` or `timestamptz` | optional: tells `diagnose` how old a row is |
    ///
    /// `schema.table` is split at the dot; each part is quoted, so its case matters.
    #[must_use]
    pub fn with_workspace_table(mut self, table: impl Into<String>) -> Self {
        self.workspace_table = table.into();
        self
    }

    /// Who is told of each call to Redis when it has ended. Default: nobody, which costs nothing.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observe>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// How large a stored entry may be: `\uXXXX`, as Python's json.dumps writes all that is not
    /// ASCII, takes six bytes for one; 8 KiB are for the path, the hash and the braces.
    pub(crate) fn max_entry_bytes(&self) -> usize {
        self.max_content_bytes
            .saturating_mul(6)
            .saturating_add(8 * 1024)
    }
}

/// A variable of the environment; `None` if it is not set.
fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::invalid_config(format!(
            "{name} is not valid Unicode"
        ))),
    }
}

/// `schema.table` as SQL wants it, each part quoted: a table's name can't be a parameter of a
/// statement.
pub(crate) fn quoted_table(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2
        || parts
            .iter()
            .any(|part| part.is_empty() || part.contains('\0'))
    {
        return None;
    }
    let quoted: Vec<_> = parts
        .iter()
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    Some(quoted.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let config = Config::new("redis://user:hunter2@localhost:6379/3").unwrap();
        let text = format!("{config:?} {config:#?}");
        assert!(
            !text.contains("hunter2") && !text.contains("user"),
            "{text}"
        );
        assert!(
            text.contains("localhost:6379") && text.contains("database: 3"),
            "{text}"
        );
    }

    #[test]
    fn the_address_is_only_that() {
        for (url, address) in [
            (
                "redis://user:hunter2@cache:6380/3?protocol=resp3",
                "cache:6380/3",
            ),
            ("redis://[::1]", "[::1]:6379/0"),
            ("unix:///run/redis.sock?db=2", "/run/redis.sock?db=2"),
        ] {
            assert_eq!(Config::new(url).unwrap().redis_address(), address);
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_being_quoted() {
        for url in [
            "",
            "hunter2",
            "http://user:hunter2@localhost",
            "redis://:hunter2@:6379",
            "redis://user:hunter2@localhost:99999/0",
            "redis://user:hunter2@localhost:6379/hunter2",
            "redis://user:hunter2@localhost:6379/0?protocol=hunter2",
            "redis://user:hunter2 @local host",
        ] {
            let error = Config::new(url).expect_err(url);
            assert!(error.is_invalid_config());
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn tables_are_quoted_part_by_part() {
        assert_eq!(
            quoted_table("workspace_files").unwrap(),
            r#""workspace_files""#
        );
        assert_eq!(quoted_table("App.files").unwrap(), r#""App"."files""#);
        assert_eq!(
            quoted_table("a\"; DROP TABLE x; --").unwrap(),
            r#""a""; DROP TABLE x; --""#
        );
        for bad in ["", ".", "a.", ".a", "a.b.c", "a\0b"] {
            assert_eq!(quoted_table(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let config = || Config::new(DEFAULT_REDIS_URL).unwrap();
        assert!(config().checked().is_ok());
        assert!(
            config()
                .with_index_max_age(Duration::ZERO)
                .checked()
                .is_ok()
        );
        for bad in [
            config().with_pool_size(0),
            config().with_max_in_flight(0),
            config().with_response_timeout(Duration::ZERO),
            config().with_connect_timeout(Duration::from_micros(1)),
            config().with_lookup_deadline(Duration::ZERO),
            config().with_ttl(Some(Duration::ZERO)),
            config().with_ttl(Some(Duration::MAX)),
            config().with_bulk_deadline(Duration::MAX),
            config().with_index_max_age(Duration::MAX),
            config().with_max_in_flight(usize::MAX),
            config().with_workspace_table("a.b.c"),
            config().with_namespace("a*"),
        ] {
            assert!(bad.checked().unwrap_err().is_invalid_config());
        }
    }
}
