//! What warm-up, verification, repair, refresh and publication do and report, with no other service
//! around.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    Blocking, Facade, Foreign, Proxy, Reader, RedisServer, Syncing, World, Writer, after, at_each,
    json, module, numbered, on_both_facades, patient,
};
use bifrost_module_cache::diagnosis::{CacheState, Cause};
use bifrost_module_cache::sync::{
    Change, Drift, Progress, Stage, SyncOptions, Unverified, WarmReport,
};
use bifrost_module_cache::{CachedModule, Error, keys};

on_both_facades! {
    a_warm_up_says_what_it_did
    a_second_warm_up_writes_nothing_but_the_mark
    an_equal_entry_that_expires_is_written_again
    a_warm_up_prunes_what_has_no_row
    without_scan_a_warm_up_goes_by_the_index_and_says_so
    rows_that_cannot_be_cached_are_skipped
    an_empty_table_does_not_wipe_a_full_cache
    an_empty_table_wipes_a_full_cache_where_that_is_meant
    a_long_open_transaction_leaves_the_warm_up_unverified_within_its_bound
    a_long_open_transaction_leaves_the_repair_unverified_within_its_bound
    a_long_open_transaction_makes_verify_unsure_of_what_differs
    verify_tells_every_kind_of_drift_and_writes_nothing
    repair_mends_exactly_the_drift
    a_mark_is_not_written_by_a_repair
    status_follows_warm_up_and_flush
    a_cache_that_came_back_from_disk_is_restored
    explain_tells_three_causes_apart
    the_mark_is_json_of_the_documented_form
    a_standby_is_refused
    progress_only_grows_and_reaches_the_total
    mending_says_how_far_it_has_come
    a_wrong_database_does_not_prune_production
    a_dry_run_writes_nothing_and_says_what_it_would
    a_redis_that_evicts_is_told_from_a_contended_one
    rows_none_of_which_is_a_module_are_counted
    an_error_of_the_source_is_a_database_error
    a_failed_statement_is_a_database_error
    reading_alone_may_not_have_been_applied
    every_report_says_which_servers_it_is_about
    reports_are_json
    refresh_takes_many_paths_and_duplicates
    refresh_of_no_paths_asks_nobody
    refresh_of_a_bad_path_asks_nobody
    refresh_ignores_modules_it_did_not_ask_for
    refresh_removes_a_module_that_is_too_large
    the_same_path_twice_is_published_as_the_last_says
    a_large_publication_is_cut
    a_publication_that_cannot_be_sent_in_whole_is_not_sent_at_all
    an_exact_publication_skips_replaces_and_removes
    an_exact_publication_of_nothing_must_be_meant
    entries_and_mark_expire_by_our_setting_and_are_renewed
    the_mark_expires_with_the_first_entry
}

fn a_warm_up_says_what_it_did<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in ["new.py", "stale.py", "equal.py"] {
        table.put(path, "12345");
    }
    foreign.set("stale.py", "1");
    foreign.set("equal.py", "12345");
    foreign.set("ghost.py", "1");
    let start = Instant::now();
    let report = world.warm(SyncOptions::default());
    let WarmReport {
        load_elapsed,
        elapsed,
        ..
    } = report;
    assert!(load_elapsed <= elapsed && elapsed <= start.elapsed());
    assert_eq!((report.modules, report.written), (3, 2));
    assert_eq!((report.unchanged, report.pruned, report.bytes), (1, 1, 10));
    assert_eq!((report.skipped, report.retried), (0, 0));
    assert!(report.unsettled.is_empty() && report.unverified.is_none());
    assert!(report.verified() && report.complete && report.scanned);
    let line = report.to_string();
    for words in [
        "3 modules",
        "2 written",
        "1 unchanged",
        "1 pruned",
        "verified",
    ] {
        assert!(line.contains(words), "{line}");
    }
}

fn a_second_warm_up_writes_nothing_but_the_mark<F: Facade<Writer: Syncing>>() {
    let paths = numbered(450);
    let world = World::<F>::with_rows(&paths);
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.written, report.unchanged), (450, 0));
    world.foreign().assert_holds(&paths);

    world.redis.reset_stats();
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.written, report.unchanged), (0, 450));
    assert_eq!((report.pruned, report.bytes), (0, 0));
    assert!(report.verified() && report.complete);
    // The token, the generation and the mark.
    assert_eq!(world.redis.calls("set"), 3);
    assert_eq!(world.redis.calls("del"), 1);
    for command in ["sadd", "srem", "setex", "mset", "expire"] {
        assert_eq!(world.redis.calls(command), 0, "{command}");
    }
}

fn an_equal_entry_that_expires_is_written_again<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    world.foreign().setex(&paths[1], &paths[1], 86_400);
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.written, report.unchanged), (1, 2));
    world.foreign().assert_holds(&paths);
}

/// Entries and members of the index that have no row, one that can't even be a path.
fn litter(foreign: &mut Foreign) {
    foreign.set("ghost.py", "1");
    foreign.set_key("unlisted.py", &json("unlisted.py", "1"));
    for member in ["index-only.py", "/absolute.py", "a//b.py", "index"] {
        foreign.run(&format!("SADD {} {member}", keys::MODULE_INDEX_KEY));
    }
    redis::cmd("SADD")
        .arg(keys::MODULE_INDEX_KEY)
        .arg(b"\xff")
        .exec(&mut foreign.0)
        .unwrap();
}

