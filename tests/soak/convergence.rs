//! A hundred rounds of the convergence test, with other seeds, on both facades in turn.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::support::{
    Blocking, Facade, Faults, Nonblocking, Protocol, Size, Syncing, World, round,
};

const ROUNDS: u64 = 100;

const SIZE: Size = Size {
    modules: 300,
    changes: 10,
};

#[derive(Default)]
struct Total {
    faults: Faults,
    rounds_gone_wrong: usize,
    warm_ups: usize,
    unverified: usize,
    killed: usize,
}

#[test]
#[ignore = "long: make soak"]
fn a_hundred_rounds_converge_where_the_naive_protocols_do_not() {
    let start = Instant::now();
    let (sync, asynchronous) = (World::<Blocking>::new(), World::<Nonblocking>::new());
    let mut totals = BTreeMap::<Protocol, Total>::new();
    for number in 0..ROUNDS {
        for protocol in Protocol::OURS.into_iter().chain(Protocol::NAIVE) {
            let total = totals.entry(protocol).or_default();
            if number % 2 == 0 {
                add(total, &sync, protocol, number);
            } else {
                add(total, &asynchronous, protocol, number);
            }
        }
        if (number + 1) % 10 == 0 {
            println!("{} rounds of each in {:.0?}", number + 1, start.elapsed());
        }
    }
    println!(
        "{:<20} {:>5} {:>5} {:>7} {:>9} {:>12} {:>9} {:>10} {:>6}",
        "protocol",
        "stale",
        "ghost",
        "missing",
        "went back",
        "rounds wrong",
        "warm-ups",
        "unverified",
        "killed"
    );
    for (protocol, total) in &totals {
        println!(
            "{:<20} {:>5} {:>5} {:>7} {:>9} {:>12} {:>9} {:>10} {:>6}",
            format!("{protocol:?}"),
            total.faults.stale,
            total.faults.ghost,
            total.faults.missing,
            total.faults.went_back,
            total.rounds_gone_wrong,
            total.warm_ups,
            total.unverified,
            total.killed,
        );
    }
    for protocol in Protocol::OURS {
        assert_eq!(totals[&protocol].faults.lasting(), 0, "{protocol:?}");
    }
    assert_eq!(totals[&Protocol::Refresh].faults.went_back, 0);
    for protocol in Protocol::NAIVE {
        assert!(totals[&protocol].faults.lasting() > 0, "{protocol:?}");
    }
}

fn add<F: Facade<Writer: Syncing>>(
    total: &mut Total,
    world: &World<F>,
    protocol: Protocol,
    seed: u64,
) {
    let round = round(world, protocol, SIZE, seed);
    let faults = round.faults;
    if faults.lasting() > 0 && Protocol::OURS.contains(&protocol) {
        println!("{protocol:?} with seed {seed}: {round}");
    }
    total.faults.add(faults);
    total.rounds_gone_wrong += usize::from(faults.lasting() > 0);
    total.warm_ups += round.warm_ups;
    total.unverified += round.unverified;
    total.killed += round.killed;
}
