//! A warm-up that is killed at any point claims nothing, and run again ends in the right state.

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::{env, thread};

use crate::support::{
    Blocking, Facade, Gate, Nonblocking, RedisServer, Syncing, World, Writer, at_each, connect,
    module, numbered, on_both_facades, writer,
};
use bifrost_module_cache::diagnosis::CacheState;
use bifrost_module_cache::sync::SyncOptions;
use bifrost_module_cache::{CachedModule, keys};

on_both_facades! {
    killed_from_cold_the_cache_stays_cold_until_a_warm_up_succeeds
    killed_while_it_writes_the_cache_stays_cold
    killed_before_the_mark_the_cache_stays_cold
    killed_when_all_was_warm_the_mark_stays_and_all_is_right_afterwards
    a_publication_in_parts_claims_nothing_until_its_end
}

/// Three batches to load and three to compare.
const MODULES: usize = 450;
const EVENTS: usize = 6;

/// What the child says before each step, and waits for an answer.
const STEP: &str = "step of the warm-up";

/// The child: warms the cache that its environment names, one step for each line of its input.
#[test]
#[ignore = "started by the other tests, to be killed"]
fn warm_up_to_be_killed() {
    // Without them, a developer runs all that is ignored.
    let Ok(facade) = env::var("KILLED_FACADE") else {
        return;
    };
    let variable = |name: &str| env::var(name).unwrap();
    let (redis, database) = (variable("KILLED_REDIS"), variable("KILLED_DATABASE"));
    match facade.as_str() {
        "blocking" => warm_step_by_step::<Blocking>(&redis, &database),
        _ => warm_step_by_step::<Nonblocking>(&redis, &database),
    }
}

fn warm_step_by_step<F: Facade<Writer: Syncing>>(redis: &str, database: &str) {
    let writer = writer::<F>(redis);
    let step = || {
        println!("\n{STEP}");
        stdin().read_line(&mut String::new()).unwrap();
    };
    let mut client = F::Writer::connect(database);
    writer.warm_with(&mut client, at_each(|_| step())).unwrap();
    step();
}

