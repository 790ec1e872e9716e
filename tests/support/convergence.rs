//! Everybody at once, then silence, then a comparison of every row with every key and the index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bifrost_module_cache::sync::{Change, SyncOptions};
use bifrost_module_cache::{CachedModule, postgres};

use super::facade::{Facade, Reader, Writer};
use super::foreign::Foreign;
use super::proxy::Proxy;
use super::syncing::{Syncing, at_each};
use super::world::{World, numbered};
use super::{StopOnDrop, patient};

/// Who writes how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Services commit and refresh; warm-ups, some of which are killed. No repair follows.
    Refresh,
    /// Foreign services commit, then SET, each its own paths; warm-ups. No repair follows.
    CommitThenSet,
    /// Foreign services SET, then commit, each its own paths; warm-ups. No repair follows.
    SetThenCommit,
    /// All of these on the same paths, roll-backs, publications, killed warm-ups and a FLUSHALL;
    /// in the end one warm-up.
    Mixed,
    /// The same, and in the end one repair.
    MixedRepaired,
    /// Plain foreign writers on the same paths, in every wrong way, and a FLUSHALL. No warm-up, no
    /// refresh: a guard is all that helps.
    Guarded,
    /// The same without a guard. Must fail.
    Unguarded,
    /// As [`Protocol::CommitThenSet`] with the specification's warm-up. Must fail.
    NaiveCommitThenSet,
    /// As [`Protocol::SetThenCommit`] with the specification's warm-up. Must fail.
    NaiveSetThenCommit,
    /// As [`Protocol::Refresh`] with SET in the place of the refresh, from a warm cache and
    /// without more warm-ups. Must fail.
    NaiveRefresh,
}

impl Protocol {
    pub const OURS: [Self; 5] = [
        Self::Refresh,
        Self::CommitThenSet,
        Self::SetThenCommit,
        Self::Mixed,
        Self::MixedRepaired,
    ];
    pub const NAIVE: [Self; 3] = [
        Self::NaiveCommitThenSet,
        Self::NaiveSetThenCommit,
        Self::NaiveRefresh,
    ];

    fn is_mixed(self) -> bool {
        matches!(self, Self::Mixed | Self::MixedRepaired)
    }

    fn has_plain_writers_alone(self) -> bool {
        matches!(self, Self::Guarded | Self::Unguarded)
    }

    fn has_flush(self) -> bool {
        self.is_mixed() || self.has_plain_writers_alone()
    }

    fn has_killed_warm_ups(self) -> bool {
        self.is_mixed() || self == Self::Refresh
    }

    /// Writers that know only what they wrote must not share paths: which of two wins is chance.
    fn shares_paths(self) -> bool {
        self.has_flush() || matches!(self, Self::Refresh | Self::NaiveRefresh)
    }

    fn way(self, random: &mut Random) -> Way {
        match self {
            Self::Refresh => Way::Refresh,
            Self::CommitThenSet | Self::NaiveCommitThenSet | Self::NaiveRefresh => {
                Way::CommitThenSet
            }
            Self::SetThenCommit | Self::NaiveSetThenCommit => Way::SetThenCommit,
            Self::Mixed | Self::MixedRepaired => match random.below(8) {
                0..3 => Way::Refresh,
                3 | 4 => Way::CommitThenSet,
                5 => Way::SetThenCommit,
                6 => Way::SetThenRollBack,
                _ => Way::Publish,
            },
            Self::Guarded | Self::Unguarded => match random.below(8) {
                0 | 1 => Way::CommitThenSet,
                2 | 3 => Way::SetThenCommit,
                4 => Way::SetThenRollBack,
                5 | 6 => Way::CommitAlone,
                _ => Way::SetAlone,
            },
        }
    }
}

/// How one change gets to the cache.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Refresh,
    CommitThenSet,
    SetThenCommit,
    SetThenRollBack,
    Publish,
    CommitAlone,
    /// Of an older version, or of a module that is gone.
    SetAlone,
}

/// How much is done in a round.
#[derive(Clone, Copy)]
pub struct Size {
    pub modules: usize,
    /// By each of four writers.
    pub changes: usize,
}

/// What differs when all is silent, and what readers met before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// An entry that says something else than its row.
    pub stale: usize,
    /// A key or a member of the index without a row.
    pub ghost: usize,
    /// A row without a key or without a member of the index.
    pub missing: usize,
    /// An entry that equals its row and has a time to live, which a foreign writer gave it.
    pub expiring: usize,
    /// How often a reader got an older version of a module after a newer one.
    pub went_back: usize,
}

impl Faults {
    /// Those that no time heals.
    pub fn lasting(&self) -> usize {
        self.stale + self.ghost + self.missing
    }

