//! Both facades behind one synchronous interface: a test is written once and runs on each.

use std::collections::HashSet;
use std::convert::{Infallible, identity};
use std::fmt::Debug;
use std::future::ready;
use std::sync::LazyLock;

use bifrost_module_cache::diagnosis::{Diagnosis, Status};
#[cfg(feature = "postgres")]
use bifrost_module_cache::sync::WarmReport;
use bifrost_module_cache::sync::{Change, ClearReport, PublishReport, RefreshReport};
use bifrost_module_cache::{CachedModule, Config, Error, Resolution, Stats, blocking, nonblocking};
#[cfg(feature = "postgres")]
use bifrost_module_cache::{postgres, tokio_postgres};
use tokio::runtime::Runtime;

/// One facade, for tests that are generic over it.
pub trait Facade: 'static {
    type Reader: Reader;
    type Writer: Writer<Reader = Self::Reader>;
    /// The facade that this one is not.
    type Other: Facade;
}

/// `ModuleReader`.
pub trait Reader: Clone + Debug + Send + Sync + Sized + 'static {
    fn new(config: Config) -> Result<Self, Error>;
    fn get(&self, path: &str) -> Result<Option<CachedModule>, Error>;
    fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<CachedModule>>, Error>;
    fn paths(&self) -> Result<HashSet<String>, Error>;
    fn status(&self) -> Result<Status, Error>;
    fn explain(&self, path: &str) -> Result<Diagnosis, Error>;
    fn resolve(&self, name: &str) -> Result<Resolution, Error>;
    fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error>;
    fn explain_name(&self, name: &str) -> Result<Diagnosis, Error>;
    fn stats(&self) -> Stats;
}

/// `ModuleWriter`.
pub trait Writer: Clone + Debug + Send + Sync + Sized + 'static {
    type Reader: Reader;
    /// A connection to the database; it is open until the value is dropped.
    #[cfg(feature = "postgres")]
    type Client;

    fn new(config: Config) -> Result<Self, Error>;
    fn reader(&self) -> &Self::Reader;
    fn set(&self, module: &CachedModule) -> Result<(), Error>;
    fn invalidate(&self, path: &str) -> Result<bool, Error>;
    fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error>;
    fn clear(&self) -> Result<ClearReport, Error>;
    fn publish(&self, changes: &[Change]) -> Result<PublishReport, Error>;
    fn publish_exact(&self, modules: &[CachedModule]) -> Result<PublishReport, Error>;
    /// With a source that has these modules.
    fn refresh_to(
        &self,
        paths: &[impl AsRef<str>],
        source: &[CachedModule],
    ) -> Result<RefreshReport, Error>;
    #[cfg(feature = "postgres")]
    fn connect(database: &str) -> Self::Client;
    #[cfg(feature = "postgres")]
    fn warm_from_db(&self, client: &mut Self::Client) -> Result<WarmReport, Error>;
}

/// `bifrost_module_cache::blocking`.
#[derive(Debug)]
pub struct Blocking;

/// `bifrost_module_cache::nonblocking`, on a runtime that all tests of a binary share.
#[derive(Debug)]
pub struct Nonblocking;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("a runtime can be started"));

/// Runs a call of `nonblocking` to its end.
pub fn block_on<T>(call: impl Future<Output = T>) -> T {
    RUNTIME.block_on(call)
}

/// Runs a future of `nonblocking` as a task.
pub fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    RUNTIME.spawn(future)
}

