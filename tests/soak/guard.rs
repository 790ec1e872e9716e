//! Two guards against services that do everything wrong, while servers, connections and guards come
//! and go. Every half minute there is silence, and then every row is compared with every entry.
//!
//! Ten minutes, or `BIFROST_SOAK_SECONDS`. `BIFROST_SOAK_SEED` picks other faults.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bifrost_module_cache::guard::{GuardOptions, GuardStats, Mended, trigger_sql};
use bifrost_module_cache::{CachedModule, Error, keys, postgres};
use redis::{Pipeline, RedisResult};

use crate::support::{
    Blocking, Facade, Guard, Guarding, Nonblocking, Postgres, Proxy, Random, RedisServer,
    StopOnDrop, Table, Writer as _, json, numbered, usual, wait_until,
};

const MODULES: usize = 1_000;
const WRITERS: usize = 3;

/// How long everybody writes between two silences.
const STORM: Duration = Duration::from_secs(25);

/// How long guards may take until they have nothing to do any more: a contended path may be left
/// alone for half a minute.
const REST_LIMIT: Duration = Duration::from_secs(120);

/// How long a guard has nothing to do before it is taken to rest: longer than any of its intervals.
const REST: Duration = Duration::from_millis(2_500);

/// How much more memory the process may have in the end than after the first minute, in KiB.
const GROWTH: u64 = 100 * 1024;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A guard of either facade.
trait Runs: Send {
    fn stats(&self) -> GuardStats;
    fn stop(self: Box<Self>) -> Result<(), Error>;
    /// How it ended by itself.
    fn ended(self: Box<Self>) -> Result<(), Error>;
}

impl<F: Guarding> Runs for Guard<F> {
    fn stats(&self) -> GuardStats {
        self.stats()
    }

    fn stop(self: Box<Self>) -> Result<(), Error> {
        (*self).stop()
    }

    fn ended(self: Box<Self>) -> Result<(), Error> {
        (*self).ended()
    }
}

/// What wrong services do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    SetThenCommit,
    CommitThenSet,
    SetOnly,
    CommitOnly,
    SetThenRollBack,
    Del,
    Srem,
    Setex,
    Expire,
    DelIndex,
    FlushAll,
    Rename,
    RenameAndTell,
    SoftDelete,
    HardDelete,
    DeleteAndTell,
    AllRows,
    LargeRow,
    JunkMember,
    Ghost,
    IndexOnly,
    Corrupt,
    OtherType,
}

impl Act {
    fn random(random: &mut Random) -> Self {
        match random.below(1_000) {
            0..3 => Self::FlushAll,
            3..6 => Self::DelIndex,
            6..9 => Self::AllRows,
            9..13 => Self::LargeRow,
            13..100 => Self::SetThenCommit,
            100..200 => Self::CommitThenSet,
            200..260 => Self::SetOnly,
            260..440 => Self::CommitOnly,
            440..500 => Self::SetThenRollBack,
            500..560 => Self::Del,
            560..600 => Self::Srem,
            600..640 => Self::Setex,
            640..660 => Self::Expire,
            660..720 => Self::Rename,
            720..750 => Self::RenameAndTell,
            750..780 => Self::SoftDelete,
            780..810 => Self::HardDelete,
            810..840 => Self::DeleteAndTell,
            840..870 => Self::JunkMember,
            870..910 => Self::Ghost,
            910..940 => Self::IndexOnly,
            940..970 => Self::Corrupt,
            _ => Self::OtherType,
        }
    }
}

/// What goes wrong beside them. Each has come to its end when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillRedis,
    FreezeRedis,
    KillPostgres,
    FreezePostgres,
    KillBoth,
    FreezeBoth,
    StopGuard,
    EndListening,
    EndSessions,
    KillClients,
    ResetRedis,
    ResetPostgres,
    CutRedis,
    CutPostgres,
    StallRedis,
    StallPostgres,
    RefuseRedis,
    LoseRequests,
}

