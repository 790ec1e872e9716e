//! Throw-away servers and faults for tests, benches and the demo (Linux).
//!
//! Everything listens on 127.0.0.1, keeps its files in a temporary directory, and is killed when
//! its value is dropped, or when the process that started it dies.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary compiles this module and uses a part of it"
)]

mod acl;
#[cfg(all(feature = "postgres", feature = "tls"))]
pub mod certificates;
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "postgres"))]
mod convergence;
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "postgres"))]
mod database;
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
mod facade;
mod fake;
mod foreign;
mod gate;
#[cfg(all(
    feature = "blocking",
    feature = "nonblocking",
    feature = "near-cache",
    feature = "postgres"
))]
mod grace;
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
mod group;
#[cfg(all(
    feature = "blocking",
    feature = "nonblocking",
    feature = "near-cache",
    feature = "postgres"
))]
mod guard;
#[cfg(feature = "postgres")]
mod lent;
mod monitor;
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "near-cache"))]
mod near;
#[cfg(feature = "postgres")]
mod pgbouncer;
#[cfg(feature = "postgres")]
mod postgres;
mod process;
mod proxy;
mod python;
mod redis;
pub mod scripted;
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "postgres"))]
mod syncing;
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
mod world;

pub use self::acl::{
    OLD_READ_ONLY_KEYS, READ_ONLY_KEYS, READER_ACL, WRITER_ACL, WRITER_OPTION, behind,
};
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "postgres"))]
pub use self::convergence::{Faults, Protocol, Random, Round, Size, round, round_until};
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
pub(crate) use self::facade::on_both_facades;
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
pub use self::facade::{Blocking, Facade, Nonblocking, Reader, Writer, block_on, spawn};
pub use self::fake::fake_server;
#[cfg(feature = "postgres")]
pub use self::foreign::Table;
pub use self::foreign::{Entry, Foreign, json};
pub use self::gate::Gate;
#[cfg(all(
    feature = "blocking",
    feature = "nonblocking",
    feature = "near-cache",
    feature = "postgres"
))]
pub use self::grace::undone;
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
pub use self::group::{Cluster, DOWN_AFTER, Holder, Sentinel, SentinelGroup, sentinel_url};
#[cfg(all(
    feature = "blocking",
    feature = "nonblocking",
    feature = "near-cache",
    feature = "postgres"
))]
pub use self::guard::{Guard, Guarding, guarded_round};
#[cfg(feature = "postgres")]
pub use self::lent::LentPostgres;
pub use self::monitor::Monitor;
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "near-cache"))]
pub use self::near::{Near, Nearby, content};
#[cfg(feature = "postgres")]
pub use self::pgbouncer::PgBouncer;
#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, private_dir, private_file};
pub use self::proxy::{Aim, Proxy};
pub use self::python::python;
pub use self::redis::{RedisServer, connect};
#[cfg(all(feature = "blocking", feature = "nonblocking", feature = "postgres"))]
pub use self::syncing::{Syncing, after, at_each};
#[cfg(all(feature = "blocking", feature = "nonblocking"))]
pub use self::world::{TENANT, World, module, numbered, writer};

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bifrost_module_cache::{Config, Resolution};
use socket2::{Domain, Socket, Type};

/// A port of 127.0.0.1 on which no process listens right now.
///
/// It lies below the kernel's range for outgoing connections (from 32768): there, a client could
/// be given the port of a server that is down, or even connect to itself.
///
/// It is tried without listening on it: a process that is being started holds all our sockets for
/// an instant, and would be in the way of the server that listens there next.
pub fn free_port() -> u16 {
    const FIRST: u64 = 12_000;
    const COUNT: u64 = 20_000;
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(0) % COUNT));
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("the range ends below 65536");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("it is ours");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if socket.bind(&address.into()).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// Polls `condition` every millisecond.
///
/// # Panics
/// When it does not hold within `limit`; the message names `what`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long a call that is to be answered may take: the machine may be slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long something that is awaited may take. A machine of others may stand still for ten seconds.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A configuration for calls that are to be answered.
pub fn patient(url: &str) -> Config {
    Config::new(url)
        .expect("a Redis URL")
        .with_connect_timeout(PATIENCE)
        .with_response_timeout(PATIENCE)
        .with_pool_timeout(PATIENCE)
        .with_lookup_deadline(PATIENCE)
        .with_bulk_deadline(PATIENCE)
}

/// A configuration with the usual deadlines.
pub fn usual(url: &str) -> Config {
    Config::new(url).expect("a Redis URL")
}

/// All that an error can say: `Display` and `Debug` of it and of every source behind it.
pub fn all_it_says(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let said = chain.map(|error| format!("{error}\n{error:?}\n{error:#?}\n"));
    said.collect::<Vec<_>>().concat()
}

/// An answer in short: `P`, `M` or `N` for the kind, and the path.
pub fn told(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Package(module) => format!("P {}", module.path),
        Resolution::Module(module) => format!("M {}", module.path),
        Resolution::Namespace { path } => format!("N {path}"),
        Resolution::NotFound => "-".to_owned(),
    }
}

/// Tells other threads to stop when it is dropped, also when its owner panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
