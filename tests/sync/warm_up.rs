//! The warm-up, with a database that no other service writes to.

use std::collections::HashSet;
use std::ops::{Deref, DerefMut};

use crate::support::{Facade, Monitor, Reader, Table, World, Writer, on_both_facades};
use bifrost_module_cache::sync::{SyncOptions, WarmReport};
use bifrost_module_cache::{CachedModule, Error, nonblocking};
use redis::Commands;

on_both_facades! {
    what_is_a_module_is_cached_and_nothing_else
    a_second_warm_up_writes_nothing
    what_differs_is_written_and_what_has_no_row_is_removed
    rows_that_cannot_be_cached_are_skipped_and_counted
    a_large_module_is_loaded
    thousands_of_modules_are_loaded_in_bounded_batches
    a_table_may_have_any_name
    an_empty_table_makes_an_empty_cache
    an_empty_table_removes_nothing_unasked
    a_missing_table_is_an_error_of_the_database
    a_table_of_another_shape_is_an_error_of_the_database
    a_database_that_has_gone_is_a_passing_error
    a_redis_that_has_gone_is_unavailable
    entries_get_the_time_to_live_that_is_set
}

/// A world, and the connections to its database that a test keeps.
struct Workspace<F: Facade> {
    world: World<F>,
    table: Table,
    client: <F::Writer as Writer>::Client,
}

impl<F: Facade> Workspace<F> {
    fn new() -> Self {
        Self::of(World::new())
    }

    fn of(world: World<F>) -> Self {
        Self {
            table: world.table(),
            client: world.client(),
            world,
        }
    }

    fn sql(&mut self, statements: &str) {
        self.table.run(statements);
    }

    fn insert(&mut self, module: &CachedModule) {
        let statement = "INSERT INTO workspace_files (path, content, content_hash, entity_type)
             VALUES ($1, $2, $3, 'module')";
        let CachedModule {
            path,
            content,
            hash,
        } = module;
        self.table
            .0
            .execute(statement, &[path, content, hash])
            .unwrap();
    }

    fn warm(&mut self) -> Result<WarmReport, Error> {
        self.world.writer.warm_from_db(&mut self.client)
    }

    fn get(&self, path: &str) -> Option<CachedModule> {
        self.writer.reader().get(path).unwrap()
    }

    fn paths(&self) -> HashSet<String> {
        self.writer.reader().paths().unwrap()
    }
}

impl<F: Facade> Deref for Workspace<F> {
    type Target = World<F>;

    fn deref(&self) -> &World<F> {
        &self.world
    }
}

impl<F: Facade> DerefMut for Workspace<F> {
    fn deref_mut(&mut self) -> &mut World<F> {
        &mut self.world
    }
}

fn module(path: &str, content: &str, hash: &str) -> CachedModule {
    CachedModule::with_hash(path, content, hash).unwrap()
}

fn set_of(paths: &[&str]) -> HashSet<String> {
    paths.iter().map(ToString::to_string).collect()
}

fn what_is_a_module_is_cached_and_nothing_else<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.sql(
        "INSERT INTO workspace_files (path, content, content_hash, entity_type, is_deleted) VALUES
            ('shared/a.py', 'x = 1', 'abc', 'module', FALSE),
            ('pkg/__init__.py', '', 'e3b0', 'module', FALSE),
            ('old.py', 'x', NULL, 'module', FALSE),
            ('é/🦀.py', '''🦀''', 'HASH', 'module', FALSE),
            ('deleted.py', 'x', 'h', 'module', TRUE),
            ('none.py', NULL, 'h', 'module', FALSE),
            ('form.json', 'x', 'h', 'form', FALSE),
            ('untyped.py', 'x', 'h', NULL, FALSE),
            ('Module.py', 'x', 'h', 'Module', FALSE)",
    );
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.written, report.skipped), (4, 4, 0));
    assert_eq!((report.unchanged, report.pruned, report.bytes), (0, 0, 12));
    assert!(report.verified() && report.complete, "{report:?}");
    let expected = [
        module("shared/a.py", "x = 1", "abc"),
        module("pkg/__init__.py", "", "e3b0"),
        module("old.py", "x", ""),
        module("é/🦀.py", "'🦀'", "HASH"),
    ];
    for module in &expected {
        assert_eq!(world.get(&module.path).as_ref(), Some(module));
    }
    let paths: HashSet<String> = expected.into_iter().map(|module| module.path).collect();
    assert_eq!(world.paths(), paths);
    for path in [
        "deleted.py",
        "none.py",
        "form.json",
        "untyped.py",
        "Module.py",
    ] {
        assert_eq!(world.get(path), None, "{path}");
    }
    assert!(world.writer.reader().status().unwrap().is_warm());
    let text = report.to_string();
    for part in ["4 modules", "4 written (12 bytes)", "0 skipped", "verified"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("unverified"), "{text}");
}

