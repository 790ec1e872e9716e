//! Asks cache and database what is the matter with a path.

use bifrost_module_cache::Diagnosis;
use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::postgres::Client;

use crate::failure::Failure;
use crate::servers::{Database, Servers};

/// Both servers, connected to once for any number of paths.
pub struct BothServers<'a> {
    reader: ModuleReader,
    database: &'a Database<'a>,
    client: Client,
}

impl<'a> BothServers<'a> {
    pub fn connect(servers: &Servers<'_>, database: &'a Database<'a>) -> Result<Self, Failure> {
        Ok(Self {
            client: database.connect()?,
            reader: servers.reader()?,
            database,
        })
    }

    pub fn diagnose(&mut self, path: &str) -> Result<Diagnosis, Failure> {
        self.reader
            .diagnose(&mut self.client, path)
            .map_err(|error| self.database.failure(error))
    }
}
