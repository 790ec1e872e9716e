//! A hundred rounds of plain foreign writers, in every wrong way, beside a guard; and some without
//! one, which must end wrong.

use std::time::Duration;

use crate::support::{
    Blocking, Faults, Guard, Guarding, Nonblocking, Protocol, Size, Syncing, World, guarded_round,
    round,
};

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
    let guard = Guard::start_for_rounds(&world, listen);
    let (mut beside, mut slowest) = (Faults::default(), Duration::ZERO);
    for seed in 0..ROUNDS {
        let (round, took) = guarded_round(&world, SIZE, seed);
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
