//! The crate's errors as the exceptions of `bifrost_module_cache.errors`.

use bifrost_module_cache::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The exception for an error.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    build(py, class_of(error), &text(error), Some(error)).unwrap_or_else(|failure| failure)
}

/// The exception for a path that was refused before the crate saw it.
pub fn invalid_path(py: Python<'_>, text: &str) -> PyErr {
    build(py, "InvalidPath", text, None).unwrap_or_else(|failure| failure)
}

/// The exception for a setting that was refused before the crate saw it.
pub fn invalid_config(py: Python<'_>, text: &str) -> PyErr {
    let text = format!("invalid configuration: {text}");
    build(py, "InvalidConfig", &text, None).unwrap_or_else(|failure| failure)
}

/// The exception for a cache that was closed.
pub fn closed(py: Python<'_>) -> PyErr {
    let text = "this near cache is closed: make another one, or use a snapshot of it";
    build(py, "CacheError", text, None).unwrap_or_else(|failure| failure)
}

fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Unavailable { .. } => "Unavailable",
        Error::Busy { .. } => "Busy",
        Error::Corrupt { .. } => "Corrupt",
        Error::Refused { .. } => "Refused",
        Error::InvalidPath { .. } => "InvalidPath",
        Error::InvalidConfig { .. } => "InvalidConfig",
        _ => "CacheError",
    }
}

/// What it says, with the names that Python has for settings.
fn text(error: &Error) -> String {
    let of_rust = error.to_string();
    let hint = match error {
        Error::TooLarge { .. } => "raise it with Config(max_content_bytes=...)",
        Error::Empty => "allow it with publish_exact(..., allow_empty=True) if it is meant",
        Error::TooManyRemovals { .. } => {
            "if it is the right one, allow that with publish_exact(..., max_prune=1.0)"
        }
        _ => return of_rust,
    };
    match of_rust.rsplit_once(": ") {
        Some((fact, _)) => format!("{fact}: {hint}"),
        None => of_rust,
    }
}

fn build(py: Python<'_>, class: &str, text: &str, error: Option<&Error>) -> PyResult<PyErr> {
    let class = py.import("bifrost_module_cache.errors")?.getattr(class)?;
    let details = PyDict::new(py);
    if let Some(error) = error {
        details.set_item("server", error.server())?;
        details.set_item("path", error.path())?;
        details.set_item("is_transient", error.is_transient())?;
        details.set_item("may_have_been_applied", error.may_have_been_applied())?;
    }
    Ok(PyErr::from_value(class.call((text,), Some(&details))?))
}