/// A warm-up in a process of its own.
struct Warming {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Warming {
    fn start<F: Facade<Writer: Syncing>>(redis: &str, world: &World<F>) -> Self {
        let facade = std::any::type_name::<F>().rsplit("::").next().unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "killed::warm_up_to_be_killed",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("KILLED_REDIS", redis)
            .env("KILLED_DATABASE", world.postgres.url())
            .env("KILLED_FACADE", facade.to_lowercase())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// Waits until it has come to its next step.
    fn wait(&mut self) {
        let mut line = String::new();
        while line.trim_end() != STEP {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
        }
    }

    /// Lets it do so many steps.
    fn proceed(&mut self, steps: usize) {
        for _ in 0..steps {
            self.wait();
            writeln!(self.input).unwrap();
        }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[track_caller]
fn assert_warms<F: Facade<Writer: Syncing>>(world: &World<F>, paths: &[String]) {
    let report = world.warm(SyncOptions::default());
    assert!(report.verified() && report.complete, "{report}");
    assert_eq!(report.modules, paths.len());
    assert!(world.status().is_warm());
    world.foreign().assert_holds(paths);
}

fn killed_from_cold_the_cache_stays_cold_until_a_warm_up_succeeds<F: Facade<Writer: Syncing>>() {
    let paths = numbered(MODULES);
    let world = World::<F>::with_rows(&paths);
    for steps in 0..EVENTS {
        world.foreign().flush();
        let mut warming = Warming::start(&world.redis.url(), &world);
        warming.proceed(steps);
        warming.wait();
        warming.kill();
        assert_eq!(
            world.status().state,
            CacheState::Cold,
            "after {steps} steps"
        );
        assert_warms(&world, &paths);
    }
    // The tokens of the killed ones go by themselves.
    let mut redis = world.redis.connection();
    let all: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
    let ours = |key: &&String| !key.starts_with(keys::MODULE_KEY_PREFIX);
    for key in all
        .iter()
        .filter(ours)
        .filter(|key| *key != keys::COMPLETE_KEY)
    {
        let ttl: i64 = redis::cmd("TTL").arg(key).query(&mut redis).unwrap();
        assert!(ttl > 0, "{key} stays for ever");
    }
}

/// Kills it when, after so many steps, a request with the needle has left it and not arrived.
fn kill_at<F: Facade<Writer: Syncing>>(world: &World<F>, steps: usize, needle: &'static str) {
    let (reached, is_reached) = mpsc::channel();
    let gate = Gate::start(world.redis.port(), needle, move || {
        // The test may not listen any more.
        let _ = reached.send(());
        thread::park();
    });
    let mut warming = Warming::start(&gate.url(), world);
    warming.proceed(steps);
    is_reached.recv().unwrap();
    warming.kill();
}

fn killed_while_it_writes_the_cache_stays_cold<F: Facade<Writer: Syncing>>() {
    let paths = numbered(MODULES);
    let world = World::<F>::with_rows(&paths);
    // The write of the first batch, which follows the reading of the second.
    kill_at(&world, 1, "MULTI");
    assert_eq!(world.status().state, CacheState::Cold);
    assert_warms(&world, &paths);
}

fn killed_before_the_mark_the_cache_stays_cold<F: Facade<Writer: Syncing>>() {
    let paths = numbered(MODULES);
    let world = World::<F>::with_rows(&paths);
    kill_at(&world, EVENTS, keys::COMPLETE_KEY);
    // All is there, and no writer may say so.
    world.foreign().assert_holds(&paths);
    assert_eq!(world.status().state, CacheState::Cold);
    assert_warms(&world, &paths);
}

fn killed_when_all_was_warm_the_mark_stays_and_all_is_right_afterwards<
    F: Facade<Writer: Syncing>,
>() {
    let paths = numbered(MODULES);
    let world = World::<F>::with_rows(&paths);
    world.warm(SyncOptions::default());
    let mut table = world.table();
    for (steps, path) in paths.iter().take(EVENTS).enumerate() {
        // Changes that no service told the cache of.
        table.put(path, "changed");
        table.put("ghost.py", "1");
        world.refresh(&["ghost.py"]);
        table.delete("ghost.py");
        let mut warming = Warming::start(&world.redis.url(), &world);
        warming.proceed(steps);
        warming.wait();
        warming.kill();
        assert!(world.status().is_warm());
        let report = world.warm(SyncOptions::default());
        assert!(report.verified() && report.complete, "{report}");
        let mut foreign = world.foreign();
        foreign.assert_is("ghost.py", None);
        foreign.assert_is(path, Some("changed"));
    }
}

fn a_publication_in_parts_claims_nothing_until_its_end<F: Facade<Writer: Syncing>>() {
    let redis = RedisServer::start();
    let marked = Arc::new(Mutex::new(Vec::new()));
    let (url, seen) = (redis.url(), Arc::clone(&marked));
    let gate = Gate::start(redis.port(), "EXEC", move || {
        let exists = redis::cmd("EXISTS").arg(keys::COMPLETE_KEY).to_owned();
        seen.lock()
            .unwrap()
            .push(exists.query::<bool>(&mut connect(&url)).unwrap());
    });
    let writer = writer::<F>(&gate.url());
    let publish = |content: &str| {
        let modules: Vec<CachedModule> = numbered(3)
            .iter()
            .map(|path| module(path, content))
            .collect();
        marked.lock().unwrap().clear();
        let report = writer.publish_exact(&modules).unwrap();
        assert!(report.complete, "{report}");
        marked.lock().unwrap().clone()
    };
    let half = 3 << 20;
    let marked = publish(&"1".repeat(half));
    assert!(marked.len() == 4 && !marked.contains(&true), "{marked:?}");
    // Though it was complete before: what is half there is neither.
    let marked = publish(&"2".repeat(half));
    assert!(marked.len() == 4 && !marked.contains(&true), "{marked:?}");
    // All at once, it need not take back what is true until then.
    let marked = publish("3");
    assert!(marked.len() == 2 && marked[0], "{marked:?}");
}
