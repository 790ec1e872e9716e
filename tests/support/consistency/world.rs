//! A cache, its database, and those who touch them beside us.

use bifrost_module_cache::diagnosis::Status;
use bifrost_module_cache::sync::{Drift, RefreshReport, RepairReport, SyncOptions, WarmReport};
use bifrost_module_cache::{CachedModule, Config, keys};
use redis::Connection;
use std::time::Duration;

use super::lent::LentPostgres;
use super::syncing::Syncing;
use crate::support::facade::{Facade, Reader, Writer};
use crate::support::{RedisServer, wait_until};

/// How long something that is awaited may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A Redis, a Postgres with an empty workspace, and a writer.
pub struct World<F: Facade> {
    pub redis: RedisServer,
    pub postgres: LentPostgres,
    pub writer: F::Writer,
}

impl<F: Facade<Writer: Syncing>> World<F> {
    pub fn new() -> Self {
        Self::with(|config| config)
    }

    /// With other settings.
    pub fn with(settings: impl FnOnce(Config) -> Config) -> Self {
        let redis = RedisServer::start();
        let config = settings(patient(&redis.url()));
        Self::around(redis, config)
    }

    /// With another server, which is reached otherwise.
    pub fn around(redis: RedisServer, config: Config) -> Self {
        let postgres = LentPostgres::take();
        let writer = F::Writer::new(config).unwrap();
        Self {
            redis,
            postgres,
            writer,
        }
    }

    /// With these modules in the database, each with its path for a content.
    pub fn with_rows(paths: &[String]) -> Self {
        let world = Self::new();
        world.table().fill(paths);
        world
    }

    /// A connection for the facade.
    pub fn client(&self) -> <F::Writer as Writer>::Client {
        F::Writer::connect(&self.postgres.url())
    }

    /// Another service's connection to the database.
    pub fn table(&self) -> Table {
        Table(self.postgres.client())
    }

    /// Another service's connection to the cache.
    pub fn foreign(&self) -> Foreign {
        Foreign(self.redis.connection())
    }

    pub fn refresh(&self, paths: &[&str]) -> RefreshReport {
        self.writer.refresh(&mut self.client(), paths).unwrap()
    }

    pub fn warm(&self, options: SyncOptions<'_>) -> WarmReport {
        self.writer.warm_with(&mut self.client(), options).unwrap()
    }

    pub fn verify(&self) -> Drift {
        let options = SyncOptions::default();
        self.writer
            .verify_with(&mut self.client(), options)
            .unwrap()
    }

    pub fn repair(&self, options: SyncOptions<'_>) -> RepairReport {
        self.writer
            .repair_with(&mut self.client(), options)
            .unwrap()
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

/// Settings with which a busy machine is no outage.
pub fn patient(redis_url: &str) -> Config {
    Config::new(redis_url)
        .unwrap()
        .with_connect_timeout(LIMIT)
        .with_response_timeout(LIMIT)
        .with_pool_timeout(LIMIT)
        .with_lookup_deadline(2 * LIMIT)
        .with_bulk_deadline(3 * LIMIT)
}

/// A writer with these settings.
pub fn writer<F: Facade>(redis_url: &str) -> F::Writer {
    F::Writer::new(patient(redis_url)).unwrap()
}

/// `path` with this content and an unknown hash, as [`Table`] and [`Foreign`] write it.
pub fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::with_hash(path, content, "").unwrap()
}

/// `m/000.py` and so on.
pub fn numbered(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("m/{number:03}.py"))
        .collect()
}

/// The workspace's rows, changed by somebody else.
pub struct Table(pub postgres::Client);

impl Table {
    pub fn run(&mut self, statements: &str) {
        self.0.batch_execute(statements).unwrap();
    }

    /// Inserts modules, each with its path for a content.
    pub fn fill(&mut self, paths: &[String]) {
        let statement = "INSERT INTO workspace_files (path, content, entity_type)
            SELECT path, path, 'module' FROM unnest($1::text[]) AS path";
        self.0.execute(statement, &[&paths]).unwrap();
    }

    pub fn put(&mut self, path: &str, content: &str) {
        let statement = "INSERT INTO workspace_files (path, content, entity_type)
            VALUES ($1, $2, 'module')
            ON CONFLICT (path) DO UPDATE SET content = $2, is_deleted = FALSE";
        self.0.execute(statement, &[&path, &content]).unwrap();
    }

    pub fn delete(&mut self, path: &str) {
        let statement = "UPDATE workspace_files SET is_deleted = TRUE WHERE path = $1";
        self.0.execute(statement, &[&path]).unwrap();
    }