    pub fn add(&mut self, more: Self) {
        self.stale += more.stale;
        self.ghost += more.ghost;
        self.missing += more.missing;
        self.expiring += more.expiring;
        self.went_back += more.went_back;
    }
}

/// What happened in a round.
#[derive(Debug, Default)]
pub struct Round {
    pub faults: Faults,
    pub warm_ups: usize,
    /// Warm-ups that were killed on their way.
    pub killed: usize,
    /// Warm-ups that did not claim that the cache equals the database.
    pub unverified: usize,
    pub reads: usize,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, {} warm-ups ({} unverified), {} killed, {} reads",
            self.faults, self.warm_ups, self.unverified, self.killed, self.reads
        )
    }
}

const WRITERS: usize = 4;
const WARMERS: usize = 2;

struct Stage<'a, F: Facade> {
    world: &'a World<F>,
    protocol: Protocol,
    paths: &'a [String],
    changes: usize,
    /// How many changes have been made.
    made: AtomicUsize,
    silent: AtomicBool,
}

/// One round from a cold cache.
pub fn round<F: Facade<Writer: Syncing>>(
    world: &World<F>,
    protocol: Protocol,
    size: Size,
    seed: u64,
) -> Round {
    round_until(world, protocol, size, seed, || {})
}

/// The same, with something to wait for between silence and comparison.
pub fn round_until<F: Facade<Writer: Syncing>>(
    world: &World<F>,
    protocol: Protocol,
    size: Size,
    seed: u64,
    settle: impl FnOnce(),
) -> Round {
    let paths = numbered(size.modules);
    start(world, &paths);
    if protocol == Protocol::NaiveRefresh {
        warm_naively(&mut world.postgres.client(), &mut world.foreign());
    }
    let stage = Stage {
        world,
        protocol,
        paths: &paths,
        changes: size.changes,
        made: AtomicUsize::new(0),
        silent: AtomicBool::new(false),
    };
    let mut round = thread::scope(|scope| {
        let stage = &stage;
        let stop = StopOnDrop(&stage.silent);
        let random = |number: usize| Random(seed ^ (number as u64) << 32);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(move || stage.write(number, random(number))))
            .collect();
        let warmers: Vec<_> = (0..WARMERS).map(|_| scope.spawn(|| stage.warm())).collect();
        let killer = scope.spawn(move || stage.warm_and_kill(random(WRITERS)));
        let flusher = scope.spawn(|| stage.flush());
        let reader = scope.spawn(move || stage.read(random(WRITERS + 1)));

        for writer in writers {
            writer.join().unwrap();
        }
        drop(stop);
        let mut round = Round::default();
        for warmer in warmers {
            let (warm_ups, unverified) = warmer.join().unwrap();
            round.warm_ups += warm_ups;
            round.unverified += unverified;
        }
        round.killed = killer.join().unwrap();
        flusher.join().unwrap();
        (round.reads, round.faults.went_back) = reader.join().unwrap();
        round
    });
    match protocol {
        Protocol::Mixed => {
            let report = world.warm(SyncOptions::default());
            assert!(report.verified() && report.complete, "{report}");
        }
        Protocol::MixedRepaired => {
            let report = world.repair(SyncOptions::default());
            assert_eq!(report.unverified, None, "{report}");
        }
        _ => {}
    }
    settle();
    let found = compare(world, &paths);
    round.faults.add(found);
    round
}

/// A cold cache, and rows of which every third is deleted.
fn start<F: Facade<Writer: Syncing>>(world: &World<F>, paths: &[String]) {
    world.foreign().flush();
    let mut table = world.table();
    // At once: a guard brings what is committed.
    table.run("BEGIN; TRUNCATE workspace_files");
    table.fill(paths);
    table.run("UPDATE workspace_files SET content = '1'");
    let deleted: Vec<&String> = paths.iter().step_by(3).collect();
    let statement = "UPDATE workspace_files SET is_deleted = TRUE WHERE path = ANY($1)";
    table.0.execute(statement, &[&deleted]).unwrap();
    table.run("COMMIT");
}