fn a_second_warm_up_writes_nothing<F: Facade>() {
    let mut world = Workspace::<F>::new();
    for i in 0..300 {
        world.insert(&module(&format!("m{i}.py"), "x", ""));
    }
    assert_eq!(world.warm().unwrap().written, 300);
    let mut monitor = Monitor::start(&world.redis);
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.unchanged), (300, 300));
    assert_eq!((report.written, report.pruned, report.bytes), (0, 0, 0));
    let commands = monitor.commands();
    // No more than the mark of a complete cache, with its token and its generation.
    assert!(!commands.contains(&"SADD".to_owned()));
    let writes = commands.iter().filter(|name| *name == "SET").count();
    assert_eq!(writes, 3, "{commands:?}");
}

fn what_differs_is_written_and_what_has_no_row_is_removed<F: Facade>() {
    let mut world = Workspace::<F>::new();
    let rows = [
        "same.py",
        "stale.py",
        "corrupt.py",
        "unlisted.py",
        "missing.py",
    ];
    for path in rows {
        world.insert(&module(path, "row", "h"));
    }
    world.writer.set(&module("same.py", "row", "h")).unwrap();
    world.writer.set(&module("stale.py", "old", "h")).unwrap();
    world.writer.set(&module("ghost.py", "x", "h")).unwrap();
    let mut redis = world.redis.connection();
    redis
        .set::<_, _, ()>("bifrost:module:corrupt.py", "{")
        .unwrap();
    let unlisted = module("unlisted.py", "row", "h").to_json();
    redis
        .set::<_, _, ()>("bifrost:module:unlisted.py", unlisted)
        .unwrap();
    for member in ["expired.py", "/bad", "index"] {
        redis
            .sadd::<_, _, ()>("bifrost:module:index", member)
            .unwrap();
    }
    redis.set::<_, _, ()>("foreign", "kept").unwrap();

    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.unchanged), (5, 1));
    assert_eq!((report.written, report.pruned), (4, 2));
    assert!(report.verified() && report.complete, "{report:?}");
    for path in rows {
        assert_eq!(world.get(path), Some(module(path, "row", "h")));
    }
    let mut members: Vec<String> = redis.smembers("bifrost:module:index").unwrap();
    members.sort_unstable();
    let mut expected = rows;
    expected.sort_unstable();
    assert_eq!(members, expected);
    assert_eq!(world.get("ghost.py"), None);
    assert!(redis.exists::<_, bool>("foreign").unwrap());
}

fn rows_that_cannot_be_cached_are_skipped_and_counted<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.sql(
        r"INSERT INTO workspace_files (path, content, entity_type) VALUES
            ('index', 'x', 'module'), ('/abs.py', 'x', 'module'), ('', 'x', 'module'),
            ('a/../b.py', 'x', 'module'), ('a\b.py', 'x', 'module'), (E'a\nb.py', 'x', 'module'),
            ('large.py', '12345678901', 'module'), ('umlauts.py', 'éééééé', 'module'),
            ('fits.py', '1234567890', 'module'), ('index.py', 'x', 'module')",
    );
    world.writer = F::Writer::new(world.writer_config().with_max_content_bytes(10)).unwrap();
    world.writer.set(&module("kept.py", "", "")).unwrap();
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.written, report.skipped), (2, 2, 8));
    assert!(report.to_string().contains("8 skipped"), "{report}");
    assert_eq!(world.paths(), set_of(&["fits.py", "index.py"]));
}

fn a_large_module_is_loaded<F: Facade>() {
    let mut world = Workspace::<F>::new();
    let large = module("large.py", &"x = 'é🦀'\n".repeat(4_000_000 / 13), "h");
    world.insert(&large);
    world.insert(&module("small.py", "x", ""));
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.written), (2, 2));
    assert_eq!(report.bytes, large.content.len() as u64 + 1);
    // Not with assert_eq: it would print it.
    assert!(world.get("large.py") == Some(large));
}

fn thousands_of_modules_are_loaded_in_bounded_batches<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.sql(
        "INSERT INTO workspace_files (path, content, content_hash, entity_type)
         SELECT 'pkg' || i % 97 || '/m' || i || '.py', repeat('x', i % 50), 'h' || i, 'module'
         FROM generate_series(1, 5000) AS i",
    );
    world.redis.reset_stats();
    let report = world.warm().unwrap();
    assert_eq!(
        (report.modules, report.written, report.skipped),
        (5_000, 5_000, 0)
    );
    assert!(report.verified() && report.complete, "{report:?}");
    // At most 200 modules in one; one more for the mark.
    let transactions = world.redis.calls("exec");
    assert!((26..=40).contains(&transactions), "{transactions}");
    let paths: Vec<String> = world.paths().into_iter().collect();
    assert_eq!(paths.len(), 5_000);
    for (path, found) in paths
        .iter()
        .zip(world.writer.reader().get_many(&paths).unwrap())
    {
        let number = path.rsplit('m').next().unwrap().trim_end_matches(".py");
        let length = number.parse::<usize>().unwrap() % 50;
        let expected = module(path, &"x".repeat(length), &format!("h{number}"));
        assert_eq!(found, Some(expected));
    }
}