    /// Waits until somebody else has asked for the oldest open transaction, as one who waits for
    /// it does, or until `ended`.
    pub fn wait_for_the_barrier(&mut self, ended: impl Fn() -> bool) {
        let statement = "SELECT count(*) > 0 FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND query LIKE '%pg_snapshot_xmin%'";
        let mut is_asked = || self.0.query_one(statement, &[]).unwrap().get(0);
        wait_until("the barrier is waited for", LIMIT, || ended() || is_asked());
    }
}

/// A service that writes to the cache by the specification, in Python.
pub struct Foreign(pub Connection);

impl Foreign {
    /// Sends words that have no spaces.
    pub fn run(&mut self, command: &str) {
        let mut words = command.split(' ');
        redis::cmd(words.next().unwrap())
            .arg(words.collect::<Vec<_>>())
            .exec(&mut self.0)
            .unwrap();
    }

    /// SET and SADD, as two commands.
    pub fn set(&mut self, path: &str, content: &str) {
        self.set_key(path, &json(path, content));
        self.run(&format!("SADD {} {path}", keys::MODULE_INDEX_KEY));
    }

    /// SET alone, of anything.
    pub fn set_key(&mut self, path: &str, value: &str) {
        let key = keys::module_key(path).unwrap();
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec(&mut self.0)
            .unwrap();
    }

    /// SETEX and SADD.
    pub fn setex(&mut self, path: &str, content: &str, seconds: u32) {
        let key = keys::module_key(path).unwrap();
        redis::cmd("SETEX")
            .arg(key)
            .arg(seconds)
            .arg(json(path, content))
            .exec(&mut self.0)
            .unwrap();
        self.run(&format!("SADD {} {path}", keys::MODULE_INDEX_KEY));
    }

    /// DEL and SREM.
    pub fn del(&mut self, path: &str) {
        self.run(&format!("DEL {}", keys::module_key(path).unwrap()));
        self.run(&format!("SREM {} {path}", keys::MODULE_INDEX_KEY));
    }

    pub fn flush(&mut self) {
        self.run("FLUSHALL");
    }

    pub fn entry(&mut self, path: &str) -> Entry {
        let key = keys::module_key(path).unwrap();
        let (value, ttl, listed) = redis::pipe()
            .atomic()
            .cmd("GET")
            .arg(&key)
            .cmd("PTTL")
            .arg(&key)
            .cmd("SISMEMBER")
            .arg(keys::MODULE_INDEX_KEY)
            .arg(path)
            .query(&mut self.0)
            .unwrap();
        Entry { value, ttl, listed }
    }

    /// Asserts that the module is there with this content, for ever, and named by the index; or
    /// that neither is there.
    #[track_caller]
    pub fn assert_is(&mut self, path: &str, content: Option<&str>) {
        let entry = self.entry(path);
        let found = entry.value.as_deref().map(|json| {
            let module = CachedModule::from_json(path, json.as_bytes());
            module.expect("a module of this path").content
        });
        assert_eq!(found.as_deref(), content, "{path}");
        assert_eq!(entry.listed, content.is_some(), "{path} in the index");
        let no_ttl = if content.is_some() { -1 } else { -2 };
        assert_eq!(entry.ttl, no_ttl, "{path} expires");
    }

    /// Asserts that these modules are there, each with its path for a content, and no others.
    #[track_caller]
    pub fn assert_holds(&mut self, paths: &[String]) {
        let mut index: Vec<String> = redis::cmd("SMEMBERS")
            .arg(keys::MODULE_INDEX_KEY)
            .query(&mut self.0)
            .unwrap();
        index.sort_unstable();
        assert_eq!(index, paths);
        for path in paths {
            self.assert_is(path, Some(path));
        }
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("bifrost:module:*")
            .query(&mut self.0)
            .unwrap();
        assert_eq!(keys.len(), paths.len() + usize::from(!paths.is_empty()));
    }

    /// Milliseconds that the mark of a complete cache has to live; -1: for ever, -2: there is none.
    pub fn mark_ttl(&mut self) -> i64 {
        redis::cmd("PTTL")
            .arg(keys::COMPLETE_KEY)
            .query(&mut self.0)
            .unwrap()
    }

    /// How many clients are connected, this one left out.
    pub fn others(&mut self) -> usize {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.0).unwrap();
        list.lines().count() - 1
    }
}

/// What is stored for a path.
pub struct Entry {
    pub value: Option<String>,
    /// Milliseconds; -1: for ever, -2: there is no key.
    pub ttl: i64,
    pub listed: bool,
}

/// As Python's `json.dumps` writes it.
pub fn json(path: &str, content: &str) -> String {
    format!(r#"{{"content": "{content}", "path": "{path}", "hash": ""}}"#)
}
