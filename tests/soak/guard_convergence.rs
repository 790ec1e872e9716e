//! A hundred rounds of plain foreign writers, in every wrong way, beside a guard; and some without
//! one, which must end wrong.

use std::time::{Duration, Instant};

use crate::support::{
    Blocking, Faults, Guard, Guarding, Nonblocking, PATIENCE, Protocol, Size, Syncing, World,
    round, round_until,
};
use bifrost_module_cache::guard::GuardOptions;

const ROUNDS: u64 = 50;

const SIZE: Size = Size {
    modules: 300,
    changes: 20,
};

#[test]
#[ignore = "long: make soak"]
fn a_hundred_rounds_of_plain_writers_converge_beside_a_guard() {
    converge::<Blocking>("blocking, polling", false);
    converge::<Nonblocking>("nonblocking, listening", true);
}

fn converge<F: Guarding<Writer: Syncing>>(name: &str, listen: bool) {
    let world = World::<F>::with_rows(&["a.py".to_owned()]);
    world.install_triggers();
    let options = GuardOptions::default()
        .with_poll(Duration::from_millis(100))
        .with_max_prune(1.0)
        .with_listen(listen);
    let guard = Guard::start(&world, options);
    if listen {
        guard.wait_until_it_listens();
    }
    let (mut beside, mut slowest) = (Faults::default(), Duration::ZERO);
    for seed in 0..ROUNDS {
        let mut took = Duration::ZERO;
        let round = round_until(&world, Protocol::Guarded, SIZE, seed, || {
            let start = Instant::now();
            while world.count_wrong() > 0 && start.elapsed() < PATIENCE {}
            took = start.elapsed();
        });
        slowest = slowest.max(took);
        if round.faults.lasting() > 0 {
            println!("seed {seed}: {round}\n{:?}", guard.stats());
        }
        beside.add(round.faults);
    }
    let stats = guard.stats();
    println!(
        "{name}: {ROUNDS} rounds: {beside:?}; right {slowest:.1?} after silence at the latest; mended {:?}",
        stats.mended
    );
    assert_eq!((beside.lasting(), beside.expiring), (0, 0));
    assert_eq!(stats.failures, 0, "{stats:?}");
    guard.stop().unwrap();
    let mut alone = Faults::default();
    for seed in 0..5 {
        alone.add(round(&world, Protocol::Unguarded, SIZE, seed).faults);
    }
    println!("{name}: 5 rounds without a guard: {alone:?}");
    assert!(alone.lasting() > 0);
}
