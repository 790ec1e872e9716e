//! The database of a [`World`].

use std::ops::Deref;
use std::sync::OnceLock;

use bifrost_module_cache::sync::{Drift, RefreshReport, RepairReport, SyncOptions, WarmReport};

use super::facade::{Facade, Writer};
use super::foreign::Table;
use super::lent::LentPostgres;
use super::postgres::Postgres;
use super::syncing::Syncing;
use super::world::World;

impl<F: Facade> World<F> {
    /// With these modules in the database, each with its path for a content.
    pub fn with_rows(paths: &[String]) -> Self {
        let world = Self::new();
        world.table().fill(paths);
        world
    }

    /// With a workspace in another table: its name as it stands in SQL, with its schema if that is
    /// another one.
    pub fn with_table(table: &str) -> Self {
        Self {
            postgres: Database(LentPostgres::take_with(table).into()),
            ..Self::new()
        }
    }

    /// A connection for the facade.
    pub fn client(&self) -> <F::Writer as Writer>::Client {
        F::Writer::connect(&self.postgres.url())
    }

    /// Another service's connection to the database.
    pub fn table(&self) -> Table {
        Table(self.postgres.client())
    }
}

impl<F: Facade<Writer: Syncing>> World<F> {
    pub fn refresh(&self, paths: &[&str]) -> RefreshReport {
        self.writer.refresh(&mut self.client(), paths).unwrap()
    }

    pub fn warm(&self, options: SyncOptions<'_>) -> WarmReport {
        self.writer.warm_with(&mut self.client(), options).unwrap()
    }

    pub fn verify(&self) -> Drift {
        let options = SyncOptions::default();
        self.writer
            .verify_with(&mut self.client(), options)
            .unwrap()
    }

    pub fn repair(&self, options: SyncOptions<'_>) -> RepairReport {
        self.writer
            .repair_with(&mut self.client(), options)
            .unwrap()
    }
}

/// Postgres, lent when a test first uses it: most tests of Redis do not.
#[derive(Default)]
pub struct Database(OnceLock<LentPostgres>);

impl Deref for Database {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        self.0.get_or_init(LentPostgres::take)
    }
}