fn a_warm_up_prunes_what_has_no_row<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    let mut foreign = world.foreign();
    litter(&mut foreign);
    let report = world.warm(SyncOptions::default());
    assert!(report.scanned && report.verified());
    assert_eq!((report.modules, report.pruned), (3, 3));
    foreign.assert_holds(&paths);
}

fn without_scan_a_warm_up_goes_by_the_index_and_says_so<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::narrow_acl();
    let paths = numbered(3);
    world.table().fill(&paths);
    let mut foreign = world.foreign();
    litter(&mut foreign);
    let report = world.warm(SyncOptions::default());
    assert!(!report.scanned);
    assert!(report.verified() && report.complete);
    assert_eq!((report.modules, report.pruned), (3, 2));
    assert!(!world.verify().scanned);

    // What the index does not name is left.
    assert!(foreign.entry("unlisted.py").value.is_some());
    foreign.del("unlisted.py");
    foreign.assert_holds(&paths);
}

fn rows_that_cannot_be_cached_are_skipped<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with(|config| config.with_max_content_bytes(10));
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in ["index", "/absolute.py", "a/../b.py"] {
        table.put(path, "1");
    }
    table.put("large.py", "01234567890");
    table.put("largest.py", "0123456789");
    table.put("empty.py", "");
    // Not modules at all.
    table.put("form.json", "1");
    table.run("UPDATE workspace_files SET entity_type = 'form' WHERE path = 'form.json'");
    table.put("null.py", "1");
    table.run("UPDATE workspace_files SET content = NULL WHERE path = 'null.py'");
    // It was smaller once.
    foreign.set("large.py", "1");
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.modules, report.skipped, report.pruned), (2, 4, 1));
    assert!(report.verified() && report.complete);
    foreign.assert_is("largest.py", Some("0123456789"));
    foreign.assert_is("empty.py", Some(""));
    foreign.assert_is("large.py", None);
    let drift = world.verify();
    assert!(drift.is_clean(), "{drift}");
    assert_eq!((drift.modules, drift.skipped), (2, 4));
}

fn an_empty_table_does_not_wipe_a_full_cache<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    let paths = numbered(3);
    for path in &paths {
        foreign.set(path, path);
    }
    let report = world.warm(SyncOptions::default());
    assert_eq!(report.unverified, Some(Unverified::EmptyWorkspace));
    assert_eq!((report.modules, report.pruned), (0, 0));
    assert!(!report.complete);
    assert_eq!(world.status().state, CacheState::Cold);
    let report = world.repair(SyncOptions::default());
    assert_eq!(report.unverified, Some(Unverified::EmptyWorkspace));
    assert_eq!(report.drift.ghost, paths);
    foreign.assert_holds(&paths);
}

fn an_empty_table_wipes_a_full_cache_where_that_is_meant<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    litter(&mut foreign);
    let report = world.warm(SyncOptions::default().with_allow_empty(true));
    assert_eq!(report.unverified, None);
    assert!(report.complete);
    assert_eq!((report.modules, report.pruned), (0, 3));
    foreign.assert_holds(&[]);
}

const BOUND: Duration = Duration::from_millis(300);

fn bounded<'a>() -> SyncOptions<'a> {
    SyncOptions::default().with_barrier_timeout(BOUND)
}

fn a_long_open_transaction_leaves_the_warm_up_unverified_within_its_bound<
    F: Facade<Writer: Syncing>,
>() {
    let world = World::<Blocking>::with_rows(&numbered(3));
    let mut table = world.table();
    table.run("BEGIN");
    table.put("m/000.py", "2");
    // It sets before it commits, so the warm-up has something to mend, too.
    world.foreign().set("m/000.py", "2");
    let start = Instant::now();
    let report = world.warm(bounded());
    assert!(start.elapsed() >= BOUND && start.elapsed() < Duration::from_secs(5));
    assert_eq!(report.unverified, Some(Unverified::OpenTransaction));
    assert!(!report.verified() && report.to_string().contains("unverified"));
    assert_eq!(report.modules, 3);
    // All that is committed is there, and nothing more is claimed.
    assert!(report.complete);
    let status = world.status();
    assert!(status.is_warm());
    assert_eq!((status.verified, status.modules), (false, 3));
    table.run("COMMIT");
    let report = world.warm(bounded());
    assert_eq!((report.unverified, report.written), (None, 1));
    world.foreign().assert_is("m/000.py", Some("2"));
}

fn a_long_open_transaction_leaves_the_repair_unverified_within_its_bound<
    F: Facade<Writer: Syncing>,
>() {
    let world = World::<Blocking>::with_rows(&numbered(3));
    let mut table = world.table();
    table.run("BEGIN");
    table.put("other.py", "1");
    let start = Instant::now();
    let report = world.repair(bounded());
    assert!(start.elapsed() >= BOUND && start.elapsed() < Duration::from_secs(5));
    assert_eq!(report.unverified, Some(Unverified::OpenTransaction));
    assert_eq!(report.written, 3);
    // Reading is no reason to wait.
    let mut reader = world.table();
    table.run("ROLLBACK");
    reader.run("BEGIN; SELECT * FROM workspace_files");
    assert_eq!(world.repair(bounded()).unverified, None);
}

fn a_long_open_transaction_makes_verify_unsure_of_what_differs<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    let (mut table, mut foreign) = (world.table(), world.foreign());
    let verify = || {
        let client = &mut world.client();
        world.writer.verify_with(client, bounded()).unwrap()
    };
    table.run("BEGIN");
    table.put(&paths[0], "2");
    // What equals its row does so whatever others are about to do.
    assert_eq!(verify().unverified, None);
    foreign.set(&paths[0], "2");
    let drift = verify();
    assert_eq!(drift.stale, paths[..1]);
    assert_eq!(drift.unverified, Some(Unverified::OpenTransaction));
    assert!(drift.to_string().contains("unverified"), "{drift}");
    table.run("ROLLBACK");
    let drift = verify();
    assert_eq!((drift.stale.len(), drift.unverified), (1, None));
}

