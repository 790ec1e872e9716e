//! The workspace's table: which rows are modules, and how they are read.
//!
//! Statements are unnamed and each is a transaction of its own, so all works behind `PgBouncer` in
//! transaction mode. Rows are streamed: collecting 10,000 modules of 10 KB took 161 MB, streaming
//! them 4 MB.

use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::row::{Row as Found, RowState};
use crate::client::batch::{BATCH_BYTES, BATCH_MODULES, Fetched, batches};
use crate::config::Config;
use crate::error::{Error, shown};
use crate::keys::validate_path;
use crate::module::CachedModule;

/// A client of the database, as a facade brings it.
pub(crate) trait Database {
    type Rows<'a>: Rows
    where
        Self: 'a;

    /// Sends an unnamed statement, whose `$1`, if it has one, is a `text[]`. Rows are not waited
    /// for.
    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<Self::Rows<'_>, Error>;
}

/// Rows as they arrive.
pub(crate) trait Rows {
    async fn next(&mut self) -> Result<Option<Row>, Error>;
}

/// The rows of [`ask`].
pub(crate) struct Asked<'a, R> {
    rows: R,
    server: &'a str,
}

impl<R: Rows> Rows for Asked<'_, R> {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        let row = self.rows.next().await;
        row.map_err(|error| error.of_database(self.server))
    }
}

/// Sends a statement, such that an error says which database it is about.
pub(super) async fn ask<'a, D: Database>(
    database: &'a mut D,
    server: &'a str,
    statement: &str,
    paths: Option<&[String]>,
) -> Result<Asked<'a, D::Rows<'a>>, Error> {
    match database.query(statement, paths).await {
        Ok(rows) => Ok(Asked { rows, server }),
        Err(error) => Err(error.of_database(server)),
    }
}

/// Asks which database answers. A URL with several hosts, a pooler or a DNS name may lead anywhere,
/// and a report must name what was really read.
const WHO: &str = "SELECT coalesce(CASE family(inet_server_addr()) \
    WHEN 6 THEN '[' || host(inet_server_addr()) || ']' ELSE host(inet_server_addr()) END \
    || ':' || inet_server_port() || '/', '') || current_database()";

/// The workspace's table, through a client.
pub(crate) struct Workspace<D> {
    pub(super) database: D,
    /// Which one answers: `host:port/name`, or the name alone through a local socket.
    pub(crate) server: String,
    /// Rows that can't be cached are no news: whoever lists again and again has told them once.
    pub(crate) is_quiet: bool,
    /// Quoted.
    #[cfg(feature = "near-cache")]
    pub(super) table: String,
    /// `FROM` and `WHERE` of rows that are modules.
    #[cfg(feature = "near-cache")]
    pub(super) modules: String,
    list: String,
    list_these: String,
    count: String,
    range: String,
    fetch: String,
    row: String,
    age: String,
}

/// Which modules to read.
#[derive(Clone, Copy)]
pub(crate) enum Paths<'a> {
    /// A batch of the listing, which is in the database's order. It is read as a range of the
    /// index, because for a list of this length Postgres often reads the whole table. Rows that
    /// were added in the range since the listing may come along; callers pick the paths they asked
    /// for.
    Listed(&'a [String]),
    /// These, in any order.
    Any(&'a [String]),
}

impl<'a> Paths<'a> {
    pub(crate) fn as_slice(self) -> &'a [String] {
        match self {
            Self::Listed(paths) | Self::Any(paths) => paths,
        }
    }
}

/// What the table holds, without the contents.
#[derive(Debug, Default)]
pub(crate) struct ModuleList {
    /// The paths of all modules that can be cached, in the database's order, cut so that the
    /// contents of each batch are bounded.
    pub(crate) batches: Vec<Vec<String>>,
    /// How many that are.
    pub(crate) modules: usize,
    /// How many rows can't be cached.
    pub(crate) skipped: usize,
    /// How many rows there are, if none of them is a module.
    pub(crate) not_modules: usize,
}

