//! What Redis and the calls report.

use std::time::SystemTime;

use bifrost_module_cache as cache;
use bifrost_module_cache::{diagnosis, sync};
use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::Value;

/// Whether the cache is known to be complete, and what tells how well Redis keeps it.
#[pyclass(frozen, get_all, module = "bifrost_module_cache")]
pub struct Status {
    /// "warm", "cold", "restored" or "incomplete".
    state: String,
    /// When it was completed; None if it is cold.
    since: Option<SystemTime>,
    /// How many modules it had then.
    modules: usize,
    /// Whether it was compared with the database then.
    verified: bool,
    /// How many members the index has now; None where that is not permitted.
    members: Option<usize>,
    /// The server's maxmemory-policy; None where it does not tell.
    maxmemory_policy: Option<String>,
    /// How many keys Redis has evicted since; None where it does not tell.
    evicted_keys: Option<u64>,
    /// Since when a guard keeps the cache equal to the database; None without a guard.
    guarded_since: Option<SystemTime>,
    /// What an operator should change about Redis, if anything.
    warning: Option<String>,
    /// All of it, in a line.
    text: String,
}

impl From<cache::diagnosis::Status> for Status {
    fn from(status: cache::diagnosis::Status) -> Self {
        Self {
            state: status.state.to_string(),
            since: status.since,
            modules: status.modules,
            verified: status.verified,
            members: status.members,
            warning: status.warning(),
            text: status.to_string(),
            maxmemory_policy: status.maxmemory_policy,
            evicted_keys: status.evicted_keys,
            guarded_since: status.guard.map(|guard| guard.since),
        }
    }
}

#[pymethods]
impl Status {
    /// Whether a warm-up completed it, on the server that answers now.
    #[getter]
    fn is_warm(&self) -> bool {
        self.state == "warm"
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<Status: {}>", self.text)
    }
}

/// Why a module or a name is absent, or that it is not: `str()` of it is a sentence for a user.
#[pyclass(frozen, get_all, module = "bifrost_module_cache")]
pub struct Diagnosis {
    /// For a program, such as "not_cached": the guide's page on the tool has them all.
    cause: &'static str,
    /// The name that was asked for, or the first of its parents that is not found.
    name: Option<String>,
    /// The path that this is about.
    path: Option<String>,
    /// What is the matter, in a few words.
    summary: String,
    /// How it comes to that.
    reason: String,
    /// What to do; empty where there is nothing to do.
    remedy: &'static str,
    /// True if a worker finds what it asks for.
    is_fine: bool,
    /// All of it, in a line.
    text: String,
}

impl From<diagnosis::Diagnosis> for Diagnosis {
    fn from(why: diagnosis::Diagnosis) -> Self {
        Self {
            cause: why.cause.code(),
            summary: why.summary().to_owned(),
            reason: why.reason().into_owned(),
            remedy: why.cause.remedy(),
            is_fine: why.cause.is_fine(),
            text: why.to_string(),
            name: why.name,
            path: why.path,
        }
    }
}

#[pymethods]
impl Diagnosis {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<Diagnosis: {}>", self.text)
    }
}

/// What refresh() did.
#[pyclass(frozen, get_all, module = "bifrost_module_cache")]
pub struct RefreshReport {
    /// Modules written.
    written: usize,
    /// Paths without a module, which were invalidated.
    removed: usize,
    /// Modules larger than the limit: their paths are among the removed.
    skipped: usize,
    /// How often a path was tried again because another writer wrote it meanwhile.
    retried: usize,
    /// Bytes of content written.
    bytes: u64,
    /// Paths that others kept writing: refresh them again.
    unsettled: Vec<String>,
    /// All of it, in a line.
    text: String,
}

impl From<sync::RefreshReport> for RefreshReport {
    fn from(report: sync::RefreshReport) -> Self {
        Self {
            text: report.to_string(),
            written: report.written,
            removed: report.removed,
            skipped: report.skipped,
            retried: report.retried,
            bytes: report.bytes,
            unsettled: report.unsettled,
        }
    }
}

#[pymethods]
impl RefreshReport {
    fn __repr__(&self) -> String {
        format!("<RefreshReport: {}>", self.text)
    }
}

/// What publish() or publish_exact() did.
#[pyclass(frozen, get_all, module = "bifrost_module_cache")]
pub struct PublishReport {
    /// Modules written.
    written: usize,
    /// Paths removed.
    removed: usize,
    /// Modules that were there already (publish_exact).
    unchanged: usize,
    /// Bytes of content written.
    bytes: u64,
    /// Whether the cache is marked as complete now (publish_exact).
    complete: bool,
    /// All of it, in a line.
    text: String,
}

impl From<sync::PublishReport> for PublishReport {
    fn from(report: sync::PublishReport) -> Self {
        Self {
            text: report.to_string(),
            written: report.written,
            removed: report.removed,
            unchanged: report.unchanged,
            bytes: report.bytes,
            complete: report.complete,
        }
    }
}

#[pymethods]
impl PublishReport {
    fn __repr__(&self) -> String {
        format!("<PublishReport: {}>", self.text)
    }
}

/// What clear() did.
#[pyclass(frozen, get_all, module = "bifrost_module_cache")]
pub struct ClearReport {
    /// How many modules there were.
    removed: u64,
    /// Whether the keys were looked through for entries that the index does not name.
    scanned: bool,
    /// All of it, in a line.
    text: String,
}

impl From<sync::ClearReport> for ClearReport {
    fn from(report: sync::ClearReport) -> Self {
        Self {
            text: report.to_string(),
            removed: report.removed,
            scanned: report.scanned,
        }
    }
}

#[pymethods]
impl ClearReport {
    fn __repr__(&self) -> String {
        format!("<ClearReport: {}>", self.text)
    }
}

/// Counters, as a dict.
pub fn counters<'py>(
    py: Python<'py>,
    stats: &impl serde::Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    let value = serde_json::to_value(stats);
    let value = value.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    object(py, value)
}

fn object(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    match value {
        Value::Null => Ok(py.None().into_bound(py)),
        Value::Bool(value) => value.into_bound_py_any(py),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_bound_py_any(py),
            (None, Some(number)) => number.into_bound_py_any(py),
            (None, None) => number.as_f64().into_bound_py_any(py),
        },
        Value::String(text) => text.into_bound_py_any(py),
        Value::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(object(py, value)?)?;
            }
            Ok(list.into_any())
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, object(py, value)?)?;
            }
            Ok(dict.into_any())
        }
    }
}