/// Each kind of drift once, beside two modules that are right.
fn drifted<F: Facade<Writer: Syncing>>() -> World<F> {
    let world = World::<F>::new();
    let (mut table, mut foreign) = (world.table(), world.foreign());
    for path in [
        "missing.py",
        "stale.py",
        "key-only.py",
        "expiring.py",
        "corrupt.py",
    ] {
        table.put(path, "1");
    }
    table.put("right.py", "1");
    table.put("empty.py", "");
    foreign.set("right.py", "1");
    foreign.set("empty.py", "");
    foreign.set("stale.py", "0");
    foreign.set("ghost.py", "1");
    foreign.set_key("unlisted-ghost.py", &json("unlisted-ghost.py", "1"));
    foreign.set_key("key-only.py", &json("key-only.py", "1"));
    foreign.setex("expiring.py", "1", 86_400);
    foreign.set("corrupt.py", "1");
    foreign.set_key("corrupt.py", "{");
    for member in ["index-only.py", "/bad.py"] {
        foreign.run(&format!("SADD {} {member}", keys::MODULE_INDEX_KEY));
    }
    world
}

#[track_caller]
fn assert_each_kind(drift: &Drift) {
    assert_eq!(drift.missing, ["missing.py"]);
    assert_eq!(drift.stale, ["stale.py"]);
    assert_eq!(drift.ghost, ["ghost.py", "unlisted-ghost.py"]);
    assert_eq!(drift.index_only, ["index-only.py"]);
    assert_eq!(drift.key_only, ["key-only.py"]);
    assert_eq!(drift.expiring, ["expiring.py"]);
    assert_eq!(drift.corrupt, ["corrupt.py"]);
    assert_eq!((drift.modules, drift.skipped), (7, 0));
    assert_eq!((drift.paths(), drift.bad_members), (8, 1));
    assert!(drift.scanned && !drift.is_clean());
}

/// A digest of all that Redis holds, times to live left out.
fn digest(redis: &RedisServer) -> String {
    let mut digest = redis::cmd("DEBUG");
    digest.arg("DIGEST").query(&mut redis.connection()).unwrap()
}

/// One on which DEBUG may be used.
fn redis_with_debug() -> RedisServer {
    if RedisServer::is_old() {
        return RedisServer::start(); // on which it always may
    }
    RedisServer::start_with(&["--enable-debug-command", "yes"])
}

fn verify_tells_every_kind_of_drift_and_writes_nothing<F: Facade<Writer: Syncing>>() {
    let world = drifted::<F>();
    world.redis.reset_stats();
    assert_each_kind(&world.verify());
    for command in [
        "set", "setex", "del", "sadd", "srem", "expire", "pexpire", "multi", "exec", "unlink",
    ] {
        assert_eq!(world.redis.calls(command), 0, "{command}");
    }
    // And so it is still there.
    assert_each_kind(&world.verify());

    let redis = redis_with_debug();
    let config = patient(&redis.url());
    let world = World::<F>::around(redis, config);
    world.table().put("a.py", "1");
    world.foreign().set("a.py", "0");
    world.foreign().set("b.py", "0");
    let before = digest(&world.redis);
    assert_eq!(world.verify().paths(), 2);
    assert_eq!(digest(&world.redis), before);
}

fn repair_mends_exactly_the_drift<F: Facade<Writer: Syncing>>() {
    let world = drifted::<F>();
    world.redis.reset_stats();
    let report = world.repair(SyncOptions::default());
    assert_each_kind(&report.drift);
    assert_eq!((report.written, report.removed), (5, 3));
    assert_eq!((report.retried, report.unverified), (0, None));
    assert!(report.unsettled.is_empty());
    // Written five, each after a placeholder for each of the eight.
    assert_eq!(world.redis.calls("set"), 8 + 5);
    assert_eq!(world.redis.calls("sadd"), 5);
    let drift = world.verify();
    assert!(drift.is_clean(), "{drift}");
    assert_eq!(drift, world.repair(SyncOptions::default()).drift);
    let mut foreign = world.foreign();
    for path in [
        "missing.py",
        "stale.py",
        "key-only.py",
        "expiring.py",
        "corrupt.py",
    ] {
        foreign.assert_is(path, Some("1"));
    }
    for path in ["ghost.py", "unlisted-ghost.py", "index-only.py"] {
        foreign.assert_is(path, None);
    }
    foreign.assert_is("empty.py", Some(""));
}

fn a_mark_is_not_written_by_a_repair<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    world.repair(SyncOptions::default());
    assert_eq!(world.status().state, CacheState::Cold);
}

fn status_follows_warm_up_and_flush<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    assert_eq!(world.status().state, CacheState::Cold);
    // One path does not make a cache complete.
    world.refresh(&["m/000.py"]);
    assert_eq!(world.status().state, CacheState::Cold);

    let start = SystemTime::now() - Duration::from_secs(1);
    world.warm(SyncOptions::default());
    let status = world.status();
    assert!(status.is_warm());
    let since = status.since.expect("it was completed");
    assert!(since >= start && since <= SystemTime::now());
    assert_eq!((status.modules, status.verified), (3, true));
    // What is true now, beside what was then.
    assert_eq!((status.members, status.evicted_keys), (Some(3), Some(0)));
    assert_eq!(status.maxmemory_policy.as_deref(), Some("noeviction"));
    assert_eq!(status.warning(), None);

    world.foreign().flush();
    assert_eq!(world.status().state, CacheState::Cold);
    world.refresh(&["m/000.py"]);
    assert_eq!(world.status().state, CacheState::Cold);
}

