//! Each fault against each kind of call: it ends in time, with the right value or the right kind of
//! error, and the first call after the fault has gone works. With `--nocapture` each test prints
//! its row of the matrix.

use std::fmt::Write as _;
use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Facade, Proxy, Reader, RedisServer, Syncing, World, Writer, free_port, on_both_facades,
    patient, wait_until,
};
use bifrost_module_cache::diagnosis::CacheState;
use bifrost_module_cache::{CachedModule, Config, Error, Resolution};
use redis::Commands;

on_both_facades! {
    a_dead_server
    a_frozen_server
    a_slow_network
    a_reset_in_the_middle_of_one_reply
    a_reset_in_the_middle_of_every_reply
    a_half_open_connection
    a_server_restarted_with_its_data
    a_server_restarted_empty
    a_server_that_loads_its_data
    a_server_out_of_memory
    a_read_only_replica
    a_replica_that_lost_its_primary
    a_wrong_password
    a_wrong_database
}

/// 600 ms are promised; the rest is for a noisy machine.
const LOOKUP_LIMIT: Duration = Duration::from_millis(1_500);

/// 5 s by default: shortened, so that the tests take less.
const BULK_DEADLINE: Duration = Duration::from_secs(1);
const BULK_LIMIT: Duration = Duration::from_millis(2_500);

/// A warm-up makes connections, then calls one after another. It stops at the first that fails.
const WARM_UP_LIMIT: Duration = Duration::from_secs(6);

/// After the fault has gone. 2 s are promised.
const RECOVERY_LIMIT: Duration = Duration::from_secs(3);

/// How long a fault may take to set in.
const PATIENCE: Duration = Duration::from_secs(20);

const DIRECTORY: &str = "a";
const PATH: &str = "a/a.py";
const NEW_PATH: &str = "b.py";

#[derive(Debug, Clone, Copy)]
enum Call {
    Get,
    GetMany,
    Paths,
    /// Of a namespace, for which the index is needed.
    Resolve,
    Set,
    Invalidate,
    Rename,
    /// Of a path that has an entry and no row.
    Refresh,
    WarmUp,
}

const CALLS: [Call; 9] = [
    Call::Get,
    Call::GetMany,
    Call::Paths,
    Call::Resolve,
    Call::Set,
    Call::Invalidate,
    Call::Rename,
    Call::Refresh,
    Call::WarmUp,
];

impl Call {
    fn limit(self) -> Duration {
        match self {
            Self::Get | Self::Resolve | Self::Set | Self::Invalidate | Self::Rename => LOOKUP_LIMIT,
            Self::GetMany | Self::Paths => BULK_LIMIT,
            Self::Refresh | Self::WarmUp => WARM_UP_LIMIT,
        }
    }
}

fn module(path: &str) -> CachedModule {
    CachedModule::with_hash(path, "x = 1\n", "").unwrap()
}

fn config(url: &str) -> Config {
    Config::new(url)
        .unwrap()
        .with_bulk_deadline(BULK_DEADLINE)
        .with_index_max_age(Duration::ZERO)
}

/// What a call came to, in a word or two.
fn told(result: Result<&'static str, Error>) -> String {
    match result {
        Ok(value) => value.to_owned(),
        Err(Error::Unavailable {
            cause,
            may_have_been_applied,
            ..
        }) => {
            let doubt = if may_have_been_applied { "?" } else { "" };
            format!("{cause:?}{doubt}")
        }
        Err(Error::Refused { code, .. }) => code.to_owned(),
        Err(error) => panic!("{error:?}"),
    }
}

/// A Redis with one module, and a database with the same.
struct Matrix<F: Facade> {
    /// Its writer has used its connections.
    world: World<F>,
    proxy: Proxy,
}

impl<F: Facade> Deref for Matrix<F> {
    type Target = World<F>;

    fn deref(&self) -> &World<F> {
        &self.world
    }
}

impl<F: Facade<Writer: Syncing>> Matrix<F> {
    fn new() -> Self {
        Self::with(RedisServer::start(), |server, _| server.url())
    }

    /// With the proxy between.
    fn proxied() -> Self {
        Self::with(RedisServer::start(), |_, proxy| proxy.url())
    }

