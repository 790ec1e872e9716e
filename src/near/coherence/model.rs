//! Plays the protocol against a modelled Redis, network and clock, in any order, and sees that it
//! keeps its promises; and that it does not with any of its rules broken.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use redis::{PushKind, Value};

use super::clock::Tick;
use super::message::Heartbeat;
use super::protocol::{Answer, Landing, Lookup, Marks, Protocol, Ticket};
use super::rule::{Rule, Rules};
use super::store::Room;
use super::subscription::{Action, Tracker};
use super::value::{Cached, Read as Begun};
use crate::command::reply;
use crate::command::server_id::ServerId;
use crate::error::Outage;
use crate::keys::{Keys, MODULE_KEY_PREFIX};
use crate::module::CachedModule;
use crate::near::hooks::Hooks;
use crate::near::options::NearCacheOptions;

const PATHS: [&str; 2] = ["a.py", "b.py"];
const READERS: usize = 3;
const BOUND: Duration = Duration::from_secs(2);

/// One step of a reader, a writer, Redis, the listener or the network.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A reader asks for a path: a hit, a flight joined, or a request sent.
    Ask {
        reader: usize,
        path: usize,
    },
    /// Redis answers it.
    Serve {
        reader: usize,
    },
    /// The answer is here.
    Land {
        reader: usize,
    },
    /// The reader is gone.
    Abandon {
        reader: usize,
    },
    /// The first three at once.
    Read {
        path: usize,
    },
    /// A read of all paths, in the same three steps.
    AskAll,
    ServeAll,
    LandAll,
    /// A foreign writer writes or removes.
    Write {
        path: usize,
    },
    Remove {
        path: usize,
    },
    /// An observed writer writes and is answered; then its call returns.
    WriteHere {
        path: usize,
    },
    Return,
    Flush,
    /// Redis sends what it has to announce.
    EndTurn,
    /// Redis takes in what the listener sent.
    Take,
    /// The listener takes in what Redis sent.
    Deliver,
    /// The listener looks what is to be done.
    Look,
    /// A heartbeat, and one message.
    Heartbeat,
    /// All that is under way arrives.
    CatchUp,
    /// It connects anew, if it has to.
    Connect,
    /// It loses the connection.
    Cut,
    /// Nothing gets through from now on, or again.
    Silence,
    Speak,
    /// Readers and writers are sent to a new server, the listener stays with the old one.
    FailOver,
    /// The server that is followed is demoted in place: it keeps the connection and answers, and
    /// announces nothing of what its successor is told.
    Demote,
    Pass {
        eighths: u32,
    },
}

/// How likely each step is, in the order of [`step`].
const WEIGHTS: [u32; 26] = [
    6, 4, 4, 1, 2, 2, 2, 5, 1, 2, 3, 1, 2, 4, 4, 3, 3, 1, 1, 2, 1, 5, 6, 5, 4, 1,
];

/// A step out of a number: generating numbers is cheap, and they shrink well.
fn step(number: u32) -> Step {
    let mut left = number % WEIGHTS.iter().sum::<u32>();
    let mut kind = 0;
    while left >= WEIGHTS[kind] {
        left -= WEIGHTS[kind];
        kind += 1;
    }
    let pick = |of: usize| (number >> 16) as usize % of;
    let (reader, path) = (pick(READERS), pick(PATHS.len() * READERS) / READERS);
    match kind {
        0 => Step::Ask { reader, path },
        1 => Step::Serve { reader },
        2 => Step::Land { reader },
        3 => Step::Abandon { reader },
        4 => Step::AskAll,
        5 => Step::ServeAll,
        6 => Step::LandAll,
        7 => Step::Write { path },
        8 => Step::Remove { path },
        9 => Step::WriteHere { path },
        10 => Step::Return,
        11 => Step::Flush,
        12 => Step::EndTurn,
        13 => Step::Take,
        14 => Step::Deliver,
        15 => Step::Look,
        16 => Step::Connect,
        17 => Step::Cut,
        18 => Step::Silence,
        19 => Step::Speak,
        20 => Step::FailOver,
        21 => Step::Pass {
            eighths: 1 + (number >> 16) % 8,
        },
        22 => Step::Read { path },
        23 => Step::Heartbeat,
        24 => Step::CatchUp,
        _ => Step::Demote,
    }
}

