//! Nobody but plain foreign writers, in every wrong way, and a guard: when all is silent, the cache
//! equals the database. And the same without a guard, where it does not, so that this can fail.

use std::time::{Duration, Instant};

use crate::support::{
    Guard, Guarding, PATIENCE, Protocol, Round, Size, Syncing, World, on_both_facades, round,
    round_until,
};
use bifrost_module_cache::guard::GuardOptions;

on_both_facades! {
    only_foreign_writers_and_a_guard_converge
    only_foreign_writers_and_a_guard_that_listens_converge
    foreign_writers_alone_do_not
}

const SIZE: Size = Size {
    modules: 300,
    changes: 40,
};

fn converge<F: Guarding<Writer: Syncing>>(listen: bool, seed: u64) -> Round {
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
    let round = round_until(&world, Protocol::Guarded, SIZE, seed, || {
        let start = Instant::now();
        while world.count_wrong() > 0 && start.elapsed() < PATIENCE {}
    });
    println!("{round}\n{:?}", guard.stats());
    assert_eq!(guard.stats().failures, 0);
    round
}

fn only_foreign_writers_and_a_guard_converge<F: Guarding<Writer: Syncing>>() {
    for seed in 0..2 {
        let round = converge::<F>(false, seed);
        assert_eq!(
            (round.faults.lasting(), round.faults.expiring),
            (0, 0),
            "{round}"
        );
    }
}

fn only_foreign_writers_and_a_guard_that_listens_converge<F: Guarding<Writer: Syncing>>() {
    for seed in 0..2 {
        let round = converge::<F>(true, seed);
        assert_eq!(
            (round.faults.lasting(), round.faults.expiring),
            (0, 0),
            "{round}"
        );
    }
}

fn foreign_writers_alone_do_not<F: Guarding<Writer: Syncing>>() {
    let round = round(&World::<F>::new(), Protocol::Unguarded, SIZE, 0);
    assert!(round.faults.lasting() > 0, "{round}");
}