fn a_cache_that_came_back_from_disk_is_restored<F: Facade<Writer: Syncing>>() {
    let paths = numbered(3);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    world.redis.shutdown_save();
    world.table().put("m/000.py", "newer");
    world.redis.restart();
    let status = world.status();
    assert_eq!((status.state, status.modules), (CacheState::Restored, 3));
    assert!(!status.is_warm());
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.written, report.unchanged), (1, 2));
    assert!(world.status().is_warm());

    // A restart without data.
    world.redis.restart();
    // What it saved the first time is read again; a flush is what an empty one looks like.
    world.foreign().flush();
    assert_eq!(world.status().state, CacheState::Cold);
}

fn explain_tells_three_causes_apart<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    let explain = |path: &str| world.writer.reader().explain(path).unwrap().cause;
    assert_eq!(explain("m/000.py"), Cause::CacheCold);
    world.refresh(&["m/000.py"]);
    assert_eq!(explain("m/000.py"), Cause::Cached);
    assert_eq!(explain("m/001.py"), Cause::CacheCold);
    world.warm(SyncOptions::default());
    assert_eq!(explain("m/001.py"), Cause::Cached);
    assert_eq!(explain("absent.py"), Cause::NotCached);
    world.foreign().run("DEL bifrost:module:m/001.py");
    assert_eq!(explain("m/001.py"), Cause::ValueGone);
    // An empty value is absent.
    world.foreign().set_key("m/001.py", "");
    assert_eq!(explain("m/001.py"), Cause::ValueGone);
    world.foreign().flush();
    assert_eq!(explain("m/002.py"), Cause::CacheCold);
    let refused = world.writer.reader().explain("index").unwrap_err();
    assert!(refused.is_invalid_path());
}

fn the_mark_is_json_of_the_documented_form<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    world.warm(SyncOptions::default());
    let mut redis = world.redis.connection();
    let get = |redis: &mut redis::Connection| -> String {
        let mut get = redis::cmd("GET");
        get.arg(keys::COMPLETE_KEY).query(redis).unwrap()
    };
    let info: String = redis::cmd("INFO").arg("server").query(&mut redis).unwrap();
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let mark: serde_json::Value = serde_json::from_str(&get(&mut redis)).unwrap();
    assert_eq!(mark["modules"], 3);
    assert_eq!(mark["verified"], true);
    assert_eq!(mark["run_id"].as_str(), run_id);
    assert!(mark["completed_at"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(mark["evicted_keys"], 0);
    let replid = world.redis.info("master_replid");
    assert_eq!(mark["master_replid"].as_str(), Some(&*replid));
    assert_eq!(mark.as_object().unwrap().len(), 6);

    // No token is left, and readers of the modules don't meet the mark.
    let all: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    let generation = "bifrost:module-cache:generation".to_owned();
    assert!(all.contains(&generation), "{all:?}");
    assert_eq!(all.len(), 3 + 3, "{all:?}");
    assert!(!keys::COMPLETE_KEY.starts_with(keys::MODULE_KEY_PREFIX));

    let mut foreign = world.foreign();
    foreign.run(&format!("SET {} nonsense", keys::COMPLETE_KEY));
    assert!(world.writer.reader().status().unwrap_err().is_corrupt());
}

/// A primary that says that it is a standby.
fn a_standby_is_refused<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    world.table().run(
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT TRUE'",
    );
    let options = "options=-c%20search_path%3Dpublic,pg_catalog";
    let mut client = F::Writer::connect(&format!("{}?{options}", world.postgres.url()));
    let (writer, default) = (&world.writer, SyncOptions::default);
    let errors = [
        writer.warm_with(&mut client, default()).unwrap_err(),
        writer.verify_with(&mut client, default()).unwrap_err(),
        writer.repair_with(&mut client, default()).unwrap_err(),
        writer.refresh(&mut client, &["m/000.py"]).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_database() && !error.is_transient());
        assert!(error.to_string().contains("standby"), "{error}");
    }
    world.foreign().assert_holds(&[]);
}

fn progress_only_grows_and_reaches_the_total<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(450));
    world.foreign().set("ghost.py", "1");
    let mut events: Vec<Progress> = Vec::new();
    world.warm(at_each(|progress| events.push(progress)));
    for (stage, total) in [(Stage::Load, 450), (Stage::Compare, 451), (Stage::Mend, 1)] {
        let of_stage: Vec<_> = events.iter().filter(|event| event.stage == stage).collect();
        // What is mended is compared again, which shows as nothing more being done.
        let grows =
            |a: &&Progress, b: &&Progress| a.done < b.done + usize::from(stage == Stage::Mend);
        assert!(of_stage.is_sorted_by(grows), "{stage}");
        assert!(of_stage.iter().all(|event| event.total == total), "{stage}");
        assert_eq!(of_stage.last().unwrap().done, total, "{stage}");
    }
    let batches = events.iter().filter(|event| event.stage == Stage::Load);
    assert_eq!(batches.count(), 3);
    let order = [Stage::Load, Stage::Compare, Stage::Mend];
    let rank = |event: &Progress| order.iter().position(|stage| *stage == event.stage);
    assert!(events.is_sorted_by_key(rank), "{events:?}");

    let mut done = Vec::new();
    let modules = [module("a.py", "1")];
    let options = at_each(|progress| done.push(progress.done)).with_max_prune(1.0);
    world.writer.publish_exact_with(&modules, options).unwrap();
    assert_eq!(done.last(), Some(&1));
}

