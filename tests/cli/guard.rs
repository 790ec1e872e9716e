//! `guard`, a service: how it begins and ends, what it serves over HTTP, and what it logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::schema;
use crate::support::{
    READER_ACL, RedisServer, WRITER_ACL, connect, free_port, numbered, wait_until,
};
use crate::tool::{LIMIT, Ran, World, bare, postgres_with_one_module, run, signal, spawn, tool};

/// Five seconds are promised for the end; the machine may be slow.
const IN_TIME: Duration = Duration::from_secs(20);

const GUARDS: &str = "keeps the cache equal to the database from now on";
const UNFOLLOWED: &str = "can't follow Redis";
const NO_DATABASE: &str = "lost the database";

/// A guard that runs. Killed when it is dropped.
struct Guard {
    child: Child,
    /// What it has written to standard error so far.
    log: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    /// Over both servers of a world; returns when it guards.
    fn start(world: &World, arguments: &[&str]) -> Self {
        let guard = Self::begin(&world.redis.url(), &world.postgres.url(), arguments);
        guard.wait_for(GUARDS);
        guard
    }

    /// Returns at once.
    fn begin(redis: &str, database: &str, arguments: &[&str]) -> Self {
        let arguments = [&["guard"], arguments].concat();
        let variables = [("REDIS_URL", redis), ("DATABASE_URL", database)];
        let mut child = spawn(&arguments, &variables);
        let (log, lines) = (Arc::default(), BufReader::new(child.stderr.take().unwrap()));
        let theirs: Arc<Mutex<Vec<String>>> = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                theirs.lock().unwrap().push(line);
            }
        });
        Self { child, log }
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How many lines say this.
    fn count(&self, words: &str) -> usize {
        self.log()
            .iter()
            .filter(|line| line.contains(words))
            .count()
    }

    /// Waits for a line that says this.
    #[track_caller]
    fn wait_for(&self, words: &str) {
        self.wait_for_more(words, 0);
    }

    /// Waits for more lines than so many that say this.
    #[track_caller]
    fn wait_for_more(&self, words: &str, before: usize) {
        let start = Instant::now();
        while self.count(words) <= before {
            assert!(start.elapsed() < LIMIT, "no {words:?} in {:#?}", self.log());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end by itself; answers all that it said.
    #[track_caller]
    fn ended(mut self, code: i32) -> Vec<String> {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{:#?}", self.log());
        // The reader comes to the end of the pipe after the process does.
        wait_until("all is read", LIMIT, || Arc::strong_count(&self.log) == 1);
        let mut out = String::new();
        let stdout = self.child.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        assert!(out.is_empty(), "a log is no answer: {out}");
        self.log()
    }

    /// Signals it, and waits for its end.
    #[track_caller]
    fn end(self, name: &str, code: i32) -> Vec<String> {
        let start = Instant::now();
        signal(&self.child, name);
        let log = self.ended(code);
        assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
        log
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                start.elapsed() < LIMIT,
                "it does not end: {:#?}",
                self.log()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

/// Sends this as it is, and reads to the end; `None` where the connection was refused, reset or
/// closed without an answer.
fn send(port: u16, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // It may close before all is sent.
    let _ = stream.write_all(request);
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.0 ")?.split(' ').next()?;
    Some(Answer {
        code: code.parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

#[track_caller]
fn get(port: u16, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    let start = Instant::now();
    loop {
        if let Some(answer) = send(port, request.as_bytes()) {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "no answer to GET {path}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn wait_for_code(port: u16, path: &str, code: u16) -> Answer {
    let start = Instant::now();
    loop {
        let answer = get(port, path);
        if answer.code == code {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "{path} stays {answer:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// All series of a page that Prometheus would take, by name with labels.
#[track_caller]
fn series(page: &str) -> BTreeMap<String, f64> {
    let (mut series, mut types) = (BTreeMap::new(), BTreeSet::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(
                help.split_once(' ')
                    .is_some_and(|(_, text)| !text.is_empty()),
                "{line}"
            );
            continue;
        }
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned()), "{name} is there twice");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect(line);
        let value = match value {
            "+Inf" => f64::INFINITY,
            "NaN" => f64::NAN,
            number => number.parse().expect(line),
        };
        let family = name.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].map(|end| family.strip_suffix(end));
        let mut families = of_histogram.into_iter().flatten().chain([family]);
        assert!(families.any(|it| types.contains(it)), "no type of {line}");
        if let Some((_, labels)) = name.split_once('{') {
            let labels = labels.strip_suffix('}').expect(line);
            for label in labels.split(',') {
                let (key, value) = label.split_once('=').expect(line);
                assert!(
                    key.bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                    "{line}"
                );
                assert!(
                    value.len() > 2 && value.starts_with('"') && value.ends_with('"'),
                    "{line}"
                );
            }
        }
        assert!(
            series.insert(name.to_owned(), value).is_none(),
            "{name} is there twice"
        );
    }
    series
}

fn failures(port: u16) -> f64 {
    series(&get(port, "/metrics").body)["bifrost_guard_failures_total"]
}

#[track_caller]
fn wait_for_content(world: &World, path: &str, content: Option<&str>) {
    wait_until(&format!("{path} is right"), LIMIT, || {
        world.get(path).as_deref() == content
    });
}

fn has_sign_of_life(world: &World) -> bool {
    world.status().guard.is_some()
}

#[test]
fn what_is_wrong_gets_right_until_a_signal_ends_it() {
    let world = World::with_rows(&numbered(3));
    let (mut foreign, mut table) = (world.foreign(), world.table());
    for name in ["TERM", "INT"] {
        let guard = Guard::start(&world, &["--poll", "100ms"]);
        wait_until("it gives a sign of life", LIMIT, || {
            has_sign_of_life(&world)
        });
        wait_until("the cache is complete", LIMIT, || world.status().is_warm());
        foreign.set("m/000.py", "wrong");
        wait_for_content(&world, "m/000.py", Some("m/000.py"));
        foreign.set("m/ghost.py", "ghost");
        wait_for_content(&world, "m/ghost.py", None);
        table.put("m/001.py", name);
        wait_for_content(&world, "m/001.py", Some(name));
        let log = guard.end(name, 0);
        assert!(!has_sign_of_life(&world), "{log:#?}");
        let last = log.last().unwrap();
        assert!(last.contains("The guard ended"), "{log:#?}");
    }
    // Nobody mends any more.
    foreign.set("m/000.py", "wrong");
    assert_eq!(world.get("m/000.py").as_deref(), Some("wrong"));
}

#[test]
fn a_database_that_does_not_answer_keeps_it_for_some_seconds_only() {
    let world = World::with_rows(&numbered(3));
    let start = || {
        let port = free_port();
        // The database may take longer for an answer than an end may take.
        let arguments = [
            "--timeout",
            "60s",
            "--poll",
            "100ms",
            "--metrics",
            &port.to_string(),
        ];
        (Guard::start(&world, &arguments), port)
    };
    let guards = [start(), start(), start()];
    world.postgres.freeze();
    for (_, port) in &guards {
        wait_until("it waits for the database", LIMIT, || {
            // It sleeps for a second at most.
            series(&get(*port, "/metrics").body)["bifrost_guard_active_age_seconds"] > 2.0
        });
    }
    let [(patient, _), (twice, _), (interrupted, _)] = guards;
    // At a second signal it is not waited for at all.
    let mut twice = twice;
    signal(&twice.child, "TERM");
    signal(&twice.child, "INT");
    let code = twice.wait().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    patient.end("TERM", 0);
    interrupted.end("INT", 0);
    world.postgres.thaw();
}

#[test]
fn a_redis_that_does_not_answer_keeps_it_for_some_seconds_only() {
    let world = World::with_rows(&numbered(3));
    let guard = Guard::start(&world, &["--timeout", "60s", "--poll", "100ms"]);
    world.redis.freeze();
    guard.end("TERM", 0);
    world.redis.thaw();
}

#[test]
fn started_before_either_server_it_guards_once_both_are_up() {
    let (redis, postgres) = (RedisServer::start(), postgres_with_one_module());
    for redis_is_first in [true, false] {
        redis.kill();
        postgres.kill();
        let guard = Guard::begin(&redis.url(), &postgres.url(), &[]);
        guard.wait_for(NO_DATABASE);
        guard.wait_for(UNFOLLOWED);
        if redis_is_first {
            redis.restart();
            guard.wait_for("follows Redis");
            postgres.restart();
        } else {
            postgres.restart();
            guard.wait_for("reads the workspace of");
            redis.restart();
        }
        guard.wait_for(GUARDS);
        let mut status = bare(&["status"]);
        status.env("REDIS_URL", redis.url());
        run(status, 0).mentions(&["guard"]);
        let log = guard.end("TERM", 0);
        // Each is told once, however often it is tried.
        for words in [NO_DATABASE, UNFOLLOWED, "follows Redis", GUARDS] {
            let count = log.iter().filter(|line| line.contains(words)).count();
            assert_eq!(count, 1, "{words} in {log:#?}");
        }
    }
}

#[test]
fn what_waiting_does_not_mend_ends_it_with_one_line() {
    let world = World::with_rows(&["a.py".to_owned()]);
    world.foreign().run("CONFIG SET requirepass right");
    let right = world.redis.url_as("default", "right");
    let fails = |redis: &str, database: &str, words: &[&str]| {
        let log = Guard::begin(redis, database, &[]).ended(4);
        let errors: Vec<&String> = log.iter().filter(|it| it.starts_with("error: ")).collect();
        assert_eq!(errors, [log.last().unwrap()], "{log:#?}");
        for word in words {
            assert!(errors[0].contains(word), "no {word:?} in {log:#?}");
        }
        let all = log.concat();
        assert!(
            !all.contains("hunter2") && !all.contains("right@"),
            "{log:#?}"
        );
        assert!(log.len() <= 4, "{log:#?}");
    };
    let wrong = world.redis.url_as("default", "hunter2");
    fails(&wrong, &world.postgres.url(), &["WRONGPASS"]);
    let reader = READER_ACL.replace("PASSWORD", "hunter2");
    redis::cmd("ACL")
        .arg(reader.split(' ').skip(1).collect::<Vec<_>>())
        .exec(&mut connect(&right))
        .unwrap();
    let reader = world.redis.url_as("bifrost_reader", "hunter2");
    fails(&reader, &world.postgres.url(), &["NOPERM"]);

    let nowhere = world.postgres.url().replace("/postgres", "/nowhere");
    fails(&right, &nowhere, &["nowhere", "does not exist"]);
    world.table().run(
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT TRUE'",
    );
    let options = "options=-c%20search_path%3Dpublic,pg_catalog";
    let standby = format!("{}?{options}", world.postgres.url());
    fails(&right, &standby, &["standby", "connect to the primary"]);
    world.table().run("DROP TABLE workspace_files");
    fails(
        &right,
        &world.postgres.url(),
        &["workspace_files", "does not exist"],
    );
}

#[test]
fn a_password_of_the_database_is_not_shown() {
    let world = World::new();
    let port = free_port();
    let database = format!("postgres://u:hunter2@127.0.0.1:{port}/x");
    let redis = format!("redis://:hunter2@127.0.0.1:{}/0", free_port());
    let guard = Guard::begin(&redis, &database, &[]);
    guard.wait_for(NO_DATABASE);
    guard.wait_for(UNFOLLOWED);
    let log = guard.end("TERM", 0).concat();
    assert!(!log.contains("hunter2"), "{log}");
    assert!(
        log.contains(&port.to_string()),
        "it names the server: {log}"
    );
    drop(world);
}

#[test]
fn probes_tell_when_it_is_ready_and_metrics_can_be_scraped() {
    let world = World::with_rows(&numbered(3));
    world.redis.kill();
    let port = free_port();
    let text = port.to_string();
    let (redis, database) = (world.redis.url(), world.postgres.url());
    let guard = Guard::begin(
        &redis,
        &database,
        &["--poll", "100ms", "--sweep", "1h", "--metrics", &text],
    );
    let answer = get(port, "/readyz");
    assert_eq!(answer.code, 503, "{answer:?}");
    assert_eq!(get(port, "/healthz").code, 200);
    let guarding = series(&get(port, "/metrics").body)["bifrost_guard_guarding"];
    assert!(guarding < 1.0);
    world.redis.restart();
    wait_for_code(port, "/readyz", 200);
    world.foreign().set("m/000.py", "wrong");
    wait_for_content(&world, "m/000.py", Some("m/000.py"));

    let page = get(port, "/metrics?from=prometheus");
    assert_eq!(page.code, 200);
    let kind = "Content-Type: text/plain; version=0.0.4; charset=utf-8";
    assert!(page.head.contains(kind), "{page:?}");
    assert!(
        page.head
            .contains(&format!("Content-Length: {}", page.body.len()))
    );
    assert!(!page.body.contains("m/000.py"), "no path is a label");
    let all = series(&page.body);
    for (name, value) in [
        ("bifrost_guard_guarding", 1.0),
        ("bifrost_guard_feed_up{feed=\"redis\"}", 1.0),
        ("bifrost_guard_feed_up{feed=\"database\"}", 1.0),
        ("bifrost_guard_database_feed{mode=\"poll\"}", 1.0),
        ("bifrost_guard_modules", 3.0),
    ] {
        assert_eq!(all.get(name), Some(&value), "{name} in {}", page.body);
    }
    // The guard's own, and those of its writer.
    let at_least_one = [
        "bifrost_guard_mended_paths_total{verdict=\"stale\"}",
        "bifrost_guard_sweeps_total",
    ];
    for name in at_least_one {
        assert!(all[name] >= 1.0, "{name} in {}", page.body);
    }
    assert!(all.contains_key("bifrost_module_cache_calls_total"));
    assert!(all.contains_key("bifrost_module_cache_breaker_state{state=\"open\"}"));

    // What is lost shows.
    world.redis.kill();
    let answer = wait_for_code(port, "/readyz", 503);
    assert!(answer.body.contains("Redis"), "{answer:?}");
    assert_eq!(get(port, "/healthz").code, 200);
    world.redis.restart();
    wait_for_code(port, "/readyz", 200);
    world.postgres.freeze();
    let answer = wait_for_code(port, "/readyz", 503);
    assert!(answer.body.contains("database"), "{answer:?}");
    world.postgres.thaw();
    wait_for_code(port, "/readyz", 200);
    guard.end("TERM", 0);
    assert!(
        send(port, b"GET / HTTP/1.0\r\n\r\n").is_none(),
        "nobody listens any more"
    );
}

#[test]
fn no_request_keeps_others_from_their_answers() {
    let world = World::new();
    let port = free_port();
    // On all addresses; what it needs is not there, and it answers all the same.
    let (nowhere, address) = (
        format!("redis://127.0.0.1:{}/0", free_port()),
        format!("0.0.0.0:{port}"),
    );
    let guard = Guard::begin(&nowhere, &world.postgres.url(), &["--metrics", &address]);
    let alive = || assert_eq!(get(port, "/healthz").code, 200);
    alive();
    let code = |request: &[u8]| send(port, request).map(|answer| answer.code);
    assert_eq!(get(port, "/").code, 404);
    assert_eq!(get(port, "/metrics/").code, 404);
    for method in ["POST", "DELETE", "get", "OPTIONS"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(code(request.as_bytes()), Some(405), "{method}");
    }
    let head = send(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!((head.code, &*head.body), (200, ""), "{head:?}");
    assert!(!head.head.contains("Content-Length: 0"), "{head:?}");
    assert_eq!(
        send(port, b"HEAD /nowhere HTTP/1.0\r\n\r\n").unwrap().body,
        ""
    );
    for garbage in [
        &b"\r\n\r\n"[..],
        b"garbage\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/2\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(code(garbage), Some(400), "{garbage:?}");
    }
    // Too long, with and without an end of the line. A reset may overtake the answer.
    let long = [&b"GET /healthz HTTP/1.1\r\nX: "[..], &vec![b'x'; 1 << 20]].concat();
    for request in [&vec![b'x'; 1 << 20], &long] {
        let answer = code(request);
        assert!(matches!(answer, None | Some(200 | 400)), "{answer:?}");
        alive();
    }

    // Those that say nothing, or never come to an end, are let go.
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let begin = |part: &[u8]| {
        let mut stream = connect();
        stream.write_all(part).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let idle: Vec<TcpStream> = [
        &b""[..],
        b"GET /metrics",
        b"GET /metrics HTTP/1.1\r\nHost: ",
    ]
    .iter()
    .cycle()
    .take(64)
    .map(|part| begin(part))
    .collect();
    // More than it answers at once: after a while it does.
    alive();
    for mut stream in idle {
        let mut answer = Vec::new();
        // A reset is an end as well; a time-out is none.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    // One that drips is let go, too.
    let mut dripping = connect();
    let start = Instant::now();
    while dripping.write_all(b"G").is_ok() {
        assert!(start.elapsed() < IN_TIME, "it may go on for ever");
        thread::sleep(Duration::from_millis(50));
    }
    alive();
    guard.end("TERM", 0);
}

#[test]
fn an_address_that_cannot_be_listened_on_is_said_at_once() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let guard = |metrics: &str, code| {
        let mut command = bare(&["guard", "--metrics", metrics]);
        command
            .env("REDIS_URL", format!("redis://127.0.0.1:{}/0", free_port()))
            .env(
                "DATABASE_URL",
                format!("postgres://127.0.0.1:{}/x", free_port()),
            );
        run(command, code)
    };
    for metrics in [address.to_string(), address.port().to_string()] {
        guard(&metrics, 4).says(&["can't listen on", &address.to_string()]);
    }
    for metrics in ["nonsense", "127.0.0.1", "localhost:9187", "70000", ""] {
        guard(metrics, 2).mentions(&["--metrics", "neither a port nor an address"]);
    }
}

#[test]
fn the_printed_triggers_can_be_installed_twice_and_need_no_server() {
    for table in ["workspace_files", "Odd \"place\".it's $bifrost$ -- {é}; %s"] {
        let print = || {
            let printed = run(bare(&["guard", "--print-trigger", "--table", table]), 0);
            assert!(printed.err.is_empty(), "{printed:?}");
            printed.out
        };
        let sql = print();
        assert_eq!(print(), sql);
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        let parts: Vec<String> = table.split('.').map(quote).collect();
        let world = World::with_table(&parts.join("."));
        let mut client = world.table();
        client.run(&sql);
        client.run(&sql);
        let guard = Guard::start(&world, &["--listen", "--table", table, "--poll", "1h"]);
        guard.wait_for("is told by triggers");
        let insert = format!(
            "INSERT INTO {} (path, content, entity_type) VALUES ('a.py', 'told', 'module')",
            parts.join(".")
        );
        client.run(&insert);
        wait_for_content(&world, "a.py", Some("told"));
        guard.end("TERM", 0);
    }
    let ran = run(bare(&["guard", "--print-trigger", "--table", "a.b.c"]), 4);
    ran.says(&["schema.name"]);
}

#[test]
fn it_says_once_whether_triggers_tell_it() {
    let told = "is told by triggers which rows change";
    let asks = "asks for changed rows instead of being told";
    let world = World::with_rows(&numbered(3));
    let guard = Guard::start(&world, &["--listen", "--sweep", "1s", "--poll", "100ms"]);
    guard.wait_for(asks);
    assert_eq!(guard.count("--print-trigger"), 1, "{:#?}", guard.log());
    world.table().put("m/000.py", "1");
    wait_for_content(&world, "m/000.py", Some("1"));
    // Installed later, they are found.
    world
        .table()
        .run(&run(bare(&["guard", "--print-trigger"]), 0).out);
    guard.wait_for(told);
    wait_until("the sign of life says so", LIMIT, || {
        world
            .status()
            .guard
            .is_some_and(|guard| guard.feed == "listen")
    });
    world.table().put("m/000.py", "2");
    wait_for_content(&world, "m/000.py", Some("2"));
    let log = guard.end("TERM", 0);
    for words in [told, asks] {
        let count = log.iter().filter(|line| line.contains(words)).count();
        assert_eq!(count, 1, "{words} in {log:#?}");
    }
}

#[test]
fn status_shows_it_and_explain_counts_on_it() {
    let world = World::with_rows(&numbered(3));
    // Its sign of life lasts for three intervals.
    let guard = Guard::start(&world, &["--poll", "20s"]);
    wait_until("it gives a sign of life", LIMIT, || {
        has_sign_of_life(&world)
    });
    let row = |ran: &Ran| {
        let row = ran.out.lines().find(|line| line.starts_with("guard "));
        row.map(str::to_owned)
    };
    let ran = run(tool(&world, &["status"]), 0);
    let shown = row(&ran).expect("a row for the guard");
    assert!(
        shown.contains("since ") && shown.contains("last checked") && shown.contains("poll"),
        "{shown}"
    );
    let object = run(tool(&world, &["status", "--json"]), 0).object();
    schema::check(&object, &schema::status());
    assert_eq!(
        (&object["guard"]["feed"], &object["guard"]["withheld"]),
        (&"poll".into(), &0.into())
    );

    signal(&guard.child, "STOP");
    world.foreign().set("m/000.py", "wrong");
    for subject in ["m/000.py", "m.000"] {
        run(tool(&world, &["explain", subject]), 1).mentions(&["a guard mends it"]);
        let object = run(tool(&world, &["explain", subject, "--json"]), 1).object();
        schema::check(&object, &schema::explain(true));
        assert!(
            object["remedy"]
                .as_str()
                .unwrap()
                .contains("a guard mends it"),
            "{object}"
        );
    }
    signal(&guard.child, "CONT");
    wait_for_content(&world, "m/000.py", Some("m/000.py"));
    run(tool(&world, &["explain", "m/000.py"]), 0);
    guard.end("TERM", 0);
    assert_eq!(row(&run(tool(&world, &["status"]), 0)), None);
    let object = run(tool(&world, &["status", "--json"]), 0).object();
    assert_eq!(object["guard"], Value::Null);
    world.foreign().set("m/000.py", "wrong");
    let ran = run(tool(&world, &["explain", "m/000.py"]), 1);
    assert!(!ran.out.contains("a guard"), "{ran:?}");
}

#[test]
fn its_log_has_one_line_for_each_change_of_state() {
    let world = World::with_rows(&numbered(300));
    let ports = [free_port(), free_port()].map(|port| (port, port.to_string()));
    let begin = |port: &str, more: &[&str]| {
        let arguments = [&["--poll", "100ms", "--metrics", port], more].concat();
        Guard::begin(&world.redis.url(), &world.postgres.url(), &arguments)
    };
    let (guard, quiet) = (begin(&ports[0].1, &[]), begin(&ports[1].1, &["--quiet"]));
    let both_guard = || {
        for (port, _) in &ports {
            wait_for_code(*port, "/readyz", 200);
        }
    };
    both_guard();
    wait_until("the cache is complete", LIMIT, || world.status().is_warm());
    // Changes are no news.
    let news = |before: usize| {
        let mut lines = guard.log().split_off(before);
        // Each guard does that, maybe after the other; and a busy machine is slow to answer.
        lines.retain(|line| {
            let aside = [
                "marked the cache as complete",
                "asks for changed rows every",
            ];
            !aside.iter().any(|words| line.contains(words))
        });
        lines
    };
    let before = guard.log().len();
    let mut foreign = world.foreign();
    for path in numbered(300) {
        foreign.set(&path, "wrong");
    }
    for path in numbered(300) {
        wait_for_content(&world, &path, Some(&path));
    }
    assert!(news(before).is_empty(), "{:#?}", guard.log());

    let mut round = 0;
    for (lose, bring, lost, is_back) in [
        (
            (&|| world.redis.kill()) as &dyn Fn(),
            (&|| world.redis.restart()) as &dyn Fn(),
            UNFOLLOWED,
            "follows Redis",
        ),
        (
            &|| world.postgres.kill(),
            &|| world.postgres.restart(),
            NO_DATABASE,
            "reads the workspace of",
        ),
    ] {
        for _ in 0..2 {
            let (before, losses) = (guard.log().len(), guard.count(lost));
            let (returns, silent) = (guard.count(is_back), quiet.count(lost));
            lose();
            guard.wait_for_more(lost, losses);
            quiet.wait_for_more(lost, silent);
            // It is tried again, and that is no news.
            let failures = failures(ports[0].0);
            wait_until("it has failed again", LIMIT, || {
                self::failures(ports[0].0) >= failures + 2.0
            });
            bring();
            guard.wait_for_more(is_back, returns);
            round += 1;
            world.table().put("m/299.py", &round.to_string());
            wait_for_content(&world, "m/299.py", Some(&round.to_string()));
            both_guard();
            assert_eq!(guard.count(lost), losses + 1, "{:#?}", guard.log());
            assert_eq!(guard.count(is_back), returns + 1, "{:#?}", guard.log());
            // The loss, the return, and maybe a request that was under way.
            let lines = news(before);
            assert!(lines.len() <= 3, "{lines:#?}");
            let warnings = lines.iter().filter(|line| line.starts_with("warning: "));
            assert!(warnings.count() <= 2, "{lines:#?}");
        }
    }
    guard.end("TERM", 0);
    let log = quiet.end("TERM", 0);
    assert!(!log.is_empty());
    assert!(
        log.iter().all(|line| line.starts_with("warning: ")),
        "{log:#?}"
    );
}

#[test]
fn a_table_that_goes_and_comes_back_is_told_once() {
    let world = World::with_rows(&numbered(3));
    let port = free_port();
    let guard = Guard::start(&world, &["--poll", "50ms", "--metrics", &port.to_string()]);
    let mut table = world.table();
    table.run("ALTER TABLE workspace_files RENAME TO away");
    guard.wait_for(NO_DATABASE);
    let before = failures(port);
    wait_until("it is tried several times", LIMIT, || {
        failures(port) >= before + 4.0
    });
    assert_eq!(guard.count(NO_DATABASE), 1, "{:#?}", guard.log());
    table.run("ALTER TABLE away RENAME TO workspace_files");
    guard.wait_for_more("reads the workspace of", 1);
    table.put("m/000.py", "1");
    wait_for_content(&world, "m/000.py", Some("1"));
    let log = guard.end("TERM", 0);
    let told = log
        .iter()
        .filter(|line| line.contains("reads the workspace of"));
    assert_eq!(told.count(), 2, "{log:#?}");
}

/// How often the threads of a process have gone to sleep.
fn sleeps(child: &Child) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let of_task = |status: String| -> u64 {
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    };
    // A task may end meanwhile.
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(of_task)
        .sum()
}

#[test]
fn where_redis_announces_nothing_it_says_so_and_sweeps_without_spinning() {
    let world = World::with_rows(&numbered(3));
    let user = WRITER_ACL.replace("PASSWORD", "writes");
    world
        .redis
        .command(&user.replace(" +client|tracking ", " "));
    let url = world.redis.url_as("bifrost_writer", "writes");
    let guard = Guard::begin(&url, &world.postgres.url(), &["--sweep", "1s"]);
    guard.wait_for(UNFOLLOWED);
    assert_eq!(guard.count("NOPERM"), 1, "{:#?}", guard.log());
    for content in ["wrong", "wrong again"] {
        world.foreign().set("m/000.py", content);
        wait_for_content(&world, "m/000.py", Some("m/000.py"));
    }
    // It says nothing of guarding: what is changed in Redis is wrong until the next sweep.
    assert!(!has_sign_of_life(&world));
    let before = sleeps(&guard.child);
    thread::sleep(Duration::from_secs(3));
    let sleeps = sleeps(&guard.child) - before;
    // A loop that finds a deadline past each time wakes up a thousand times a second.
    assert!(sleeps < 1_000, "it woke up {sleeps} times in 3 s");
    let log = guard.end("TERM", 0);
    assert!(!log.iter().any(|line| line.contains(GUARDS)), "{log:#?}");
    assert!(log.len() <= 4, "{log:#?}");
}

#[test]
fn an_option_that_cannot_be_used_is_named() {
    let world = World::new();
    let refused = |arguments: &[&str], code, words: &[&str]| {
        let arguments = [&["guard"], arguments].concat();
        let ran = run(tool(&world, &arguments), code);
        assert!(ran.err.starts_with("error: "), "{ran:?}");
        ran.mentions(words);
    };
    refused(&["--poll", "1ms"], 4, &["--poll", "10 ms"]);
    refused(&["--sweep", "10ms"], 4, &["--sweep", "second"]);
    refused(&["--grace", "2m"], 4, &["--grace", "minute"]);
    refused(&["--standby", "2m"], 4, &["--standby", "minute"]);
    refused(&["--timeout", "1ms"], 4, &["--timeout", "100 ms"]);
    refused(&["--poll", "soon"], 2, &["--poll"]);
    let both = ["--max-prune", "0.5", "--allow-empty"];
    refused(&both, 2, &["--max-prune", "--allow-empty"]);
    let mut command = bare(&["guard"]);
    command.env("REDIS_URL", world.redis.url());
    run(command, 2).says(&["DATABASE_URL"]);
}
