//! `PgBouncer` before a Postgres.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::postgres::{Postgres, drop_privileges, private_dir, url};
use super::process::{Farewell, Process, Slot, program, start_on_free_port};

/// A `PgBouncer` in transaction mode with two server connections.
pub struct PgBouncer {
    slot: Slot,
    port: u16,
    // Last: removed when the server has gone.
    dir: TempDir,
}

impl PgBouncer {
    /// Starts one before `postgres`, on a free port.
    pub fn start(postgres: &Postgres) -> Self {
        let dir = private_dir("bifrost-pgbouncer-");
        let (port, process) =
            start_on_free_port("pgbouncer", |port| launch(port, postgres.port(), &dir));
        Self {
            slot: Slot::new("pgbouncer", process),
            port,
            dir,
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, for `postgres` and `tokio_postgres`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// A connection through it.
    pub fn client(&self) -> ::postgres::Client {
        ::postgres::Client::connect(&self.url(), ::postgres::NoTls)
            .expect("PgBouncer accepts a connection")
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&self) {
        self.slot.kill();
    }
}

fn launch(port: u16, postgres: u16, dir: &TempDir) -> Result<Process, String> {
    let settings = format!(
        "[databases]
         * = host=127.0.0.1 port={postgres} user=postgres
         [pgbouncer]
         listen_addr = 127.0.0.1
         listen_port = {port}
         unix_socket_dir =
         auth_type = any
         pool_mode = transaction
         default_pool_size = 2
        "
    );
    let settings: String = settings
        .lines()
        .flat_map(|line| [line.trim_start(), "\n"])
        .collect();
    let file = dir.path().join("pgbouncer.ini");
    fs::write(&file, settings).map_err(|e| e.to_string())?;
    // Debian has it in a directory that is not on an ordinary user's PATH.
    let mut command = Command::new(program("pgbouncer", &["/usr/sbin"], "pgbouncer"));
    command.arg("pgbouncer.ini");
    drop_privileges(&mut command);
    Process::start(&mut command, dir.path(), "process up", Farewell::Kill)
}
