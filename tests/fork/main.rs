//! A process that forks, without the test harness, whose threads a child would lack. The tests run
//! one after another.
//!
//! One of them has an allocator of its own, and others look at all threads of the process: no other
//! tests belong here.

mod child;
#[cfg(feature = "near-cache")]
mod near;
mod pool;
#[path = "../support/mod.rs"]
mod support;

use std::env;

struct Test {
    name: &'static str,
    run: fn(),
    /// Only where `--ignored` asks for it.
    is_long: bool,
}

macro_rules! tests {
    ($module:ident, $is_long:expr, $($test:ident)+) => {
        [$(Test {
            name: concat!(stringify!($module), "::", stringify!($test)),
            run: $module::$test,
            is_long: $is_long,
        }),+]
    };
}

#[cfg(feature = "near-cache")]
fn near_tests() -> Vec<Test> {
    let mut tests = Vec::from(tests! { near, false,
        a_child_serves_what_it_inherited_for_the_bound_at_most
        a_child_follows_redis_for_itself
        a_child_reads_at_once_what_a_tied_writer_wrote_there
        a_child_that_drops_its_near_cache_ends_nothing_of_its_parent_s
        a_child_that_exits_leaves_its_parent_following
        a_child_of_a_child_follows_redis_for_itself
        a_child_s_hooks_are_called
        a_snapshot_serves_in_a_child_without_a_connection
        a_parent_that_has_gone_leaves_its_child_following
        a_fork_amid_everything_hangs_nobody
        a_fork_amid_births_and_deaths_hangs_nobody
        a_child_that_can_start_no_thread_reads_through
    });
    tests.extend(tests! { near, true, soak_a_fork_amid_births_and_deaths_hangs_nobody });
    tests
}

#[cfg(not(feature = "near-cache"))]
fn near_tests() -> Vec<Test> {
    Vec::new()
}

fn pool_tests() -> Vec<Test> {
    Vec::from(tests! { pool, false,
        both_go_on_and_nothing_is_mixed_up
        a_child_may_be_the_first_to_connect
        a_child_that_drops_its_reader_leaves_its_parent_s_connections_open
        a_child_of_a_child_has_its_own_connections
        a_child_does_not_wait_for_a_thread_that_it_lacks
        only_the_first_process_has_a_thread_for_its_pool
        a_process_that_can_start_no_thread_reads
    })
}

/// Of the harness's arguments it knows `--list`, `--ignored` and parts of names.
fn main() {
    if let Ok(url) = env::var(pool::WITHOUT_THREADS) {
        return pool::read_without_threads(&url);
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let names: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut passed = 0;
    for test in near_tests().into_iter().chain(pool_tests()) {
        let is_named = names.is_empty() || names.iter().any(|name| test.name.contains(*name));
        if has("--list") {
            println!("{}: test", test.name);
        } else if is_named && test.is_long == has("--ignored") {
            (test.run)();
            println!("test {} ... ok", test.name);
            passed += 1;
        }
    }
    println!("test result: ok. {passed} passed");
}
