//! Reading.

use std::collections::HashSet;
use std::sync::Arc;

use bifrost_module_cache::blocking;
use pyo3::prelude::*;

use crate::config::{self, Config};
use crate::errors::raised;
use crate::interrupt::{detached, interruptible};
use crate::module::{CachedModule, Resolution, wrapped};
use crate::reports::{Diagnosis, Status, counters};
use crate::text::{Name, Path, names, paths};

/// Reads modules, and has no method that changes Redis: what a worker holds.
///
/// Connects at its first use, to the Redis at `url`, or where REDIS_URL says, or to
/// redis://localhost:6379/0. May be used from any thread, and in a forked child.
#[pyclass(frozen, module = "bifrost_module_cache")]
pub struct ModuleReader {
    pub reader: blocking::ModuleReader,
}

#[pymethods]
impl ModuleReader {
    #[new]
    #[pyo3(signature = (url=None, *, config=None))]
    fn new(
        py: Python<'_>,
        url: Option<&str>,
        config: Option<&Bound<'_, Config>>,
    ) -> PyResult<Self> {
        let reader = blocking::ModuleReader::new(config::of(py, url, config)?);
        let reader = reader.map_err(|error| raised(py, &error))?;
        Ok(Self { reader })
    }

    /// The module at a path, or None if Redis says that there is none.
    fn get(&self, py: Python<'_>, path: Path) -> PyResult<Option<Py<CachedModule>>> {
        let module = detached(py, || self.reader.get(&path.0))?;
        module
            .map(|module| wrapped(py, Arc::new(module)))
            .transpose()
    }

    /// The modules at these paths, in their order, in one round trip; None where there is none.
    fn get_many(
        &self,
        py: Python<'_>,
        paths: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Option<Py<CachedModule>>>> {
        let paths = self::paths(paths)?;
        let modules = detached(py, || self.reader.get_many(&paths))?;
        let wrap = |module| wrapped(py, Arc::new(module));
        modules
            .into_iter()
            .map(|module: Option<_>| module.map(wrap).transpose())
            .collect()
    }

    /// All cached paths.
    fn paths(&self, py: Python<'_>) -> PyResult<HashSet<String>> {
        let reader = self.reader.clone();
        interruptible(py, move || reader.paths())
    }

    /// What a name stands for, such as "shared.halopsa"; None if there is nothing of that name.
    fn resolve(&self, py: Python<'_>, name: Name) -> PyResult<Option<Resolution>> {
        let Some(name) = name.0 else { return Ok(None) };
        let resolution = detached(py, || self.reader.resolve(&name))?;
        Resolution::of(py, resolution, wrapped)
    }

    /// What these names stand for, in their order, in one round trip.
    fn resolve_many(
        &self,
        py: Python<'_>,
        names: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Option<Resolution>>> {
        let names = self::names(names)?;
        let answers = detached(py, || self.reader.resolve_many(&names))?;
        let told = |answer| Resolution::of(py, answer, wrapped);
        answers.into_iter().map(told).collect()
    }

    /// Whether the cache is known to be complete.
    fn status(&self, py: Python<'_>) -> PyResult<Status> {
        detached(py, || self.reader.status()).map(Into::into)
    }

    /// Why the module at a path is absent.
    fn explain(&self, py: Python<'_>, path: Path) -> PyResult<Diagnosis> {
        detached(py, || self.reader.explain(&path.0)).map(Into::into)
    }

    /// Why a name is not found.
    fn explain_name(&self, py: Python<'_>, name: Name) -> PyResult<Diagnosis> {
        let name = name.0.unwrap_or_default();
        detached(py, || self.reader.explain_name(&name)).map(Into::into)
    }

    /// What has been done so far, as counters. No IO.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        counters(py, &self.reader.stats())
    }

    fn __repr__(&self) -> &'static str {
        "<ModuleReader>"
    }
}