/// What a path held since when; `None` is absent.
type History = Vec<(Tick, Option<u64>)>;

struct Read<'p> {
    ticket: Ticket<'p>,
    path: usize,
    /// What Redis answered, and which one.
    answer: Option<(Option<u64>, u64)>,
}

/// A read of all paths.
struct All {
    marks: Marks,
    read: Begun,
    values: Option<[Option<u64>; PATHS.len()]>,
}

struct World<'p> {
    protocol: &'p Protocol,
    hooks: &'p Hooks,
    keys: &'p Keys,
    tracker: Option<Tracker<'p>>,
    now: Tick,
    version: u64,
    history: [History; PATHS.len()],
    /// What a returned local write was, as a place in the history: no older one may be seen.
    written_here: [usize; PATHS.len()],
    returning: Option<(usize, usize)>,
    reads: [Option<Read<'p>>; READERS],
    all: Option<All>,
    /// What Redis said while it was not followed, as a place in the history: no older one may be
    /// served in an outage.
    told: [usize; PATHS.len()],
    /// Which server has the writes, and which one the listener.
    active: u64,
    followed: u64,
    /// When writes went to another server than the listener's.
    failed_over: Option<(Tick, [usize; PATHS.len()])>,
    tracking: bool,
    demoted: bool,
    silent: bool,
    /// What the listener sent; the greeting as its four commands.
    sent: VecDeque<&'static str>,
    /// What is announced at the end of the turn.
    turn: Vec<Value>,
    stream: VecDeque<Value>,
}

type Checked = Result<(), TestCaseError>;

