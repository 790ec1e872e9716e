//! Sentinels name the primary, and it changes.

use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Told, within};
use crate::support::{
    Blocking, DOWN_AFTER, Facade, Near, Nearby, Nonblocking, PATIENCE, Reader, RedisServer,
    SentinelGroup, World, Writer, fake_server, free_port, module, on_both_facades, patient,
    sentinel_url, usual, wait_until,
};
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{Config, Error, Outage};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

on_both_facades! {
    a_graceful_failover_fails_no_write
    after_the_death_of_the_primary_another_one_is_written_to
    after_a_frozen_primary_another_one_is_written_to
    sentinels_that_are_gone_or_silent_or_lie_do_no_harm
    where_no_sentinel_helps_the_error_says_what_each_said
    a_wrong_password_for_the_sentinels_is_refused_as_that
    a_lookup_is_one_round_trip
    announced_addresses_may_be_others_here
}

/// The old primary goes on taking writes for ten seconds, and closes no connection.
fn a_graceful_failover_fails_no_write<F: Nearby>() {
    graceful::<F>(patient);
}

#[test]
#[ignore = "long: make soak"]
fn graceful_failovers_fail_no_write_within_the_usual_deadlines() {
    for _ in 0..3 {
        graceful::<Blocking>(usual);
        graceful::<Nonblocking>(usual);
    }
}

fn graceful<F: Nearby>(config: fn(&str) -> Config) {
    let group = SentinelGroup::start();
    let old = group.primary().expect("a primary").port();
    let near = F::Near::live(usual(&group.url()), NearCacheOptions::default());
    let load = Load::<F>::start(config(&group.url()), 1_000);
    load.until_written(200);
    group.fail_over();
    let new = group.until_promoted(old);
    let promoted = Instant::now();
    near_follows::<F>(&near, new, promoted);
    let told = load.end(new);
    println!("graceful failover: {told}");
    assert_eq!(told.failed, 0, "{told}");
    assert!(told.written >= 1_000, "{told}");
}

fn after_the_death_of_the_primary_another_one_is_written_to<F: Nearby>() {
    _ = without_a_primary::<F>("killed", RedisServer::kill);
}

fn after_a_frozen_primary_another_one_is_written_to<F: Nearby>() {
    _ = without_a_primary::<F>("frozen", RedisServer::freeze);
}

#[test]
#[ignore = "long: make soak"]
fn writes_go_on_within_two_seconds_after_a_death_is_noticed() {
    let limit = DOWN_AFTER + Duration::from_secs(2);
    for _ in 0..3 {
        for told in [
            without_a_primary::<Blocking>("killed", RedisServer::kill),
            without_a_primary::<Nonblocking>("killed", RedisServer::kill),
        ] {
            assert!(told.gap < limit, "{told}");
        }
    }
}

fn without_a_primary<F: Nearby>(how: &str, fault: fn(&RedisServer)) -> Told {
    let group = SentinelGroup::start();
    let old = group.primary().expect("a primary");
    let near = F::Near::live(usual(&group.url()), NearCacheOptions::default());
    let load = Load::<F>::start(usual(&group.url()), 500);
    load.until_written(100);
    let begun = Instant::now();
    fault(old);
    let new = group.until_promoted(old.port());
    let promoted = Instant::now();
    near_follows::<F>(&near, new, promoted);
    let told = load.end(new);
    let promotion = promoted.duration_since(begun);
    println!("{how}: promoted after {promotion:?}; {told}");
    // How long the sentinels take is theirs; a busy machine is given some more.
    assert!(
        told.gap < promotion + DOWN_AFTER + Duration::from_secs(4),
        "{told}"
    );
    if how == "frozen" {
        old.thaw();
        // It is demoted by and by, and no reader or writer ever goes back to it.
        let writer = F::Writer::new(patient(&group.url())).unwrap();
        writer.set(&module("late.py", "1")).unwrap();
        let there = F::Reader::new(patient(&new.url())).unwrap();
        assert!(there.get("late.py").unwrap().is_some());
    }
    told
}

