//! Passwords and contents of modules stay out of everything that is printed or logged, and what
//! is to be logged is.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::captured::{CAPTURE, Line, capture, lines_with};
use crate::support::{
    Facade, Postgres, Reader, RedisServer, World, Writer, all_it_says, fake_server,
    on_both_facades, patient,
};
use bifrost_module_cache::sync::Change;
use bifrost_module_cache::{CachedModule, Config, Error};
use log::Level;
use redis::Commands;

on_both_facades! {
    settings_readers_and_writers_show_no_password
    a_refused_login_shows_no_password
    an_outage_shows_no_password
    a_refused_command_shows_no_password
    a_server_that_echoes_its_arguments_shows_no_password_and_no_content
    a_server_that_says_the_worst_shows_no_password
    errors_and_log_lines_show_no_content
    each_write_is_logged_as_specified
    a_failed_write_is_not_logged_as_done
    a_warm_up_is_logged_as_specified
    skipped_rows_are_logged_each_on_one_line
    skipped_members_of_the_index_are_logged_on_one_line
}

const PASSWORD: &str = "hunter2";
const CONTENT: &str = "s3cr3t s0urce";

/// The last thing that every test does.
fn assert_nothing_leaked_into_the_log() {
    for line in CAPTURE.lines().iter() {
        assert!(!leaks(&line.message), "{line:?}");
    }
}

/// How often this crate has logged exactly this.
fn logged(level: Level, message: &str) -> usize {
    let lines = CAPTURE.lines();
    let same = |line: &&Line| {
        line.level == level
            && line.message == message
            && line.target.starts_with("bifrost_module_cache")
    };
    lines.iter().filter(same).count()
}

fn leaks(text: &str) -> bool {
    // Also as a list of bytes, as `{:?}` shows them.
    [PASSWORD, CONTENT].iter().any(|secret| {
        let bytes = format!("{:?}", secret.as_bytes());
        text.contains(secret) || text.contains(bytes.trim_matches(['[', ']']))
    })
}

fn assert_silent(value: &impl Debug) {
    let text = format!("{value:?} {value:#?}");
    assert!(!leaks(&text), "{text}");
}

/// The call fails, and says nothing that it should not.
fn fails<T>(call: Result<T, Error>) -> Error {
    let Err(error) = call else {
        panic!("it did not fail");
    };
    let text = all_it_says(&error);
    assert!(!leaks(&text), "{text}");
    error
}

/// Both protocols log in differently.
fn with_password(url: &str) -> [String; 2] {
    let url = url.replace("//", &format!("//user:{PASSWORD}@"));
    [format!("{url}?protocol=resp3"), url]
}

/// For calls that are to fail, be it only by a time-out.
fn config(url: &str) -> Config {
    Config::new(url)
        .unwrap()
        .with_lookup_deadline(Duration::from_millis(300))
        .with_bulk_deadline(Duration::from_millis(300))
}

fn secret_module(path: &str) -> CachedModule {
    CachedModule::with_hash(path, CONTENT, "").unwrap()
}

/// Every call, against a Redis that lets none succeed.
fn all_calls_fail_silently<F: Facade>(url: &str) {
    let writer = || F::Writer::new(config(url)).unwrap();
    let module = secret_module("a.py");
    fails(writer().reader().get("a.py"));
    fails(writer().reader().get_many(&["a.py"]));
    fails(writer().reader().paths());
    fails(writer().reader().status());
    fails(writer().reader().explain("a.py"));
    fails(writer().set(&module));
    fails(writer().invalidate("a.py"));
    fails(writer().rename("b.py", &module));
    fails(writer().clear());
    fails(writer().publish(&[Change::Set(module.clone())]));
    fails(writer().publish_exact(std::slice::from_ref(&module)));
    fails(writer().refresh_to(&["a.py"], &[module]));
}

fn settings_readers_and_writers_show_no_password<F: Facade>() {
    capture();
    let server = RedisServer::start();
    server.command(&format!("ACL SETUSER user on >{PASSWORD} ~* +@all"));
    for url in with_password(&server.url()) {
        let config = patient(&url);
        assert_silent(&config);
        assert_silent(&config.clone().with_pool_size(0));
        let writer = F::Writer::new(config).unwrap();
        for _ in 0..2 {
            assert_silent(&writer);
            assert_silent(writer.reader());
            assert_silent(&writer.reader().clone());
            // Once more with an open connection.
            writer.reader().get("a.py").unwrap();
            writer.reader().paths().unwrap();
        }
    }
    // `@` is written so in a URL.
    let url = server.url_as("user", &format!("%40{PASSWORD}"));
    assert_silent(&Config::new(&url).unwrap());
    assert_nothing_leaked_into_the_log();
}