impl<'p> World<'p> {
    fn new(protocol: &'p Protocol, hooks: &'p Hooks, keys: &'p Keys) -> Self {
        let now = Tick::default().plus(Duration::from_secs(1_000));
        Self {
            protocol,
            hooks,
            keys,
            tracker: None,
            now,
            version: 0,
            history: std::array::from_fn(|_| vec![(Tick::default(), None)]),
            written_here: [0; PATHS.len()],
            returning: None,
            reads: Default::default(),
            all: None,
            told: [0; PATHS.len()],
            active: 1,
            followed: 0,
            failed_over: None,
            tracking: false,
            demoted: false,
            silent: false,
            sent: VecDeque::new(),
            turn: Vec::new(),
            stream: VecDeque::new(),
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.protocol.rules.enforces(rule)
    }

    fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Ask { reader, path } => self.ask(reader, path)?,
            Step::Serve { reader } => {
                let (history, active) = (&self.history, self.active);
                if let Some(read) = &mut self.reads[reader] {
                    read.answer
                        .get_or_insert((current(&history[read.path]), active));
                }
            }
            Step::Land { reader } => {
                if let Some(read) = self.reads[reader].take_if(|read| read.answer.is_some()) {
                    let (value, server) = read.answer.unwrap_or_default();
                    let answer = (cached(read.path, value), Some(ServerId::new(server)));
                    self.protocol.session.suspects(answer.1);
                    read.ticket.land(Ok(answer), self.now);
                }
            }
            Step::Read { path } => {
                if let Some(reader) = self.reads.iter().position(Option::is_none) {
                    self.take(Step::Ask { reader, path })?;
                    self.take(Step::Serve { reader })?;
                    self.take(Step::Land { reader })?;
                }
            }
            Step::Heartbeat => {
                self.look();
                self.take_in();
                self.deliver();
            }
            Step::CatchUp => self.catch_up(),
            Step::Abandon { reader } => self.reads[reader] = None,
            Step::AskAll => self.ask_all(),
            Step::ServeAll => {
                let values = std::array::from_fn(|path| current(&self.history[path]));
                // Answers of another server are another test's.
                if let Some(all) = &mut self.all
                    && self.active == self.followed
                {
                    all.values.get_or_insert(values);
                }
            }
            Step::LandAll => {
                if let Some(all) = self.all.take_if(|all| all.values.is_some()) {
                    let answer = self.answer(all.read);
                    for (path, value) in all.values.into_iter().flatten().enumerate() {
                        self.insert(path, value, &all.marks, &answer);
                    }
                }
            }
            Step::Write { path } => self.write(path, false),
            Step::Remove { path } => self.write(path, true),
            Step::WriteHere { path } => {
                if self.returning.is_none() {
                    self.write(path, false);
                    // The writer hears of it when the turn has ended.
                    self.end_turn();
                    self.returning = Some((path, self.history[path].len() - 1));
                }
            }
            Step::Return => {
                if let Some((path, place)) = self.returning.take() {
                    if self.keeps(Rule::LocalWrite) {
                        self.protocol.invalidate(PATHS[path]);
                    }
                    self.written_here[path] = place;
                }
            }
            Step::Flush => {
                for path in 0..PATHS.len() {
                    self.history[path].push((self.now, None));
                }
                // At once, before what was to be announced.
                if self.is_announced() {
                    self.stream.push_back(invalidation(Value::Nil));
                }
            }
            Step::EndTurn => self.end_turn(),
            Step::Take => self.take_in(),
            Step::Deliver => self.deliver(),
            Step::Look => self.look(),
            Step::Connect => self.connect(),
            Step::Cut => self.lose(),
            Step::Silence => self.silent = true,
            Step::Speak => self.silent = false,
            Step::FailOver => {
                if self.active == 1 {
                    self.end_turn();
                    self.active = 2;
                    let last = std::array::from_fn(|path| self.history[path].len() - 1);
                    self.failed_over = Some((self.now, last));
                }
            }
            Step::Demote => self.demote(),
            Step::Pass { eighths } => {
                self.end_turn();
                self.now = self.now.plus(BOUND / 8 * eighths);
            }
        }
        Ok(())
    }

    fn demote(&mut self) {
        if self.tracker.as_ref().is_some_and(Tracker::is_following) {
            self.end_turn();
            self.demoted = true;
        }
    }

    fn ask(&mut self, reader: usize, path: usize) -> Checked {
        if self.reads[reader].is_some() {
            return Ok(());
        }
        if let Some(found) = self.protocol.hit(PATHS[path], self.now) {
            return self.check(path, version(found.as_ref()), self.now);
        }
        match self.protocol.lookup(PATHS[path], self.now) {
            Lookup::Hit(_) => prop_assert!(false, "a hit that was none"),
            Lookup::Bypass => {
                self.lose_touch(path)?;
                let marks = self.protocol.marks(self.now);
                let read = self.protocol.begin_marked(&marks);
                let value = current(&self.history[path]);
                self.insert(path, value, &marks, &self.answer(read));
                self.told[path] = self.history[path].len() - 1;
                self.lose_touch(path)?;
            }
            Lookup::Miss(ticket) => {
                self.reads[reader] = Some(Read {
                    ticket,
                    path,
                    answer: None,
                });
            }
            Lookup::Joined(flight) => {
                // The reader that made the flight lets it land at once: the worst for the one that
                // joins.
                let attached = self
                    .reads
                    .iter_mut()
                    .find(|read| read.as_ref().is_some_and(|read| read.ticket.is_of(&flight)));
                let read = attached.and_then(Option::take);
                let (value, server) = read
                    .as_ref()
                    .and_then(|read| read.answer)
                    .unwrap_or_else(|| (current(&self.history[path]), self.active));
                let joined = self.now;
                match read {
                    Some(read) => {
                        let answer = (cached(path, value), Some(ServerId::new(server)));
                        self.protocol.session.suspects(answer.1);
                        read.ticket.land(Ok(answer), self.now);
                    }
                    None => prop_assert!(false, "a flight that can be joined has a reader"),
                }
                let landing = pin!(flight.landing.wait());
                match landing.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(Landing::Answered(answer)) => {
                        let module = answer.as_ref().as_ref().unwrap().clone().into_module();
                        self.check(path, version(module.as_ref()), joined)?;
                    }
                    _ => prop_assert!(false, "a flight that has landed has an answer"),
                }
            }
        }
        Ok(())
    }

    fn ask_all(&mut self) {
        let marks = self.protocol.marks(self.now);
        let read = self.protocol.begin_marked(&marks);
        let values = None;
        let all = All {
            marks,
            read,
            values,
        };
        self.all = Some(all).filter(|all| all.marks.are_live());
    }

    fn answer(&self, read: Begun) -> Answer {
        Answer {
            read,
            server: Some(ServerId::new(self.active)),
            at: self.now,
        }
    }

    fn insert(&self, path: usize, value: Option<u64>, marks: &Marks, answer: &Answer) {
        let cached = cached(path, value);
        self.protocol
            .insert_marked(PATHS[path], cached, marks, answer, Room::Make);
    }

    /// If Redis did not answer now, what would be served is no older than what it said before.
    fn lose_touch(&self, path: usize) -> Checked {
        if let Some(Some(module)) = self.protocol.last_known(PATHS[path], self.now) {
            let value = version(Some(&module));
            let history = &self.history[path];
            let place = history.iter().rposition(|state| state.1 == value);
            prop_assert!(
                place >= Some(self.told[path]),
                "{value:?} is served in an outage though Redis said more: {history:?}"
            );
        }
        Ok(())
    }

    /// A reader that asked at that time may be told this: it was current within the bound, and it
    /// is no older than what was written here before.
    fn check(&self, path: usize, value: Option<u64>, asked: Tick) -> Checked {
        let history = &self.history[path];
        // Until a reader hears from the new server, what the old one had may be seen.
        let since = match self.failed_over {
            Some((moved, _)) => moved.min(asked),
            _ => asked,
        };
        let oldest = since.minus(BOUND);
        let fits = |place: usize| {
            let until = history.get(place + 1).map_or(self.now, |next| next.0);
            history[place].1 == value && until >= oldest
        };
        let newest = (0..history.len()).rev().find(|place| fits(*place));
        prop_assert!(
            newest.is_some(),
            "{value:?} is stale at {path}: {history:?}, now {:?}",
            self.now
        );
        prop_assert!(
            newest >= Some(self.written_here[path]),
            "{value:?} is older than what was written here: {history:?}"
        );
        Ok(())
    }

    fn write(&mut self, path: usize, removed: bool) {
        self.version += 1;
        let value = (!removed).then_some(self.version);
        self.history[path].push((self.now, value));
        if self.is_announced() {
            let key = format!("{MODULE_KEY_PREFIX}{}", PATHS[path]);
            let keys = Value::Array(vec![Value::BulkString(key.into())]);
            self.turn.push(invalidation(keys));
        }
    }

    fn is_announced(&self) -> bool {
        self.tracking && self.followed == self.active && !self.demoted
    }

    fn end_turn(&mut self) {
        self.stream.extend(self.turn.drain(..));
    }

    fn take_in(&mut self) {
        if self.silent {
            return;
        }
        let Some(command) = self.sent.pop_front() else {
            return;
        };
        let text = |text: &str| Value::BulkString(text.into());
        let answer = match command {
            "TRACKING" => {
                self.tracking = true;
                if !self.keeps(Rule::LiveAfterConfirmation) {
                    return; // answered before
                }
                Value::Okay
            }
            "TRACKINGINFO" => Value::Map(vec![
                (text("flags"), Value::Set(vec![text("on"), text("bcast")])),
                (
                    text("prefixes"),
                    Value::Array(vec![text(MODULE_KEY_PREFIX)]),
                ),
            ]),
            "INFO" => text(&format!("run_id:{:016x}0000", self.followed)),
            _ if self.demoted => text("role:slave"),
            _ => text("role:master"),
        };
        // An answer can come before what the same turn announces.
        let beat_first = !self.keeps(Rule::ApplyBeforeRenewal) && command == "REPLICATION";
        if beat_first {
            self.stream.push_front(answer);
        } else {
            self.stream.push_back(answer);
        }
    }

    fn deliver(&mut self) {
        if self.silent {
            return;
        }
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        if let Some(value) = self.stream.pop_front()
            && tracker.received(value, self.now).is_err()
        {
            self.lose();
        }
    }

    fn look(&mut self) {
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        let was_following = tracker.is_following();
        match tracker.next(self.now) {
            Ok(Action::Send(_)) if was_following => self.sent.push_back("REPLICATION"),
            Ok(Action::Send(_)) => {
                let confirmed = self.keeps(Rule::LiveAfterConfirmation);
                if confirmed {
                    self.sent.push_back("TRACKING");
                }
                self.sent.extend(["TRACKINGINFO", "INFO", "REPLICATION"]);
                if !confirmed {
                    self.stream.push_back(Value::Okay);
                    self.sent.push_back("TRACKING");
                }
            }
            Ok(Action::Receive(_)) => {}
            Err(_) => self.lose(),
        }
    }

    fn connect(&mut self) {
        if self.tracker.is_none() {
            self.tracker = Some(Tracker::new(
                self.protocol,
                self.hooks,
                self.keys,
                Heartbeat::Reign,
            ));
            self.followed = self.active;
            self.failed_over = None;
        }
    }

    fn lose(&mut self) {
        if self.tracker.take().is_some() {
            self.protocol.end(&reply::outage(Outage::Lost, None));
        }
        self.tracking = false;
        self.demoted = false;
        self.silent = false;
        self.sent.clear();
        self.turn.clear();
        self.stream.clear();
    }

    fn catch_up(&mut self) {
        self.end_turn();
        self.look();
        for _ in 0..self.sent.len() {
            self.take_in();
        }
        for _ in 0..self.stream.len() {
            self.deliver();
        }
    }

    /// Lets everything come to rest; then what is stored is what the followed server holds.
    fn rest(&mut self) -> Checked {
        self.silent = false;
        for reader in 0..READERS {
            self.take(Step::Serve { reader })?;
            self.take(Step::Land { reader })?;
        }
        self.take(Step::ServeAll)?;
        self.take(Step::LandAll)?;
        for _ in 0..3 {
            self.catch_up();
        }
        if self.demoted {
            // Until the next heartbeat tells.
            return Ok(());
        }
        for (path, history) in self.history.iter().enumerate() {
            if let Some(found) = self.protocol.hit(PATHS[path], self.now) {
                let found = version(found.as_ref());
                let expected = match self.failed_over {
                    Some((_, last)) => history[last[path]].1,
                    None => current(history),
                };
                prop_assert_eq!(found, expected, "stale for ever: {:?}", history);
            }
        }
        Ok(())
    }
}

