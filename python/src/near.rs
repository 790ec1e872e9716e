//! The near cache.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bifrost_module_cache::blocking;
use bifrost_module_cache::near::NearCacheOptions;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::config::{self, Config, seconds};
use crate::errors::{closed, invalid_config, raised};
use crate::interrupt::{detached, interruptible};
use crate::module::{CachedModule, Resolution, wrapped};
use crate::reports::{Diagnosis, counters};
use crate::snapshot::{Snapshot, Told};
use crate::text::{Name, Path};
use crate::threads;

/// An in-process copy that Redis keeps current: what Modules works with.
#[pyclass(frozen, module = "bifrost_module_cache._native")]
pub struct NearCache {
    options: NearCacheOptions,
    /// The lock is not held while anything waits.
    near: Mutex<State>,
}

enum State {
    /// The first use starts a thread.
    Unused(blocking::ModuleReader),
    Open(blocking::NearCache),
    Closed,
}

impl NearCache {
    fn open(&self, py: Python<'_>) -> PyResult<blocking::NearCache> {
        let mut state = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Unused(reader) = &*state {
            let near = blocking::NearCache::new(reader.clone(), self.options.clone());
            *state = State::Open(near.map_err(|error| raised(py, &error))?);
            threads::opened();
        }
        match &*state {
            State::Open(near) => Ok(near.clone()),
            _ => Err(closed(py)),
        }
    }
}

impl Drop for NearCache {
    fn drop(&mut self) {
        let state = self.near.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(_) = state {
            threads::forgotten();
        }
    }
}

#[pymethods]
impl NearCache {
    #[new]
    #[pyo3(signature = (url, config, staleness, max_bytes, stale_if_error))]
    fn new(
        py: Python<'_>,
        url: Option<&str>,
        config: Option<&Bound<'_, Config>>,
        staleness: f64,
        max_bytes: usize,
        stale_if_error: Option<f64>,
    ) -> PyResult<Self> {
        let staleness = seconds(py, "staleness", staleness)?;
        if staleness < Duration::from_millis(100) {
            return Err(invalid_config(py, "staleness must be at least 0.1 seconds"));
        }
        let mut options = NearCacheOptions::default()
            .with_max_bytes(max_bytes)
            .with_staleness_bound(staleness);
        if let Some(age) = stale_if_error {
            options = options.with_stale_if_error(seconds(py, "stale_if_error", age)?);
        }
        let reader = blocking::ModuleReader::new(config::of(py, url, config)?);
        let reader = reader.map_err(|error| raised(py, &error))?;
        Ok(Self {
            options,
            near: Mutex::new(State::Unused(reader)),
        })
    }

    /// The module at a path, or None.
    fn get(&self, py: Python<'_>, path: Path) -> PyResult<Option<Py<CachedModule>>> {
        let near = self.open(py)?;
        let module = detached(py, || near.get(&path.0))?;
        module.map(|module| wrapped(py, module)).transpose()
    }

    /// What a name stands for, or None.
    fn resolve(&self, py: Python<'_>, name: Name) -> PyResult<Option<Resolution>> {
        let Some(name) = name.0 else { return Ok(None) };
        let near = self.open(py)?;
        let resolution = detached(py, || near.resolve(&name))?;
        Resolution::of(py, resolution, wrapped)
    }

    /// For the finder: kind, path and digest of what a name stands for, and the module, which may be
    /// another one when it is asked for again.
    fn find<'py>(&self, py: Python<'py>, name: Name) -> PyResult<Option<Told<'py>>> {
        let told = |resolution: Resolution| {
            let text = |text: &str| PyString::new(py, text);
            let digest = resolution.module.as_ref();
            let digest = digest.map(|module| text(module.get().sha256()));
            let (kind, path) = (text(resolution.kind), text(&resolution.path));
            (kind, path, digest, resolution.module)
        };
        Ok(self.resolve(py, name)?.map(told))
    }

    /// All cached paths.
    fn paths(&self, py: Python<'_>) -> PyResult<HashSet<String>> {
        let near = self.open(py)?;
        let paths = interruptible(py, move || near.paths())?;
        Ok((*paths).clone())
    }

    /// All modules as they are now.
    fn snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
        let near = self.open(py)?;
        interruptible(py, move || near.snapshot()).map(Snapshot::new)
    }

    /// Why a name is not found: asks Redis.
    fn explain_name(&self, py: Python<'_>, name: Name) -> PyResult<Diagnosis> {
        let near = self.open(py)?;
        let name = name.0.unwrap_or_default();
        detached(py, || near.explain_name(&name)).map(Into::into)
    }

    /// Whether Redis is followed now.
    fn is_live(&self, py: Python<'_>) -> bool {
        let state = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Open(near) = &*state else {
            return false;
        };
        let near = near.clone();
        drop(state);
        py.detach(|| near.is_live())
    }

    /// Counters, as a dict.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let near = self.open(py)?;
        let stats = py.detach(|| near.stats());
        counters(py, &stats)
    }

    /// Ends the thread and closes the connections; snapshots stay usable.
    fn close(&self, py: Python<'_>) {
        let mut state = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::replace(&mut *state, State::Closed);
        drop(state);
        if let State::Open(near) = closed {
            py.detach(|| threads::closed(near));
        }
    }
}

/// All modules as they are now, and no thread and no connection left behind: for a process that
/// only forks others.
#[pyfunction]
#[pyo3(signature = (url=None, *, config=None))]
pub fn load_snapshot(
    py: Python<'_>,
    url: Option<&str>,
    config: Option<&Bound<'_, Config>>,
) -> PyResult<Snapshot> {
    let config = config::of(py, url, config)?;
    let snapshot = interruptible(py, move || {
        let reader = blocking::ModuleReader::new(config)?;
        let near = blocking::NearCache::new(reader, NearCacheOptions::default())?;
        threads::opened();
        let snapshot = near.snapshot();
        threads::closed(near);
        snapshot
    });
    snapshot.map(Snapshot::new)
}
