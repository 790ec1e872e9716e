//! Whatever runs at the same time, whichever service dies half-way: when all is silent, the cache
//! equals the database. And the specification's protocol, under which it does not, so that this can
//! fail.

use crate::support::{Facade, Protocol, Round, Size, Syncing, World, on_both_facades, round};

on_both_facades! {
    services_that_refresh_converge_and_never_go_back
    foreign_writers_that_commit_first_converge
    foreign_writers_that_set_first_converge
    everybody_at_once_converges_after_a_warm_up
    everybody_at_once_converges_after_a_repair
    the_naive_warm_up_ends_wrong_when_writers_commit_first
    the_naive_warm_up_ends_wrong_when_writers_set_first
    naive_services_end_wrong
}

const SEED: u64 = 20_250_314;

const SIZE: Size = Size {
    modules: 600,
    changes: 60,
};

fn run<F: Facade<Writer: Syncing>>(protocol: Protocol) -> Round {
    run_with::<F>(protocol, SEED)
}

fn run_with<F: Facade<Writer: Syncing>>(protocol: Protocol, seed: u64) -> Round {
    println!("{protocol:?} with seed {seed}");
    let round = round(&World::<F>::new(), protocol, SIZE, seed);
    println!("{round}");
    round
}

/// The first of ten rounds that ends wrong: mostly the first.
fn run_to_a_fault<F: Facade<Writer: Syncing>>(protocol: Protocol) -> Round {
    (SEED..SEED + 10)
        .map(|seed| run_with::<F>(protocol, seed))
        .find(|round| round.faults.lasting() > 0)
        .expect("the fault is seen")
}

/// Converges without a warm-up or repair at the end.
fn services_that_refresh_converge_and_never_go_back<F: Facade<Writer: Syncing>>() {
    let round = run::<F>(Protocol::Refresh);
    assert_eq!(round.faults.lasting(), 0, "{round}");
    assert_eq!(round.faults.went_back, 0, "{round}");
    assert!(round.killed > 0, "{round}");
}

/// Converges without a warm-up or repair at the end.
fn foreign_writers_that_commit_first_converge<F: Facade<Writer: Syncing>>() {
    let round = run::<F>(Protocol::CommitThenSet);
    assert_eq!(round.faults.lasting(), 0, "{round}");
}

/// Converges without a warm-up or repair at the end.
fn foreign_writers_that_set_first_converge<F: Facade<Writer: Syncing>>() {
    let round = run::<F>(Protocol::SetThenCommit);
    assert_eq!(round.faults.lasting(), 0, "{round}");
}

fn everybody_at_once_converges_after_a_warm_up<F: Facade<Writer: Syncing>>() {
    let round = run::<F>(Protocol::Mixed);
    assert_eq!(
        (round.faults.lasting(), round.faults.expiring),
        (0, 0),
        "{round}"
    );
    assert!(round.killed > 0, "{round}");
}

fn everybody_at_once_converges_after_a_repair<F: Facade<Writer: Syncing>>() {
    let round = run::<F>(Protocol::MixedRepaired);
    assert_eq!(
        (round.faults.lasting(), round.faults.expiring),
        (0, 0),
        "{round}"
    );
    assert!(round.killed > 0, "{round}");
}

fn the_naive_warm_up_ends_wrong_when_writers_commit_first<F: Facade<Writer: Syncing>>() {
    let round = run_to_a_fault::<F>(Protocol::NaiveCommitThenSet);
    assert!(round.faults.went_back > 0, "{round}");
}

fn the_naive_warm_up_ends_wrong_when_writers_set_first<F: Facade<Writer: Syncing>>() {
    run_to_a_fault::<F>(Protocol::NaiveSetThenCommit);
}

fn naive_services_end_wrong<F: Facade<Writer: Syncing>>() {
    run_to_a_fault::<F>(Protocol::NaiveRefresh);
}