impl<D: Database> Workspace<D> {
    /// Refuses a standby: it may lag behind, and its old rows would be written over newer entries.
    pub(crate) async fn open(database: D, config: &Config) -> Result<Self, Error> {
        let table = config.quoted_table()?;
        // The specification's condition for a row that is a module.
        let modules = format!(
            "FROM {table} WHERE entity_type = 'module' AND is_deleted = FALSE AND content IS NOT NULL"
        );
        let fits = format!("octet_length(content) <= {}", config.max_content_bytes);
        let mut workspace = Self {
            database,
            server: String::new(),
            is_quiet: false,
            list: format!("SELECT path, octet_length(content) {modules} ORDER BY path"),
            list_these: format!(
                "SELECT path, octet_length(content) {modules} AND path = ANY($1) ORDER BY path"
            ),
            count: format!("SELECT count(*) FROM {table} WHERE is_deleted IS NOT TRUE"),
            range: format!(
                "SELECT path, content, content_hash {modules} AND {fits} \
                 AND path >= $1[1] AND path <= $1[2]"
            ),
            fetch: format!(
                "SELECT path, CASE WHEN {fits} THEN content END, content_hash {modules} \
                 AND path = ANY($1)"
            ),
            row: format!(
                "SELECT is_deleted, \
                 entity_type IS NOT DISTINCT FROM 'module' AND content IS NOT NULL, \
                 CASE WHEN {fits} THEN content END, content_hash \
                 FROM {table} WHERE path = ANY($1)"
            ),
            // A plain timestamp is read as UTC, because the specification's services write
            // `datetime.utcnow`. Both sides go through `extract(epoch …)`, which for a plain
            // timestamp ignores the session's time zone.
            age: format!(
                "SELECT (extract(epoch FROM clock_timestamp()) \
                 - extract(epoch FROM updated_at))::float8 FROM {table} WHERE path = ANY($1)"
            ),
            #[cfg(feature = "near-cache")]
            table,
            #[cfg(feature = "near-cache")]
            modules,
        };
        workspace.server = workspace.single(WHO, None).await?;
        if workspace.single("SELECT pg_is_in_recovery()", None).await? {
            return Err(standby());
        }
        Ok(workspace)
    }

    /// All modules by path and size. A row that can't be cached is logged and counted.
    pub(crate) async fn list(&mut self, config: &Config) -> Result<ModuleList, Error> {
        let mut listing = self.listing(None, config).await?;
        if listing.modules + listing.skipped == 0 {
            let rows: i64 = self.single(&self.count.clone(), None).await?;
            listing.not_modules = usize::try_from(rows).unwrap_or_default();
        }
        Ok(listing)
    }

    /// The same for some paths; and which of them have no row that is a module.
    pub(crate) async fn list_these(
        &mut self,
        paths: &[String],
        config: &Config,
    ) -> Result<(ModuleList, Vec<String>), Error> {
        let listing = self.listing(Some(paths), config).await?;
        let listed: HashSet<&String> = listing.batches.iter().flatten().collect();
        let others = paths.iter().filter(|path| !listed.contains(path));
        let others = others.cloned().collect();
        Ok((listing, others))
    }