/// The near cache follows the new primary: what is written there is heard.
fn near_follows<F: Nearby>(near: &F::Near, new: &RedisServer, promoted: Instant) {
    let writer = F::Writer::new(patient(&new.url())).unwrap();
    let mut version = 0;
    wait_until("the near cache follows the new primary", PATIENCE, || {
        version += 1;
        let content = format!("new {version}");
        writer.set(&module("near.py", &content)).unwrap();
        let begun = Instant::now();
        // Within the bound, the latest at once where it follows.
        while begun.elapsed() < Duration::from_millis(50) {
            let found = near.get("near.py");
            let is_new = found.is_ok_and(|it| it.is_some_and(|it| it.content == content));
            if is_new && near.is_live() {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    });
    println!(
        "the near cache is live {:?} after the promotion",
        promoted.elapsed()
    );
}

/// A server that answers each request by this, whatever it is.
fn answering(answer: String) -> u16 {
    let url = fake_server(move |stream: TcpStream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        // The last word of the only request.
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line.trim() == "mymaster" && (&stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    });
    port(&url)
}

fn naming(port: u16) -> u16 {
    let text = port.to_string();
    answering(format!(
        "*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{text}\r\n",
        text.len()
    ))
}

fn silent() -> u16 {
    let url = fake_server(|mut stream| {
        let mut buffer = [0; 64];
        while std::io::Read::read(&mut stream, &mut buffer).is_ok_and(|read| read > 0) {}
    });
    port(&url)
}

fn port(url: &str) -> u16 {
    let (_, port) = url.trim_end_matches("/0").rsplit_once(':').unwrap();
    port.parse().unwrap()
}

fn sentinels_that_are_gone_or_silent_or_lie_do_no_harm<F: Facade>() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    replica.replicate(&primary);
    let honest = || naming(primary.port());
    let nobody = free_port();
    for bad in [
        vec![free_port()],
        vec![naming(nobody)],
        vec![naming(replica.port())],
        vec![answering("*-1\r\n".to_owned())],
        vec![answering("-NOAUTH Authentication required.\r\n".to_owned())],
        vec![
            answering("+nonsense\r\n".to_owned()),
            naming(replica.port()),
            naming(nobody),
        ],
    ] {
        let ports = [bad, vec![honest()]].concat();
        let url = sentinel_url("redis+sentinel", "", &ports);
        let writer = F::Writer::new(usual(&url).with_discovery_max_age(Duration::ZERO)).unwrap();
        for n in 0..20 {
            writer.set(&module("a.py", &n.to_string())).unwrap();
            let found = writer.reader().get("a.py").unwrap().unwrap();
            assert_eq!(found.content, n.to_string(), "{ports:?}");
        }
    }
    // One that is silent costs its share of the time once, and is asked last then.
    let ports = [silent(), honest(), honest()];
    let url = sentinel_url("redis+sentinel", "", &ports);
    let writer = F::Writer::new(usual(&url).with_discovery_max_age(Duration::ZERO)).unwrap();
    writer.set(&module("a.py", "1")).unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        writer.set(&module("a.py", "1")).unwrap();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

fn where_no_sentinel_helps_the_error_says_what_each_said<F: Facade>() {
    let primary = RedisServer::start();
    let replica = RedisServer::start();
    replica.replicate(&primary);
    let ports = [
        free_port(),
        answering("*-1\r\n".to_owned()),
        naming(replica.port()),
    ];
    let url = sentinel_url("redis+sentinel", "", &ports);
    let writer = F::Writer::new(usual(&url)).unwrap();
    let error = within(Duration::from_secs(3), || writer.set(&module("a.py", "1"))).unwrap_err();
    let said = error.to_string();
    assert!(
        error.is_transient() && !error.may_have_been_applied(),
        "{said}"
    );
    assert!(
        matches!(
            error,
            Error::Unavailable {
                cause: Outage::NoHolder,
                ..
            }
        ),
        "{said}"
    );
    for part in [
        &format!("mymaster@127.0.0.1:{}", ports[0]),
        &format!("127.0.0.1:{} failed: no connection could be made", ports[0]),
        &format!("127.0.0.1:{} knows no primary named mymaster", ports[1]),
        &format!("127.0.0.1:{} names 127.0.0.1:{}", ports[2], replica.port()),
        &format!(
            "127.0.0.1:{} failed: another server holds the keys now",
            replica.port()
        ),
    ] {
        assert!(said.contains(part), "no {part:?} in {said:?}");
    }
    // Silence is bounded by the deadline, too.
    let url = sentinel_url("redis+sentinel", "", &[silent(), silent()]);
    let reader = F::Reader::new(usual(&url)).unwrap();
    within(Duration::from_secs(3), || reader.get("a.py")).unwrap_err();
}

fn a_wrong_password_for_the_sentinels_is_refused_as_that<F: Facade>() {
    let group = SentinelGroup::with_password("secret");
    let wrong = format!("{}?sentinel_password=hunter2", group.url());
    for url in [group.url(), wrong] {
        let reader = F::Reader::new(usual(&url)).unwrap();
        let error = reader.get("a.py").unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_refused() && !error.is_transient(), "{said}");
        assert!(
            said.contains("sentinel_password") && !said.contains("hunter2"),
            "{said}"
        );
    }
    let right = format!("{}?sentinel_password=secret", group.url());
    let writer = F::Writer::new(usual(&right)).unwrap();
    writer.set(&module("a.py", "1")).unwrap();
}

fn a_lookup_is_one_round_trip<F: Facade>() {
    for world in [World::<F>::of_sentinels(), World::<F>::of_cluster()] {
        let config = world.reader_config().with_discovery_max_age(PATIENCE);
        let reader = F::Reader::new(config).unwrap();
        reader.get("a.py").unwrap();
        // Which node that is is asked once.
        let server: &RedisServer = &world.redis;
        server.reset_stats();
        for _ in 0..100 {
            reader.get("a.py").unwrap();
        }
        assert_eq!(server.calls("get"), 100);
        for other in ["exists", "ping", "cluster|slots", "hello"] {
            // Sentinels ask for INFO, and PING.
            let is_group_s = other == "ping";
            assert!(is_group_s || server.calls(other) == 0, "{other}");
        }
    }
}

fn announced_addresses_may_be_others_here<F: Facade>() {
    let primary = RedisServer::start();
    let announced = free_port();
    let url = sentinel_url("redis+sentinel", "", &[naming(announced)]);
    let here = primary.port();
    let map = move |host: &str, port| {
        assert_eq!((host, port), ("127.0.0.1", announced));
        ("127.0.0.1".to_owned(), here)
    };
    let writer = F::Writer::new(usual(&url).with_address_map(map)).unwrap();
    writer.set(&module("a.py", "1")).unwrap();
    assert!(F::Reader::new(usual(&url)).unwrap().get("a.py").is_err());
}
