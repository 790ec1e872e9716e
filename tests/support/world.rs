//! The servers of a test, a writer, and the services beside it.

use bifrost_module_cache::diagnosis::Status;
use bifrost_module_cache::{CachedModule, Config};

use super::acl::{self, WRITER_ACL, WRITER_OPTION};
#[cfg(feature = "postgres")]
use super::database::Database;
use super::facade::{Facade, Reader, Writer};
use super::foreign::Foreign;
use super::group::Holder;
use super::patient;
use super::proxy::Proxy;
use super::redis::RedisServer;

/// A Redis, a Postgres with an empty workspace, and a writer.
pub struct World<F: Facade> {
    pub redis: Holder,
    #[cfg(feature = "postgres")]
    pub postgres: Database,
    /// Has not connected yet.
    pub writer: F::Writer,
    /// Where readers and writers reach Redis.
    pub reader_url: String,
    pub writer_url: String,
    /// What goes before every key.
    pub namespace: &'static str,
}

/// The namespace of a tenant in tests.
pub const TENANT: &str = "{tenant-a}:";

impl<F: Facade> World<F> {
    /// With the protocol that a URL gets by default, and without users.
    pub fn new() -> Self {
        Self::with(|config| config)
    }

    /// With other settings for the writer.
    pub fn with(settings: impl FnOnce(Config) -> Config) -> Self {
        let redis = RedisServer::start();
        let config = settings(patient(&redis.url()));
        Self::around(redis, config)
    }

    /// With another server, which the writer reaches otherwise.
    pub fn around(redis: RedisServer, config: Config) -> Self {
        Self::held_by(Holder::Own(redis), config)
    }

    /// A tenant of a Redis whose primary sentinels name.
    pub fn of_sentinels() -> Self {
        Self::of_group(Holder::of_sentinels())
    }

    /// A tenant of a cluster.
    pub fn of_cluster() -> Self {
        Self::of_group(Holder::of_cluster())
    }

    fn of_group(holder: Holder) -> Self {
        let config = patient(&holder.place_url()).with_namespace(TENANT);
        Self {
            namespace: TENANT,
            ..Self::held_by(holder, config)
        }
    }

    fn held_by(redis: Holder, config: Config) -> Self {
        let url = redis.place_url();
        Self {
            writer: F::Writer::new(config).expect("a usable configuration"),
            redis,
            #[cfg(feature = "postgres")]
            postgres: Database::default(),
            reader_url: url.clone(),
            writer_url: url,
            namespace: "",
        }
    }

    /// With a proxy between the writer and Redis.
    pub fn proxied(settings: impl FnOnce(Config) -> Config) -> (Self, Proxy) {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.port());
        let config = settings(patient(&proxy.url()));
        (Self::around(redis, config), proxy)
    }

    /// With the newer protocol.
    pub fn resp3() -> Self {
        let redis = RedisServer::start();
        let url = format!("{}?protocol=resp3", redis.url());
        Self::reached_by(redis, url.clone(), url, "")
    }

    /// With users that may do no more than the README says.
    pub fn acl() -> Self {
        Self::with_users(&format!("{WRITER_ACL} {WRITER_OPTION}"), "")
    }

    /// The same without [`WRITER_OPTION`].
    pub fn narrow_acl() -> Self {
        Self::with_users(WRITER_ACL, "")
    }

    /// With the users of a tenant, who may touch nothing beside its namespace.
    pub fn tenant() -> Self {
        Self::with_users(&format!("{WRITER_ACL} {WRITER_OPTION}"), TENANT)
    }

    fn with_users(writer: &str, namespace: &'static str) -> Self {
        let redis = RedisServer::start();
        for (line, password) in [(acl::reader().as_str(), "reads"), (writer, "writes")] {
            redis.command(&acl::behind(namespace, line).replace("PASSWORD", password));
        }
        let reader_url = redis.url_as("bifrost_reader", "reads");
        let writer_url = redis.url_as("bifrost_writer", "writes");
        Self::reached_by(redis, reader_url, writer_url, namespace)
    }

    fn reached_by(
        redis: RedisServer,
        reader_url: String,
        writer_url: String,
        namespace: &'static str,
    ) -> Self {
        let config = patient(&writer_url).with_namespace(namespace);
        Self {
            reader_url,
            writer_url,
            namespace,
            ..Self::around(redis, config)
        }
    }

    /// A new reader, also of the other facade.
    pub fn reader<G: Facade>(&self) -> G::Reader {
        G::Reader::new(self.reader_config()).expect("a usable configuration")
    }

    /// A new writer.
    pub fn writer<G: Facade>(&self) -> G::Writer {
        G::Writer::new(self.writer_config()).expect("a usable configuration")
    }

    /// For readers with settings of their own.
    pub fn reader_config(&self) -> Config {
        patient(&self.reader_url).with_namespace(self.namespace)
    }

    /// For writers with settings of their own.
    pub fn writer_config(&self) -> Config {
        patient(&self.writer_url).with_namespace(self.namespace)
    }

    /// Another service's connection to Redis.
    pub fn foreign(&self) -> Foreign {
        Foreign::behind(self.namespace, self.redis.connection())
    }

    /// The key of a path, valid or not.
    pub fn key(&self, path: &str) -> String {
        format!("{}bifrost:module:{path}", self.namespace)
    }

    pub fn index(&self) -> String {
        self.key("index")
    }

    pub fn status(&self) -> Status {
        self.writer.reader().status().unwrap()
    }

    /// What a reader gets.
    pub fn get(&self, path: &str) -> Option<String> {
        let module = self.writer.reader().get(path).unwrap();
        module.map(|module| module.content)
    }
}

/// A writer whose calls are to be answered.
pub fn writer<F: Facade>(redis_url: &str) -> F::Writer {
    F::Writer::new(patient(redis_url)).unwrap()
}

/// `path` with this content and an unknown hash, as foreign services write it.
pub fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::with_hash(path, content, "").unwrap()
}

/// `m/000.py` and so on.
pub fn numbered(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("m/{number:03}.py"))
        .collect()
}
