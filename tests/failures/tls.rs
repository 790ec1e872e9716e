//! TLS to Redis and to Postgres, with certificates made on the fly: who is not trusted is refused.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::support::certificates::{ADDRESS, Authority, Issued, TlsRedis, tls_postgres};
use crate::support::{
    Blocking, Facade, Nonblocking, Postgres, Reader, RedisServer, Table, Writer, all_it_says,
    block_on, free_port, on_both_facades, wait_until,
};
#[cfg(feature = "near-cache")]
use crate::support::{Guarding, LIMIT, Near, Nearby};
#[cfg(feature = "near-cache")]
use bifrost_module_cache::guard::GuardOptions;
#[cfg(feature = "near-cache")]
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::sync::Change;
use bifrost_module_cache::{CachedModule, Config, Error, Outage, Tls, blocking, nonblocking};
use rcgen::CertificateParams;

#[cfg(feature = "near-cache")]
mod near_cache {
    use super::*;

    on_both_facades! {
        a_near_cache_works_as_without
        a_near_cache_shows_its_certificate
        a_near_cache_that_is_not_trusted_reads_nothing
        a_guard_reads_the_database_over_tls
    }
}

on_both_facades! {
    sentinels_are_asked_over_tls_and_so_is_what_they_name
    over_tls_all_works_as_without
    a_name_and_an_address_are_both_checked
    an_unknown_authority_is_refused
    the_authorities_of_the_system_do_not_vouch_for_ours
    a_certificate_for_another_host_is_refused
    a_certificate_out_of_its_time_is_refused
    a_client_certificate_lets_in_where_one_is_required
    without_a_known_client_certificate_one_is_refused
    a_frozen_server_is_unavailable_in_time
    plain_text_to_a_tls_port_fails_in_time
    tls_to_a_plain_port_fails_in_time
    the_database_is_reached_over_tls
    a_database_that_is_not_trusted_is_refused
    a_database_without_tls_is_refused
    a_bad_database_url_is_not_shown
    a_database_is_reached_as_sslmode_says
    a_database_that_does_not_answer_is_given_up_in_time
}

/// A lookup is promised to end within 600 ms; the rest is for a noisy machine.
const LOOKUP_LIMIT: Duration = Duration::from_millis(1_500);

/// For calls that are to be answered, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

const NAME: &str = "localhost";

fn expired(params: &mut CertificateParams) {
    params.not_after = rcgen::date_time_ymd(2_001, 1, 1);
    params.not_before = rcgen::date_time_ymd(2_000, 1, 1);
}

fn not_yet_valid(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(3_000, 1, 1);
    params.not_after = rcgen::date_time_ymd(3_001, 1, 1);
}

/// Bulk calls have 5 s by default: shortened, so that the tests take less.
fn writer<F: Facade>(url: &str, tls: Tls) -> F::Writer {
    let config = Config::new(url).unwrap().with_tls(tls);
    F::Writer::new(config.with_bulk_deadline(Duration::from_millis(600))).unwrap()
}

fn patient<F: Facade>(url: &str, tls: Tls) -> F::Writer {
    let config = Config::new(url)
        .unwrap()
        .with_tls(tls)
        .with_connect_timeout(PATIENCE)
        .with_response_timeout(PATIENCE)
        .with_lookup_deadline(PATIENCE)
        .with_bulk_deadline(PATIENCE);
    F::Writer::new(config).unwrap()
}

fn module(path: &str, content: &str) -> CachedModule {
    CachedModule::new(path, content).unwrap()
}

fn within_limit<T: Debug>(call: impl FnOnce() -> Result<T, Error>) -> Error {
    let start = Instant::now();
    let error = call().unwrap_err();
    let elapsed = start.elapsed();
    assert!(elapsed < LOOKUP_LIMIT, "it took {elapsed:?}");
    error
}

