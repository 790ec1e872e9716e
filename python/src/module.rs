//! Modules, and what a name stands for.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bifrost_module_cache as cache;
use pyo3::prelude::*;
use pyo3::types::PyString;
use sha2::{Digest, Sha256};

use crate::errors::raised;
use crate::text::{Path, Source};

/// The source of one Python module: its text, its path in the workspace, and a hash.
///
/// Without a hash, it gets the SHA-256 of its content. A hash that is given is kept to the letter;
/// "" says that it is unknown.
#[pyclass(frozen, eq, hash, module = "bifrost_module_cache")]
pub struct CachedModule {
    module: Arc<cache::CachedModule>,
    digest: OnceLock<String>,
}

impl CachedModule {
    pub fn new(module: Arc<cache::CachedModule>) -> Self {
        Self {
            module,
            digest: OnceLock::new(),
        }
    }

    pub fn module(&self) -> &Arc<cache::CachedModule> {
        &self.module
    }

    /// The modules of any iterable.
    pub fn each(object: &Bound<'_, PyAny>) -> PyResult<Vec<cache::CachedModule>> {
        let modules: Vec<Bound<'_, Self>> = object
            .try_iter()?
            .map(|item| Ok(item?.cast_into::<Self>()?))
            .collect::<PyResult<_>>()?;
        Ok(modules
            .iter()
            .map(|module| (*module.get().module).clone())
            .collect())
    }
}

impl PartialEq for CachedModule {
    fn eq(&self, other: &Self) -> bool {
        self.module == other.module
    }
}

impl Hash for CachedModule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.module.hash(state);
    }
}

#[pymethods]
impl CachedModule {
    #[new]
    #[pyo3(signature = (content, path, hash=None))]
    fn from_text(
        py: Python<'_>,
        content: Source,
        path: Path,
        hash: Option<String>,
    ) -> PyResult<Self> {
        let module = match hash {
            Some(hash) => cache::CachedModule::with_hash(path.0, content.0, hash),
            None => cache::CachedModule::new(path.0, content.0),
        };
        let module = module.map_err(|error| raised(py, &error))?;
        Ok(Self::new(Arc::new(module)))
    }

    /// The source text.
    #[getter]
    fn content(&self) -> &str {
        &self.module.content
    }

    /// Where it lies in the workspace, such as "shared/halopsa.py".
    #[getter]
    fn path(&self) -> &str {
        &self.module.path
    }

    /// The hash that is stored with it; whatever its writer says.
    #[getter]
    fn hash(&self) -> &str {
        &self.module.hash
    }

    /// The SHA-256 of the content in lowercase hex, computed here.
    #[getter]
    pub fn sha256(&self) -> &str {
        self.digest.get_or_init(|| sha256_hex(&self.module.content))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = PyString::new(py, &self.module.path).repr()?;
        Ok(format!(
            "CachedModule(path={path}, {} bytes)",
            self.module.content.len()
        ))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let module = &slf.get().module;
        let arguments = (&module.content, &module.path, &module.hash);
        Ok((slf.get_type(), arguments)
            .into_pyobject(slf.py())?
            .into_any())
    }
}

pub fn sha256_hex(content: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What a module's name stands for.
#[pyclass(frozen, eq, hash, get_all, module = "bifrost_module_cache")]
pub struct Resolution {
    /// "package", "module" or "namespace".
    pub kind: &'static str,
    /// The source; None for a namespace package, which has none.
    pub module: Option<Py<CachedModule>>,
    /// The path of the source, or the directory of a namespace package.
    pub path: String,
}

impl Resolution {
    /// What Python is told: None if there is nothing of that name. `wrap` makes modules.
    pub fn of(
        py: Python<'_>,
        resolution: cache::Resolution,
        wrap: impl FnOnce(Python<'_>, Arc<cache::CachedModule>) -> PyResult<Py<CachedModule>>,
    ) -> PyResult<Option<Self>> {
        let (kind, module) = match resolution {
            cache::Resolution::Package(module) => ("package", module),
            cache::Resolution::Module(module) => ("module", module),
            cache::Resolution::Namespace { path } => {
                let (kind, module) = ("namespace", None);
                return Ok(Some(Self { kind, module, path }));
            }
            cache::Resolution::NotFound => return Ok(None),
        };
        let path = module.path.clone();
        let module = Some(wrap(py, module)?);
        Ok(Some(Self { kind, module, path }))
    }
}

/// A Python object for a module that nothing else refers to.
pub fn wrapped(py: Python<'_>, module: Arc<cache::CachedModule>) -> PyResult<Py<CachedModule>> {
    Py::new(py, CachedModule::new(module))
}

impl Resolution {
    fn source(&self) -> Option<&cache::CachedModule> {
        self.module.as_ref().map(|module| &*module.get().module)
    }
}

impl PartialEq for Resolution {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.path, self.source()) == (other.kind, &other.path, other.source())
    }
}

impl Hash for Resolution {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, &self.path, self.source()).hash(state);
    }
}

#[pymethods]
impl Resolution {
    fn __repr__(&self) -> String {
        format!("Resolution(kind='{}', path='{}')", self.kind, self.path)
    }
}