#[test]
fn a_url_that_is_refused_is_not_quoted() {
    capture();
    for url in [
        "hunter2",
        "hunter2://localhost",
        "http://user:hunter2@localhost",
        "redis:hunter2",
        "redis://:hunter2@:6379",
        "redis://user:hunter2@localhost:99999/0",
        "redis://user:hunter2@localhost:hunter2/0",
        "redis://user:hunter2@localhost:6379/hunter2",
        "redis://user:hunter2@localhost:6379/0?protocol=hunter2",
        "redis://user:hunter2 @local host",
        "redis://user:hunter2@[::1",
        "redis://user:hunter2%ff@localhost",
        "redis+sentinel://user:hunter2@localhost",
    ] {
        assert!(fails(Config::new(url)).is_invalid_config(), "{url}");
    }
    assert_nothing_leaked_into_the_log();
}

fn a_refused_login_shows_no_password<F: Facade>() {
    capture();
    let open = RedisServer::start();
    for url in with_password(&open.url()) {
        all_calls_fail_silently::<F>(&url);
    }
    // Without a user, only the older protocol is refused: any password will do.
    let url = open.url_as("", PASSWORD);
    all_calls_fail_silently::<F>(&url);
    let closed = RedisServer::start_with(&["--requirepass", "another"]);
    for url in with_password(&closed.url()) {
        all_calls_fail_silently::<F>(&url);
        all_calls_fail_silently::<F>(&url.replace("user:", "default:"));
        all_calls_fail_silently::<F>(&url.replace("user:", ":"));
    }
    assert_nothing_leaked_into_the_log();
}

fn an_outage_shows_no_password<F: Facade>() {
    capture();
    let server = RedisServer::start();
    server.kill();
    for url in with_password(&server.url()) {
        all_calls_fail_silently::<F>(&url);
        all_calls_fail_silently::<F>(&url.replace("127.0.0.1", "no-such-host.invalid"));
    }
    assert_nothing_leaked_into_the_log();
}

fn a_refused_command_shows_no_password<F: Facade>() {
    capture();
    let server = RedisServer::start();
    server.command(&format!("ACL SETUSER user on >{PASSWORD} +hello +select"));
    for url in with_password(&server.url()) {
        all_calls_fail_silently::<F>(&url);
        all_calls_fail_silently::<F>(&url.replace("/0", "/99"));
    }
    assert_nothing_leaked_into_the_log();
}