/// An outage that no waiting helps against.
fn untrusted<T: Debug>(call: impl FnOnce() -> Result<T, Error>) {
    let error = within_limit(call);
    assert!(error.is_unavailable() && !error.is_transient(), "{error:?}");
    let cause = |error: &Error| match error {
        Error::Unavailable { cause, .. } => Some(*cause),
        _ => None,
    };
    assert_eq!(cause(&error), Some(Outage::Untrusted), "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
}

fn sentinels_are_asked_over_tls_and_so_is_what_they_name<F: Facade>() {
    let authority = Authority::new();
    // For a name, and not for the address that the sentinel names.
    let redis = TlsRedis::start(&authority, &authority.issue(NAME));
    let sentinel = redis.sentinel();
    let port = sentinel.port();
    let url = |scheme, host| format!("{scheme}://{host}:{port}/mymaster");
    let encrypted = url("rediss+sentinel", NAME);
    let tls = authority.tls().with_server_name(NAME);
    for url in [encrypted.clone(), url("rediss+sentinel", ADDRESS)] {
        let writer = patient::<F>(&url, tls.clone());
        writer.set(&module("a.py", "a")).unwrap();
        assert!(writer.reader().get("a.py").unwrap().is_some());
    }
    let error = writer::<F>(&encrypted, authority.tls())
        .reader()
        .get("a.py")
        .unwrap_err();
    assert!(!error.is_transient(), "{error}");
    let plain = url("redis+sentinel", NAME);
    assert!(writer::<F>(&plain, tls).reader().get("a.py").is_err());
}

fn all_are_untrusted<F: Facade>(writer: &F::Writer) {
    untrusted(|| writer.reader().get("a.py"));
    untrusted(|| writer.reader().get_many(&["a.py"]));
    untrusted(|| writer.reader().paths());
    untrusted(|| writer.set(&module("a.py", "")));
    untrusted(|| writer.refresh_to(&["a.py"], &[]));
}

fn over_tls_all_works_as_without<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    for parameters in ["", "?protocol=resp3"] {
        let url = redis.url(ADDRESS) + parameters;
        let writer = patient::<F>(&url, authority.tls());
        let reader = writer.reader();
        assert_eq!(reader.get("a.py").unwrap(), None);
        let (small, large) = (module("a.py", "a"), module("b.py", &"é\n".repeat(350_000)));
        writer.set(&small).unwrap();
        writer.set(&large).unwrap();
        assert_eq!(reader.get("a.py").unwrap(), Some(small.clone()));
        assert_eq!(reader.get("b.py").unwrap(), Some(large.clone()));
        let found = reader.get_many(&["b.py", "none.py", "a.py"]).unwrap();
        assert_eq!(found, [Some(large), None, Some(small)]);
        assert_eq!(reader.paths().unwrap().len(), 2);
        // Over a connection of its own.
        let fresh = module("a.py", "fresh");
        let report = writer.refresh_to(&["a.py", "b.py"], std::slice::from_ref(&fresh));
        assert_eq!(report.unwrap().removed, 1);
        assert_eq!(reader.get("a.py").unwrap(), Some(fresh));
        assert_eq!(writer.clear().unwrap().removed, 1);
    }
}

#[cfg(feature = "near-cache")]
fn near<F: Nearby>(writer: &F::Writer) -> F::Near {
    let options = NearCacheOptions::default().with_staleness_bound(3 * PATIENCE);
    F::Near::new(writer.reader().clone(), options).unwrap()
}

#[cfg(feature = "near-cache")]
fn a_near_cache_works_as_without<F: Nearby>() {
    const MODULES: usize = 10_000;
    let authority = Authority::new();
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    let tls = with_identity(authority.tls(), &authority.client());
    let writer = patient::<F>(&redis.url(ADDRESS), tls.clone());
    let near = near::<F>(&writer);
    near.until_live();
    for version in 0..100 {
        let version = version.to_string();
        writer.set(&module("a.py", &version)).unwrap();
        near.until("a.py", Some(&version));
    }
    let asked = redis.server.calls("get");
    for _ in 0..100 {
        assert_eq!(near.get("a.py").unwrap().unwrap().content, "99");
    }
    assert_eq!(redis.server.calls("get"), asked, "they are hits");
    // The messages that announce them take many records.
    let set = |content: &str| -> Vec<CachedModule> {
        let paths = (0..MODULES).map(|n| format!("a/long/path/to/a/module/{n}.py"));
        paths.map(|path| module(&path, content)).collect()
    };
    for content in ["old", "new"] {
        let modules = set(content);
        let changes: Vec<_> = modules.iter().cloned().map(Change::Set).collect();
        writer.publish(&changes).unwrap();
        near.hear_all();
        assert!(near.stats().modules <= 1, "all of the others have gone");
        let snapshot = near.snapshot().unwrap();
        assert_eq!(snapshot.paths().count(), MODULES + 1);
        for module in &modules {
            let found = snapshot.get(&module.path).unwrap();
            assert_eq!(found.as_deref(), Some(module));
        }
        assert_eq!(near.prefetch().unwrap(), MODULES + 1);
        assert_eq!(
            near.get(&modules[7].path).unwrap().as_deref(),
            Some(&modules[7])
        );
    }
    let stats = near.stats();
    assert_eq!((stats.sessions, stats.flushes), (1, 0), "{stats:?}");
    // After a loss it is followed over TLS again.
    redis.server.command("CLIENT KILL TYPE normal SKIPME yes");
    wait_until("another session begins", PATIENCE, || {
        near.is_live() && near.stats().sessions == 2
    });
    near.until("a.py", Some("99"));
    drop(near);
}

