//! The near caches of both facades behind one synchronous interface.

use std::collections::HashSet;
use std::convert::identity;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bifrost_module_cache::near::{Invalidation, NearCacheOptions, NearCacheStats, Snapshot};
use bifrost_module_cache::{CachedModule, Config, Error, Resolution, blocking, nonblocking};

use super::facade::{Blocking, Facade, Nonblocking, Reader, block_on};
use super::{PATIENCE, World, wait_until};

type Found = Option<Arc<CachedModule>>;

/// The content of what a read found.
pub fn content(found: Result<Found, Error>) -> Option<String> {
    found.unwrap().map(|module| module.content.clone())
}

/// A facade with a near cache.
pub trait Nearby: Facade {
    type Near: Near<Reader = Self::Reader, Writer = Self::Writer>;
}

/// `NearCache`.
pub trait Near: Clone + Debug + Send + Sync + Sized + 'static {
    type Reader: Reader;
    type Writer;

    fn new(reader: Self::Reader, options: NearCacheOptions) -> Result<Self, Error>;
    fn get(&self, path: &str) -> Result<Found, Error>;
    fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Found>, Error>;
    fn resolve(&self, name: &str) -> Result<Resolution, Error>;
    fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error>;
    fn paths(&self) -> Result<Arc<HashSet<String>>, Error>;
    fn prefetch(&self) -> Result<usize, Error>;
    fn prefetch_paths(&self, paths: &[impl AsRef<str>]) -> Result<usize, Error>;
    fn snapshot(&self) -> Result<Snapshot, Error>;
    fn snapshot_of(&self, paths: &[impl AsRef<str>]) -> Result<Snapshot, Error>;
    fn tie(&self, writer: &Self::Writer);
    fn on_invalidate(
        &self,
        hook: impl Fn(&Invalidation) + Send + Sync + 'static,
    ) -> Result<(), Error>;
    fn is_live(&self) -> bool;
    fn stats(&self) -> NearCacheStats;

    /// One that follows Redis.
    fn live(config: Config, options: NearCacheOptions) -> Self {
        let near = Self::new(Self::Reader::new(config).unwrap(), options).unwrap();
        near.until_live();
        near
    }

    fn until_live(&self) {
        let start = std::time::Instant::now();
        while !self.is_live() {
            assert!(start.elapsed() < PATIENCE, "it does not follow: {self:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until all is heard that Redis did before now.
    fn hear_all(&self) {
        self.snapshot_of(&["no such path"]).unwrap();
    }

    /// Waits until all that Redis has done has been announced.
    fn until_announced(&self) {
        self.snapshot_of(&[""; 0]).unwrap();
    }

    /// Waits until what was changed elsewhere is here.
    fn until(&self, path: &str, expected: Option<&str>) {
        wait_until(
            "the near cache has what is new",
            Duration::from_secs(20),
            || {
                let found = self.get(path).unwrap();
                found.as_ref().map(|module| module.content.as_str()) == expected
            },
        );
    }
}

macro_rules! near {
    ($facade:ident, $module:ident, $wait:path, $inside:path) => {
        impl Nearby for $facade {
            type Near = $module::NearCache;
        }

        impl Near for $module::NearCache {
            type Reader = $module::ModuleReader;
            type Writer = $module::ModuleWriter;

            fn new(reader: Self::Reader, options: NearCacheOptions) -> Result<Self, Error> {
                $inside(|| Self::new(reader, options))
            }

            fn get(&self, path: &str) -> Result<Found, Error> {
                $wait(self.get(path))
            }

            fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Found>, Error> {
                $wait(self.get_many(paths))
            }

            fn resolve(&self, name: &str) -> Result<Resolution, Error> {
                $wait(self.resolve(name))
            }

            fn resolve_many(&self, names: &[impl AsRef<str>]) -> Result<Vec<Resolution>, Error> {
                $wait(self.resolve_many(names))
            }

            fn paths(&self) -> Result<Arc<HashSet<String>>, Error> {
                $wait(self.paths())
            }

            fn prefetch(&self) -> Result<usize, Error> {
                $wait(self.prefetch())
            }

            fn prefetch_paths(&self, paths: &[impl AsRef<str>]) -> Result<usize, Error> {
                $wait(self.prefetch_paths(paths))
            }

            fn snapshot(&self) -> Result<Snapshot, Error> {
                $wait(self.snapshot())
            }

            fn snapshot_of(&self, paths: &[impl AsRef<str>]) -> Result<Snapshot, Error> {
                $wait(self.snapshot_of(paths))
            }

            fn tie(&self, writer: &Self::Writer) {
                self.tie(writer);
            }

            fn on_invalidate(
                &self,
                hook: impl Fn(&Invalidation) + Send + Sync + 'static,
            ) -> Result<(), Error> {
                $inside(|| self.on_invalidate(hook))
            }

            fn is_live(&self) -> bool {
                self.is_live()
            }

            fn stats(&self) -> NearCacheStats {
                self.stats()
            }
        }
    };
}

near!(Blocking, blocking, identity, at_once);
near!(Nonblocking, nonblocking, block_on, inside);

fn at_once<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Inside the runtime.
fn inside<T>(call: impl FnOnce() -> T) -> T {
    block_on(async { call() })
}

impl<F: Nearby> World<F> {
    /// A near cache that follows Redis, with a reader of its own.
    pub fn near(&self, options: NearCacheOptions) -> F::Near {
        F::Near::live(self.reader_config(), options)
    }
}
