//! The synchronous Postgres client.

use postgres::fallible_iterator::FallibleIterator;
use postgres::types::Type;
use postgres::{Client, Row, RowIter};

use crate::Error;
use crate::workspace::{Database, Rows, query_failed};

pub(crate) struct BlockingDatabase<'c>(pub(crate) &'c mut Client);

impl Database for BlockingDatabase<'_> {
    type Rows<'a>
        = BlockingRows<'a>
    where
        Self: 'a;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<BlockingRows<'_>, Error> {
        let parameters = paths.map(|paths| (paths, Type::TEXT_ARRAY));
        self.0
            .query_typed_raw(statement, parameters)
            .map(BlockingRows)
            .map_err(query_failed)
    }
}

pub(crate) struct BlockingRows<'a>(RowIter<'a>);

impl Rows for BlockingRows<'_> {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.next().map_err(query_failed)
    }
}