fn a_table_may_have_any_name<F: Facade>() {
    for (name, sql) in [
        ("tenant.modules", "tenant.modules"),
        ("Odd Schema.sel\"ect", "\"Odd Schema\".\"sel\"\"ect\""),
        ("it's; DROP TABLE x; --", "\"it's; DROP TABLE x; --\""),
    ] {
        let mut world = Workspace::of(World::<F>::with_table(sql));
        world.sql(&format!(
            "INSERT INTO {sql} (path, content, entity_type) VALUES ('a.py', 'x', 'module')"
        ));
        world.writer = F::Writer::new(world.writer_config().with_workspace_table(name)).unwrap();
        assert_eq!(world.warm().unwrap().modules, 1, "{name}");
        assert_eq!(world.get("a.py"), Some(module("a.py", "x", "")), "{name}");
    }
}

fn an_empty_table_makes_an_empty_cache<F: Facade>() {
    let mut world = Workspace::<F>::new();
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.written, report.pruned), (0, 0, 0));
    assert!(report.verified() && report.complete, "{report:?}");
    assert_eq!(world.paths(), HashSet::new());
}

/// It is more often the wrong database than a deleted workspace.
fn an_empty_table_removes_nothing_unasked<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.writer.set(&module("a.py", "x", "")).unwrap();
    let report = world.warm().unwrap();
    assert_eq!((report.modules, report.pruned), (0, 0));
    assert!(!report.verified() && !report.complete, "{report:?}");
    assert!(report.to_string().contains("unverified"), "{report}");
    assert_eq!(world.get("a.py"), Some(module("a.py", "x", "")));
}

fn assert_fails<F: Facade>(world: &mut Workspace<F>, transient: bool) {
    let error = world.warm().unwrap_err();
    assert!(error.is_database() && !error.is_unavailable(), "{error:?}");
    assert_eq!(error.is_transient(), transient, "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    // Nothing says that the cache is complete.
    assert!(!world.writer.reader().status().unwrap().is_warm());
}

fn a_missing_table_is_an_error_of_the_database<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.writer.set(&module("a.py", "x", "")).unwrap();
    world.sql("DROP TABLE workspace_files");
    assert_fails(&mut world, false);
    assert_eq!(world.paths(), set_of(&["a.py"]));
}

fn a_table_of_another_shape_is_an_error_of_the_database<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.sql(
        "INSERT INTO workspace_files (path, content, entity_type) VALUES ('a.py', 'x', 'module');
         ALTER TABLE workspace_files ALTER content_hash TYPE bytea USING ''::bytea",
    );
    assert_fails(&mut world, false);
}

fn a_database_that_has_gone_is_a_passing_error<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.insert(&module("a.py", "x", ""));
    world.postgres.kill();
    assert_fails(&mut world, true);
    world.postgres.restart();
    // With a new connection the same writer goes on.
    world.client = world.world.client();
    assert_eq!(world.warm().unwrap().modules, 1);
}

fn a_redis_that_has_gone_is_unavailable<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.insert(&module("a.py", "x", ""));
    world.redis.kill();
    let error = world.warm().unwrap_err();
    assert!(error.is_unavailable() && !error.is_database(), "{error:?}");
    world.redis.restart();
    assert_eq!(world.warm().unwrap().modules, 1);
    assert_eq!(world.get("a.py"), Some(module("a.py", "x", "")));
}

fn entries_get_the_time_to_live_that_is_set<F: Facade>() {
    let mut world = Workspace::<F>::new();
    world.insert(&module("a.py", "x", ""));
    let mut redis = world.redis.connection();
    let mut ttl = || redis.pttl::<_, i64>("bifrost:module:a.py").unwrap();
    assert_eq!(world.warm().unwrap().written, 1);
    assert_eq!(ttl(), -1);
    let hour = std::time::Duration::from_secs(3_600);
    world.writer = F::Writer::new(world.writer_config().with_ttl(Some(hour))).unwrap();
    assert_eq!(world.warm().unwrap().written, 1);
    assert!((3_500_000..=3_600_000).contains(&ttl()));
}

#[allow(dead_code, reason = "that it compiles is the test")]
fn every_future_with_a_database_can_cross_threads(
    writer: &nonblocking::ModuleWriter,
    client: &bifrost_module_cache::tokio_postgres::Client,
) {
    fn check<T: Send>(_: T) {}
    check(writer.refresh(client, &["a.py"]));
    check(writer.warm_from_db(client));
    check(writer.warm_from_db_with(client, SyncOptions::default()));
    check(writer.verify(client));
    check(writer.verify_with(client, SyncOptions::default()));
    check(writer.repair(client));
    check(writer.repair_with(client, SyncOptions::default()));
    // A fetch that borrows.
    check(writer.refresh_from(&["a.py"], |_| async move {
        client.simple_query("").await.map(|_| Vec::new())
    }));
}