const FAULTS: [Fault; 18] = [
    Fault::KillRedis,
    Fault::FreezeRedis,
    Fault::KillPostgres,
    Fault::FreezePostgres,
    Fault::KillBoth,
    Fault::FreezeBoth,
    Fault::StopGuard,
    Fault::EndListening,
    Fault::EndSessions,
    Fault::KillClients,
    Fault::ResetRedis,
    Fault::ResetPostgres,
    Fault::CutRedis,
    Fault::CutPostgres,
    Fault::StallRedis,
    Fault::StallPostgres,
    Fault::RefuseRedis,
    Fault::LoseRequests,
];

/// The connections of a wrong service, which are made again after each failure.
struct Service<'a> {
    stage: &'a Stage,
    redis: Option<redis::Connection>,
    table: Option<postgres::Client>,
    random: Random,
}

/// Everything that all threads share.
struct Stage {
    redis: RedisServer,
    postgres: Postgres,
    paths: Vec<String>,
    start: Instant,
    versions: AtomicU64,
    is_over: AtomicBool,
    is_silent: AtomicBool,
    /// How many services are silent.
    silent: AtomicUsize,
    acts: Mutex<BTreeMap<Act, u64>>,
    /// What was last done to each path, for a failure's message.
    histories: Mutex<HashMap<String, VecDeque<String>>>,
}

impl Stage {
    fn new() -> Self {
        let (redis, postgres) = (RedisServer::start(), Postgres::start());
        postgres.create_workspace("workspace_files");
        let paths = numbered(MODULES);
        let mut table = Table(postgres.client());
        table.fill(&paths);
        table.run(&trigger_sql(&usual(&redis.url())).unwrap());
        Self {
            redis,
            postgres,
            paths,
            start: Instant::now(),
            versions: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_silent: AtomicBool::new(true),
            silent: AtomicUsize::new(0),
            acts: Mutex::default(),
            histories: Mutex::default(),
        }
    }

    fn note(&self, path: &str, what: &str) {
        let mut histories = lock(&self.histories);
        let history = histories.entry(path.to_owned()).or_default();
        history.push_back(format!("{:.3?} {what}", self.start.elapsed()));
        if history.len() > 12 {
            history.pop_front();
        }
    }

    /// Acts until all is over, with a rest in each silence.
    fn serve(&self, seed: u64) {
        let mut service = Service {
            stage: self,
            redis: None,
            table: None,
            random: Random(seed),
        };
        while !self.is_over.load(SeqCst) {
            if self.is_silent.load(SeqCst) {
                self.silent.fetch_add(1, SeqCst);
                while self.is_silent.load(SeqCst) && !self.is_over.load(SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
                self.silent.fetch_sub(1, SeqCst);
                continue;
            }
            let act = Act::random(&mut service.random);
            if service.act(act).is_ok() {
                *lock(&self.acts).entry(act).or_default() += 1;
            } else {
                // It may be the server that is down, or a row that is in the way.
                service.redis = None;
                service.table = None;
            }
            let pause = service.random.below(20) as u64;
            thread::sleep(Duration::from_millis(pause));
        }
    }
}

const PUT: &str = "INSERT INTO workspace_files (path, content, entity_type)
    VALUES ($1, $2, 'module')
    ON CONFLICT (path) DO UPDATE SET content = $2, is_deleted = FALSE";

impl Service<'_> {
    /// Sends these commands and reads the answers.
    fn tell(&mut self, commands: &Pipeline) -> RedisResult<()> {
        let connection = match &mut self.redis {
            Some(connection) => connection,
            none => {
                let client = redis::Client::open(self.stage.redis.url())?;
                none.insert(client.get_connection()?)
            }
        };
        commands.exec(connection)
    }

    fn table(&mut self) -> Result<&mut postgres::Client, postgres::Error> {
        match &mut self.table {
            Some(client) if !client.is_closed() => {}
            table => {
                let url = self.stage.postgres.url();
                *table = Some(postgres::Client::connect(&url, postgres::NoTls)?);
            }
        }
        Ok(self.table.as_mut().expect("it was connected to"))
    }

    /// SET and SADD.
    fn set(&mut self, path: &str, content: &str) -> RedisResult<()> {
        let mut commands = redis::pipe();
        let key = keys::module_key(path).expect("a path");
        commands.cmd("SET").arg(key).arg(json(path, content));
        commands.cmd("SADD").arg(keys::MODULE_INDEX_KEY).arg(path);
        self.tell(&commands)
    }