fn current(history: &History) -> Option<u64> {
    history.last().and_then(|state| state.1)
}

fn cached(path: usize, value: Option<u64>) -> Cached {
    Cached::module(
        value.map(|version| CachedModule::new(PATHS[path], version.to_string()).expect("a module")),
    )
}

fn version(module: Option<&Arc<CachedModule>>) -> Option<u64> {
    module.map(|module| module.content.parse().expect("a version"))
}

fn invalidation(data: Value) -> Value {
    Value::Push {
        kind: PushKind::Invalidate,
        data: vec![data],
    }
}

fn play(steps: &[Step], rules: Rules) -> Checked {
    // Then nothing is removed at a loss, and it matters that it is not served.
    let options = NearCacheOptions::default()
        .with_staleness_bound(BOUND)
        .with_stale_if_error(BOUND);
    let protocol = Protocol::new(options, rules);
    let hooks = Hooks::new(Arc::default());
    let keys = Keys::new(String::new());
    let mut world = World::new(&protocol, &hooks, &keys);
    // From a session that runs: what comes before it is rarely of interest.
    world.connect();
    if steps.len().is_multiple_of(2) {
        world.catch_up();
    }
    for step in steps {
        world.take(*step)?;
    }
    world.rest()
}

fn counterexample(rules: Rules, cases: u32, shrink: u32, rng: TestRng) -> Option<String> {
    let runs = Runs {
        cases,
        max_shrink_iters: shrink,
        failure_persistence: None,
        ..Runs::default()
    };
    let steps = prop::collection::vec(any::<u32>().prop_map(step), 1..60);
    let played = TestRunner::new_with_rng(runs, rng).run(&steps, |steps| play(&steps, rules));
    played.err().map(|error| error.to_string())
}

