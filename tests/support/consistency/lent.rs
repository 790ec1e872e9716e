//! Databases that the tests of a binary use one after another, because a start takes half a
//! second. Nobody else uses one meanwhile: a transaction that is left open would disturb others.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use crate::support::{Postgres, wait_until};

use super::LIMIT;

static IDLE: Mutex<Vec<Postgres>> = Mutex::new(Vec::new());

/// A Postgres with an empty workspace and no other sessions.
pub struct LentPostgres(Option<Postgres>);

impl LentPostgres {
    pub fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(postgres) = idle else {
            let postgres = Postgres::start();
            postgres.create_workspace("workspace_files");
            return Self(Some(postgres));
        };
        let mut client = postgres.client();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        wait_until("the sessions of an earlier test have ended", LIMIT, || {
            client.query(end, &[]).unwrap().is_empty()
        });
        client
            .batch_execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            .unwrap();
        postgres.create_workspace("workspace_files");
        Self(Some(postgres))
    }
}

impl Deref for LentPostgres {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl Drop for LentPostgres {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.0.take());
    }
}