    /// DEL and SREM.
    fn del(&mut self, path: &str) -> RedisResult<()> {
        let mut commands = redis::pipe();
        commands
            .cmd("DEL")
            .arg(keys::module_key(path).expect("a path"));
        commands.cmd("SREM").arg(keys::MODULE_INDEX_KEY).arg(path);
        self.tell(&commands)
    }

    fn command(&mut self, words: &[&[u8]]) -> RedisResult<()> {
        let mut commands = redis::pipe();
        let command = commands.cmd(std::str::from_utf8(words[0]).expect("a command"));
        for word in &words[1..] {
            command.arg(*word);
        }
        self.tell(&commands)
    }

    fn act(&mut self, act: Act) -> Result<(), Failed> {
        let stage = self.stage;
        let version = stage.versions.fetch_add(1, SeqCst).to_string();
        let path = self.random.of(&stage.paths).as_str();
        let key = keys::module_key(path).expect("a path");
        let index = keys::MODULE_INDEX_KEY;
        stage.note(path, &format!("{act:?} {version}"));
        match act {
            Act::SetThenCommit | Act::SetThenRollBack => {
                self.table()?.batch_execute("BEGIN")?;
                self.table()?.execute(PUT, &[&path, &version])?;
                self.set(path, &version)?;
                // Now and then longer than the guard's grace.
                let most = if self.random.below(20) == 0 { 400 } else { 30 };
                let pause = self.random.below(most) as u64;
                thread::sleep(Duration::from_millis(pause));
                let end = if act == Act::SetThenCommit {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                self.table()?.batch_execute(end)?;
            }
            Act::CommitThenSet => {
                self.table()?.execute(PUT, &[&path, &version])?;
                self.set(path, &version)?;
            }
            Act::SetOnly => self.set(path, &version)?,
            Act::CommitOnly => drop(self.table()?.execute(PUT, &[&path, &version])?),
            Act::LargeRow => {
                let content = format!("{version}\n{}", "x".repeat(2 << 20));
                self.table()?.execute(PUT, &[&path, &content])?;
            }
            Act::AllRows => {
                let all = "UPDATE workspace_files SET content = $1";
                self.table()?.execute(all, &[&version])?;
            }
            Act::Del => self.command(&[b"DEL", key.as_bytes()])?,
            Act::Srem => self.command(&[b"SREM", index.as_bytes(), path.as_bytes()])?,
            Act::Setex => {
                self.table()?.execute(PUT, &[&path, &version])?;
                let entry = json(path, &version);
                self.command(&[b"SETEX", key.as_bytes(), b"86400", entry.as_bytes()])?;
            }
            Act::Expire => self.command(&[b"EXPIRE", key.as_bytes(), b"86400"])?,
            Act::DelIndex => self.command(&[b"DEL", index.as_bytes()])?,
            Act::FlushAll => self.command(&[b"FLUSHALL"])?,
            Act::Rename | Act::RenameAndTell => {
                let other = self.random.of(&stage.paths).as_str();
                stage.note(other, &format!("{act:?} {path} to it"));
                let rename = "UPDATE workspace_files SET path = $2 WHERE path = $1
                    AND NOT EXISTS (SELECT FROM workspace_files WHERE path = $2)";
                self.table()?.execute(rename, &[&path, &other])?;
                if act == Act::RenameAndTell {
                    self.del(path)?;
                    self.set(other, &version)?;
                }
            }
            Act::SoftDelete => {
                let delete = "UPDATE workspace_files SET is_deleted = TRUE WHERE path = $1";
                self.table()?.execute(delete, &[&path])?;
            }
            Act::HardDelete | Act::DeleteAndTell => {
                let delete = "DELETE FROM workspace_files WHERE path = $1";
                self.table()?.execute(delete, &[&path])?;
                if act == Act::DeleteAndTell {
                    self.del(path)?;
                }
            }
            Act::JunkMember => {
                let junk: [&[u8]; 7] = [
                    b"/absolute.py",
                    b"a//b.py",
                    b"../up.py",
                    b"",
                    b"\xff\xfe.py",
                    b"two\nlines.py",
                    b"index",
                ];
                let member = *self.random.of(&junk);
                self.command(&[b"SADD", index.as_bytes(), member])?;
            }
            Act::Ghost => {
                let ghost = format!("ghost/{}.py", self.random.below(50));
                stage.note(&ghost, "Ghost");
                self.set(&ghost, &version)?;
            }
            Act::IndexOnly => {
                let ghost = format!("ghost/{}.py", self.random.below(50));
                stage.note(&ghost, "IndexOnly");
                self.command(&[b"SADD", index.as_bytes(), ghost.as_bytes()])?;
            }
            Act::Corrupt => self.command(&[b"SET", key.as_bytes(), b"{\"content\": "])?,
            Act::OtherType => {
                self.command(&[b"DEL", key.as_bytes()])?;
                self.command(&[b"RPUSH", key.as_bytes(), version.as_bytes()])?;
            }
        }
        Ok(())
    }
}

/// A guard, and the proxies through which it reaches both servers.
struct Post {
    number: usize,
    redis: Proxy,
    postgres: Proxy,
    guard: Option<Box<dyn Runs>>,
    total: Total,
}

/// What the guards of a post have done, those that have ended included.
#[derive(Default)]
struct Total {
    mended: BTreeMap<&'static str, u64>,
    /// How many took no longer than each bound, in milliseconds.
    right_after: BTreeMap<u64, u64>,
    right: u64,
    sweeps: u64,
    failures: u64,
    completed: u64,
    guards: u64,
}

impl Total {
    fn add(&mut self, stats: &GuardStats) {
        let Mended {
            missing,
            stale,
            corrupt,
            ghost,
            index_only,
            key_only,
            expiring,
            ..
        } = stats.mended;
        for (name, count) in [
            ("missing", missing),
            ("stale", stale),
            ("corrupt", corrupt),
            ("ghost", ghost),
            ("index_only", index_only),
            ("key_only", key_only),
            ("expiring", expiring),
        ] {
            *self.mended.entry(name).or_default() += count;
        }
        for (bound, count) in &stats.right_after.buckets {
            let bound = Duration::from_secs_f64(*bound).as_millis();
            let bound = u64::try_from(bound).expect("a bound is short");
            *self.right_after.entry(bound).or_default() += count;
        }
        self.right += stats.right_after.count;
        self.sweeps += stats.sweeps;
        self.failures += stats.failures;
        self.completed += stats.completed;
        self.guards += 1;
    }

