//! Nobody but plain foreign writers, in every wrong way, and a guard: when all is silent, the cache
//! equals the database. And the same without a guard, where it does not, so that this can fail.

use crate::support::{
    Guard, Guarding, Protocol, Round, Size, Syncing, World, guarded_round, on_both_facades, round,
};

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
    let guard = Guard::start_for_rounds(&world, listen);
    let (round, _) = guarded_round(&world, SIZE, seed);
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