#[cfg(feature = "near-cache")]
fn a_near_cache_shows_its_certificate<F: Nearby>() {
    let authority = Authority::new();
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    let trusted = with_identity(authority.tls(), &authority.client());
    let writer = patient::<F>(&redis.url(ADDRESS), trusted);
    let near = near::<F>(&writer);
    near.until_live();
    near.tie(&writer);
    for version in 0..100 {
        let version = version.to_string();
        writer.set(&module("a.py", &version)).unwrap();
        let found = near.get("a.py").unwrap().unwrap();
        assert_eq!(found.content, version);
    }
}

#[cfg(feature = "near-cache")]
fn a_near_cache_that_is_not_trusted_reads_nothing<F: Nearby>() {
    let authority = Authority::new();
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    for tls in [authority.tls(), Authority::new().tls()] {
        let near = near::<F>(&writer::<F>(&redis.url(ADDRESS), tls));
        wait_until("it is known that it can't be followed", PATIENCE, || {
            near.stats().last_failure.is_some()
        });
        untrusted(|| near.get("a.py"));
        assert!(!near.is_live());
        // It is known at once, and not when a caller has waited.
        untrusted(|| near.snapshot());
    }
}

fn a_name_and_an_address_are_both_checked<F: Facade>() {
    let authority = Authority::new();
    for (host, other) in [(ADDRESS, NAME), (NAME, ADDRESS)] {
        let redis = TlsRedis::start(&authority, &authority.issue(host));
        let right = patient::<F>(&redis.url(host), authority.tls());
        assert_eq!(right.reader().get("a.py").unwrap(), None);
        let wrong = writer::<F>(&redis.url(other), authority.tls());
        untrusted(|| wrong.reader().get("a.py"));
    }
}

fn an_unknown_authority_is_refused<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    all_are_untrusted::<F>(&writer::<F>(&redis.url(ADDRESS), Authority::new().tls()));
    assert_eq!(redis.server.calls("get") + redis.server.calls("exec"), 0);
}

fn the_authorities_of_the_system_do_not_vouch_for_ours<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    let error = within_limit(|| {
        writer::<F>(&redis.url(ADDRESS), Tls::default())
            .reader()
            .get("a.py")
    });
    // A minimal system has none at all.
    assert!(
        error.is_invalid_config() || error.is_unavailable() && !error.is_transient(),
        "{error:?}"
    );
}

fn a_certificate_for_another_host_is_refused<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue("redis.example.com"));
    all_are_untrusted::<F>(&writer::<F>(&redis.url(ADDRESS), authority.tls()));
}

fn a_certificate_out_of_its_time_is_refused<F: Facade>() {
    let authority = Authority::new();
    for change in [expired, not_yet_valid] {
        let redis = TlsRedis::start(&authority, &authority.issue_with(ADDRESS, change));
        all_are_untrusted::<F>(&writer::<F>(&redis.url(ADDRESS), authority.tls()));
    }
}

fn with_identity(tls: Tls, client: &Issued) -> Tls {
    let (chain, key) = (client.certificate.as_bytes(), client.key.as_bytes());
    tls.with_client_certificate_pem(chain, key).unwrap()
}

fn a_client_certificate_lets_in_where_one_is_required<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    let tls = with_identity(authority.tls(), &authority.client());
    let writer = patient::<F>(&redis.url(ADDRESS), tls);
    let module = module("a.py", "a");
    writer.set(&module).unwrap();
    assert_eq!(writer.reader().get("a.py").unwrap(), Some(module.clone()));
    let found = writer.reader().get_many(&["a.py"]).unwrap();
    assert_eq!(found, [Some(module)]);
    writer.refresh_to(&["a.py"], &[]).unwrap();
    assert_eq!(writer.reader().get("a.py").unwrap(), None);
}