/// A cache of 25 modules, and a database with three others.
fn wrong_database<F: Facade<Writer: Syncing>>() -> (World<F>, Vec<String>) {
    let paths = numbered(25);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    let mut table = world.table();
    table.run("DELETE FROM workspace_files");
    table.fill(&["x.py", "y.py", "z.py"].map(str::to_owned));
    (world, paths)
}

fn assert_too_many<T: std::fmt::Debug>(result: Result<T, Error>, expected: (usize, usize)) {
    let error = result.unwrap_err();
    let found = match &error {
        Error::TooManyRemovals {
            removed, cached, ..
        } => (*removed, *cached),
        other => panic!("{other:?}"),
    };
    assert_eq!(found, expected);
    let text = error.to_string();
    assert!(
        text.contains("25") && text.contains("with_max_prune"),
        "{text}"
    );
    assert!(!error.is_transient());
}

fn a_wrong_database_does_not_prune_production<F: Facade<Writer: Syncing>>() {
    let (world, paths) = wrong_database::<F>();
    let (mut client, mut foreign) = (world.client(), world.foreign());
    let modules = ["x.py", "y.py", "z.py"].map(|path| module(path, path));
    for share in [None, Some(0.99), Some(0.0), Some(-1.0), Some(f64::NAN)] {
        let options = || match share {
            None => SyncOptions::default(),
            Some(share) => SyncOptions::default().with_max_prune(share),
        };
        let writer = &world.writer;
        assert_too_many(writer.warm_with(&mut client, options()), (25, 25));
        assert_too_many(writer.repair_with(&mut client, options()), (25, 25));
        assert_too_many(writer.publish_exact_with(&modules, options()), (25, 25));
        // Nor was anything added.
        foreign.assert_holds(&paths);
    }
    assert!(world.status().is_warm());
    // Few may go.
    let mut table = world.table();
    table.fill(&paths);
    table.run("DELETE FROM workspace_files WHERE path < 'm/013.py'");
    assert_too_many(
        world.writer.warm_with(&mut client, SyncOptions::default()),
        (13, 25),
    );
    assert_eq!(
        world
            .warm(SyncOptions::default().with_max_prune(0.52))
            .pruned,
        13
    );
    // A small cache loses what it has to.
    table.run("DELETE FROM workspace_files WHERE path LIKE 'm/%'");
    assert_eq!(world.repair(SyncOptions::default()).removed, 12);
}

fn a_dry_run_writes_nothing_and_says_what_it_would<F: Facade<Writer: Syncing>>() {
    let (world, paths) = wrong_database::<F>();
    world.table().put("m/000.py", "2");
    let mut foreign = world.foreign();
    let dry = || SyncOptions::default().with_dry_run(true);
    let mut expected = ["m/000.py", "x.py", "y.py", "z.py"]
        .map(str::to_owned)
        .to_vec();
    let assert_is = |found: Option<bifrost_module_cache::sync::DryRun>, written: &[String]| {
        let found = found.expect("a dry run");
        assert_eq!(found.written, written);
        assert_eq!(found.removed, paths[1..]);
    };
    let report = world.warm(dry());
    assert_eq!(
        (report.written, report.pruned, report.complete),
        (0, 0, false)
    );
    assert_eq!(report.unverified, Some(Unverified::DryRun));
    assert!(
        report.to_string().contains("4 to write, 24 to remove"),
        "{report}"
    );
    assert_is(report.dry_run, &expected);
    let report = world.repair(dry());
    assert_eq!((report.written, report.removed), (0, 0));
    assert_eq!(report.drift.stale, ["m/000.py"]);
    assert_is(report.dry_run, &expected);
    let mut modules = ["x.py", "m/000.py"].map(|path| module(path, path)).to_vec();
    modules.push(module("y.py", "y.py"));
    let report = world.writer.publish_exact_with(&modules, dry()).unwrap();
    assert_eq!(
        (report.written, report.removed, report.unchanged),
        (0, 0, 1)
    );
    assert!(!report.complete);
    expected.retain(|path| path == "x.py" || path == "y.py");
    assert_is(report.dry_run, &expected);
    foreign.assert_holds(&paths);
    assert!(world.status().is_warm());
    // Not even a token of its own.
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("bifrost:module-cache:warming:*")
        .query(&mut foreign.0)
        .unwrap();
    assert!(keys.len() <= 1, "{keys:?}");
}

fn a_redis_that_evicts_is_told_from_a_contended_one<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut table = world.table();
    table.run(
        "INSERT INTO workspace_files (path, content, entity_type)
         SELECT n || '.py', repeat('x', 30000), 'module' FROM generate_series(1, 500) AS n",
    );
    let mut foreign = world.foreign();
    foreign.run("CONFIG SET maxmemory-policy allkeys-lru");
    foreign.run("CONFIG SET maxmemory 10mb");
    let report = world.warm(SyncOptions::default());
    assert_eq!(report.unverified, Some(Unverified::Evicted), "{report}");
    assert!(!report.complete && report.modules < 500, "{report}");
    assert!(report.to_string().contains("maxmemory-policy"), "{report}");
    // It goes by what was evicted meanwhile, not by what was before.
    foreign.run("CONFIG SET maxmemory 0");
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.unverified, report.modules), (None, 500));
}