    /// Lists by path and size only, so that memory stays bounded however large the contents are.
    async fn listing(
        &mut self,
        paths: Option<&[String]>,
        config: &Config,
    ) -> Result<ModuleList, Error> {
        let mut skipped = 0;
        let mut found: Vec<(String, usize)> = Vec::new();
        let statement = paths.map_or(&self.list, |_| &self.list_these);
        let level = if self.is_quiet {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        let mut rows = ask(&mut self.database, &self.server, statement, paths).await?;
        while let Some(row) = rows.next().await? {
            let (path, bytes): (&str, i32) = (column(&row, 0)?, column(&row, 1)?);
            let bytes = usize::try_from(bytes).unwrap_or_default();
            if let Err(error) = validate_path(path) {
                log::log!(level, "Skipped a row of the workspace: {error}");
            } else if bytes > config.max_content_bytes {
                log::log!(
                    level,
                    "Skipped module {}: its content has {bytes} bytes, more than the limit",
                    shown(path)
                );
            } else {
                found.push((path.to_owned(), bytes));
                continue;
            }
            skipped += 1;
        }
        let modules = found.len();
        let batches = batches(found, BATCH_MODULES, BATCH_BYTES, |(_, bytes)| *bytes);
        let batches = batches
            .into_iter()
            .map(|batch| batch.into_iter().map(|(path, _)| path).collect())
            .collect();
        Ok(ModuleList {
            batches,
            modules,
            skipped,
            not_modules: 0,
        })
    }

    /// Asks for the modules of these paths; [`collect`] them later.
    pub(crate) async fn start(
        &mut self,
        paths: Paths<'_>,
    ) -> Result<Asked<'_, D::Rows<'_>>, Error> {
        match paths {
            Paths::Listed([first, .., last]) => {
                let range = [first.clone(), last.clone()];
                ask(&mut self.database, &self.server, &self.range, Some(&range)).await
            }
            Paths::Listed(paths) | Paths::Any(paths) => {
                ask(&mut self.database, &self.server, &self.fetch, Some(paths)).await
            }
        }
    }

    /// What the table has at `path`, be it a module or not.
    pub(crate) async fn row(&mut self, path: &str) -> Result<Found, Error> {
        let paths = [path.to_owned()];
        let mut rows = ask(&mut self.database, &self.server, &self.row, Some(&paths)).await?;
        let Some(row) = rows.next().await? else {
            return Ok(Found {
                state: RowState::Absent,
                age: None,
            });
        };
        let (deleted, module): (bool, bool) = (column(&row, 0)?, column(&row, 1)?);
        let content: Option<String> = column(&row, 2)?;
        let hash: Option<String> = column(&row, 3)?;
        let state = match content {
            _ if deleted => RowState::Deleted,
            _ if !module => RowState::NotAModule,
            None => RowState::TooLarge,
            Some(content) => RowState::Module(CachedModule {
                content,
                path: path.to_owned(),
                hash: hash.unwrap_or_default(),
            }),
        };
        // The stream must be read to its end before the next statement: its error may come last.
        while rows.next().await?.is_some() {}
        drop(rows);
        let age = match self.single(&self.age.clone(), Some(&paths)).await {
            // `updated_at` is optional: it may be missing, of another type or not be ours to read,
            // and nothing but the age depends on it.
            Err(error) if !error.is_transient() => None,
            age => age?,
        };
        Ok(Found { state, age })
    }

    /// A transaction id that is above those of all transactions which have one by now. Needs
    /// Postgres 13, and fails on a standby.
    pub(crate) async fn current_transaction(&mut self) -> Result<u64, Error> {
        // As text: the client has no type for xid8.
        transaction_id(
            &self
                .single::<String>("SELECT pg_current_xact_id()::text", None)
                .await?,
        )
    }

    /// The lowest id of a transaction that is still open.
    pub(crate) async fn oldest_open_transaction(&mut self) -> Result<u64, Error> {
        transaction_id(
            &self
                .single::<String>("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", None)
                .await?,
        )
    }

    /// The only column of the only row.
    pub(super) async fn single<T: for<'a> FromSql<'a>>(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<T, Error> {
        let mut rows = ask(&mut self.database, &self.server, statement, paths).await?;
        let row = rows.next().await?.ok_or_else(without_a_row)?;
        let value = column(&row, 0)?;
        while rows.next().await?.is_some() {}
        Ok(value)
    }
}

/// The modules of [`Workspace::start`].
pub(crate) async fn collect(mut rows: impl Rows) -> Result<Fetched, Error> {
    let mut fetched = Fetched::default();
    while let Some(row) = rows.next().await? {
        let (content, hash): (_, Option<String>) = (column(&row, 1)?, column(&row, 2)?);
        let Some(content) = content else {
            fetched.too_large += 1;
            continue;
        };
        fetched.modules.push(CachedModule {
            path: column(&row, 0)?,
            content,
            hash: hash.unwrap_or_default(),
        });
    }
    Ok(fetched)
}

pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, Error> {
    row.try_get(index)
        .map_err(|error| failed("a row of the workspace can't be read", error))
}

/// An id of 64 bits, which does not wrap around: ids can be compared as numbers.
pub(super) fn transaction_id(text: &str) -> Result<u64, Error> {
    text.parse()
        .map_err(|_| unusable("the database answered without a transaction id"))
}

#[cfg(any(feature = "tls", feature = "near-cache"))]
pub(crate) fn connect_failed(error: tokio_postgres::Error) -> Error {
    failed("the database could not be connected to", error)
}

#[cfg(any(feature = "tls", feature = "near-cache"))]
pub(crate) fn connect_timed_out() -> Error {
    silent("the database did not accept the connection in time")
}

/// The database, or the network before it, is silent.
#[cfg(any(feature = "tls", feature = "near-cache"))]
pub(crate) fn silent(reason: &'static str) -> Error {
    Error::Database {
        server: String::new(),
        reason,
        transient: true,
        source: None,
    }
}

/// What a caller's own function failed with that connects to the database.
#[cfg(feature = "near-cache")]
pub(crate) fn not_connected(error: impl Into<crate::error::Source>) -> Error {
    // That of `connect_postgres`, or of the client: both tell whether waiting helps.
    let error = match error.into().downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    match error.downcast::<tokio_postgres::Error>() {
        Ok(error) => connect_failed(*error),
        Err(source) => Error::Database {
            server: String::new(),
            reason: "the database could not be connected to",
            transient: true,
            source: Some(source),
        },
    }
}

pub(super) fn standby() -> Error {
    unusable("the database is a standby, which may be behind: connect to the primary")
}

pub(super) fn without_a_row() -> Error {
    unusable("the database answered without a row")
}

/// The database answered, and what it answered can't be used: waiting does not help.
fn unusable(reason: &'static str) -> Error {
    Error::Database {
        server: String::new(),
        reason,
        transient: false,
        source: None,
    }
}

pub(crate) fn query_failed(error: tokio_postgres::Error) -> Error {
    failed("the database could not be asked", error)
}

fn failed(reason: &'static str, error: tokio_postgres::Error) -> Error {
    // By SQLSTATE class: 08 connection failures, 53 lack of resources, 57 an operator's shutdown,
    // 40 a conflict of transactions. Waiting may mend these, and nothing else.
    let transient = error.is_closed()
        || lost(&error)
        || error
            .code()
            .is_some_and(|state| matches!(state.code().get(..2), Some("08" | "53" | "57" | "40")));
    Error::Database {
        server: String::new(),
        reason,
        transient,
        source: Some(error.into()),
    }
}

/// True if the network failed. A certificate that is not trusted comes as an I/O error, too, and
/// waiting does not mend that; neither does it mend `InvalidInput`, which is about the settings.
fn lost(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error);
    let Some(io) = source.and_then(|source| source.downcast_ref::<std::io::Error>()) else {
        return false;
    };
    #[cfg(feature = "tls")]
    if crate::tls::is_distrust(io) {
        return false;
    }
    io.kind() != std::io::ErrorKind::InvalidInput
}