fn without_a_known_client_certificate_one_is_refused<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start_exclusive(&authority, &authority.issue(ADDRESS));
    let strangers = [
        authority.tls(),
        with_identity(authority.tls(), &Authority::new().client()),
        with_identity(authority.tls(), &Authority::named("another").client()),
        with_identity(authority.tls(), &authority.issue_with("a.client", expired)),
    ];
    for tls in strangers {
        all_are_untrusted::<F>(&writer::<F>(&redis.url(ADDRESS), tls));
    }
}

fn a_frozen_server_is_unavailable_in_time<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    let (used, fresh) = (
        writer::<F>(&redis.url(ADDRESS), authority.tls()),
        writer::<F>(&redis.url(ADDRESS), authority.tls()),
    );
    used.reader().get("a.py").unwrap();
    redis.server.freeze();
    for writer in [&used, &fresh] {
        let error = within_limit(|| writer.reader().get("a.py"));
        assert!(error.is_unavailable() && error.is_transient(), "{error:?}");
        let error = within_limit(|| writer.reader().get_many(&["a.py"]));
        assert!(error.is_unavailable() && error.is_transient(), "{error:?}");
    }
    redis.server.thaw();
    for writer in [used, fresh] {
        assert_eq!(writer.reader().get("a.py").unwrap(), None);
    }
}

fn all_are_unavailable<F: Facade>(writer: &F::Writer) {
    let reader = writer.reader();
    for error in [
        within_limit(|| reader.get("a.py")),
        within_limit(|| reader.get_many(&["a.py"])),
        within_limit(|| writer.set(&module("a.py", ""))),
        within_limit(|| writer.refresh_to(&["a.py"], &[])),
    ] {
        assert!(error.is_unavailable(), "{error:?}");
    }
}

fn plain_text_to_a_tls_port_fails_in_time<F: Facade>() {
    let authority = Authority::new();
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    let url = redis.url(ADDRESS).replace("rediss:", "redis:");
    for parameters in ["", "?protocol=resp3"] {
        all_are_unavailable::<F>(&writer::<F>(&format!("{url}{parameters}"), authority.tls()));
    }
}

fn tls_to_a_plain_port_fails_in_time<F: Facade>() {
    let server = RedisServer::start();
    let url = server.url().replace("redis:", "rediss:");
    all_are_unavailable::<F>(&writer::<F>(&url, Authority::new().tls()));
}

/// How each facade makes a client of the database.
trait Encrypted: Facade {
    fn connect(url: &str, tls: &Tls) -> Result<<Self::Writer as Writer>::Client, Error>;
    fn connect_by_sslmode(
        url: &str,
        tls: &Tls,
        limit: Duration,
    ) -> Result<<Self::Writer as Writer>::Client, Error>;
}

impl Encrypted for Blocking {
    fn connect(url: &str, tls: &Tls) -> Result<bifrost_module_cache::postgres::Client, Error> {
        blocking::connect_postgres(url, tls)
    }

    fn connect_by_sslmode(
        url: &str,
        tls: &Tls,
        limit: Duration,
    ) -> Result<bifrost_module_cache::postgres::Client, Error> {
        blocking::connect_postgres_by_sslmode(url, tls, limit)
    }
}

impl Encrypted for Nonblocking {
    fn connect(
        url: &str,
        tls: &Tls,
    ) -> Result<bifrost_module_cache::tokio_postgres::Client, Error> {
        block_on(nonblocking::connect_postgres(url, tls))
    }

    fn connect_by_sslmode(
        url: &str,
        tls: &Tls,
        limit: Duration,
    ) -> Result<bifrost_module_cache::tokio_postgres::Client, Error> {
        block_on(nonblocking::connect_postgres_by_sslmode(url, tls, limit))
    }
}

fn the_database_is_reached_over_tls<F: Encrypted>() {
    let authority = Authority::new();
    let (postgres, _files) = tls_postgres(&authority.issue(ADDRESS));
    postgres.create_workspace("workspace_files");
    Table(postgres.client()).put("a.py", "x = 1");
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    let writer = patient::<F>(&redis.url(ADDRESS), authority.tls());

    // What the URL says of encryption does not matter.
    for parameter in ["", "?sslmode=disable", "?sslmode=prefer"] {
        let mut client = F::connect(&(postgres.url() + parameter), &authority.tls()).unwrap();
        let encrypted: i64 = postgres
            .client()
            .query_one("SELECT count(*) FROM pg_stat_ssl WHERE ssl", &[])
            .unwrap()
            .get(0);
        assert!(encrypted >= 1, "{parameter}");
        let report = writer.warm_from_db(&mut client).unwrap();
        assert!(report.complete && report.modules == 1, "{report:?}");
    }
    let found = writer.reader().get("a.py").unwrap().unwrap();
    assert_eq!(found.content, "x = 1");
}