    /// The least bound that so many of a thousand kept to.
    fn quantile(&self, of_a_thousand: u64) -> String {
        let enough = |(_, count): &(&u64, &u64)| **count * 1_000 >= self.right * of_a_thousand;
        let bound = self.right_after.iter().find(enough);
        bound.map_or("longer".to_owned(), |(bound, _)| format!("{bound} ms"))
    }
}

impl Post {
    fn new(stage: &Stage, number: usize) -> Self {
        Self {
            number,
            redis: Proxy::start(stage.redis.port()),
            postgres: Proxy::start(stage.postgres.port()),
            guard: None,
            total: Total::default(),
        }
    }

    /// The first post is of threads, the second one of tasks, and stands by. One of the two listens.
    fn start(&mut self, listens: bool) {
        // No sweep hides that a hint was lost: only those after a server was. After a flush all that
        // is cached may be without a row, and a guard that begins then would end.
        let options = GuardOptions::default()
            .with_poll(Duration::from_millis(300))
            .with_listen(listens)
            .with_sweep(Duration::from_secs(3_600))
            .with_answer_timeout(Duration::from_secs(3))
            .with_max_prune(1.0);
        self.guard = Some(if self.number == 0 {
            self.begin::<Blocking>(options)
        } else {
            self.begin::<Nonblocking>(options.with_standby(Duration::from_secs(1)))
        });
    }

    fn begin<F: Guarding>(&self, options: GuardOptions) -> Box<dyn Runs> {
        let writer = <F as Facade>::Writer::new(usual(&self.redis.url())).unwrap();
        let guard = Guard::<F>::begin(writer, &self.postgres.postgres_url(), options);
        Box::new(guard)
    }

