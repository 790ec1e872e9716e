//! The native part of the Python package: what does IO or holds modules. Finders, loaders and
//! executions are Python's business, in the folder beside this one.

mod config;
mod errors;
mod interrupt;
mod module;
mod near;
mod reader;
mod reports;
mod snapshot;
mod text;
mod threads;
mod writer;

use pyo3::prelude::*;

/// The native part of `bifrost_module_cache`: import that instead.
#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use super::config::Config;
    #[pymodule_export]
    use super::module::{CachedModule, Resolution};
    #[pymodule_export]
    use super::near::{NearCache, load_snapshot};
    #[pymodule_export]
    use super::reader::ModuleReader;
    #[pymodule_export]
    use super::reports::{ClearReport, Diagnosis, PublishReport, RefreshReport, Status};
    #[pymodule_export]
    use super::snapshot::Snapshot;
    #[pymodule_export]
    use super::writer::ModuleWriter;

    #[pymodule_init]
    fn init(module: &super::Bound<'_, super::PyModule>) -> super::PyResult<()> {
        use super::PyModuleMethods as _;
        super::interrupt::refuse_sub_interpreters()?;
        super::interrupt::remember_process();
        module.add("HAS_TLS", cfg!(feature = "tls"))
    }
}
