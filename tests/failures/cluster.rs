//! The slot of a workspace changes its owner.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::support::{
    Blocking, Cluster, DOWN_AFTER, Facade, Near, Nearby, Nonblocking, PATIENCE, Reader,
    RedisServer, StopOnDrop, TENANT, Writer, content, module, numbered, on_both_facades, patient,
    usual, wait_until,
};
use bifrost_module_cache::Config;
use bifrost_module_cache::near::NearCacheOptions;

on_both_facades! {
    a_manual_failover_of_a_cluster_fails_no_write
    after_the_death_of_the_owner_another_node_is_written_to
    a_slot_may_move_under_load
    without_a_hash_tag_a_cluster_is_refused
}

fn tenant(url: &str) -> Config {
    usual(url).with_namespace(TENANT)
}

fn a_manual_failover_of_a_cluster_fails_no_write<F: Facade>() {
    by_hand::<F>(patient);
}

#[test]
#[ignore = "long: make soak"]
fn manual_failovers_fail_no_write_within_the_usual_deadlines() {
    for _ in 0..3 {
        by_hand::<Blocking>(usual);
        by_hand::<Nonblocking>(usual);
    }
}

fn by_hand<F: Facade>(config: fn(&str) -> Config) {
    let cluster = Cluster::start();
    let old = cluster.owner().expect("an owner").port();
    let config = config(&cluster.url()).with_namespace(TENANT);
    let load = Load::<F>::start(config, 1_000);
    load.until_written(200);
    cluster.replica().command("CLUSTER FAILOVER");
    let new = cluster.until_owned_by_another(old);
    let told = load.end(new);
    println!("manual failover of a cluster: {told}");
    assert_eq!((told.failed, told.lost), (0, 0), "{told}");
    assert!(told.written >= 1_000, "{told}");
}

fn after_the_death_of_the_owner_another_node_is_written_to<F: Nearby>() {
    let cluster = Cluster::start();
    let old = cluster.owner().expect("an owner");
    let near = F::Near::live(tenant(&cluster.url()), NearCacheOptions::default());
    let load = Load::<F>::start(tenant(&cluster.url()), 500);
    load.until_written(100);
    let begun = Instant::now();
    let port = old.port();
    old.kill();
    let new = cluster.until_owned_by_another(port);
    let promotion = begun.elapsed();
    let sessions = near.stats().sessions;
    let promoted = Instant::now();
    wait_until("the near cache follows the new owner", PATIENCE, || {
        near.is_live() && near.stats().sessions >= sessions
    });
    println!(
        "the near cache is live {:?} after the promotion",
        promoted.elapsed()
    );
    let told = load.end(new);
    println!("kill of a cluster's owner: promoted after {promotion:?}; {told}");
    assert!(
        told.gap < promotion + DOWN_AFTER + Duration::from_secs(4),
        "{told}"
    );
}

/// Half of the keys are here and half are there: no read is wrong, and none is told "absent".
fn a_slot_may_move_under_load<F: Nearby>() {
    let cluster = Cluster::start();
    let writer = F::Writer::new(patient(&cluster.url()).with_namespace(TENANT)).unwrap();
    let paths = numbered(30);
    let modules: Vec<_> = paths.iter().map(|path| module(path, "old")).collect();
    writer.publish_exact(&modules).unwrap();
    let bound = Duration::from_millis(800);
    let options = NearCacheOptions::default().with_staleness_bound(bound);
    let near = F::Near::live(patient(&cluster.url()).with_namespace(TENANT), options);
    assert_eq!(near.prefetch().unwrap(), 30);
    assert_eq!(near.get("created.py").unwrap(), None);
    let (is_over, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let reader = writer.reader();
        for single in [true, false] {
            let (paths, is_over, reads) = (&paths, &is_over, &reads);
            scope.spawn(move || {
                while !is_over.load(SeqCst) {
                    if single {
                        for path in paths {
                            let found = reader.get(path).unwrap().expect("it is there");
                            assert_eq!(found.path, *path);
                        }
                    } else {
                        for (found, path) in reader.get_many(paths).unwrap().iter().zip(paths) {
                            assert_eq!(found.as_ref().expect("it is there").path, *path);
                        }
                        assert_eq!(reader.paths().unwrap().len(), 30);
                    }
                    assert_eq!(reader.get("absent.py").unwrap(), None);
                    reads.fetch_add(1, SeqCst);
                }
            });
        }
        cluster.migrate(|| {
            let before = reads.load(SeqCst);
            wait_until("all is read in this state", PATIENCE, || {
                reads.load(SeqCst) > before + 1
            });
        });
        drop(stop);
    });
    let stats = writer.reader().stats();
    assert_eq!(stats.corrupt, 0, "{stats:?}");
    // What is written now goes to the new owner, and is heard.
    writer.set(&module("created.py", "new")).unwrap();
    near.until("created.py", Some("new"));
    writer.set(&module(&paths[0], "new")).unwrap();
    near.until(&paths[0], Some("new"));
    assert_eq!(writer.reader().paths().unwrap().len(), 31);
    assert_eq!(content(near.get(&paths[1])).as_deref(), Some("old"));
}

fn without_a_hash_tag_a_cluster_is_refused<F: Facade>() {
    for namespace in ["", "a:", "{}a:"] {
        let config = usual("redis+cluster://127.0.0.1:1").with_namespace(namespace);
        let error = F::Reader::new(config).unwrap_err();
        assert!(error.is_invalid_config(), "{error:?}");
        assert!(error.to_string().contains("hash tag"), "{error}");
    }
    // A node by its address, as if it were alone.
    let node = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    node.command(&format!(
        "CLUSTER ADDSLOTS {}",
        (0..16_384)
            .map(|slot| slot.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    ));
    wait_until("the cluster is up", PATIENCE, || {
        let reader = F::Reader::new(usual(&node.url())).unwrap();
        reader.get("a.py").is_ok()
    });
    let writer = F::Writer::new(usual(&node.url())).unwrap();
    let error = writer.set(&module("a.py", "1")).unwrap_err();
    assert!(error.to_string().contains("hash tag"), "{error}");
}