fn mending_says_how_far_it_has_come<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(450));
    let mut mended = Vec::new();
    world.repair(at_each(|progress| {
        if progress.stage == Stage::Mend {
            mended.push(progress.done);
        }
    }));
    // Once for each batch, and once for each that is compared again.
    assert_eq!(mended, [200, 400, 450, 450, 450, 450]);
}

fn rows_none_of_which_is_a_module_are_counted<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    let mut table = world.table();
    table.run("UPDATE workspace_files SET entity_type = NULL");
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.modules, report.not_modules), (0, 3));
    assert!(
        report.to_string().contains("3 rows that are no modules"),
        "{report}"
    );
    assert_eq!(world.verify().not_modules, 3);
    // Modules that were deleted are as they should be, and so are other rows beside modules.
    table.run("UPDATE workspace_files SET is_deleted = TRUE");
    assert_eq!(world.warm(SyncOptions::default()).not_modules, 0);
    table.run("UPDATE workspace_files SET is_deleted = FALSE");
    table.put("a.py", "1");
    assert_eq!(world.warm(SyncOptions::default()).not_modules, 0);
}

fn an_error_of_the_source_is_a_database_error<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let failed = world
        .writer
        .refresh_from(&["a.py"], |_| Err(io::Error::other("the store is closed")));
    let error = failed.unwrap_err();
    assert!(error.is_database());
    assert!(!error.is_unavailable() && !error.may_have_been_applied());
    let source = error.source().expect("the error of the closure");
    assert_eq!(source.to_string(), "the store is closed");
    assert!(source.is::<io::Error>());
}

fn a_failed_statement_is_a_database_error<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with(|config| config.with_workspace_table("absent"));
    let mut client = world.client();
    let errors = [
        world.writer.refresh(&mut client, &["a.py"]).unwrap_err(),
        world
            .writer
            .warm_with(&mut client, SyncOptions::default())
            .unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_database() && !error.is_transient(), "{error:?}");
        assert!(error.source().is_some());
        let url = world.postgres.url();
        let (_, address) = url.rsplit_once('@').unwrap();
        assert_eq!(error.server(), Some(address));
        assert!(error.to_string().contains(address), "{error}");
    }
    // A connection that is lost in the middle: to try again may help.
    let world = World::<F>::with_rows(&numbered(3));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let mut table = world.table();
    let options = after(Stage::Load, || table.run(end));
    let error = world.writer.warm_with(&mut world.client(), options);
    assert!(error.is_err_and(|error| error.is_database() && error.is_transient()));
    assert_eq!(world.status().state, CacheState::Cold);
}

fn every_report_says_which_servers_it_is_about<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(2));
    let redis = format!("127.0.0.1:{}/0", world.redis.port());
    let url = world.postgres.url();
    let database = url.rsplit_once('@').map(|(_, address)| address.to_owned());
    let drift = world.verify();
    let repaired = world.repair(SyncOptions::default());
    let warmed = world.warm(SyncOptions::default());
    let refreshed = world.refresh(&["m/000.py"]);
    for servers in [
        drift.servers,
        repaired.drift.servers,
        warmed.servers,
        refreshed.servers,
    ] {
        assert_eq!((&servers.redis, &servers.database), (&redis, &database));
    }
    let modules = [module("a.py", "1")];
    let change = Change::Set(modules[0].clone());
    let fetched = world
        .writer
        .refresh_from(&["a.py"], |_| Ok::<_, Infallible>(Vec::new()));
    for servers in [
        world.writer.publish(&[change]).unwrap().servers,
        world.writer.publish_exact(&modules).unwrap().servers,
        fetched.unwrap().servers,
    ] {
        assert_eq!((servers.redis, servers.database), (redis.clone(), None));
    }
}

fn to_json(report: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(report).unwrap()
}

fn reports_are_json<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&["a.py".to_owned()]);
    let drift = world.verify();
    let drift = to_json(&drift);
    assert_eq!(
        (&drift["clean"], &drift["counts"]["missing"]),
        (&false.into(), &1.into())
    );
    assert_eq!(drift["paths"]["missing"][0], "a.py");
    let warmed = world.warm(SyncOptions::default());
    let warmed = to_json(&warmed);
    assert_eq!(
        (&warmed["verified"], &warmed["unverified"]),
        (&true.into(), &().into())
    );
    assert!(
        warmed["seconds"].is_f64() && warmed["load_seconds"].is_f64(),
        "{warmed}"
    );
    let repaired = world.repair(SyncOptions::default());
    let repaired = to_json(&repaired);
    assert_eq!(repaired["drift"]["clean"], true);
    let refreshed = world.refresh(&["a.py"]);
    assert_eq!(to_json(&refreshed)["written"], 1);
    let stats = world.writer.reader().stats();
    assert_eq!(to_json(&stats)["breaker"], "closed");
}

fn reading_alone_may_not_have_been_applied<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with_rows(&numbered(3));
    let proxy = Proxy::start(world.redis.port());
    let config = patient(&proxy.url()).with_bulk_deadline(Duration::from_millis(300));
    let writer = F::Writer::new(config).unwrap();
    let mut client = world.client();
    // The first is that to the index, over a connection of its own.
    proxy.stall_replies();
    let error = writer.verify_with(&mut client, SyncOptions::default());
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(!error.may_have_been_applied(), "{error:?}");
    assert!(!error.to_string().contains("applied"), "{error}");
}

