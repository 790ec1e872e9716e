//! What the guard asks the database: which rows changed, who may be about to change them, and
//! whether notifications come through.

use super::workspace::{
    Database, Rows as _, Workspace, ask, column, standby, transaction_id, without_a_row,
};
use crate::error::Error;

/// By what a row is another one than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum VersionBy {
    /// The transaction that wrote it: costs nothing, and is new with every change.
    #[default]
    Transaction,
    /// A hash of what it says, for a view, and for users that may read single columns only: both
    /// have no `xmin`.
    Content,
}

/// What was written since an earlier moment.
pub(crate) struct Written {
    /// The path and version of each module that was written since, and of some that were not.
    pub(crate) rows: Vec<(String, u64)>,
    /// How many modules there are.
    pub(crate) count: usize,
    /// What to ask with the next time.
    pub(crate) until: u64,
}

/// No transaction is so called.
const STANDBY: &str = "standby";

impl<D: Database> Workspace<D> {
    /// Tells which modules were written since the moment at which this was the lowest id of a
    /// transaction that was still open. What became visible later was written by that one or by a
    /// later one, however late it was committed.
    ///
    /// The whole table is read, and nothing but what changed is sent. What has gone is not told:
    /// there are fewer modules then.
    pub(crate) async fn written_since(&mut self, since: u64) -> Result<Written, Error> {
        // The id in a row has 32 bits and wraps around, so ids are compared by their age. A row that
        // is so old that it seems to be young is told, too.
        let is_new = format!("age(xmin) <= age('{}'::xid)", since & u64::from(u32::MAX));
        let statement = format!(
            "SELECT array_agg(path) FILTER (WHERE {is_new}), \
             array_agg(xmin::text) FILTER (WHERE {is_new}), \
             count(*), pg_snapshot_xmin(pg_current_snapshot())::text, pg_is_in_recovery() \
             {}",
            self.modules
        );
        let mut rows = ask(&mut self.database, &self.server, &statement, None).await?;
        let row = rows.next().await?.ok_or_else(without_a_row)?;
        let paths: Option<Vec<String>> = column(&row, 0)?;
        let versions: Option<Vec<String>> = column(&row, 1)?;
        let (count, until): (i64, &str) = (column(&row, 2)?, column(&row, 3)?);
        // A pooler may have gone over to one, and its own connection tells nothing of that.
        if column::<bool>(&row, 4)? {
            return Err(standby());
        }
        let until = transaction_id(until)?;
        while rows.next().await?.is_some() {}
        let versions = versions.unwrap_or_default().into_iter();
        let versions = versions.map(|version| version.parse().unwrap_or_default());
        Ok(Written {
            rows: paths
                .unwrap_or_default()
                .into_iter()
                .zip(versions)
                .collect(),
            count: usize::try_from(count).unwrap_or_default(),
            until,
        })
    }

    /// Tells each module's path and version.
    pub(crate) async fn versions(
        &mut self,
        by: VersionBy,
        mut row: impl FnMut(&str, u64),
    ) -> Result<(), Error> {
        let version = match by {
            VersionBy::Transaction => "xmin::text",
            VersionBy::Content => "hashtextextended(concat(content, '/', content_hash), 0)::text",
        };
        let statement = format!("SELECT path, {version} {}", self.modules);
        let mut rows = ask(&mut self.database, &self.server, &statement, None).await?;
        while let Some(found) = rows.next().await? {
            let (path, version): (&str, &str) = (column(&found, 0)?, column(&found, 1)?);
            // An xid has no sign and a hash has one.
            let version = version.parse::<i64>().unwrap_or_default();
            row(path, version.cast_unsigned());
        }
        Ok(())
    }

    /// The transactions that are open and may be about to change a row of the table: those that
    /// have written anything, by the lock on their own id, and those that have read or written this
    /// table, by their lock on it. All others begin to touch it later.
    ///
    /// A lock is given back after the commit is seen by others, so a transaction that is not told
    /// here has ended for whoever asks next. `pg_snapshot_xmin` tells less: not who reads a row,
    /// writes Redis, and only then updates it, as a session of an ORM does.
    pub(crate) async fn open_transactions(&mut self) -> Result<Vec<String>, Error> {
        // VACUUM and ANALYZE lock the table, too, and change no row.
        let statement = format!(
            "SELECT DISTINCT virtualtransaction FROM pg_locks \
             WHERE pid IS DISTINCT FROM pg_backend_pid() AND ( \
             (locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted) OR \
             (locktype = 'relation' AND relation = to_regclass({table}) \
             AND mode <> 'ShareUpdateExclusiveLock' \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))) \
             UNION ALL SELECT '{STANDBY}' WHERE pg_is_in_recovery()",
            table = literal(&self.table)
        );
        let mut rows = ask(&mut self.database, &self.server, &statement, None).await?;
        let mut open = Vec::new();
        while let Some(row) = rows.next().await? {
            open.push(column::<&str>(&row, 0)?.to_owned());
        }
        if open.iter().any(|transaction| transaction == STANDBY) {
            return Err(standby());
        }
        Ok(open)
    }

    /// Whether what this statement asks is true.
    pub(crate) async fn holds(&mut self, statement: &str) -> Result<bool, Error> {
        self.single(statement, None).await
    }

    /// Notifies all who listen to this channel. Both are ours: nothing foreign is in the statement.
    pub(crate) async fn notify(&mut self, channel: &str, payload: &str) -> Result<(), Error> {
        let (channel, payload) = (literal(channel), literal(payload));
        let statement = format!("SELECT pg_notify({channel}, {payload})::text");
        self.single::<String>(&statement, None).await.map(drop)
    }
}

/// Text as SQL has it.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