    fn stop(&mut self) {
        let guard = self.guard.take().expect("it runs");
        self.total.add(&guard.stats());
        guard.stop().expect("no outage ends a guard");
    }

    fn stats(&self) -> GuardStats {
        self.guard.as_ref().expect("it runs").stats()
    }

    fn rests(&mut self) -> bool {
        let stats = self.stats();
        if !stats.running {
            let how = self.guard.take().expect("it was started").ended();
            panic!("guard {} ended by itself: {how:?}; {stats:?}", self.number);
        }
        stats.since.is_some() && stats.redis_up && stats.database_up && stats.pending == 0
    }

    fn resume(&self) {
        for proxy in [&self.redis, &self.postgres] {
            proxy.resume();
            proxy.accept();
        }
    }
}

/// Makes one thing go wrong, for some time.
fn strike(stage: &Stage, posts: &mut [Post; 2], fault: Fault, random: &mut Random) {
    let (redis, postgres) = (&stage.redis, &stage.postgres);
    let mut time = |most: usize| Duration::from_millis(50 + random.below(most) as u64);
    let (short, long) = (time(500), time(2_000));
    // One guard's, or both guards' connections.
    let meant = *random.of(&[&[0][..], &[1], &[0, 1]]);
    let listens = random.below(2);
    let each = |act: &dyn Fn(&Post)| {
        for number in meant {
            act(&posts[*number]);
        }
        thread::sleep(short);
        for number in meant {
            posts[*number].resume();
        }
    };
    match fault {
        Fault::KillRedis => {
            redis.kill();
            thread::sleep(short);
            redis.restart();
        }
        Fault::FreezeRedis => {
            redis.freeze();
            thread::sleep(long);
            redis.thaw();
        }
        Fault::KillPostgres => {
            postgres.kill();
            thread::sleep(short);
            postgres.restart();
        }
        Fault::FreezePostgres => {
            postgres.freeze();
            // Now and then for longer than a guard waits for an answer.
            thread::sleep(if random.below(4) == 0 { 2 * long } else { long });
            postgres.thaw();
        }
        Fault::KillBoth => {
            redis.kill();
            postgres.kill();
            thread::sleep(short);
            if random.below(2) == 0 {
                redis.restart();
                postgres.restart();
            } else {
                postgres.restart();
                redis.restart();
            }
        }
        Fault::FreezeBoth => {
            redis.freeze();
            postgres.freeze();
            thread::sleep(long);
            postgres.thaw();
            redis.thaw();
        }
        Fault::StopGuard => {
            for number in meant {
                posts[*number].stop();
                posts[*number].start(*number == listens);
            }
        }
        Fault::EndListening | Fault::EndSessions => {
            let which = if fault == Fault::EndListening {
                "query LIKE 'LISTEN%'"
            } else {
                "TRUE"
            };
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND {which}"
            );
            stage.postgres.client().batch_execute(&end).unwrap();
        }
        Fault::KillClients => redis.command("CLIENT KILL TYPE normal SKIPME yes"),
        Fault::ResetRedis => each(&|post| post.redis.reset_all()),
        Fault::ResetPostgres => each(&|post| post.postgres.reset_all()),
        Fault::CutRedis => each(&|post| post.redis.cut_replies_after(1_000)),
        Fault::CutPostgres => each(&|post| post.postgres.cut_replies_after(20_000)),
        Fault::StallRedis => each(&|post| post.redis.stall()),
        Fault::StallPostgres => each(&|post| post.postgres.stall_replies()),
        Fault::RefuseRedis => each(&|post| {
            post.redis.refuse();
            post.redis.reset_all();
        }),
        Fault::LoseRequests => {
            each(&|post| {
                post.redis.drop_replies();
                post.postgres.blackhole_requests();
            });
            // No network loses bytes of a connection that lives on: where a guard of threads waits
            // for an answer, its thread and its session would be left behind for ever.
            for number in meant {
                posts[*number].postgres.reset_all();
            }
        }
    }
}

