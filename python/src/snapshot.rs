//! All modules as they were at one moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bifrost_module_cache as cache;
use bifrost_module_cache::near;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::module::{CachedModule, Resolution, wrapped};
use crate::reports::Diagnosis;
use crate::text::{Name, Path};

/// All modules of the workspace as they were at one moment: no write falls between two of them.
///
/// Immutable. It asks no server and takes no connection, also in a forked child.
#[pyclass(frozen, module = "bifrost_module_cache")]
pub struct Snapshot {
    snapshot: near::Snapshot,
    /// What was handed out, so that a module's digest is computed once. The lock is only taken by
    /// threads that are attached to the interpreter and don't leave it meanwhile; a fork is too, so
    /// no child inherits it locked.
    handed_out: Mutex<HashMap<String, Py<CachedModule>>>,
}

impl Snapshot {
    pub fn new(snapshot: near::Snapshot) -> Self {
        Self {
            snapshot,
            handed_out: Mutex::default(),
        }
    }

    fn wrap(&self, py: Python<'_>, module: Arc<cache::CachedModule>) -> PyResult<Py<CachedModule>> {
        let mut handed_out = self.lock();
        if let Some(known) = handed_out.get(&module.path) {
            return Ok(known.clone_ref(py));
        }
        let path = module.path.clone();
        let module = wrapped(py, module)?;
        handed_out.insert(path, module.clone_ref(py));
        Ok(module)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Py<CachedModule>>> {
        self.handed_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Snapshot {
    /// The module at a path at that moment, or None.
    fn get(&self, py: Python<'_>, path: Path) -> PyResult<Option<Py<CachedModule>>> {
        let module = self.snapshot.get(&path.0);
        let module = module.map_err(|error| raised(py, &error))?;
        module.map(|module| self.wrap(py, module)).transpose()
    }

    /// What a name stood for at that moment; None if there was nothing of that name.
    fn resolve(&self, py: Python<'_>, name: Name) -> PyResult<Option<Resolution>> {
        let Some(name) = name.0 else { return Ok(None) };
        let resolution = self.snapshot.resolve(&name);
        let resolution = resolution.map_err(|error| raised(py, &error))?;
        Resolution::of(py, resolution, |py, module| self.wrap(py, module))
    }

    /// What these names stood for, in their order.
    fn resolve_many(
        &self,
        py: Python<'_>,
        names: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<Option<Resolution>>> {
        let names = crate::text::names(names)?;
        names
            .into_iter()
            .map(|name| self.resolve(py, Name(Some(name))))
            .collect()
    }

    /// Why a name was not found at that moment, as far as the snapshot can tell.
    fn explain_name(&self, py: Python<'_>, name: Name) -> PyResult<Diagnosis> {
        let why = self.snapshot.explain_name(&name.0.unwrap_or_default());
        why.map(Into::into).map_err(|error| raised(py, &error))
    }

    /// The paths of all modules in it, sorted.
    fn paths(&self) -> Vec<&str> {
        let mut paths: Vec<_> = self.snapshot.paths().collect();
        paths.sort_unstable();
        paths
    }

    /// The paths at which this one differs from an older one. Takes over from that what was handed
    /// out and is the same.
    fn changes_since(&self, py: Python<'_>, older: &Bound<'_, Self>) -> Vec<String> {
        let older = older.get();
        if std::ptr::eq(self, older) {
            return Vec::new();
        }
        // A corrupt entry is what it is said to be.
        let at = |snapshot: &near::Snapshot, path: &str| {
            let module = snapshot.get(path);
            module.map_err(|error| error.to_string())
        };
        let mut changed = Vec::new();
        let inherited = older.lock();
        let mut handed_out = self.lock();
        for path in self.snapshot.paths() {
            let (new, old) = (at(&self.snapshot, path), at(&older.snapshot, path));
            let is_same = match (&new, &old) {
                (Ok(Some(new)), Ok(Some(old))) => Arc::ptr_eq(new, old) || new == old,
                (new, old) => new == old,
            };
            if !is_same {
                changed.push(path.to_owned());
            } else if let Some(known) = inherited.get(path) {
                handed_out
                    .entry(path.to_owned())
                    .or_insert_with(|| known.clone_ref(py));
            }
        }
        let gone = older.snapshot.paths();
        let gone = gone.filter(|path| matches!(self.snapshot.get(path), Ok(None)));
        changed.extend(gone.map(str::to_owned));
        changed.sort_unstable();
        changed
    }

    fn __len__(&self) -> usize {
        self.snapshot.paths().count()
    }

    fn __repr__(&self) -> String {
        format!("<Snapshot of {} modules>", self.snapshot.paths().count())
    }
}
