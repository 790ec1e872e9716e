//! Services that write to Redis and to the database beside us.

use bifrost_module_cache::{CachedModule, keys};
use redis::Connection;

#[cfg(feature = "postgres")]
use super::{LIMIT, wait_until};

/// A service that writes to the cache by the specification, in Python.
pub struct Foreign(pub Connection, &'static str);

impl Foreign {
    pub fn new(connection: Connection) -> Self {
        Self::behind("", connection)
    }

    /// One whose keys lie behind a namespace.
    pub fn behind(namespace: &'static str, connection: Connection) -> Self {
        Self(connection, namespace)
    }

    fn index(&self) -> String {
        format!("{}{}", self.1, keys::MODULE_INDEX_KEY)
    }

    fn key(&self, path: &str) -> String {
        format!("{}{}", self.1, keys::module_key(path).unwrap())
    }

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
        self.run(&format!("SADD {} {path}", self.index()));
    }

    /// SET alone, of anything.
    pub fn set_key(&mut self, path: &str, value: &str) {
        let key = self.key(path);
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec(&mut self.0)
            .unwrap();
    }

    /// SETEX and SADD.
    pub fn setex(&mut self, path: &str, content: &str, seconds: u32) {
        let key = self.key(path);
        redis::cmd("SETEX")
            .arg(key)
            .arg(seconds)
            .arg(json(path, content))
            .exec(&mut self.0)
            .unwrap();
        self.run(&format!("SADD {} {path}", self.index()));
    }

    /// DEL and SREM.
    pub fn del(&mut self, path: &str) {
        self.run(&format!("DEL {}", self.key(path)));
        self.run(&format!("SREM {} {path}", self.index()));
    }

    pub fn flush(&mut self) {
        self.run("FLUSHALL");
    }

    pub fn entry(&mut self, path: &str) -> Entry {
        let key = self.key(path);
        let index = self.index();
        let (value, ttl, listed) = redis::pipe()
            .atomic()
            .cmd("GET")
            .arg(&key)
            .cmd("PTTL")
            .arg(&key)
            .cmd("SISMEMBER")
            .arg(index)
            .arg(path)
            .query(&mut self.0)
            .unwrap();
        Entry { value, ttl, listed }
    }

    /// Whether the index has this member, path or not.
    pub fn entry_listed(&mut self, member: &str) -> bool {
        let index = self.index();
        let mut command = redis::cmd("SISMEMBER");
        command.arg(index).arg(member).query(&mut self.0).unwrap()
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
            .arg(self.index())
            .query(&mut self.0)
            .unwrap();
        index.sort_unstable();
        assert_eq!(index, paths);
        for path in paths {
            self.assert_is(path, Some(path));
        }
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(format!("{}bifrost:module:*", self.1))
            .query(&mut self.0)
            .unwrap();
        assert_eq!(keys.len(), paths.len() + usize::from(!paths.is_empty()));
    }

    /// Milliseconds that the mark of a complete cache has to live; -1: for ever, -2: there is none.
    pub fn mark_ttl(&mut self) -> i64 {
        redis::cmd("PTTL")
            .arg(format!("{}{}", self.1, keys::COMPLETE_KEY))
            .query(&mut self.0)
            .unwrap()
    }

    /// How many keys there are.
    pub fn size(&mut self) -> usize {
        redis::cmd("DBSIZE").query(&mut self.0).unwrap()
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

/// A service that changes the workspace's rows.
#[cfg(feature = "postgres")]
pub struct Table(pub postgres::Client);

#[cfg(feature = "postgres")]
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

    /// Waits until another session has asked for the oldest open transaction, as a session that
    /// waits for the barrier does, or until `ended`.
    pub fn wait_for_the_barrier(&mut self, ended: impl Fn() -> bool) {
        let statement = "SELECT count(*) > 0 FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND query LIKE '%pg_snapshot_xmin%'";
        let mut is_asked = || self.0.query_one(statement, &[]).unwrap().get(0);
        wait_until("the barrier is waited for", LIMIT, || ended() || is_asked());
    }
}