macro_rules! facade {
    ($facade:ident, $module:ident, $other:ident, $wait:path, $answer:path, $client:ident, $connect:path) => {
        impl Facade for $facade {
            type Reader = $module::ModuleReader;
            type Writer = $module::ModuleWriter;
            type Other = $other;
        }

        impl Reader for $module::ModuleReader {
            fn new(config: Config) -> Result<Self, Error> {
                Self::new(config)
            }

            fn get(&self, path: &str) -> Result<Option<CachedModule>, Error> {
                $wait(self.get(path))
            }

            fn get_many(
                &self,
                paths: &[impl AsRef<str>],
            ) -> Result<Vec<Option<CachedModule>>, Error> {
                $wait(self.get_many(paths))
            }

            fn paths(&self) -> Result<HashSet<String>, Error> {
                $wait(self.paths())
            }

            fn status(&self) -> Result<Status, Error> {
                $wait(self.status())
            }

            fn explain(&self, path: &str) -> Result<Diagnosis, Error> {
                $wait(self.explain(path))
            }

            fn resolve(&self, name: &str) -> Result<Resolution, Error> {
                $wait(self.resolve(name))
            }

            fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
                $wait(self.resolve_many(names))
            }

            fn explain_name(&self, name: &str) -> Result<Diagnosis, Error> {
                $wait(self.explain_name(name))
            }

            fn stats(&self) -> Stats {
                self.stats()
            }
        }

        impl Writer for $module::ModuleWriter {
            type Reader = $module::ModuleReader;
            #[cfg(feature = "postgres")]
            type Client = $client::Client;

            fn new(config: Config) -> Result<Self, Error> {
                Self::new(config)
            }

            fn reader(&self) -> &Self::Reader {
                self.reader()
            }

            fn set(&self, module: &CachedModule) -> Result<(), Error> {
                $wait(self.set(module))
            }

            fn invalidate(&self, path: &str) -> Result<bool, Error> {
                $wait(self.invalidate(path))
            }

            fn rename(&self, old_path: &str, module: &CachedModule) -> Result<(), Error> {
                $wait(self.rename(old_path, module))
            }

            fn clear(&self) -> Result<ClearReport, Error> {
                $wait(self.clear())
            }

            fn publish(&self, changes: &[Change]) -> Result<PublishReport, Error> {
                $wait(self.publish(changes))
            }

            fn publish_exact(&self, modules: &[CachedModule]) -> Result<PublishReport, Error> {
                $wait(self.publish_exact(modules))
            }

            fn refresh_to(
                &self,
                paths: &[impl AsRef<str>],
                source: &[CachedModule],
            ) -> Result<RefreshReport, Error> {
                $wait(self.refresh_from(paths, |paths| {
                    $answer(Ok::<_, Infallible>(select(source, &paths)))
                }))
            }

            #[cfg(feature = "postgres")]
            fn connect(database: &str) -> Self::Client {
                $connect(database)
            }

            #[cfg(feature = "postgres")]
            fn warm_from_db(&self, client: &mut Self::Client) -> Result<WarmReport, Error> {
                $wait(self.warm_from_db(client))
            }
        }
    };
}

facade!(
    Blocking,
    blocking,
    Nonblocking,
    identity,
    identity,
    postgres,
    connect
);
facade!(
    Nonblocking,
    nonblocking,
    Blocking,
    block_on,
    ready,
    tokio_postgres,
    connect_async
);

fn select(source: &[CachedModule], paths: &[String]) -> Vec<CachedModule> {
    let asked = |module: &&CachedModule| paths.contains(&module.path);
    source.iter().filter(asked).cloned().collect()
}

#[cfg(feature = "postgres")]
fn connect(database: &str) -> postgres::Client {
    postgres::Client::connect(database, postgres::NoTls).expect("Postgres accepts a connection")
}

#[cfg(feature = "postgres")]
fn connect_async(database: &str) -> tokio_postgres::Client {
    let connected = block_on(tokio_postgres::connect(database, tokio_postgres::NoTls));
    let (client, connection) = connected.expect("Postgres accepts a connection");
    RUNTIME.spawn(connection);
    client
}

/// Makes a `#[test]` of each function for each facade, in the modules `with_blocking`
/// and `with_nonblocking`.
macro_rules! on_both_facades {
    ($($test:ident)+) => {
        mod with_blocking {
            $(#[test]
            fn $test() {
                super::$test::<crate::support::Blocking>();
            })+
        }

        mod with_nonblocking {
            $(#[test]
            fn $test() {
                super::$test::<crate::support::Nonblocking>();
            })+
        }
    };
}

pub(crate) use on_both_facades;
