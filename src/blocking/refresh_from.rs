//! `refresh_from`: a function that returns here, and one that returns a future in `nonblocking`. So
//! it is the one method that can't be written once for both.

use super::facade::ModuleWriter;
use super::run;
use crate::error::Error;
use crate::module::CachedModule;
use crate::sync::refresh::refresh;
use crate::sync::report::RefreshReport;
use crate::sync::source::{Fetch, unread};

impl ModuleWriter {
    #[doc = include_str!("../facade/refresh_from.md")]
    ///
    #[doc = include_str!("examples/refresh_from.md")]
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the error of `fetch`; otherwise as [`set`](Self::set). Paths before
    /// the failure may have been brought up to date; all may be refreshed again.
    pub fn refresh_from<E>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Result<Vec<CachedModule>, E>,
    ) -> Result<RefreshReport, Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut source = Fetch(|paths| std::future::ready(fetch(paths).map_err(unread)));
        run(refresh(self.client(), &mut source, paths))
    }
}