/// What differs, each with what was done to it.
fn wrong(stage: &Stage) -> Vec<String> {
    let rows = "SELECT path, content FROM workspace_files
        WHERE entity_type = 'module' AND NOT is_deleted AND content IS NOT NULL";
    let rows = stage.postgres.client().query(rows, &[]).unwrap();
    let rows: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut redis = stage.redis.connection();
    let index: BTreeSet<Vec<u8>> = redis::cmd("SMEMBERS")
        .arg(keys::MODULE_INDEX_KEY)
        .query(&mut redis)
        .unwrap();
    let begin = "bifrost:module:";
    let all: Vec<Vec<u8>> = redis::cmd("KEYS")
        .arg(format!("{begin}*"))
        .query(&mut redis)
        .unwrap();
    let mut wrong = Vec::new();
    let mut say = |path: &str, what: String| {
        let history = lock(&stage.histories).get(path).cloned();
        wrong.push(format!("{path}: {what}; {history:?}"));
    };
    for key in all {
        let key = String::from_utf8_lossy(&key).into_owned();
        let path = key.strip_prefix(begin).unwrap();
        if key == keys::MODULE_INDEX_KEY || rows.contains_key(path) {
            continue;
        }
        let (value, ttl): (RedisResult<String>, i64) = (
            redis::cmd("GET").arg(&key).query(&mut redis),
            redis::cmd("PTTL").arg(&key).query(&mut redis).unwrap(),
        );
        // A placeholder, of a guard that lost Redis before it could write, is nothing to readers.
        if !(value.as_deref() == Ok("") && ttl >= 0) {
            say(path, format!("{value:?} without a row, for {ttl} ms"));
        }
    }
    for member in &index {
        let path = String::from_utf8_lossy(member).into_owned();
        if !rows.contains_key(&path) {
            say(&path, "a member of the index without a row".to_owned());
        }
    }
    for (path, content) in &rows {
        let key = keys::module_key(path).unwrap();
        let (kind, ttl): (String, i64) = redis::pipe()
            .cmd("TYPE")
            .arg(&key)
            .cmd("PTTL")
            .arg(&key)
            .query(&mut redis)
            .unwrap();
        if kind != "string" {
            say(path, format!("its key is of type {kind}"));
            continue;
        }
        let value: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut redis).unwrap();
        match CachedModule::from_json(path, &value) {
            Ok(module) if module.content == *content => {}
            Ok(module) => {
                let short = |text: &str| text.chars().take(12).collect::<String>();
                let (found, row) = (short(&module.content), short(content));
                say(path, format!("{found:?} in the place of {row:?}"));
            }
            Err(error) => say(path, error.to_string()),
        }
        if ttl != -1 {
            say(path, format!("it expires in {ttl} ms"));
        }
        if !index.contains(path.as_bytes()) {
            say(path, "the index does not name it".to_owned());
        }
    }
    wrong
}

