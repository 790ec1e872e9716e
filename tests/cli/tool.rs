//! Runs the tool.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;

use crate::support;
use crate::support::{Blocking, Postgres, Table};

/// The servers of a test, and those who touch them beside the tool.
pub type World = support::World<Blocking>;

/// No test waits for the tool for longer than that.
pub const LIMIT: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_bifrost-modules");

/// A server of the test's own, which other tests don't wait for.
pub fn postgres_with_one_module() -> Postgres {
    let postgres = Postgres::start();
    postgres.create_workspace("workspace_files");
    Table(postgres.client()).put("a.py", "a.py");
    postgres
}

/// The tool with nothing of this machine's environment.
pub fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.env_clear().args(arguments).timeout(LIMIT);
    command
}

/// The tool, with the servers in its environment.
pub fn tool(world: &World, arguments: &[&str]) -> Command {
    let mut command = without_database(world, arguments);
    command.env("DATABASE_URL", world.postgres.url());
    command
}

/// The tool for those who have no database.
pub fn without_database(world: &World, arguments: &[&str]) -> Command {
    let mut command = bare(arguments);
    command.env("REDIS_URL", world.redis.url());
    command
}

/// Runs it and expects this exit code.
#[track_caller]
pub fn run(mut command: Command, code: i32) -> Ran {
    let start = Instant::now();
    let output = command.output().unwrap();
    Ran::new(&output, start.elapsed()).expect(code)
}

/// A tool that is to be signalled.
pub fn spawn(arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    std::process::Command::new(BINARY)
        .env_clear()
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a signal, such as `TERM`.
pub fn signal(child: &Child, name: &str) {
    let script = format!("kill -s {name} {}", child.id());
    let mut shell = std::process::Command::new("sh");
    assert!(shell.args(["-c", &script]).status().unwrap().success());
}

/// What it did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Ran {
    pub fn new(output: &Output, took: Duration) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            took,
        }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// It failed with one line that says all of this.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        assert!(self.err.starts_with("error: "), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        self.mentions(words)
    }

    /// Somewhere in what it printed.
    #[track_caller]
    pub fn mentions(self, words: &[&str]) -> Self {
        for word in words {
            let all = format!("{}{}", self.out, self.err);
            assert!(all.contains(word), "no {word:?} in {self:?}");
        }
        self
    }

    /// One object a line.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        self.out.lines().map(parse).collect()
    }

    /// Its only object.
    #[track_caller]
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }
}