impl<F: Facade<Writer: Syncing>> Stage<'_, F> {
    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }

    fn write(&self, number: usize, mut random: Random) {
        let (world, protocol) = (self.world, self.protocol);
        let own: Vec<&String> = if protocol.shares_paths() {
            self.paths.iter().collect()
        } else {
            self.paths.iter().skip(number).step_by(WRITERS).collect()
        };
        let mut table = world.postgres.client();
        let mut client = world.client();
        let mut foreign = world.foreign();
        for number in 0..self.changes {
            let way = protocol.way(&mut random);
            let mut transaction = table.transaction().unwrap();
            let edit = if number % 10 == 9 {
                Edit::synchronization(&own, &mut random)
            } else {
                Edit::random(&own, &mut random)
            };
            let changed = edit.apply(&mut transaction);
            if matches!(way, Way::SetThenCommit | Way::SetThenRollBack) {
                tell(&mut foreign, &changed, &mut random);
            }
            if matches!(way, Way::SetThenRollBack | Way::SetAlone) {
                transaction.rollback().unwrap();
            } else {
                transaction.commit().unwrap();
            }
            match way {
                Way::Refresh => {
                    let mut paths: Vec<String> = changed.into_keys().collect();
                    while !paths.is_empty() {
                        let report = world.writer.refresh(&mut client, &paths).unwrap();
                        paths = report.unsettled;
                    }
                }
                Way::CommitThenSet => tell(&mut foreign, &changed, &mut random),
                Way::SetAlone => {
                    for path in changed.into_keys() {
                        foreign.set(&path, "1");
                    }
                }
                Way::Publish => {
                    let change = |(path, content): (String, Option<String>)| match content {
                        Some(content) => Change::Set(super::module(&path, &content)),
                        None => Change::Remove(path),
                    };
                    let publication: Vec<Change> = changed.into_iter().map(change).collect();
                    world.writer.publish(&publication).unwrap();
                }
                Way::SetThenCommit | Way::SetThenRollBack | Way::CommitAlone => {}
            }
            self.made.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Warm-ups, one after another, another one also where the last did not claim success; answers
    /// how many, and how many did not.
    fn warm(&self) -> (usize, usize) {
        let (mut warm_ups, mut unverified) = (0, 0);
        if self.protocol == Protocol::NaiveRefresh || self.protocol.has_plain_writers_alone() {
            return (0, 0);
        }
        let mut client = self.world.client();
        let (mut table, mut foreign) = (self.world.postgres.client(), self.world.foreign());
        loop {
            let is_verified = if Protocol::NAIVE.contains(&self.protocol) {
                warm_naively(&mut table, &mut foreign);
                true
            } else {
                let options = SyncOptions::default().with_max_prune(0.999);
                let report = self.world.writer.warm_with(&mut client, options).unwrap();
                report.verified()
            };
            warm_ups += 1;
            unverified += usize::from(!is_verified);
            if is_verified && self.is_silent() {
                return (warm_ups, unverified);
            }
        }
    }

    /// Warm-ups that come to a bad end: a connection to Redis is lost somewhere, or the call is
    /// dropped between two of its steps. Answers how many.
    fn warm_and_kill(&self, mut random: Random) -> usize {
        let mut killed = 0;
        if !self.protocol.has_killed_warm_ups() {
            return 0;
        }
        let proxy = Proxy::start(self.world.redis.port());
        let (mut by_cut, mut left) = (false, 0_usize);
        loop {
            let config = patient(&proxy.url()).with_namespace(self.world.namespace);
            let writer = F::Writer::new(config).unwrap();
            let mut client = self.world.client();
            if by_cut {
                proxy.cut_one_reply_after(1 + random.below(60_000));
            }
            let options = at_each(|_| {
                if !by_cut && left == 0 {
                    resume_unwind(Box::new(Killed));
                }
                left = left.saturating_sub(1);
            });
            let warming = || writer.warm_with(&mut client, options);
            match catch_unwind(AssertUnwindSafe(warming)) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    assert!(error.is_unavailable(), "{error}");
                    killed += 1;
                }
                Err(payload) if payload.is::<Killed>() => killed += 1,
                Err(payload) => resume_unwind(payload),
            }
            proxy.resume();
            if self.is_silent() {
                return killed;
            }
            (by_cut, left) = (random.below(2) == 0, random.below(8));
        }
    }

    /// In the middle of the mixed round.
    fn flush(&self) {
        if self.protocol.has_flush() {
            let half = WRITERS * self.changes / 2;
            while self.made.load(Ordering::SeqCst) < half && !self.is_silent() {
                thread::yield_now();
            }
            self.world.foreign().flush();
        }
    }

    /// Reads all the time; answers how often, and how often a version went back.
    fn read(&self, mut random: Random) -> (usize, usize) {
        let (mut reads, mut went_back) = (0, 0);
        let reader = self.world.writer.reader();
        let mut newest = HashMap::<&String, u64>::new();
        loop {
            let paths: Vec<&String> = (0..50).map(|_| random.of(self.paths)).collect();
            for (path, module) in paths.iter().zip(reader.get_many(&paths).unwrap()) {
                let Some(module) = module else { continue };
                let version: u64 = module.content.parse().unwrap();
                let newest = newest.entry(*path).or_default();
                went_back += usize::from(version < *newest);
                *newest = version.max(*newest);
            }
            reads += 1;
            if self.is_silent() {
                return (reads, went_back);
            }
            // Leaves some of the machine to the others.
            thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Killed;

/// A change of the workspace. A module's content is its version, which only grows, even when it is
/// deleted between.
enum Edit {
    Save(Vec<String>),
    Delete(Vec<String>),
    Move(String, String),
}

impl Edit {
    fn random(paths: &[&String], random: &mut Random) -> Self {
        let mut some = |count| (0..count).map(|_| (*random.of(paths)).clone()).collect();
        let (one, two, many): (Vec<_>, Vec<_>, Vec<_>) = (some(1), some(2), some(20));
        match random.below(10) {
            0..3 => Self::Save(one),
            3..5 => Self::Save(many),
            5 => Self::Delete(one),
            6 => Self::Delete(many),
            _ if two[0] == two[1] => Self::Save(one),
            _ => Self::Move(two[0].clone(), two[1].clone()),
        }
    }

    /// As a bulk operation does it.
    fn synchronization(paths: &[&String], random: &mut Random) -> Self {
        Self::Save((0..100).map(|_| (*random.of(paths)).clone()).collect())
    }

    /// What it changed: the new content of each path, none where it was deleted.
    fn apply(&self, transaction: &mut postgres::Transaction) -> BTreeMap<String, Option<String>> {
        let (deleted, saved): (&[String], &[String]) = match self {
            Self::Save(paths) => (&[], paths),
            Self::Delete(paths) => (paths, &[]),
            Self::Move(old, new) => (std::slice::from_ref(old), std::slice::from_ref(new)),
        };
        let both = [deleted, saved].concat();
        // In one order for all, so that they don't wait for each other in a circle.
        let lock = "SELECT FROM workspace_files WHERE path = ANY($1) ORDER BY path FOR UPDATE";
        transaction.execute(lock, &[&both]).unwrap();
        let change = "UPDATE workspace_files
            SET content = (content::bigint + 1)::text, is_deleted = path = ANY($2)
            WHERE path = ANY($1)
            RETURNING path, CASE WHEN is_deleted THEN NULL ELSE content END";
        let rows = transaction.query(change, &[&both, &deleted]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

/// Tells the cache as the specification does: two commands for each path, in any order.
fn tell(foreign: &mut Foreign, changed: &BTreeMap<String, Option<String>>, random: &mut Random) {
    let mut changed: Vec<_> = changed.iter().collect();
    for at in 1..changed.len() {
        changed.swap(at, random.below(at + 1));
    }
    for (path, content) in changed {
        match content {
            Some(content) if random.below(4) == 0 => foreign.setex(path, content, 86_400),
            Some(content) => foreign.set(path, content),
            None => foreign.del(path),
        }
    }
}

/// The specification's loop.
fn warm_naively(table: &mut postgres::Client, foreign: &mut Foreign) {
    let statement = "SELECT path, content FROM workspace_files
        WHERE entity_type = 'module' AND is_deleted = FALSE AND content IS NOT NULL";
    for row in table.query(statement, &[]).unwrap() {
        foreign.set(row.get(0), row.get(1));
    }
}

fn compare<F: Facade<Writer: Syncing>>(world: &World<F>, paths: &[String]) -> Faults {
    let mut table = world.table();
    let statement = "SELECT path, content FROM workspace_files WHERE NOT is_deleted";
    let rows = table.0.query(statement, &[]).unwrap();
    let rows: HashMap<String, String> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let mut redis = world.redis.connection();
    let index: HashSet<String> = redis::cmd("SMEMBERS")
        .arg(world.index())
        .query(&mut redis)
        .unwrap();
    let all_keys: Vec<String> = redis::cmd("KEYS")
        .arg(world.key("*"))
        .query(&mut redis)
        .unwrap();
    let mut faults = Faults::default();
    for key in &all_keys {
        let path = key.strip_prefix(&world.key("")).unwrap();
        let is_known = path == "index" || paths.iter().any(|known| known == path);
        faults.ghost += usize::from(!is_known);
    }
    faults.ghost += index.iter().filter(|path| !paths.contains(path)).count();
    for path in paths {
        let key = world.key(path);
        let (value, ttl): (Option<String>, i64) = redis::pipe()
            .cmd("GET")
            .arg(&key)
            .cmd("PTTL")
            .arg(&key)
            .query(&mut redis)
            .unwrap();
        // A placeholder is nothing.
        let value = value.filter(|value| !value.is_empty());
        let content = value.map(|json| {
            let module = CachedModule::from_json(path, json.as_bytes());
            module.unwrap().content
        });
        let listed = index.contains(path);
        match (rows.get(path), content) {
            (None, None) => faults.ghost += usize::from(listed),
            (None, Some(_)) => faults.ghost += 1,
            (Some(_), None) => faults.missing += 1,
            (Some(row), Some(content)) if *row != content => faults.stale += 1,
            (Some(_), Some(_)) if !listed => faults.missing += 1,
            (Some(_), Some(_)) => faults.expiring += usize::from(ttl >= 0),
        }
    }
    faults
}

/// The generator `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    pub fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
