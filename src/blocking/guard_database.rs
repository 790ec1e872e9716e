//! The synchronous Postgres client in a thread of its own, so that its answers can be waited for
//! with a limit: the client itself waits for ever for a server that is frozen.
//!
//! A thread whose server never answers is left behind, one for each attempt. It ends when the
//! connection does; give `connect` a time-out and keep-alives, as `connect_postgres` has them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::Type;
use postgres::{Client, Row};

use crate::database::workspace::{Database, Rows, connect_timed_out, query_failed, silent};
use crate::error::Error;

/// Opens a connection. Called in the thread that will use it.
pub(super) type Connect = Arc<dyn Fn() -> Result<Client, Error> + Send + Sync>;

/// Rows cross the channel in parcels: one at a time, each would cost a switch of threads.
const PARCEL: usize = 256;

/// How many parcels may wait.
const PARCELS: usize = 2;

/// A client in a thread of its own. The thread ends when this is dropped.
pub(super) struct ThreadDatabase {
    queries: Sender<Query>,
    limit: Duration,
}

struct Query {
    statement: String,
    paths: Option<Vec<String>>,
    answer: Answer,
}

/// Parcels of rows; the end is one without a row.
type Answer = SyncSender<Result<Vec<Row>, Error>>;

pub(super) fn failed_to_start(error: io::Error) -> Error {
    Error::Database {
        server: String::new(),
        reason: "no thread could be started for the database",
        transient: true,
        source: Some(error.into()),
    }
}

impl ThreadDatabase {
    pub(super) fn connect(connect: &Connect, limit: Duration) -> Result<Self, Error> {
        let (queries, queue) = mpsc::channel();
        let (sender, connected) = mpsc::sync_channel(1);
        let connect = Arc::clone(connect);
        let work = move || match connect() {
            Ok(client) => {
                // Without a receiver: it came too late.
                if sender.send(Ok(())).is_ok() {
                    serve(client, &queue);
                }
            }
            Err(error) => drop(sender.send(Err(error))),
        };
        thread::Builder::new()
            .name("bifrost-guard-database".to_owned())
            .spawn(work)
            .map_err(failed_to_start)?;
        let connected = connected.recv_timeout(limit);
        connected.map_err(|_| connect_timed_out())??;
        Ok(Self { queries, limit })
    }
}

fn serve(mut client: Client, queue: &Receiver<Query>) {
    while let Ok(query) = queue.recv() {
        let Query {
            statement,
            paths,
            answer,
        } = query;
        if let Err(error) = ask(&mut client, &statement, paths, &answer) {
            let _ = answer.send(Err(query_failed(error)));
        }
    }
}

/// Sends the rows on, until there are none or nobody wants them.
fn ask(
    client: &mut Client,
    statement: &str,
    paths: Option<Vec<String>>,
    answer: &Answer,
) -> Result<(), postgres::Error> {
    let parameters = paths.map(|paths| (paths, Type::TEXT_ARRAY));
    let mut rows = client.query_typed_raw(statement, parameters)?;
    let mut parcel = Vec::new();
    while let Some(row) = rows.next()? {
        parcel.push(row);
        if parcel.len() == PARCEL && answer.send(Ok(std::mem::take(&mut parcel))).is_err() {
            return Ok(());
        }
    }
    if parcel.is_empty() || answer.send(Ok(parcel)).is_ok() {
        let _ = answer.send(Ok(Vec::new()));
    }
    Ok(())
}

const SILENT: &str = "the database did not answer in time";

impl Database for ThreadDatabase {
    type Rows<'a> = ThreadRows;

    async fn query(
        &mut self,
        statement: &str,
        paths: Option<&[String]>,
    ) -> Result<ThreadRows, Error> {
        let (answer, parcels) = mpsc::sync_channel(PARCELS);
        let query = Query {
            statement: statement.to_owned(),
            paths: paths.map(<[String]>::to_vec),
            answer,
        };
        // Without a receiver the thread has panicked, or still waits for an earlier answer.
        self.queries.send(query).map_err(|_| silent(SILENT))?;
        Ok(ThreadRows {
            parcels,
            parcel: Vec::new().into_iter(),
            has_ended: false,
            limit: self.limit,
        })
    }
}

pub(super) struct ThreadRows {
    parcels: Receiver<Result<Vec<Row>, Error>>,
    parcel: std::vec::IntoIter<Row>,
    has_ended: bool,
    limit: Duration,
}

impl Rows for ThreadRows {
    async fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.parcel.next() {
                return Ok(Some(row));
            }
            if self.has_ended {
                return Ok(None);
            }
            // Without a sender, the thread has panicked: what came is not all.
            let parcel = self.parcels.recv_timeout(self.limit);
            let parcel = parcel.map_err(|_| silent(SILENT))??;
            self.has_ended = parcel.is_empty();
            self.parcel = parcel.into_iter();
        }
    }
}