fn random() -> TestRng {
    let seed: [u64; 4] = std::array::from_fn(|_| crate::random::random());
    let bytes: Vec<u8> = seed.iter().flat_map(|word| word.to_le_bytes()).collect();
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

#[test]
fn all_rules_together_leave_no_counterexample() {
    assert_eq!(
        counterexample(Rules::default(), 8_000, 10_000, random()),
        None
    );
}

#[test]
#[ignore = "takes minutes"]
fn all_rules_together_leave_no_counterexample_in_millions_of_steps() {
    assert_eq!(
        counterexample(Rules::default(), 2_000_000, 10_000, random()),
        None
    );
}

/// A test for each rule, so that they run at once: without it, random steps find a counterexample.
macro_rules! a_counterexample_without {
    ($($test:ident: $rule:ident)+) => {
        mod a_counterexample_without {
            use super::*;

            $(#[test]
            fn $test() {
                let broken = Rules {
                    broken: Some(Rule::$rule),
                };
                // The same steps each time: what is found once is found always.
                let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
                assert!(counterexample(broken, 200_000, 0, rng).is_some());
            })+
        }
    };
}

a_counterexample_without! {
    epoch_on_hit: EpochOnHit
    lease: Lease
    generation: Generation
    detach: Detach
    join_in_session: JoinInSession
    remove: Remove
    flush: Flush
    begin: Begin
    local_write: LocalWrite
    same_server: SameServer
    learn: Learn
    live_after_confirmation: LiveAfterConfirmation
    apply_before_renewal: ApplyBeforeRenewal
    heartbeat_proves_place: HeartbeatProvesPlace
}

fn only_goes_wrong_without(rule: Rule, steps: &[Step]) {
    assert!(play(steps, Rules::default()).is_ok());
    let broken = Some(rule);
    assert!(play(steps, Rules { broken }).is_err());
}

/// Rare among random steps: the later flight would put right what the earlier one did.
#[test]
fn an_overtaken_flight_does_not_land_in_place_of_a_later_one() {
    let path = 0;
    let steps = [
        Step::CatchUp,
        Step::Ask { reader: 0, path },
        Step::Serve { reader: 0 },
        Step::Write { path },
        Step::CatchUp,
        Step::Ask { reader: 1, path },
        Step::Land { reader: 0 },
        Step::Abandon { reader: 1 },
    ];
    only_goes_wrong_without(Rule::UniqueFlight, &steps);
}

/// Rare among random steps: a heartbeat that was long under way.
#[test]
fn a_late_sign_of_life_is_worth_less() {
    let (reader, path) = (0, 0);
    let steps = [
        Step::CatchUp,
        Step::Read { path },
        Step::Pass { eighths: 2 },
        Step::Look,
        Step::Take,
        Step::Write { path },
        Step::EndTurn,
        Step::Pass { eighths: 7 },
        Step::Deliver,
        Step::Pass { eighths: 4 },
        Step::Ask { reader, path },
    ];
    only_goes_wrong_without(Rule::LeaseFromSending, &steps);
}
