//! Writing.

use bifrost_module_cache::blocking;
use bifrost_module_cache::sync::{Change, SyncOptions};
use pyo3::prelude::*;

use crate::config::{self, Config};
use crate::errors::raised;
use crate::interrupt::detached;
use crate::module::CachedModule;
use crate::reader::ModuleReader;
use crate::reports::{ClearReport, PublishReport, RefreshReport, counters};
use crate::text::{Path, paths};

/// Writes, removes and moves modules: what a service holds. Connects at its first use.
///
/// A write is not repeated. If its answer is lost, it may have been applied, and the error says so:
/// refresh() is the remedy. A writer is never interrupted in the middle of one.
#[pyclass(frozen, module = "bifrost_module_cache")]
pub struct ModuleWriter {
    writer: blocking::ModuleWriter,
}

#[pymethods]
impl ModuleWriter {
    #[new]
    #[pyo3(signature = (url=None, *, config=None))]
    fn new(
        py: Python<'_>,
        url: Option<&str>,
        config: Option<&Bound<'_, Config>>,
    ) -> PyResult<Self> {
        let writer = blocking::ModuleWriter::new(config::of(py, url, config)?);
        let writer = writer.map_err(|error| raised(py, &error))?;
        Ok(Self { writer })
    }

    /// Caches a module and names it in the index, both at once.
    ///
    /// It writes what its caller knows: with a database, call refresh() instead.
    fn set(&self, py: Python<'_>, module: &Bound<'_, CachedModule>) -> PyResult<()> {
        let module = module.get().module();
        detached(py, || self.writer.set(module))
    }

    /// Removes a module; returns whether there was one.
    fn invalidate(&self, py: Python<'_>, path: Path) -> PyResult<bool> {
        detached(py, || self.writer.invalidate(&path.0))
    }

    /// Moves a module, so that no reader ever sees neither of the two.
    fn rename(
        &self,
        py: Python<'_>,
        old_path: Path,
        module: &Bound<'_, CachedModule>,
    ) -> PyResult<()> {
        let module = module.get().module();
        detached(py, || self.writer.rename(&old_path.0, module))
    }

    /// Writes modules and removes paths, which readers see all at once, up to 4 MiB.
    ///
    /// The same path twice: the last wins; a path in both is written.
    #[pyo3(signature = (modules, *, remove=None))]
    fn publish(
        &self,
        py: Python<'_>,
        modules: &Bound<'_, PyAny>,
        remove: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PublishReport> {
        let removed = remove.map(paths).transpose()?.unwrap_or_default();
        let written = CachedModule::each(modules)?;
        let mut changes: Vec<_> = removed.into_iter().map(Change::Remove).collect();
        changes.extend(written.into_iter().map(Change::Set));
        detached(py, || self.writer.publish(&changes)).map(Into::into)
    }

    /// Makes the cache hold exactly these modules, and marks it as complete: for workspaces without
    /// a database, and one publisher at a time.
    ///
    /// Removes at most the share `max_prune` of a cache of more than 20 modules, half by default.
    #[pyo3(signature = (modules, *, allow_empty=false, max_prune=None))]
    fn publish_exact(
        &self,
        py: Python<'_>,
        modules: &Bound<'_, PyAny>,
        allow_empty: bool,
        max_prune: Option<f64>,
    ) -> PyResult<PublishReport> {
        let modules = CachedModule::each(modules)?;
        let mut options = SyncOptions::default();
        if allow_empty {
            options = options.with_allow_empty(true);
        }
        if let Some(share) = max_prune {
            options = options.with_max_prune(share);
        }
        detached(py, || self.writer.publish_exact_with(&modules, options)).map(Into::into)
    }

    /// Removes all modules, the index, and the mark of a complete cache.
    fn clear(&self, py: Python<'_>) -> PyResult<ClearReport> {
        detached(py, || self.writer.clear()).map(Into::into)
    }

    /// Brings paths to what `fetch` says now: call it after your commit.
    ///
    /// `fetch(paths)` returns the rows of these paths as they are when it is called: mappings with
    /// path, content and content_hash, or CachedModules. What it leaves out is invalidated. It is
    /// given at most 200 paths and may be called again for some of them. What it raises comes back
    /// as it was.
    fn refresh(
        &self,
        py: Python<'_>,
        paths: &Bound<'_, PyAny>,
        fetch: &Bound<'_, PyAny>,
    ) -> PyResult<RefreshReport> {
        let paths = self::paths(paths)?;
        let fetch = fetch.clone().unbind();
        let mut raised = None;
        let answer = py.detach(|| {
            self.writer.refresh_from(&paths, |paths| {
                Python::attach(|py| {
                    fetched(fetch.bind(py), paths).map_err(|error| {
                        raised = Some(error);
                        "fetch raised an exception"
                    })
                })
            })
        });
        match (raised, answer) {
            (Some(error), _) => Err(error),
            (None, Ok(report)) => Ok(report.into()),
            (None, Err(error)) => Err(crate::errors::raised(py, &error)),
        }
    }

    /// A reader over the same connections.
    #[getter]
    fn reader(&self) -> ModuleReader {
        let reader = self.writer.reader().clone();
        ModuleReader { reader }
    }

    /// What has been done so far, as counters. No IO.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        counters(py, &self.writer.stats())
    }

    fn __repr__(&self) -> &'static str {
        "<ModuleWriter>"
    }
}

fn fetched(
    fetch: &Bound<'_, PyAny>,
    paths: Vec<String>,
) -> PyResult<Vec<bifrost_module_cache::CachedModule>> {
    let rows = fetch.call1((paths,))?;
    let conversion = fetch.py().import("bifrost_module_cache.rows")?;
    let modules = conversion.call_method1("modules_of", (rows,))?;
    CachedModule::each(&modules)
}