#[cfg(feature = "near-cache")]
fn a_guard_reads_the_database_over_tls<F: Guarding>() {
    let authority = Authority::new();
    let (postgres, _files) = tls_postgres(&authority.issue(ADDRESS));
    postgres.create_workspace("workspace_files");
    Table(postgres.client()).put("a.py", "x = 1");
    let redis = TlsRedis::start(&authority, &authority.issue(ADDRESS));
    let guard = || {
        let writer = patient::<F>(&redis.url(ADDRESS), authority.tls());
        F::guard(writer, GuardOptions::default()).unwrap()
    };
    let (running, url) = (guard(), postgres.url() + "?sslmode=disable");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| F::run_encrypted(&running, &url, &authority.tls()));
        wait_until("it guards", LIMIT, || {
            assert!(!run.is_finished(), "it has ended");
            F::stats(&running).since.is_some()
        });
        let encrypted = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
        let row = postgres.client().query_one(encrypted, &[]).unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        F::stop(&running);
        run.join().unwrap().unwrap();
    });
    let other = F::run_encrypted(&guard(), &url, &Authority::new().tls());
    let error = other.unwrap_err();
    assert!(error.is_database() && !error.is_transient(), "{error:?}");
    let error = F::run_encrypted(&guard(), "hunter2", &authority.tls()).unwrap_err();
    assert!(error.is_invalid_config(), "{error:?}");
}

fn refused_database<F: Encrypted>(url: &str, tls: &Tls) -> Error {
    let Err(error) = F::connect(url, tls) else {
        panic!("connected to {url}");
    };
    assert!(error.is_database() && !error.is_transient(), "{error:?}");
    error
}

fn a_database_that_is_not_trusted_is_refused<F: Encrypted>() {
    let authority = Authority::new();
    let (postgres, _files) = tls_postgres(&authority.issue(ADDRESS));
    F::connect(&postgres.url(), &authority.tls()).unwrap();
    refused_database::<F>(&postgres.url(), &Authority::new().tls());
    let other = postgres.url().replace(ADDRESS, NAME);
    refused_database::<F>(&other, &authority.tls());
    let Err(error) = F::connect(&postgres.url(), &Tls::default()) else {
        panic!("the system vouches for a test");
    };
    assert!(
        error.is_database() || error.is_invalid_config(),
        "{error:?}"
    );
    let (postgres, _files) = tls_postgres(&authority.issue_with(ADDRESS, expired));
    refused_database::<F>(&postgres.url(), &authority.tls());
}

fn a_database_without_tls_is_refused<F: Encrypted>() {
    let postgres = Postgres::start();
    for parameter in ["", "?sslmode=disable", "?sslmode=prefer"] {
        let url = postgres.url() + parameter;
        refused_database::<F>(&url, &Authority::new().tls());
    }
}

fn a_bad_database_url_is_not_shown<F: Encrypted>() {
    for url in [
        "postgres://postgres:hunter2@127.0.0.1:port/postgres",
        "postgres://postgres:hunter2@127.0.0.1:1/postgres?unknown=hunter2",
        "host=127.0.0.1 password=hunter2 port=hunter2",
        "host=127.0.0.1 hunter2",
    ] {
        let Err(error) = F::connect(url, &Authority::new().tls()) else {
            panic!("connected");
        };
        assert!(error.is_invalid_config(), "{error:?}");
        let text = all_it_says(&error);
        assert!(!text.contains("hunter2"), "{text}");
    }
    // One that can be read, where no server listens.
    let url = format!("postgres://postgres:hunter2@127.0.0.1:{}/x", free_port());
    let Err(error) = F::connect(&url, &Authority::new().tls()) else {
        panic!("connected");
    };
    let text = all_it_says(&error);
    assert!(error.is_database() && !text.contains("hunter2"), "{text}");
}

