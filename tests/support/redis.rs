//! A Redis server of the test's own.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Farewell, Process, Slot, missing, program, start_on_free_port};
use super::wait_until;

const SAVE_LIMIT: Duration = Duration::from_secs(10);

/// A Redis server without persistence. The variable `BIFROST_TEST_REDIS_SERVER` names another
/// binary than the `redis-server` on `PATH`.
pub struct RedisServer {
    slot: Slot,
    port: u16,
    arguments: Vec<String>,
    // Last: removed when the server has gone.
    dir: TempDir,
}

impl RedisServer {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more command-line arguments, which prevail over the usual ones.
    pub fn start_with(arguments: &[&str]) -> Self {
        let dir = TempDir::with_prefix("bifrost-redis-").expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let (port, process) =
            start_on_free_port("redis-server", |port| launch(port, &arguments, &dir));
        Self {
            slot: Slot::new("redis-server", process),
            port,
            arguments,
            dir,
        }
    }

    /// True for Redis 6: its ACLs know no permissions to read a key, and it lacks some settings.
    pub fn is_old() -> bool {
        static IS_OLD: LazyLock<bool> = LazyLock::new(|| {
            let output = Command::new(binary()).arg("--version").output();
            let output = output.expect("redis-server can be started").stdout;
            String::from_utf8_lossy(&output).contains(" v=6.")
        });
        *IS_OLD
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without a user.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its URL for an ACL user; both arguments are put in as they are.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/0", self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.slot.running(|process| process.pid())
    }

    /// A connection of its own, for assertions; it waits for as long as the server is frozen.
    pub fn connection(&self) -> ::redis::Connection {
        connect(&self.url())
    }

    /// SIGSTOP: the kernel goes on accepting connections and bytes, the server does not answer.
    pub fn freeze(&self) {
        self.slot.running(|process| process.freeze());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.slot.running(|process| process.thaw());
    }

    /// SIGKILL; returns when the server is gone. What it held is lost.
    pub fn kill(&self) {
        self.slot.kill();
    }

    /// Starts it again, killing it first if it runs: same port, same directory, same arguments.
    pub fn restart(&self) {
        let start = || launch(self.port, &self.arguments, &self.dir);
        self.slot.restart(start);
    }

    /// The same, without waiting until it has loaded its data.
    pub fn restart_loading(&self) {
        let ready = "Server initialized";
        let start = || launch_until(ready, self.port, &self.arguments, &self.dir);
        self.slot.restart(start);
    }

    /// Removes what [`RedisServer::shutdown_save`] saved.
    pub fn forget(&self) {
        // There may be nothing.
        let _ = fs::remove_file(self.dir.path().join("dump.rdb"));
    }

    /// `SHUTDOWN SAVE`: after [`RedisServer::restart`] the data are back.
    pub fn shutdown_save(&self) {
        // The server goes without an answer, so this fails when it works.
        let _ = ::redis::cmd("SHUTDOWN")
            .arg("SAVE")
            .exec(&mut self.connection());
        wait_until("redis-server has saved and ended", SAVE_LIMIT, || {
            self.slot.running(Process::has_exited)
        });
        self.slot.kill();
    }

    /// How often a command was called since the start or [`RedisServer::reset_stats`]: `"get"`,
    /// or `"client|tracking"`. Calls that the server refused do not count.
    pub fn calls(&self, command: &str) -> u64 {
        let info: String = ::redis::cmd("INFO")
            .arg("commandstats")
            .query(&mut self.connection())
            .expect("INFO is answered");
        let prefix = format!("cmdstat_{}:calls=", command.to_lowercase());
        let calls = info.lines().find_map(|line| line.strip_prefix(&prefix));
        calls.map_or(0, |rest| {
            let digits = rest.split(',').next().unwrap_or_default();
            digits.parse().expect("a number of calls")
        })
    }

    /// Runs a command whose arguments have no spaces, and returns nothing of its answer.
    pub fn command(&self, line: &str) {
        let mut words = line.split_whitespace();
        let mut command = ::redis::cmd(words.next().expect("a command"));
        command.arg(words.collect::<Vec<_>>());
        command
            .exec(&mut self.connection())
            .unwrap_or_else(|e| panic!("{line}: {e}"));
    }

    /// A field of INFO.
    pub fn info(&self, field: &str) -> String {
        let info: String = ::redis::cmd("INFO")
            .query(&mut self.connection())
            .expect("INFO is answered");
        let prefix = format!("{field}:");
        let value = info.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Demotes it in place, to a replica of another server; returns when it has its data.
    pub fn replicate(&self, primary: &Self) {
        self.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_until("the replica has its primary's data", SAVE_LIMIT, || {
            self.info("master_link_status") == "up"
        });
    }

    /// Demotes it in place, to a replica of a server that is not there: it keeps its data, as one
    /// that is cut off from its successor.
    pub fn demote(&self) {
        self.command(&format!("REPLICAOF 127.0.0.1 {}", super::free_port()));
    }

    /// Makes a primary of it.
    pub fn promote(&self) {
        self.command("REPLICAOF NO ONE");
    }

    /// `CONFIG RESETSTAT`.
    pub fn reset_stats(&self) {
        ::redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .exec(&mut self.connection())
            .expect("CONFIG RESETSTAT is answered");
    }
}

/// A connection without time-outs: where a socket has one, Linux lets a mere SIGCHLD, such as the
/// end of another test's server, fail a read (EINTR).
pub fn connect(url: &str) -> ::redis::Connection {
    let client = ::redis::Client::open(url).expect("a Redis URL");
    client.get_connection().expect("Redis accepts a connection")
}

fn launch(port: u16, arguments: &[String], dir: &TempDir) -> Result<Process, String> {
    launch_until("Ready to accept connections", port, arguments, dir)
}

fn launch_until(
    ready: &str,
    port: u16,
    arguments: &[String],
    dir: &TempDir,
) -> Result<Process, String> {
    let mut command = Command::new(binary());
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        // At "notice", it says when it is ready.
        .args(["--save", "", "--appendonly", "no", "--loglevel", "notice"])
        // It would wait 5 s for more replicas.
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir.path())
        .args(arguments);
    Process::start(&mut command, dir.path(), ready, Farewell::Kill)
}

/// The server's program.
pub fn binary() -> PathBuf {
    let Some(name) = env::var_os("BIFROST_TEST_REDIS_SERVER") else {
        return program("redis-server", &[], "redis-server");
    };
    let path = PathBuf::from(name);
    // A bare name is looked up on PATH by the system.
    let found = path.components().count() == 1 || path.is_file();
    assert!(
        found,
        "{}",
        missing(&path.to_string_lossy(), "redis-server")
    );
    path
}
