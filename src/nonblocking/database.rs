//! The asynchronous Postgres client.

use std::pin::Pin;

use futures_util::TryStreamExt as _;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, RowStream};

use crate::Error;
use crate::workspace::{Database, Rows, query_failed};

pub(crate) struct AsyncDatabase<'c>(pub(crate) &'c Client);

impl Database for AsyncDatabase<'_> {
    type Rows<'a>
        = AsyncRows
    where
        Self: 'a;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<AsyncRows, Error> {
        let parameters = paths.map(|paths| (paths, Type::TEXT_ARRAY));
        let rows = self
            .0
            .query_typed_raw(statement, parameters)
            .await
            .map_err(query_failed)?;
        Ok(AsyncRows(Box::pin(rows)))
    }
}

pub(crate) struct AsyncRows(Pin<Box<RowStream>>);

impl Rows for AsyncRows {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.try_next().await.map_err(query_failed)
    }
}
