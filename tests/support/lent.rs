//! Databases that the tests of a binary use one after another, because a start takes half a
//! second. No other test uses one meanwhile: an open transaction of one would disturb the other.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::{LIMIT, Postgres, wait_until};

static IDLE: Mutex<Vec<Postgres>> = Mutex::new(Vec::new());

/// A Postgres with an empty workspace and no other sessions.
pub struct LentPostgres(Option<Postgres>);

impl LentPostgres {
    pub fn take() -> Self {
        Self::take_with("workspace_files")
    }

    /// `table` is the workspace's, as it stands in SQL, with its schema if that is another one.
    pub fn take_with(table: &str) -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let postgres = idle.map_or_else(Postgres::start, emptied);
        if let Some((schema, _)) = table.split_once('.') {
            let statement = format!("CREATE SCHEMA {schema}");
            postgres.client().batch_execute(&statement).unwrap();
        }
        postgres.create_workspace(table);
        Self(Some(postgres))
    }
}

fn emptied(postgres: Postgres) -> Postgres {
    let mut client = postgres.client();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    wait_until("the sessions of an earlier test have ended", LIMIT, || {
        client.query(end, &[]).unwrap().is_empty()
    });
    let schemas = "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'";
    for row in client.query(schemas, &[]).unwrap() {
        client.batch_execute(row.get(0)).unwrap();
    }
    client.batch_execute("CREATE SCHEMA public").unwrap();
    postgres
}

impl Deref for LentPostgres {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl Drop for LentPostgres {
    fn drop(&mut self) {
        // After a failure it may be down.
        if std::thread::panicking() {
            return;
        }
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.0.take());
    }
}
