//! All modules as they were at one moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifrost_module_cache as cache;
use bifrost_module_cache::near;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::raised;
use crate::module::{CachedModule, Resolution, sha256_hex, wrapped};
use crate::reports::Diagnosis;
use crate::text::{Name, Path};

/// All modules of the workspace as they were at one moment: no write falls between two of them.
///
/// Immutable. It asks no server and takes no connection, also in a forked child.
#[pyclass(frozen, weakref, module = "bifrost_module_cache")]
pub struct Snapshot {
    snapshot: near::Snapshot,
    /// The lock is only taken by threads that are attached to the interpreter and don't leave it
    /// meanwhile; a fork is too, so no child inherits it locked.
    known: Mutex<Known>,
}

/// What was asked before. A forked child that asks the same reads it, and writes to nothing: what a
/// child writes to, a count of references too, is a page of memory that it has to copy.
#[derive(Default)]
struct Known {
    names: HashMap<String, Found>,
    /// By path.
    digests: HashMap<String, String>,
}

struct Found {
    kind: Kind,
    path: String,
    /// None of a namespace package, which has no source.
    digest: Option<String>,
}

enum Kind {
    Package,
    Module,
    Namespace,
}

/// As Python is told: the kind, the path, the digest, and the module where nothing else keeps it.
pub type Told<'py> = (
    Bound<'py, PyString>,
    Bound<'py, PyString>,
    Option<Bound<'py, PyString>>,
    Option<Py<CachedModule>>,
);

impl Found {
    fn told<'py>(&self, py: Python<'py>) -> Told<'py> {
        let kind = match self.kind {
            Kind::Package => intern!(py, "package"),
            Kind::Module => intern!(py, "module"),
            Kind::Namespace => intern!(py, "namespace"),
        };
        let text = |text: &str| PyString::new(py, text);
        let digest = self.digest.as_deref().map(text);
        (kind.clone(), text(&self.path), digest, None)
    }
}

impl Snapshot {
    pub fn new(snapshot: near::Snapshot) -> Self {
        Self {
            snapshot,
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, name: &str, known: &mut Known) -> Result<Option<Found>, cache::Error> {
        let (kind, module) = match self.snapshot.resolve(name)? {
            cache::Resolution::Package(module) => (Kind::Package, module),
            cache::Resolution::Module(module) => (Kind::Module, module),
            cache::Resolution::Namespace { path } => {
                let (kind, digest) = (Kind::Namespace, None);
                return Ok(Some(Found { kind, path, digest }));
            }
            cache::Resolution::NotFound => return Ok(None),
        };
        let path = module.path.clone();
        let digest = known.digests.get(&path).cloned();
        let digest = digest.unwrap_or_else(|| sha256_hex(&module.content));
        known.digests.insert(path.clone(), digest.clone());
        let digest = Some(digest);
        Ok(Some(Found { kind, path, digest }))
    }
}

#[pymethods]
impl Snapshot {
    /// The module at a path at that moment, or None.
    fn get(&self, py: Python<'_>, path: Path) -> PyResult<Option<Py<CachedModule>>> {
        let module = self.snapshot.get(&path.0);
        let module = module.map_err(|error| raised(py, &error))?;
        module.map(|module| wrapped(py, module)).transpose()
    }

    /// What a name stood for at that moment; None if there was nothing of that name.
    fn resolve(&self, py: Python<'_>, name: Name) -> PyResult<Option<Resolution>> {
        let Some(name) = name.0 else { return Ok(None) };
        let resolution = self.snapshot.resolve(&name);
        let resolution = resolution.map_err(|error| raised(py, &error))?;
        Resolution::of(py, resolution, wrapped)
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

    /// For the finder, as NearCache.find: kind, path and digest of what a name stands for, and no
    /// module, because the snapshot keeps it.
    fn find<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Told<'py>>> {
        // Allocates nothing but the answer, if it is known.
        let Ok(name) = name.to_str() else {
            return Ok(None);
        };
        let mut known = self.lock();
        if let Some(found) = known.names.get(name) {
            return Ok(Some(found.told(py)));
        }
        let found = self.found(name, &mut known);
        let found = found.map_err(|error| raised(py, &error))?;
        Ok(found.map(|found| {
            let told = found.told(py);
            known.names.insert(name.to_owned(), found);
            told
        }))
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

    /// The paths at which this one differs from an older one. Takes over from that what is known of
    /// the others.
    fn changes_since(&self, older: &Bound<'_, Self>) -> Vec<String> {
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
        let (inherited, mut known) = (older.lock(), self.lock());
        for path in self.snapshot.paths() {
            let (new, old) = (at(&self.snapshot, path), at(&older.snapshot, path));
            let is_same = match (&new, &old) {
                (Ok(Some(new)), Ok(Some(old))) => Arc::ptr_eq(new, old) || new == old,
                (new, old) => new == old,
            };
            if !is_same {
                changed.push(path.to_owned());
            } else if let Some(digest) = inherited.digests.get(path) {
                known.digests.insert(path.to_owned(), digest.clone());
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