/// Resident memory in KiB.
fn resident() -> u64 {
    // SAFETY: it takes no pointer, and gives back only what nobody uses.
    unsafe { libc::malloc_trim(0) };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.unwrap().split_whitespace().next();
    words.unwrap().parse().unwrap()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// Everybody acts and everything fails, for a while.
fn storm(
    stage: &Stage,
    posts: &mut [Post; 2],
    random: &mut Random,
    faults: &mut BTreeMap<Fault, u64>,
) {
    stage.is_silent.store(false, SeqCst);
    let start = Instant::now();
    while start.elapsed() < STORM {
        let fault = *random.of(&FAULTS);
        strike(stage, posts, fault, random);
        *faults.entry(fault).or_default() += 1;
        thread::sleep(Duration::from_millis(random.below(2_000) as u64));
    }
    stage.is_silent.store(true, SeqCst);
    wait_until("the services are silent", REST_LIMIT, || {
        stage.silent.load(SeqCst) == WRITERS
    });
}

/// Waits until both guards have nothing to do, and compares; answers how long that took.
fn silence(stage: &Stage, posts: &mut [Post; 2]) -> Duration {
    let start = Instant::now();
    let stats = |posts: &[Post; 2]| posts.each_ref().map(Post::stats);
    let mut quiet: Option<Instant> = None;
    while quiet.is_none_or(|since| since.elapsed() < REST) {
        if posts.iter_mut().all(Post::rests) {
            quiet.get_or_insert_with(Instant::now);
        } else {
            quiet = None;
        }
        assert!(
            start.elapsed() < REST_LIMIT,
            "they do not rest: {:#?}",
            stats(posts)
        );
        thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    let wrong = wrong(stage);
    assert!(
        wrong.is_empty(),
        "{} wrong after {:.1?}:\n{}\n{:#?}",
        wrong.len(),
        stage.start.elapsed(),
        wrong[..wrong.len().min(10)].join("\n"),
        stats(posts)
    );
    let writer = <Blocking as Facade>::Writer::new(usual(&stage.redis.url())).unwrap();
    wait_until("the cache is complete", REST_LIMIT, || {
        let answer = writer.reader().status();
        answer.is_ok_and(|status| status.is_warm())
    });
    took
}

/// Waits until nobody but us has a connection to a server.
fn wait_until_all_is_given_back(stage: &Stage) {
    let mut client = stage.postgres.client();
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    wait_until("no session of Postgres is left", REST_LIMIT, || {
        client.query_one(sessions, &[]).unwrap().get::<_, i64>(0) == 0
    });
    let mut redis = stage.redis.connection();
    wait_until("no connection to Redis is left", REST_LIMIT, || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
        list.lines().count() == 1
    });
}

#[test]
#[ignore = "long: make soak"]
fn two_guards_keep_the_cache_right_whatever_others_do_and_lose() {
    let total = Duration::from_secs(number("BIFROST_SOAK_SECONDS", 600));
    let seed = number("BIFROST_SOAK_SEED", 1);
    println!("seed {seed}");
    let threads_before = threads();
    let stage = Stage::new();
    let mut posts = [Post::new(&stage, 0), Post::new(&stage, 1)];
    let mut faults = BTreeMap::new();
    let (mut silences, mut longest, mut early) = (0, Duration::ZERO, None);
    thread::scope(|scope| {
        let stage = &stage;
        let stop = StopOnDrop(&stage.is_over);
        for writer in 0..WRITERS {
            scope.spawn(move || stage.serve(seed ^ ((writer as u64 + 1) << 32)));
        }
        let mut random = Random(seed);
        posts[0].start(true);
        posts[1].start(false);
        while stage.start.elapsed() < total {
            storm(stage, &mut posts, &mut random, &mut faults);
            let took = silence(stage, &mut posts);
            (silences, longest) = (silences + 1, longest.max(took));
            let (seconds, kib) = (stage.start.elapsed().as_secs(), resident());
            println!(
                "{seconds:4} s: right after {took:.1?}, {kib} KiB, {} threads",
                threads()
            );
            if stage.start.elapsed() > (total / 3).min(Duration::from_secs(60)) {
                early.get_or_insert(kib);
            }
        }
        drop(stop);
    });
    let (late, early) = (resident(), early.expect("it takes longer than a minute"));
    for post in &mut posts {
        post.stop();
    }
    summarize(&stage, &posts, &faults);
    println!("{silences} silences, right after at most {longest:.1?}");
    println!("resident {early} KiB early and {late} KiB in the end");
    wait_until_all_is_given_back(&stage);
    drop((posts, stage));
    // The runtime of the tests keeps some, and idle ones for a while.
    let runtime = thread::available_parallelism().map_or(2, usize::from) + 2;
    wait_until("no thread is left", REST_LIMIT, || {
        threads() <= threads_before + runtime
    });
    assert!(late < early + GROWTH, "{early} KiB grew to {late} KiB");
}

fn summarize(stage: &Stage, posts: &[Post; 2], faults: &BTreeMap<Fault, u64>) {
    println!("acts {:?}", lock(&stage.acts));
    println!("faults {faults:?}");
    for post in posts {
        let total = &post.total;
        println!(
            "post {}: {} guards, mended {:?}, {} sweeps, {} failures, {} completed; right after: \
             half {}, 99 % {}",
            post.number,
            total.guards,
            total.mended,
            total.sweeps,
            total.failures,
            total.completed,
            total.quantile(500),
            total.quantile(990)
        );
    }
    let mended: u64 = posts.iter().map(|post| post.total.right).sum();
    assert!(mended > 0, "nothing was mended");
}
