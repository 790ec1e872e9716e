//! What a guard promises, on 10,000 modules: how soon what is wrong is right, that it fights with
//! nobody, and what it costs when nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Blocking, Foreign, Guard, Guarding, Nonblocking, World, undone, wait_until};
use bifrost_module_cache::guard::GuardOptions;

const MODULES: usize = 10_000;
const TRIALS: usize = 300;
const MS: Duration = Duration::from_millis(1);

fn paths() -> Vec<String> {
    (0..MODULES).map(|n| format!("m/{n:05}.py")).collect()
}

/// With some 2 KB each.
fn world<F: Guarding>() -> World<F> {
    let world = World::<F>::new();
    let mut table = world.table();
    table.fill(&paths());
    table.run(
        "UPDATE workspace_files SET content = path || repeat(E'\\nx = 1  # of a module', 90);
         ANALYZE workspace_files",
    );
    world
}

fn content(path: &str) -> String {
    format!("{path}{}", "\nx = 1  # of a module".repeat(90))
}

/// How long it takes from the end of what goes wrong until it is right, and the test sees it.
struct Times(Vec<Duration>);

impl Times {
    fn of(
        foreign: &mut Foreign,
        mut wrong: impl FnMut(&mut Foreign, usize) -> (String, Option<String>),
    ) -> Self {
        let times = (0..TRIALS).map(|trial| {
            let (path, right) = wrong(foreign, trial);
            let begin = Instant::now();
            loop {
                let entry = foreign.entry(&path);
                let is = match &right {
                    // Most of a trial is this question: the whole module is compared at the end.
                    Some(right) => {
                        entry.listed
                            && entry.value.is_some_and(|json| json.len() >= right.len())
                            && foreign.content(&path).as_ref() == Some(right)
                    }
                    None => entry.value.is_none() && !entry.listed,
                };
                if is {
                    return begin.elapsed();
                }
                assert!(begin.elapsed() < Duration::from_secs(60), "{path}");
            }
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        Self(times)
    }

    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    fn print(&self, what: &str) {
        println!(
            "{what:<40} p50 {:>9.1?} p99 {:>9.1?} max {:>9.1?}",
            self.at(50),
            self.at(99),
            self.at(100)
        );
    }
}

#[test]
#[ignore = "long: make soak"]
fn what_is_wrong_is_right_within_milliseconds_where_triggers_tell_it() {
    soon::<Blocking>("blocking");
    soon::<Nonblocking>("nonblocking");
}

fn soon<F: Guarding>(facade: &str) {
    let (world, paths) = (world::<F>(), paths());
    world.install_triggers();
    let guard = Guard::start(&world, GuardOptions::default().with_listen(true));
    guard.wait_until_it_listens();
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let (mut foreign, mut table) = (world.foreign(), world.table());
    let path = |kind: usize, trial: usize| paths[kind * 1_000 + trial].clone();
    let right = |path: String| {
        let content = content(&path);
        (path, Some(content))
    };
    let all = [
        Times::of(&mut foreign, |foreign, trial| {
            foreign.set(&path(0, trial), "wrong");
            right(path(0, trial))
        }),
        Times::of(&mut foreign, |foreign, trial| {
            foreign.del(&path(1, trial));
            right(path(1, trial))
        }),
        Times::of(&mut foreign, |foreign, trial| {
            foreign.run(&format!("SREM bifrost:module:index {}", path(2, trial)));
            right(path(2, trial))
        }),
        Times::of(&mut foreign, |foreign, trial| {
            let ghost = format!("ghost/{trial}.py");
            foreign.set(&ghost, "ghost");
            (ghost, None)
        }),
        Times::of(&mut foreign, |_, trial| {
            table.put(&path(3, trial), "new");
            (path(3, trial), Some("new".to_owned()))
        }),
        Times::of(&mut foreign, |_, trial| {
            let path = path(4, trial);
            table.run(&format!(
                "DELETE FROM workspace_files WHERE path = '{path}'"
            ));
            (path, None)
        }),
    ];
    let names = ["SET", "DEL", "SREM", "SET of a ghost", "commit", "delete"];
    for (times, name) in all.iter().zip(names) {
        times.print(&format!("{facade}, told by triggers: {name}"));
    }
    for (times, name) in all.iter().zip(names) {
        assert!(times.at(50) < 10 * MS && times.at(99) < 50 * MS, "{name}");
    }

    let begin = Instant::now();
    foreign.flush();
    wait_until("all is right", Duration::from_secs(30), || {
        foreign.size() > MODULES - TRIALS - 10
    });
    println!(
        "{facade}: a flush of all was mended within {:.2?}",
        begin.elapsed()
    );
    assert!(begin.elapsed() < Duration::from_secs(3));
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    assert_eq!(world.count_wrong(), 0);

    let begin = Instant::now();
    table.run("UPDATE workspace_files SET content = 'rewritten ' || content");
    println!("{facade}: (the statement took {:.2?})", begin.elapsed());
    let begin = Instant::now();
    let last = guard.stats().mended.stale + MODULES as u64 - TRIALS as u64;
    wait_until("all is right", Duration::from_secs(30), || {
        guard.stats().mended.stale >= last
    });
    println!(
        "{facade}: all rewritten rows were brought within {:.2?}",
        begin.elapsed()
    );
    assert!(begin.elapsed() < Duration::from_secs(3));
    guard.wait_until_it_rests();
    assert_eq!(world.count_wrong(), 0);
    assert_eq!(guard.stats().failures, 0, "{:?}", guard.stats());
}

#[test]
#[ignore = "long: make soak"]
fn what_is_wrong_is_right_within_an_interval_where_it_is_asked_for() {
    const INTERVAL: Duration = Duration::from_millis(500);
    let (world, paths) = (world::<Blocking>(), paths());
    let guard = Guard::start(&world, GuardOptions::default().with_poll(INTERVAL));
    guard.wait_for_the_mark(&world);
    guard.wait_until_it_rests();
    let (mut foreign, mut table) = (world.foreign(), world.table());
    let times = Times::of(&mut foreign, |foreign, trial| {
        foreign.set(&paths[trial], "wrong");
        (paths[trial].clone(), Some(content(&paths[trial])))
    });
    times.print("asked for each 500 ms: SET");
    assert!(times.at(50) < 10 * MS && times.at(99) < 50 * MS);
    let times = Times::of(&mut foreign, |_, trial| {
        let path = paths[1_000 + trial].clone();
        table.put(&path, "new");
        (path, Some("new".to_owned()))
    });
    times.print("asked for each 500 ms: commit");
    assert!(times.at(99) < INTERVAL + 100 * MS);
}

#[test]
#[ignore = "long: make soak"]
fn a_hundred_times_nothing_is_undone_that_was_set_before_its_commit() {
    let usual = Duration::from_millis(250);
    for (name, undone_with, undone_without) in [
        (
            "blocking",
            undone::<Blocking>(usual, 50),
            undone::<Blocking>(Duration::ZERO, 10),
        ),
        (
            "nonblocking",
            undone::<Nonblocking>(usual, 50),
            undone::<Nonblocking>(Duration::ZERO, 10),
        ),
    ] {
        println!(
            "{name}: undone {undone_with} of 100 with a grace, {undone_without} of 20 without"
        );
        assert_eq!(undone_with, 0);
        assert!(undone_without > 0);
    }
}

/// Of this process, user and system, in seconds: the tests here do nothing meanwhile.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[test]
#[ignore = "long: make soak"]
fn an_idle_guard_costs_next_to_nothing() {
    const IDLE: Duration = Duration::from_secs(30);
    for (name, listen) in [("asking each second", false), ("told by triggers", true)] {
        let world = world::<Blocking>();
        world.install_triggers();
        let hour = Duration::from_secs(3_600);
        let options = GuardOptions::default().with_listen(listen).with_sweep(hour);
        let guard = Guard::start(&world, options);
        if listen {
            guard.wait_until_it_listens();
        }
        guard.wait_for_the_mark(&world);
        guard.wait_until_it_rests();
        let mut table = world.table();
        let mut statements = || {
            // A backend tells its figures when it next does something, or after 10 s.
            std::thread::sleep(Duration::from_secs(12));
            let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
            table.0.query_one(sql, &[]).unwrap().get::<_, i64>(0)
        };
        let before = statements();
        let (cpu, commands) = (cpu_seconds(), world.redis.info("total_commands_processed"));
        std::thread::sleep(IDLE);
        let share = (cpu_seconds() - cpu) / IDLE.as_secs_f64();
        let asked = statements() - before;
        let commands = world
            .redis
            .info("total_commands_processed")
            .parse::<u64>()
            .unwrap()
            - commands.parse::<u64>().unwrap();
        println!(
            "{name}: {:.2} % of a processor, {asked} transactions in {} s, {commands} commands to Redis",
            share * 100.0,
            IDLE.as_secs() + 12
        );
        assert!(share <= 0.02, "{share}");
        let most = if listen { 12 } else { 46 };
        assert!(asked <= most, "{asked}");
    }
}
