//! `refresh_from`: a function that returns a future here, and one that returns in `blocking`. So it
//! is the one method that can't be written once for both.

use super::facade::ModuleWriter;
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
    pub async fn refresh_from<E, Answer>(
        &self,
        paths: &[impl AsRef<str>],
        mut fetch: impl FnMut(Vec<String>) -> Answer,
    ) -> Result<RefreshReport, Error>
    where
        Answer: Future<Output = Result<Vec<CachedModule>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut source = Fetch(|paths| {
            let answer = fetch(paths);
            async { answer.await.map_err(unread) }
        });
        refresh(self.client(), &mut source, paths).await
    }
}