fn a_database_is_reached_as_sslmode_says<F: Encrypted>() {
    let authority = Authority::new();
    let (postgres, _files) = tls_postgres(&authority.issue(ADDRESS));
    let plain = Postgres::start();
    let encrypted = || -> i64 {
        let statement = "SELECT count(*) FROM pg_stat_ssl WHERE ssl";
        postgres.client().query_one(statement, &[]).unwrap().get(0)
    };
    for (parameter, tls) in [
        ("", false),
        ("?sslmode=disable", false),
        ("?sslmode=prefer", false),
        ("?sslmode=require", true),
        ("?sslmode=verify-full", true),
    ] {
        let before = encrypted();
        let url = (postgres.url() + parameter).replace("postgres://", "postgresql+asyncpg://");
        let client = F::connect_by_sslmode(&url, &authority.tls(), PATIENCE).unwrap();
        assert_eq!(encrypted() > before, tls, "{parameter}");
        drop(client);
        wait_until("it has gone", PATIENCE, || encrypted() == 0);
        let (url, stranger) = (plain.url() + parameter, Authority::new().tls());
        let to_plain = F::connect_by_sslmode(&url, &stranger, PATIENCE);
        assert_eq!(to_plain.is_err(), tls, "{parameter}");
        let url = postgres.url() + parameter;
        let untrusted = F::connect_by_sslmode(&url, &stranger, PATIENCE);
        assert_eq!(untrusted.is_err(), tls, "{parameter}");
        drop(untrusted);
        wait_until("it has gone", PATIENCE, || encrypted() == 0);
    }
}

fn a_database_that_does_not_answer_is_given_up_in_time<F: Encrypted>() {
    let postgres = Postgres::start();
    postgres.freeze();
    for parameter in ["", "?sslmode=require"] {
        let (start, limit) = (Instant::now(), Duration::from_millis(300));
        let url = postgres.url() + parameter;
        let Err(error) = F::connect_by_sslmode(&url, &Authority::new().tls(), limit) else {
            panic!("a frozen server answered");
        };
        assert!(error.is_database() && error.is_transient(), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    postgres.thaw();
}

#[test]
fn checking_can_not_be_turned_off() {
    let error = Config::new("rediss://127.0.0.1:6379/0#insecure").unwrap_err();
    assert!(error.is_invalid_config(), "{error:?}");
}

#[test]
fn nothing_shows_a_key() {
    let authority = Authority::new();
    let client = authority.client();
    let tls = with_identity(authority.tls(), &client);
    let config = Config::new("rediss://127.0.0.1:6379/0").unwrap();
    let config = config.with_tls(tls.clone());
    let reader = blocking::ModuleReader::new(config.clone()).unwrap();
    let text = format!("{tls:?} {tls:#?} {config:?} {reader:?}");
    assert!(text.contains("client_certificate: true"), "{text}");
    // Neither as PEM nor as numbers.
    for line in client.key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!text.contains(line), "{text}");
    }
    assert!(text.len() < 1_500, "{text}");
}

#[test]
fn what_is_no_pem_is_refused_and_not_shown() {
    let authority = Authority::new();
    let client = authority.client();
    let garbled = "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n";
    for bad in ["", "hunter2", garbled, &client.key] {
        let error = Tls::with_ca_pem(bad.as_bytes()).unwrap_err();
        assert!(error.is_invalid_config(), "{error:?}");
        assert!(!all_it_says(&error).contains("hunter2"));
        let (chain, key) = (bad.as_bytes(), client.key.as_bytes());
        let result = authority.tls().with_client_certificate_pem(chain, key);
        assert!(result.unwrap_err().is_invalid_config());
    }
    let garbled = "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n";
    for bad in ["", "hunter2", garbled, &client.certificate] {
        let (chain, key) = (client.certificate.as_bytes(), bad.as_bytes());
        let result = authority.tls().with_client_certificate_pem(chain, key);
        let error = result.unwrap_err();
        assert!(error.is_invalid_config(), "{error:?}");
        assert!(!all_it_says(&error).contains("hunter2"));
    }
}

#[test]
fn a_certificate_that_is_no_authority_s_or_a_key_of_another_is_a_bad_setting() {
    let authority = Authority::new();
    let (one, other) = (authority.client(), authority.client());
    let mixed = Issued {
        certificate: one.certificate,
        key: other.key,
    };
    let tls = with_identity(authority.tls(), &mixed);
    let config = Config::new("rediss://127.0.0.1:1/0").unwrap().with_tls(tls);
    let reader = blocking::ModuleReader::new(config);
    // Found out when it is first used at the latest.
    let result = reader.and_then(|reader| reader.get("a.py"));
    let error = result.unwrap_err();
    assert!(error.is_invalid_config(), "{error:?}");
}
