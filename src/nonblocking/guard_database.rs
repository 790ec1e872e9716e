//! The asynchronous Postgres client of a guard, whose answers are waited for with a limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::connection::Task;
use super::database::AsyncRows;
use crate::database::workspace::{Database, Rows, query_failed, silent};
use crate::error::Error;

/// A client of its own, and the task that drives it: both end with this.
pub(crate) struct LimitedDatabase {
    client: Arc<Client>,
    _driver: Task<()>,
    limit: Duration,
}

impl LimitedDatabase {
    pub(super) fn new(client: Client, driver: Task<()>, limit: Duration) -> Self {
        Self {
            client: Arc::new(client),
            _driver: driver,
            limit,
        }
    }
}

const SILENT: &str = "the database did not answer in time";

impl Database for LimitedDatabase {
    // It borrows nothing: see `AsyncDatabase`.
    type Rows<'a> = LimitedRows;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<LimitedRows, Error> {
        let (client, statement) = (Arc::clone(&self.client), statement.to_owned());
        let paths = paths.map(<[String]>::to_vec);
        let query = async move {
            let parameters = paths.into_iter().map(|paths| (paths, Type::TEXT_ARRAY));
            client.query_typed_raw(&statement, parameters).await
        };
        let rows = timeout(self.limit, query).await;
        let rows = rows.map_err(|_| silent(SILENT))?.map_err(query_failed)?;
        Ok(LimitedRows {
            rows: AsyncRows::new(rows),
            limit: self.limit,
        })
    }
}

pub(crate) struct LimitedRows {
    rows: AsyncRows,
    limit: Duration,
}

impl Rows for LimitedRows {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        let next = timeout(self.limit, self.rows.next()).await;
        next.map_err(|_| silent(SILENT))?
    }
}
