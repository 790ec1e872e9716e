//! Asks cache and database what is the matter with a path.

use std::sync::{Arc, Mutex, PoisonError};

use bifrost_module_cache::Diagnosis;
use bifrost_module_cache::blocking::ModuleReader;
use bifrost_module_cache::postgres::Client;

use crate::failure::Failure;
use crate::servers::{Database, Servers};

/// Both servers, connected to once for any number of paths.
pub struct BothServers<'a> {
    reader: ModuleReader,
    database: &'a Database<'a>,
    client: Arc<Mutex<Client>>,
}

impl<'a> BothServers<'a> {
    pub fn connect(servers: &Servers<'_>, database: &'a Database<'a>) -> Result<Self, Failure> {
        Ok(Self {
            client: Arc::new(Mutex::new(database.connect()?)),
            reader: servers.reader()?,
            database,
        })
    }

    pub fn diagnose(&self, path: &str) -> Result<Diagnosis, Failure> {
        let (reader, client) = (self.reader.clone(), Arc::clone(&self.client));
        let path = path.to_owned();
        self.database.answer(move || {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            reader.diagnose(&mut client, &path)
        })
    }
}
