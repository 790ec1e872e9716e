//! Text on its way from Python: a `str` may hold lone surrogates, which no UTF-8 can have.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors;

fn text(object: Borrowed<'_, '_, PyAny>) -> Option<String> {
    let text = object.cast::<PyString>().ok()?;
    text.to_str().ok().map(str::to_owned)
}

/// A module's path. What is no Unicode is refused as an invalid path.
pub struct Path(pub String);

impl<'py> FromPyObject<'_, 'py> for Path {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Some(text) = text(object) {
            return Ok(Self(text));
        }
        if object.is_instance_of::<PyString>() {
            let shown = object.repr()?;
            let why = format!("invalid module path {shown}: it is not valid Unicode");
            return Err(errors::invalid_path(object.py(), &why));
        }
        Err(wrong_type("a path", object))
    }
}

/// A module's name; `None` if it can be none because it is no Unicode.
pub struct Name(pub Option<String>);

impl<'py> FromPyObject<'_, 'py> for Name {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return Ok(Self(text(object)));
        }
        Err(wrong_type("a name", object))
    }
}

/// A module's source.
pub struct Source(pub String);

impl<'py> FromPyObject<'_, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Some(text) = text(object) {
            return Ok(Self(text));
        }
        if object.is_instance_of::<PyString>() {
            return Err(PyValueError::new_err(
                "content is not valid Unicode, it has a lone surrogate: decode the file as UTF-8",
            ));
        }
        Err(wrong_type("content", object))
    }
}

fn wrong_type(what: &str, object: Borrowed<'_, '_, PyAny>) -> PyErr {
    let of = object.get_type().name();
    let of = of.map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    let hint = if of == "bytes" {
        ": decode it as UTF-8 first"
    } else {
        ""
    };
    PyTypeError::new_err(format!("{what} must be a str, not {of}{hint}"))
}

/// All items of an iterable that is no `str`.
pub fn each<'py, T>(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Vec<T>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    if object.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "{what} must be an iterable of them, not a single str"
        )));
    }
    let extract = |item: PyResult<Bound<'py, PyAny>>| item?.extract().map_err(Into::into);
    object.try_iter()?.map(extract).collect()
}

/// Paths, of any iterable.
pub fn paths(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let paths: Vec<Path> = each(object, "paths")?;
    Ok(paths.into_iter().map(|Path(path)| path).collect())
}

/// Names, of any iterable. What can be no name is taken for one that nothing has.
pub fn names(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let names: Vec<Name> = each(object, "names")?;
    let names = names.into_iter().map(|Name(name)| name.unwrap_or_default());
    Ok(names.collect())
}