fn refresh_takes_many_paths_and_duplicates<F: Facade<Writer: Syncing>>() {
    let paths = numbered(1_000);
    let world = World::<F>::with_rows(&paths);
    let twice = [paths.clone(), paths.clone()].concat();
    let report = world.writer.refresh(&mut world.client(), &twice).unwrap();
    assert_eq!((report.written, report.removed), (1_000, 0));
    assert_eq!((report.retried, report.skipped), (0, 0));
    assert_eq!(
        report.bytes,
        paths.iter().map(|p| p.len() as u64).sum::<u64>()
    );
    world.foreign().assert_holds(&paths);

    let mut asked = Vec::new();
    let report = world.writer.refresh_from(&twice, |paths| {
        assert!(paths.len() <= 200, "{} paths at once", paths.len());
        asked.extend(paths);
        Ok::<_, Infallible>(Vec::new())
    });
    assert_eq!(report.unwrap().removed, 1_000);
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, paths);
    world.foreign().assert_holds(&[]);
}

fn never<E>(_: Vec<String>) -> Result<Vec<CachedModule>, E> {
    panic!("the source is not asked")
}

fn refresh_of_no_paths_asks_nobody<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    let before = foreign.others();
    let none: [&str; 0] = [];
    let report = world.writer.refresh_from(&none, never::<Infallible>);
    assert_eq!(
        report.unwrap(),
        bifrost_module_cache::sync::RefreshReport::default()
    );
    assert_eq!(world.refresh(&[]).written, 0);
    assert_eq!(foreign.others(), before);
}

fn refresh_of_a_bad_path_asks_nobody<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    for bad in ["index", "", "/a.py", "a/../b.py"] {
        let paths = ["good.py", bad];
        let error = world.writer.refresh_from(&paths, never::<Infallible>);
        assert!(error.unwrap_err().is_invalid_path(), "{bad:?}");
        let error = world.writer.refresh(&mut world.client(), &paths);
        assert!(error.unwrap_err().is_invalid_path(), "{bad:?}");
    }
    world.foreign().assert_holds(&[]);
}

fn refresh_ignores_modules_it_did_not_ask_for<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let report = world.writer.refresh_from(&["a.py"], |_| {
        Ok::<_, Infallible>(vec![module("a.py", "1"), module("b.py", "1")])
    });
    assert_eq!(report.unwrap().written, 1);
    world.foreign().assert_is("a.py", Some("1"));
    world.foreign().assert_is("b.py", None);
}

fn refresh_removes_a_module_that_is_too_large<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with(|config| config.with_max_content_bytes(10));
    world.foreign().set("a.py", "small");
    world.table().put("a.py", "larger than ten");
    let report = world.refresh(&["a.py", "b.py"]);
    assert_eq!((report.removed, report.skipped, report.written), (2, 1, 0));
    world.foreign().assert_is("a.py", None);
}

fn the_same_path_twice_is_published_as_the_last_says<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let changes = [
        Change::Set(module("a.py", "1")),
        Change::Remove("b.py".into()),
        Change::Set(module("c.py", "1")),
        Change::Set(module("a.py", "2")),
        Change::Set(module("b.py", "1")),
        Change::Remove("c.py".into()),
    ];
    let report = world.writer.publish(&changes).unwrap();
    assert_eq!((report.written, report.removed), (2, 1));
    assert_eq!(world.redis.calls("exec"), 1);
    let mut foreign = world.foreign();
    foreign.assert_is("a.py", Some("2"));
    foreign.assert_is("b.py", Some("1"));
    foreign.assert_is("c.py", None);
    let modules = [module("a.py", "3"), module("a.py", "4")];
    let report = world.writer.publish_exact(&modules).unwrap();
    assert_eq!((report.written, report.removed), (1, 1));
    foreign.assert_is("a.py", Some("4"));

    let report = world.writer.publish(&[]).unwrap();
    assert_eq!(report.written, 0);
}

const MIB: usize = 1024 * 1024;

fn a_large_publication_is_cut<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let paths = numbered(9);
    let large = "x".repeat(MIB - paths[0].len());
    let set = |path: &String| Change::Set(module(path, &large));
    // Four MiB, the paths included, are one transaction.
    let changes: Vec<Change> = paths[..4].iter().map(set).collect();
    let report = world.writer.publish(&changes).unwrap();
    assert_eq!((report.written, world.redis.calls("exec")), (4, 1));
    let changes: Vec<Change> = paths.iter().map(set).collect();
    let report = world.writer.publish(&changes).unwrap();
    assert_eq!((report.written, world.redis.calls("exec")), (9, 4));
    assert_eq!(report.bytes, 9 * large.len() as u64);
    assert_eq!(world.writer.reader().paths().unwrap().len(), 9);
    // A single one that is larger is one all the same.
    let huge = [Change::Set(module("huge.py", &"x".repeat(5 * MIB)))];
    assert_eq!(world.writer.publish(&huge).unwrap().written, 1);
    assert_eq!(world.redis.calls("exec"), 5);
}

fn a_publication_that_cannot_be_sent_in_whole_is_not_sent_at_all<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::with(|config| config.with_max_content_bytes(10));
    let good = Change::Set(module("a.py", "1"));
    let mut bad = module("b.py", "1");
    bad.path = "index".into();
    let refused = [
        Change::Set(bad),
        Change::Remove("/b.py".into()),
        Change::Set(module("b.py", "larger than ten")),
    ];
    for change in refused {
        let changes = [good.clone(), change];
        world.writer.publish(&changes).unwrap_err();
    }
    let modules = [module("a.py", "1"), module("b.py", "larger than ten")];
    let error = world.writer.publish_exact(&modules).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }));
    world.foreign().assert_holds(&[]);
}

