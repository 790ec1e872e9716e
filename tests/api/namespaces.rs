//! Two namespaces on one Redis never see each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::{
    Facade, Near, Nearby, PATIENCE, Reader, RedisServer, Syncing, World, Writer, module,
    on_both_facades, patient, wait_until,
};
use bifrost_module_cache::diagnosis::Cause;
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::sync::{Change, SyncOptions};
use bifrost_module_cache::{Config, Resolution};

on_both_facades! {
    what_is_done_in_one_namespace_is_not_seen_in_another
    each_reader_sees_its_own
    a_namespace_that_can_not_be_used_is_refused
}

/// One is none, two begin alike, and one looks like what our keys begin with.
const NAMESPACES: [&str; 4] = ["", "{tenant-a}:", "{tenant-a}:b", "bifrost:"];

fn config(redis: &RedisServer, namespace: &str) -> Config {
    patient(&redis.url()).with_namespace(namespace)
}

/// The keys of a namespace as they are stored.
fn stored(redis: &RedisServer, config: &Config) -> BTreeMap<String, Vec<u8>> {
    let mut connection = redis.connection();
    let all: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let ours = |key: &String| {
        let name = key.strip_prefix(config.keys().namespace());
        name.is_some_and(|name| name.starts_with("bifrost:module"))
    };
    let dump = |key: String| {
        let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
        (key, dump.unwrap_or_default())
    };
    all.into_iter().filter(ours).map(dump).collect()
}

struct Tenant<F: Nearby> {
    config: Config,
    writer: F::Writer,
    near: F::Near,
    /// How often its hook was called.
    told: Arc<AtomicUsize>,
}

impl<F: Nearby> Tenant<F> {
    /// With a module of its own and one at a path that all have.
    fn new(redis: &RedisServer, namespace: &str) -> Self {
        let config = config(redis, namespace);
        let writer = F::Writer::new(config.clone()).unwrap();
        let near = F::Near::live(config.clone(), NearCacheOptions::default());
        let modules = [module("a.py", namespace), module("own/m.py", namespace)];
        writer.publish_exact(&modules).unwrap();
        near.hear_all();
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        near.on_invalidate(move |_| {
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
        assert_eq!(near.prefetch().unwrap(), 2);
        Self {
            config,
            writer,
            near,
            told,
        }
    }

    fn content(&self, path: &str) -> Option<String> {
        let found = self.near.get(path).unwrap();
        found.map(|module| module.content.clone())
    }
}

type Operation<'a, W> = (&'static str, Box<dyn FnMut(&W) + 'a>);

/// Each operation, in an order in which each changes something; the cache is empty then.
fn operations<W: Syncing>(client: &RefCell<W::Client>) -> Vec<Operation<'_, W>> {
    let (a, b) = (|| module("a.py", "1"), || module("b.py", "2"));
    let options = || SyncOptions::default().with_max_prune(1.0);
    vec![
        ("set", Box::new(move |writer: &W| writer.set(&a()).unwrap())),
        (
            "rename",
            Box::new(move |writer: &W| writer.rename("a.py", &b()).unwrap()),
        ),
        (
            "invalidate",
            Box::new(move |writer: &W| assert!(writer.invalidate("b.py").unwrap())),
        ),
        (
            "publish",
            Box::new(move |writer: &W| {
                let changes = [Change::Set(a()), Change::Remove("own/m.py".into())];
                writer.publish(&changes).unwrap();
            }),
        ),
        (
            "refresh_from",
            Box::new(move |writer: &W| {
                writer.refresh_to(&["a.py", "b.py"], &[b()]).unwrap();
            }),
        ),
        (
            "refresh",
            Box::new(move |writer: &W| {
                writer
                    .refresh(&mut client.borrow_mut(), &["a.py", "b.py"])
                    .unwrap();
            }),
        ),
        (
            "verify",
            Box::new(move |writer: &W| {
                let drift = writer
                    .verify_with(&mut client.borrow_mut(), options())
                    .unwrap();
                assert_eq!(drift.missing, ["c.py"], "{drift:?}");
                assert!(drift.ghost.is_empty() && drift.scanned, "{drift:?}");
            }),
        ),
        (
            "repair",
            Box::new(move |writer: &W| {
                let report = writer
                    .repair_with(&mut client.borrow_mut(), options())
                    .unwrap();
                assert_eq!((report.written, report.removed), (1, 0), "{report:?}");
            }),
        ),
        (
            "warm_from_db",
            Box::new(move |writer: &W| {
                let report = writer
                    .warm_with(&mut client.borrow_mut(), options())
                    .unwrap();
                assert_eq!((report.modules, report.pruned), (2, 0), "{report:?}");
            }),
        ),
        (
            "publish_exact",
            Box::new(move |writer: &W| {
                let report = writer.publish_exact(&[b()]).unwrap();
                assert_eq!(report.removed, 2, "{report:?}");
            }),
        ),
        (
            "clear",
            Box::new(move |writer: &W| {
                assert_eq!(writer.clear().unwrap().removed, 1);
            }),
        ),
    ]
}

fn what_is_done_in_one_namespace_is_not_seen_in_another<F: Nearby<Writer: Syncing>>() {
    let world = World::<F>::new();
    let tenants = NAMESPACES.map(|namespace| Tenant::<F>::new(&world.redis, namespace));
    world.table().put("a.py", "row");
    world.table().put("c.py", "row");
    let client = RefCell::new(world.client());
    let mut operations = operations::<F::Writer>(&client);
    let others = |at: usize| {
        let others = tenants
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != at);
        others.map(|(_, tenant)| tenant)
    };
    for (at, tenant) in tenants.iter().enumerate() {
        for (name, operation) in &mut operations {
            let before: Vec<_> = others(at)
                .map(|other| (stored(&world.redis, &other.config), other.near.stats()))
                .collect();
            operation(&tenant.writer);
            tenant.near.hear_all();
            for (other, (keys, stats)) in others(at).zip(before) {
                let whose = (*name, at, other.config.keys().namespace());
                assert_eq!(stored(&world.redis, &other.config), keys, "{whose:?}");
                other.near.until_announced();
                let now = other.near.stats();
                assert_eq!(now.invalidations, stats.invalidations, "{whose:?}");
            }
        }
        assert!(stored(&world.redis, &tenant.config).is_empty());
        assert_eq!(tenant.content("a.py"), None);
        wait_until("its hook was called", PATIENCE, || {
            tenant.told.load(SeqCst) > 0
        });
        // For those that come after it: it is as it was.
        let namespace = tenant.config.keys().namespace();
        let modules = [module("a.py", namespace), module("own/m.py", namespace)];
        tenant.writer.publish_exact(&modules).unwrap();
        tenant.near.hear_all();
    }
}

