//! A server process that can be frozen and killed, and never outlives the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::{free_port, wait_until};

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How a server is stopped at the end.
#[derive(Clone, Copy, PartialEq)]
pub enum Farewell {
    /// At once.
    Kill,
    /// SIGQUIT first. Killed outright, Postgres would leave a shared memory segment behind.
    Quit,
}

/// A running server.
pub struct Process {
    child: Child,
    watchdog: Child,
    farewell: Farewell,
}

impl Process {
    /// Runs `command` until its output has the text `ready`. The error is the end of that output.
    pub fn start(
        command: &mut Command,
        dir: &Path,
        ready: &str,
        farewell: Farewell,
    ) -> Result<Self, String> {
        let log = dir.join("server.log");
        let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let child = command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        let watchdog = watchdog(child.id(), dir, farewell);
        let mut process = Self {
            child,
            watchdog,
            farewell,
        };
        let start = Instant::now();
        loop {
            // In this order: what an exited server wrote is complete.
            let exited = process.has_exited();
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            if exited || start.elapsed() > START_LIMIT {
                return Err(tail(&text));
            }
            if text.contains(ready) {
                return Ok(process);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended (and been waited for).
    pub fn has_exited(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Stops the server and its children, without their noticing.
    pub fn freeze(&self) {
        // The parent first: from then on there are no new children.
        freeze(&[self.pid()]);
        freeze(&children(self.pid()));
    }

    /// Ends [`Process::freeze`].
    pub fn thaw(&self) {
        signal("CONT", &self.family());
    }

    /// SIGKILL for the server and its children; returns when they are gone.
    pub fn kill(&mut self) {
        end(&mut self.watchdog);
        if self.has_exited() {
            return;
        }
        let children = children(self.pid());
        end(&mut self.child);
        signal("KILL", &children);
        wait_until("the server's children are gone", STOP_LIMIT, || {
            children
                .iter()
                .all(|&pid| stat(pid).is_none_or(|(state, _)| state == 'Z'))
        });
    }

    fn quit(&mut self) {
        self.thaw();
        signal("QUIT", &[self.pid()]);
        let start = Instant::now();
        while !self.has_exited() && start.elapsed() < STOP_LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn family(&self) -> Vec<u32> {
        let mut family = children(self.pid());
        family.push(self.pid());
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.farewell == Farewell::Quit && !self.has_exited() {
            self.quit();
        }
        self.kill();
    }
}

fn end(child: &mut Child) {
    // Both fail only for a child that has been waited for already.
    let _ = child.kill();
    let _ = child.wait();
}

/// A shell that reads from a pipe of ours. If we die, whatever the reason, the pipe ends, and the
/// shell stops the server and removes its files.
fn watchdog(pid: u32, dir: &Path, farewell: Farewell) -> Child {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        read -r line
        kill -s CONT "$1"; kill -s "$2" "$1"
        for try in 1 2 3 4 5 6 7 8 9 10; do kill -s 0 "$1" || break; sleep 0.2; done
        kill -s KILL "$1"
        rm -rf "$3"
    "#;
    let stop = match farewell {
        Farewell::Kill => "KILL",
        Farewell::Quit => "QUIT",
    };
    Command::new("sh")
        .args(["-c", SCRIPT, "watchdog", &pid.to_string(), stop])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh can be started")
}

fn freeze(pids: &[u32]) {
    signal("STOP", pids);
    let is_frozen = |&pid| stat(pid).is_none_or(|(state, _)| matches!(state, 'T' | 't' | 'Z'));
    wait_until("the server is frozen", STOP_LIMIT, || {
        pids.iter().all(is_frozen)
    });
}

/// Sends a signal; a process that has gone meanwhile does not matter.
fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // The shell's own `kill`: a minimal system has no other.
    Command::new("sh")
        .args(["-c", r#"kill -s "$0" "$@""#, name])
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status()
        .expect("sh can be started");
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&candidate| stat(candidate).is_some_and(|(_, parent)| parent == pid))
        .collect()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Starts a server on a free port, and on another one when another process was quicker.
pub fn start_on_free_port(
    name: &str,
    start: impl Fn(u16) -> Result<Process, String>,
) -> (u16, Process) {
    let mut attempts = 0;
    loop {
        let port = free_port();
        attempts += 1;
        match start(port) {
            Ok(process) => return (port, process),
            Err(log) if attempts < 5 && log.to_lowercase().contains("in use") => {}
            Err(log) => panic!("{name} did not start; the end of its log:\n{log}"),
        }
    }
}

/// Starts a server once more where it was, as soon as its port is free.
pub fn start_again(name: &str, start: impl Fn() -> Result<Process, String>) -> Process {
    let begin = Instant::now();
    loop {
        match start() {
            Ok(process) => return process,
            Err(log) if begin.elapsed() < STOP_LIMIT && log.to_lowercase().contains("in use") => {}
            Err(log) => panic!("{name} did not start again; the end of its log:\n{log}"),
        }
    }
}

/// What a server's value holds: its process, or none while it is down.
pub struct Slot {
    name: &'static str,
    process: Mutex<Option<Process>>,
}

impl Slot {
    /// A running server.
    pub fn new(name: &'static str, process: Process) -> Self {
        let process = Mutex::new(Some(process));
        Self { name, process }
    }

    /// The process, for as long as the guard lives. A test that failed elsewhere is no obstacle.
    pub fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the running process.
    pub fn running<T>(&self, f: impl FnOnce(&mut Process) -> T) -> T {
        let mut process = self.lock();
        let down = || panic!("{} is not running", self.name);
        f(process.as_mut().unwrap_or_else(down))
    }

    /// Kills the process, if there is one.
    pub fn kill(&self) {
        if let Some(mut process) = self.lock().take() {
            process.kill();
        }
    }

    /// Kills the process, if there is one, and starts another one.
    pub fn restart(&self, start: impl Fn() -> Result<Process, String>) {
        self.kill();
        let process = start_again(self.name, start);
        *self.lock() = Some(process);
    }
}

/// The program `name` on `PATH` or in one of `dirs`.
///
/// # Panics
/// When there is none: a test is never skipped. The message says what to install.
pub fn program(name: &str, dirs: &[&str], package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = dirs.iter().map(PathBuf::from);
    env::split_paths(&path)
        .chain(dirs)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{}", missing(name, package)))
}

/// Says that `program` is not there, and what to do about it.
pub fn missing(program: &str, package: &str) -> String {
    format!(
        "{program} is missing: run \"make test\" (it installs it) or install the Debian package {package}"
    )
}