/// Answers every line that it gets with `answer` of that line.
fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    fake_server(move |stream: TcpStream| {
        let mut lines = BufReader::new(&stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).replace(['\r', '\n'], "");
            if (&stream).write_all(answer(&text).as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

fn a_server_that_echoes_its_arguments_shows_no_password_and_no_content<F: Facade>() {
    capture();
    for prefix in [
        "-ERR unknown command, with args beginning with: ",
        "-",
        "-WRONGPASS ",
        "-NOPERM ",
    ] {
        let url = answering(move |line| format!("{prefix}{line}\r\n"));
        all_calls_fail_silently::<F>(&url);
        for url in with_password(&url) {
            all_calls_fail_silently::<F>(&url);
        }
    }
    assert_nothing_leaked_into_the_log();
}

fn a_server_that_says_the_worst_shows_no_password<F: Facade>() {
    capture();
    for answer in [
        "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2'\r\n",
        "-hunter2\r\n",
        "-hunter2 hunter2\r\n",
        "-MOVED hunter2 hunter2:6379\r\n",
        "-ASK 1 hunter2\r\n",
        "-LOADING hunter2\r\n",
        "-ERR max number of clients reached hunter2\r\n",
        "-ERR invalid DB index hunter2\r\n",
        "-NOSCRIPT hunter2\r\n",
        "-EXECABORT hunter2\r\n",
        "!7\r\nhunter2\r\n",
        "!11\r\nERR hunter2\r\n",
        "+hunter2\r\n",
        "$7\r\nhunter2\r\n",
        "*2\r\n$7\r\nhunter2\r\n-ERR hunter2\r\n",
        "%1\r\n+hunter2\r\n+hunter2\r\n",
        "=11\r\ntxt:hunter2\r\n",
        "(hunter2\r\n",
        ":hunter2\r\n",
        "hunter2\r\n",
        "|1\r\n+hunter2\r\n+hunter2\r\n-ERR hunter2\r\n",
        ">2\r\n+hunter2\r\n+hunter2\r\n",
    ] {
        let url = answering(move |_| answer.to_owned());
        for url in with_password(&url).iter().chain([&url]) {
            let writer = || F::Writer::new(config(url)).unwrap();
            // Some of these are answers that a call may take for its own.
            for result in [
                writer().reader().get("a.py").map(drop),
                writer().reader().get_many(&["a.py"]).map(drop),
                writer().reader().paths().map(drop),
                writer().set(&secret_module("a.py")),
                writer().invalidate("a.py").map(drop),
            ] {
                if result.is_err() {
                    fails(result);
                }
            }
        }
    }
    assert_nothing_leaked_into_the_log();
}

fn errors_and_log_lines_show_no_content<F: Facade>() {
    capture();
    let world = World::<F>::new();
    let (server, writer) = (&world.redis, &world.writer);
    let module = secret_module("a.py");
    assert_silent(&module);
    assert_silent(&Change::Set(module.clone()));
    writer.set(&module).unwrap();
    writer.rename("a.py", &secret_module("b.py")).unwrap();
    assert_silent(&writer.reader().get("b.py").unwrap());
    assert_silent(&writer.publish(&[Change::Set(module.clone())]).unwrap());
    assert_silent(&writer.publish_exact(std::slice::from_ref(&module)).unwrap());
    let small = patient(&server.url()).with_max_content_bytes(3);
    assert!(matches!(
        fails(F::Writer::new(small).unwrap().set(&module)),
        Error::TooLarge { .. }
    ));
    fails(writer.set(&CachedModule {
        path: "index".into(),
        ..module.clone()
    }));
    // As a value, as a key, as a number, in the wrong place, and cut short.
    for entry in [
        format!("{{\"content\": \"{CONTENT}\", \"path\": 5}}"),
        format!("{{\"{CONTENT}\": 1}}"),
        format!("\"{CONTENT}\""),
        format!("{{\"content\": {CONTENT}}}"),
        format!("{{\"content\": \"x\", \"path\": \"{CONTENT}\"}}"),
        format!("{{\"content\": \"{CONTENT}"),
    ] {
        let mut redis = server.connection();
        redis.set::<_, _, ()>("bifrost:module:a.py", entry).unwrap();
        assert!(fails(writer.reader().get("a.py")).is_corrupt());
        assert!(fails(writer.reader().get_many(&["a.py"])).is_corrupt());
    }
    server.command("CONFIG SET maxmemory 1");
    assert!(fails(writer.set(&module)).is_refused());
    server.kill();
    assert!(fails(writer.set(&module)).is_unavailable());
    assert_nothing_leaked_into_the_log();
}

/// A name that no other test of this process uses, with what `F` is in it.
fn unique<F: Facade>(name: &str) -> String {
    let facade = std::any::type_name::<F>();
    let facade = facade.rsplit(':').next().unwrap_or_default();
    format!("{facade}/{name}")
}

fn each_write_is_logged_as_specified<F: Facade>() {
    capture();
    let world = World::<F>::new();
    let writer = &world.writer;
    let paths = ["logged_a.py", "logged_b.py", "logged_ü.py"].map(|name| unique::<F>(name));
    let [a, b, c] = &paths;
    let times = || {
        paths.each_ref().map(|path| {
            (
                logged(Level::Debug, &format!("Cached module: {path}")),
                logged(Level::Debug, &format!("Invalidated module cache: {path}")),
            )
        })
    };
    writer.set(&secret_module(a)).unwrap();
    assert_eq!(times(), [(1, 0), (0, 0), (0, 0)]);
    writer.rename(a, &secret_module(b)).unwrap();
    assert_eq!(times(), [(1, 1), (1, 0), (0, 0)]);
    writer.invalidate(b).unwrap();
    assert_eq!(times(), [(1, 1), (1, 1), (0, 0)]);
    let changes = [Change::Set(secret_module(c)), Change::Remove(a.clone())];
    writer.publish(&changes).unwrap();
    assert_eq!(times(), [(1, 2), (1, 1), (1, 0)]);
    assert_nothing_leaked_into_the_log();
}

fn a_failed_write_is_not_logged_as_done<F: Facade>() {
    capture();
    let server = RedisServer::start();
    server.kill();
    let writer = F::Writer::new(config(&server.url())).unwrap();
    let path = unique::<F>("failed.py");
    fails(writer.set(&secret_module(&path)));
    fails(writer.invalidate(&path));
    fails(writer.rename(&path, &secret_module(&path)));
    assert_eq!(lines_with(&path), []);
}

fn workspace<F: Facade>(postgres: &Postgres, redis: &RedisServer) -> (F::Writer, postgres::Client) {
    postgres.create_workspace("workspace_files");
    let writer = F::Writer::new(patient(&redis.url())).unwrap();
    (writer, postgres.client())
}

/// Puts the content together there, because the client logs statements and parameters.
const INSERT: &str = "INSERT INTO workspace_files (path, content, entity_type)
     VALUES ($1, 's3cr3t' || ' s0urce', 'module')";

fn a_warm_up_is_logged_as_specified<F: Facade>() {
    capture();
    let (postgres, redis) = (Postgres::start(), RedisServer::start());
    let (writer, mut database) = workspace::<F>(&postgres, &redis);
    // A count that no other test has.
    let count = 31 + unique::<F>("").len();
    for i in 0..count {
        let path = unique::<F>(&format!("warmed_{i}.py"));
        database.execute(INSERT, &[&path]).unwrap();
    }
    let mut client = F::Writer::connect(&postgres.url());
    assert_eq!(writer.warm_from_db(&mut client).unwrap().modules, count);
    let line = format!("Warmed module cache with {count} modules");
    assert_eq!(logged(Level::Info, &line), 1);
    let cached = unique::<F>("warmed_0.py");
    assert_eq!(logged(Level::Debug, &format!("Cached module: {cached}")), 1);
    // And what the database says to its client is not shown either.
    database
        .batch_execute("DROP TABLE workspace_files")
        .unwrap();
    assert!(fails(writer.warm_from_db(&mut client)).is_database());
    assert_eq!(logged(Level::Info, &line), 1);
    assert_nothing_leaked_into_the_log();
}

fn skipped_rows_are_logged_each_on_one_line<F: Facade>() {
    capture();
    let (postgres, redis) = (Postgres::start(), RedisServer::start());
    let (_, mut database) = workspace::<F>(&postgres, &redis);
    let bad = [
        unique::<F>("../skipped_up.py"),
        unique::<F>("skipped_feed.py\nWARN forged"),
        unique::<F>("skipped\\back.py"),
    ];
    let large = unique::<F>("skipped_large.py");
    for path in bad.iter().chain([&large]) {
        database.execute(INSERT, &[path]).unwrap();
    }
    let config = patient(&redis.url()).with_max_content_bytes(3);
    let writer = F::Writer::new(config).unwrap();
    let report = writer
        .warm_from_db(&mut F::Writer::connect(&postgres.url()))
        .unwrap();
    assert_eq!((report.modules, report.skipped), (0, 4));
    for part in ["skipped_up", "skipped_feed", "back.py", "skipped_large"] {
        let lines = lines_with(part);
        let ours: Vec<_> = lines
            .iter()
            .filter(|line| line.message.contains(&unique::<F>("")))
            .collect();
        assert!(!ours.is_empty(), "{part}");
        for line in ours {
            assert_eq!(line.level, Level::Warn, "{line:?}");
            assert!(line.message.starts_with("Skipped "), "{line:?}");
            assert!(!line.message.contains('\n'), "{line:?}");
        }
    }
    assert_nothing_leaked_into_the_log();
}

fn skipped_members_of_the_index_are_logged_on_one_line<F: Facade>() {
    capture();
    let server = RedisServer::start();
    let member = unique::<F>("member\nERROR forged");
    let mut redis = server.connection();
    redis
        .sadd::<_, _, ()>("bifrost:module:index", &member)
        .unwrap();
    let reader = F::Reader::new(patient(&server.url())).unwrap();
    assert!(reader.paths().unwrap().is_empty());
    let lines = lines_with(&unique::<F>("member"));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].level, Level::Warn);
    assert!(!lines[0].message.contains('\n'), "{:?}", lines[0]);
    assert!(lines[0].message.contains("Skipped 1 "), "{:?}", lines[0]);
}