fn each_reader_sees_its_own<F: Nearby<Writer: Syncing>>() {
    let redis = RedisServer::start();
    let tenants = NAMESPACES.map(|namespace| Tenant::<F>::new(&redis, namespace));
    for tenant in &tenants {
        let namespace = tenant.config.keys().namespace();
        let own = module("a.py", namespace);
        let reader = tenant.writer.reader();
        assert_eq!(reader.get("a.py").unwrap().as_ref(), Some(&own));
        let many = reader.get_many(&["a.py", "b.py"]).unwrap();
        assert_eq!(many, [Some(own.clone()), None]);
        assert_eq!(reader.paths().unwrap().len(), 2);
        assert_eq!(reader.resolve("a").unwrap(), Resolution::Module(own.into()));
        let path = "own".to_owned();
        assert_eq!(
            reader.resolve("own").unwrap(),
            Resolution::Namespace { path }
        );
        let status = reader.status().unwrap();
        assert!(status.is_warm() && status.members == Some(2), "{status:?}");
        assert_eq!(reader.explain("a.py").unwrap().cause, Cause::Cached);
        assert_eq!(reader.explain_name("b").unwrap().cause, Cause::NotCached);
        assert_eq!(tenant.near.paths().unwrap().len(), 2);
        assert_eq!(tenant.near.snapshot().unwrap().paths().count(), 2);
        assert_eq!(tenant.content("a.py").as_deref(), Some(namespace));
        let foreign = F::Reader::new(config(&redis, "other:")).unwrap();
        assert!(foreign.paths().unwrap().is_empty());
        assert_eq!(foreign.explain("a.py").unwrap().cause, Cause::CacheCold);
    }
}

fn a_namespace_that_can_not_be_used_is_refused<F: Facade>() {
    let config = patient("redis://localhost").with_namespace("a*");
    let error = F::Reader::new(config).unwrap_err();
    assert!(error.is_invalid_config() && error.to_string().contains("namespace"));
}