    fn with(server: RedisServer, url: fn(&RedisServer, &Proxy) -> String) -> Self {
        let proxy = Proxy::start(server.port());
        let insert = "INSERT INTO workspace_files (path, content, entity_type)
            VALUES ('a/a.py', E'x = 1\\n', 'module')";
        let config = config(&url(&server, &proxy));
        let world = World::around(server, config);
        world.table().run(insert);
        Self { world, proxy }
    }

    /// One module in the cache, seen by the writer over all its connections.
    fn prepare(&self) {
        let start = Instant::now();
        let tried = || -> Result<(), Error> {
            self.writer.invalidate(NEW_PATH)?;
            self.writer.set(&module(PATH))?;
            assert_eq!(self.writer.reader().get(PATH)?, Some(module(PATH)));
            assert_eq!(self.writer.reader().paths()?.len(), 1);
            Ok(())
        };
        // The breaker may be open, and a write may find its connection lost.
        while let Err(error) = tried() {
            assert!(start.elapsed() < RECOVERY_LIMIT, "{error:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Makes a call, and looks up in Redis itself whether it did what it says.
    fn make(&self, call: Call, writer: &F::Writer) -> String {
        let url = self.postgres.url();
        let mut client =
            matches!(call, Call::Refresh | Call::WarmUp).then(|| F::Writer::connect(&url));
        let reader = writer.reader();
        let start = Instant::now();
        let result = match call {
            Call::Get => reader.get(PATH).map(|found| match found {
                Some(found) if found == module(PATH) => "found",
                Some(found) => panic!("{found:?}"),
                None => "absent",
            }),
            Call::GetMany => reader.get_many(&[NEW_PATH, PATH]).map(|found| {
                assert!(found.len() == 2 && found[0].is_none());
                match &found[1] {
                    Some(found) if *found == module(PATH) => "found",
                    Some(found) => panic!("{found:?}"),
                    None => "absent",
                }
            }),
            Call::Paths => reader.paths().map(|found| match found.len() {
                0 => "absent",
                1 if found.contains(PATH) => "found",
                _ => panic!("{found:?}"),
            }),
            Call::Resolve => reader.resolve(DIRECTORY).map(|found| match found {
                Resolution::Namespace { path } if path == DIRECTORY => "found",
                Resolution::NotFound => "absent",
                found => panic!("{found:?}"),
            }),
            Call::Set => writer.set(&module(PATH)).map(|()| "done"),
            Call::Invalidate => writer.invalidate(PATH).map(|_| "done"),
            Call::Rename => writer.rename(PATH, &module(NEW_PATH)).map(|()| "done"),
            Call::Refresh => {
                let report = writer.refresh(client.as_mut().unwrap(), &[NEW_PATH]);
                report.map(|report| {
                    assert_eq!((report.removed, report.written), (1, 0), "{report:?}");
                    "done"
                })
            }
            Call::WarmUp => {
                let report = writer.warm_from_db(client.as_mut().unwrap());
                report.map(|report| {
                    assert!(report.complete && report.modules == 1, "{report:?}");
                    "done"
                })
            }
        };
        let elapsed = start.elapsed();
        assert!(elapsed < call.limit(), "{call:?} took {elapsed:?}");
        if matches!(result, Ok("done")) {
            let expected = match call {
                Call::Invalidate => (false, false),
                Call::Rename => (false, true),
                // Whether it kept its data or not.
                Call::Refresh => (self.stored().0, false),
                _ => (true, false),
            };
            assert_eq!(self.stored(), expected, "{call:?}");
        }
        told(result)
    }

    /// Whether the module is there under its first and its new path, in both cases with its place
    /// in the index.
    fn stored(&self) -> (bool, bool) {
        let mut redis = self.redis.connection();
        let index: Vec<String> = redis.smembers("bifrost:module:index").unwrap();
        let mut is_there = |path: &str| {
            let is_there: bool = redis.exists(format!("bifrost:module:{path}")).unwrap();
            assert_eq!(index.iter().any(|listed| listed == path), is_there);
            is_there
        };
        (is_there(PATH), is_there(NEW_PATH))
    }

    /// Each call against the fault; `expected` has the outcomes that are right for it, with `|`
    /// between alternatives.
    fn row(&self, name: &str, begin: impl Fn(&Self), end: impl Fn(&Self), expected: [&str; 9]) {
        self.row_with(name, begin, || self.writer.clone(), end, expected);
    }

    /// The same, with another writer.
    fn row_with(
        &self,
        name: &str,
        begin: impl Fn(&Self),
        writer: impl Fn() -> F::Writer,
        end: impl Fn(&Self),
        expected: [&str; 9],
    ) {
        let facade = std::any::type_name::<F>().rsplit(':').next().unwrap();
        let mut row = format!("| {name} | {} |", facade.to_lowercase());
        for (call, expected) in CALLS.into_iter().zip(expected) {
            self.prepare();
            if matches!(call, Call::Refresh) {
                self.writer.set(&module(NEW_PATH)).unwrap();
            }
            begin(self);
            let start = Instant::now();
            let outcome = self.make(call, &writer());
            let took = start.elapsed().as_millis();
            end(self);
            write!(row, " {outcome} {took} ms |").unwrap();
            let is_right = expected.split('|').any(|right| right == outcome);
            assert!(is_right, "{name}: {call:?} is {outcome}, not {expected}");
        }
        self.prepare();
        println!("{row}");
    }
}

fn a_dead_server<F: Facade<Writer: Syncing>>() {
    // A write finds out only by sending something, unless it finds the connection closed.
    let write = "Lost?|Connect";
    Matrix::<F>::new().row(
        "dead",
        |world| world.redis.kill(),
        |world| world.redis.restart(),
        [
            "Connect", "Connect", "Connect", "Connect", write, write, write, "Connect", "Connect",
        ],
    );
}

fn a_frozen_server<F: Facade<Writer: Syncing>>() {
    let (read, write) = ("TimedOut", "TimedOut?");
    Matrix::<F>::new().row(
        "frozen",
        |world| world.redis.freeze(),
        |world| world.redis.thaw(),
        [read, read, read, read, write, write, write, read, read],
    );
}

fn a_slow_network<F: Facade<Writer: Syncing>>() {
    // With the default of 250 ms a busy machine would be measured, not the network.
    let world = Matrix::<F>::proxied();
    let config = patient(&world.proxy.url());
    world.row_with(
        "slow: 100 ms",
        |world| world.proxy.set_latency(Duration::from_millis(100)),
        || F::Writer::new(config.clone()).unwrap(),
        |world| world.proxy.set_latency(Duration::ZERO),
        [
            "found", "found", "found", "found", "done", "done", "done", "done", "done",
        ],
    );
}

fn a_reset_in_the_middle_of_one_reply<F: Facade<Writer: Syncing>>() {
    // What is lost there has written no module yet.
    let (begun, write) = ("Lost", "Lost?");
    Matrix::<F>::proxied().row(
        "cut once in mid-reply",
        |world| world.proxy.cut_one_reply_after(3),
        |world| world.proxy.resume(),
        [
            "found", "found", "found", "found", write, write, write, begun, begun,
        ],
    );
}

fn a_reset_in_the_middle_of_every_reply<F: Facade<Writer: Syncing>>() {
    let (read, write) = ("Lost", "Lost?");
    Matrix::<F>::proxied().row(
        "cut in mid-reply",
        |world| world.proxy.cut_replies_after(3),
        |world| world.proxy.resume(),
        [read, read, read, read, write, write, write, read, read],
    );
}

fn a_half_open_connection<F: Facade<Writer: Syncing>>() {
    let (read, write) = ("TimedOut", "TimedOut?");
    Matrix::<F>::proxied().row(
        "half-open",
        |world| world.proxy.blackhole_requests(),
        |world| world.proxy.resume(),
        [read, read, read, read, write, write, write, read, read],
    );
}

/// The write does not meet the dead connection: that it was closed is seen before. In `nonblocking` the
/// task that drives the connection sees it, once it has had its turn; a machine that gives it none in
/// time lets the write find out.
fn done_after_a_restart<F: Facade>() -> &'static str {
    if std::any::type_name::<F>().ends_with("Nonblocking") {
        "done|Lost?"
    } else {
        "done"
    }
}

fn a_server_restarted_with_its_data<F: Facade<Writer: Syncing>>() {
    let write = done_after_a_restart::<F>();
    Matrix::<F>::new().row(
        "restarted",
        |world| {
            world.redis.shutdown_save();
            world.redis.restart();
        },
        |_| {},
        [
            "found", "found", "found", "found", write, write, write, "done", "done",
        ],
    );
}

fn a_server_restarted_empty<F: Facade<Writer: Syncing>>() {
    let write = done_after_a_restart::<F>();
    Matrix::<F>::new().row(
        "restarted empty",
        |world| {
            world.redis.kill();
            world.redis.restart();
            let fresh = F::Reader::new(config(&world.redis.url())).unwrap();
            assert_eq!(fresh.status().unwrap().state, CacheState::Cold);
        },
        |_| {},
        [
            "absent", "absent", "absent", "absent", write, write, write, "done", "done",
        ],
    );
}

fn a_server_that_loads_its_data<F: Facade<Writer: Syncing>>() {
    if RedisServer::is_old() {
        return; // It looks at its clients once in two megabytes, and has no setting for that.
    }
    // It looks at its clients once in a kilobyte: after each key.
    let server = RedisServer::start_with(&[
        "--rdbcompression",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
        "--key-load-delay",
        "10000",
    ]);
    let filler = "x".repeat(2_048);
    let mut redis = server.connection();
    for number in 0..1_000 {
        let key = format!("filler:{number}");
        redis.set::<_, _, ()>(key, &filler).unwrap();
    }
    drop(redis);
    let world = Matrix::<F>::with(server, |server, _| server.url());
    let loading = "Loading";
    world.row_with(
        "loading",
        |world| {
            world.redis.shutdown_save();
            world.redis.restart_loading();
        },
        || F::Writer::new(config(&world.redis.url())).unwrap(),
        |world| {
            world.redis.command("CONFIG SET key-load-delay 0");
            wait_until("it has loaded", PATIENCE, || {
                let size: Result<u64, _> =
                    redis::cmd("DBSIZE").query(&mut world.redis.connection());
                size.is_ok()
            });
            world.redis.command("CONFIG SET key-load-delay 10000");
        },
        [loading; 9],
    );
}

fn a_server_out_of_memory<F: Facade<Writer: Syncing>>() {
    Matrix::<F>::new().row(
        "out of memory",
        |world| world.redis.command("CONFIG SET maxmemory 1"),
        |world| world.redis.command("CONFIG SET maxmemory 0"),
        // What frees memory works.
        [
            "found", "found", "found", "found", "OOM", "done", "OOM", "done", "OOM",
        ],
    );
}

fn replicate_nobody<F: Facade>(world: &Matrix<F>) {
    let command = format!("REPLICAOF 127.0.0.1 {}", free_port());
    world.redis.command(&command);
}

fn a_read_only_replica<F: Facade<Writer: Syncing>>() {
    let write = "READONLY";
    Matrix::<F>::new().row(
        "read-only replica",
        replicate_nobody,
        |world| world.redis.command("REPLICAOF NO ONE"),
        [
            "found", "found", "found", "found", write, write, write, write, write,
        ],
    );
}

fn a_replica_that_lost_its_primary<F: Facade<Writer: Syncing>>() {
    let (read, write) = ("PrimaryDown", "READONLY");
    let server = RedisServer::start_with(&["--replica-serve-stale-data", "no"]);
    Matrix::<F>::with(server, |server, _| server.url()).row(
        "replica without primary",
        replicate_nobody,
        |world| world.redis.command("REPLICAOF NO ONE"),
        [read, read, read, read, write, write, write, write, read],
    );
}

fn a_wrong_password<F: Facade<Writer: Syncing>>() {
    let world = Matrix::<F>::new();
    world.redis.command("ACL SETUSER worker on >right ~* +@all");
    let url = format!("redis://worker:right@127.0.0.1:{}/0", world.proxy.port());
    let writer = F::Writer::new(config(&url)).unwrap();
    world.row_with(
        "wrong password",
        |world| {
            world.redis.command("ACL SETUSER worker resetpass >other");
            // A client that has logged in stays so.
            let _ = writer.reader().get(PATH);
            world.proxy.reset_all();
            let _ = writer.reader().get(PATH);
            let _ = writer.reader().paths();
        },
        || writer.clone(),
        |world| {
            world.redis.command("ACL SETUSER worker resetpass >right");
            assert_eq!(writer.reader().get_many(&[PATH]).unwrap().len(), 1);
            writer.set(&module(PATH)).unwrap();
        },
        ["WRONGPASS"; 9],
    );
}

fn a_wrong_database<F: Facade<Writer: Syncing>>() {
    let world = Matrix::<F>::new();
    let url = |database: u8| format!("redis://127.0.0.1:{}/{database}", world.proxy.port());
    world.row_with(
        "wrong database",
        |_| {},
        || F::Writer::new(config(&url(99))).unwrap(),
        |_| {},
        ["ERR"; 9],
    );
}