fn an_exact_publication_skips_replaces_and_removes<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    let paths = numbered(450);
    let modules: Vec<CachedModule> = paths.iter().map(|path| module(path, path)).collect();
    for path in &paths[..300] {
        foreign.set(path, path);
    }
    foreign.set(&paths[7], "stale");
    foreign.setex(&paths[8], &paths[8], 86_400);
    litter(&mut foreign);
    let report = world.writer.publish_exact(&modules).unwrap();
    assert_eq!((report.written, report.unchanged), (152, 298));
    assert_eq!((report.removed, report.complete), (3, true));
    foreign.assert_holds(&paths);
    // It was compared with no database.
    let status = world.status();
    assert!(status.is_warm());
    assert_eq!((status.verified, status.modules), (false, 450));

    world.redis.reset_stats();
    let report = world.writer.publish_exact(&modules).unwrap();
    assert_eq!((report.written, report.unchanged), (0, 450));
    assert_eq!((report.removed, report.written), (0, 0));
    assert_eq!(world.redis.calls("set"), 3, "token, generation, mark");
}

fn an_exact_publication_of_nothing_must_be_meant<F: Facade<Writer: Syncing>>() {
    let world = World::<F>::new();
    let mut foreign = world.foreign();
    foreign.set("a.py", "a.py");
    let error = world.writer.publish_exact(&[]).unwrap_err();
    assert!(matches!(error, Error::Empty));
    foreign.assert_holds(&["a.py".to_owned()]);
    let options = SyncOptions::default().with_allow_empty(true);
    let report = world.writer.publish_exact_with(&[], options).unwrap();
    assert_eq!((report.removed, report.complete), (1, true));
    foreign.assert_holds(&[]);
}

const HOUR: i64 = 3_600_000;

/// A world whose entries live for an hour.
fn hourly<F: Facade<Writer: Syncing>>() -> World<F> {
    World::with(|config| config.with_ttl(Some(Duration::from_secs(3_600))))
}

/// Lets an entry have so many milliseconds left.
fn leave(foreign: &mut Foreign, path: &str, left: i64) {
    foreign.run(&format!(
        "PEXPIRE {} {left}",
        keys::module_key(path).unwrap()
    ));
}

fn entries_and_mark_expire_by_our_setting_and_are_renewed<F: Facade<Writer: Syncing>>() {
    let world = hourly::<F>();
    let mut foreign = world.foreign();
    let paths = numbered(3);
    world.table().fill(&paths);
    let nearly = |left: i64, expected: i64| left <= expected && left > expected - 60_000;
    world.warm(SyncOptions::default());
    for path in &paths {
        assert!(nearly(foreign.entry(path).ttl, HOUR));
    }
    assert!(nearly(foreign.mark_ttl(), HOUR));

    // More than half is left of the first, less of the second.
    leave(&mut foreign, &paths[0], HOUR / 2 + 60_000);
    leave(&mut foreign, &paths[1], HOUR / 2 - 60_000);
    // Foreign ones that live for ever or for too long.
    foreign.set("for-ever.py", "1");
    foreign.setex("for-long.py", "1", 86_400);
    world.table().put("for-ever.py", "1");
    world.table().put("for-long.py", "1");
    let report = world.warm(SyncOptions::default());
    assert_eq!((report.written, report.unchanged), (3, 2));
    assert!(nearly(foreign.entry(&paths[0]).ttl, HOUR / 2 + 60_000));
    for path in [&*paths[1], "for-ever.py", "for-long.py"] {
        assert!(nearly(foreign.entry(path).ttl, HOUR), "{path}");
    }
    assert!(world.verify().is_clean());
    // A refresh and a publication give it anew.
    world.refresh(&[&paths[0]]);
    assert!(nearly(foreign.entry(&paths[0]).ttl, HOUR));
    let change = [Change::Set(module(&paths[1], "2"))];
    world.writer.publish(&change).unwrap();
    assert!(nearly(foreign.entry(&paths[1]).ttl, HOUR));
}

fn the_mark_expires_with_the_first_entry<F: Facade<Writer: Syncing>>() {
    let world = hourly::<F>();
    let mut foreign = world.foreign();
    let paths = numbered(3);
    world.table().fill(&paths);
    world.warm(SyncOptions::default());
    leave(&mut foreign, &paths[1], HOUR / 2 + 60_000);
    // Something to mend, which takes its time.
    foreign.set("ghost.py", "1");
    let takes_long = || thread::sleep(Duration::from_millis(700));
    let report = world.warm(after(Stage::Mend, takes_long));
    assert_eq!((report.unchanged, report.pruned), (3, 1));
    assert_expires_first(&mut foreign, &paths[1]);

    let modules = paths.iter().map(|path| module(path, path));
    let modules: Vec<CachedModule> = modules.collect();
    let report = world.writer.publish_exact(&modules).unwrap();
    assert_eq!(report.unchanged, 3);
    assert_expires_first(&mut foreign, &paths[1]);
}

/// Asserts that the mark goes when this entry does: half a second is for a slow machine.
#[track_caller]
fn assert_expires_first(foreign: &mut Foreign, path: &str) {
    let entry = foreign.entry(path).ttl;
    let mark = foreign.mark_ttl();
    assert!(
        mark > 0 && mark <= entry + 500,
        "{mark} ms, and the entry {entry} ms"
    );
}
