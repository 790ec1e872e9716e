//! `watch`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::schema;
use crate::support::{Proxy, READER_ACL};
use crate::tool::{LIMIT, Ran, World, run, signal, spawn, without_database};

/// A tool that watches.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    /// Returns when it watches.
    fn start(url: &str, arguments: &[&str]) -> Self {
        let arguments = [&["watch", "--json"], arguments].concat();
        let mut child = spawn(&arguments, &[("REDIS_URL", url)]);
        let lines = lines(child.stdout.take().unwrap());
        let watching = Self { child, lines };
        let first = watching.next();
        assert_eq!(first["event"], "watching", "{first}");
        watching
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(LIMIT).expect("something happens");
        let event: Value = serde_json::from_str(&line).unwrap();
        schema::check(&event, &schema::watch());
        event
    }

    #[track_caller]
    fn expect(&self, event: &str, path: &str) -> Value {
        let next = self.next();
        assert_eq!(
            (&next["event"], &next["path"]),
            (&event.into(), &path.into()),
            "{next}"
        );
        next
    }

    fn until(&self, event: &str) -> Value {
        loop {
            let next = self.next();
            if next["event"] == event {
                return next;
            }
        }
    }

    fn stop(self) {
        signal(&self.child, "TERM");
        let output = self.child.wait_with_output().unwrap();
        Ran::new(&output, Duration::ZERO)
            .expect(143)
            .says(&["stopped by SIGTERM"]);
    }
}

fn lines(out: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn what_changes_is_printed_as_it_changes() {
    let world = World::with_rows(&["a.py".to_owned(), "b.py".to_owned()]);
    let watching = Watching::start(&world.redis.url(), &[]);
    let mut foreign = world.foreign();
    // In Python's two steps, each of which may be seen.
    foreign.set("c.py", "1");
    let saved = watching.expect("saved", "c.py");
    assert_eq!(saved["bytes"], 1);
    world.refresh(&["a.py"]);
    watching.expect("saved", "a.py");
    foreign.del("c.py");
    watching.expect("removed", "c.py");
    // Never there, and not there now, or the same as before: no news.
    foreign.del("never.py");
    world.refresh(&["a.py"]);
    foreign.set_key("a.py", "{");
    watching.expect("corrupt", "a.py");
    foreign.flush();
    let everything = watching.until("everything");
    assert_eq!(everything["modules"], 0);
    watching.stop();
}

#[test]
fn only_what_was_asked_for_is_printed() {
    let world = World::new();
    let watching = Watching::start(&world.redis.url(), &["shared/"]);
    world.foreign().set("other.py", "1");
    world.foreign().set("shared/a.py", "1");
    watching.expect("saved", "shared/a.py");
    watching.stop();
}

#[test]
fn a_lost_connection_is_said_and_what_is_there_afterwards() {
    let world = World::new();
    let proxy = Proxy::start(world.redis.port());
    let watching = Watching::start(&proxy.url(), &[]);
    proxy.refuse();
    proxy.reset_all();
    watching.until("lost");
    world.foreign().set("a.py", "1");
    proxy.accept();
    let back = watching.until("everything");
    assert_eq!(back["modules"], 1);
    world.foreign().set("b.py", "1");
    watching.expect("saved", "b.py");
    watching.stop();
}

#[test]
fn changes_that_will_not_be_seen_are_said_though_redis_answers() {
    let world = World::new();
    let watching = Watching::start(&world.redis.url(), &[]);
    let mut foreign = world.foreign();
    foreign.run("ACL SETUSER default -client|tracking");
    foreign.run("CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(watching.next()["event"], "lost");
    watching.stop();
}

#[test]
fn whoever_may_not_watch_is_told() {
    let world = World::new();
    let narrow = READER_ACL
        .replace("+client|tracking ", "")
        .replace("PASSWORD", "reads");
    world.foreign().run(&narrow);
    let mut command = without_database(&world, &["watch"]);
    command.env("REDIS_URL", world.redis.url_as("bifrost_reader", "reads"));
    run(command, 4).says(&["refused the command with", "NOPERM"]);
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let world = World::new();
    let mut child = spawn(&["watch"], &[("REDIS_URL", &world.redis.url())]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("watching"), "{line}");
    drop(out);
    // Though nothing changes, as behind `grep -m1`.
    let start = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < LIMIT, "it goes on");
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let ran = Ran::new(&output, start.elapsed()).expect(0);
    assert!(ran.err.is_empty(), "{ran:?}");
}
