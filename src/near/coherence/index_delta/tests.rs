//! Against a simulated Redis, with writers that take their time.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use proptest::prelude::*;

use super::*;

/// The last two can't be paths.
const PATHS: [&str; 8] = [
    "a.py", "b.py", "c/a.py", "c/b.py", "c/d/a.py", "e", "/f.py", "c//g",
];

fn after(millis: u64) -> Tick {
    Tick::default().plus(Duration::from_millis(millis))
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Both commands at once.
    Write(usize, bool),
    /// In the index alone, which names no path.
    Alone(usize, bool),
    /// A foreign writer's first command; the second one comes so many milliseconds later.
    Begin(usize, bool, u64),
    Wait(u64),
    /// What Redis has announced arrives, as far as this.
    Hear(usize),
    Ask,
    /// Redis has seen the question.
    Answer,
    /// The answer arrives.
    Land,
    Reconnect,
    /// Announced before all that still waits.
    Flush,
}

const FLUSHED: &str = "flushed";

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        (path.clone(), any::<bool>()).prop_map(|(path, add)| Step::Write(path, add)),
        (path, any::<bool>(), 0..1_900u64)
            .prop_map(|(path, add, delay)| Step::Begin(path, add, delay)),
        (0..PATHS.len(), any::<bool>()).prop_map(|(path, add)| Step::Alone(path, add)),
        (0..3_000u64).prop_map(Step::Wait),
        (10_000..40_000u64).prop_map(Step::Wait),
        (1..4usize).prop_map(Step::Hear),
        Just(Step::Hear(100)),
        Just(Step::Ask),
        Just(Step::Answer),
        Just(Step::Land),
        Just(Step::Reconnect),
        Just(Step::Flush),
    ]
}

#[derive(Debug)]
enum Answer {
    Members(Vec<bool>),
    Index(BTreeSet<&'static str>),
}

/// Redis, and one near cache that stores its index.
#[derive(Debug, Default)]
struct World {
    now: u64,
    index: BTreeSet<&'static str>,
    /// Second commands to come.
    halves: Vec<(u64, usize, bool)>,
    announced: VecDeque<Vec<String>>,
    index_delta: IndexDelta,
    epoch: u64,
    question: Option<Question>,
    answer: Option<Answer>,
    moved: bool,
    cached: Option<(Arc<PathIndex>, Tick)>,
    updates: usize,
    /// When these changed without being named.
    unnamed: HashMap<&'static str, u64>,
}

impl World {
    fn write(&mut self, path: usize, add: bool, mut message: Vec<String>) {
        let path = PATHS[path];
        let changed = if add {
            self.index.insert(path)
        } else {
            self.index.remove(path)
        };
        if changed {
            // What was named is asked for while it is recent: a question that is under way now
            // drops what was older when it was asked.
            let now = after(self.now);
            let named = self.index_delta.lock().recent.get(path).copied();
            let is_asked_for = named.is_some_and(|at| at.plus(RELIST) > now);
            if message.is_empty() && !is_asked_for {
                self.unnamed.insert(path, self.now);
            }
            message.push(INDEX_PATH.to_owned());
        }
        self.announced.push_back(message);
    }

    fn wait(&mut self, millis: u64) {
        self.now += millis;
        let mut halves = mem::take(&mut self.halves);
        halves.sort_unstable();
        for half in halves {
            let (at, path, add) = half;
            if at <= self.now {
                self.write(path, add, Vec::new());
            } else {
                self.halves.push(half);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(path, add) => self.write(path, add, vec![PATHS[path].to_owned()]),
            Step::Alone(path, add) => self.write(path, add, Vec::new()),
            Step::Begin(path, add, delay) => {
                self.announced.push_back(vec![PATHS[path].to_owned()]);
                self.halves.push((self.now + delay, path, add));
            }
            Step::Wait(millis) => self.wait(millis),
            Step::Hear(count) => {
                for _ in 0..count.min(self.announced.len()) {
                    let message = self.announced.pop_front().unwrap();
                    let flushed = message == [FLUSHED];
                    if flushed {
                        self.epoch += 1;
                    } else {
                        self.index_delta.add(&message, after(self.now));
                    }
                    if flushed || message.iter().any(|path| path == INDEX_PATH) {
                        self.cached = None;
                        self.moved = true;
                    }
                }
            }
            Step::Ask if self.cached().is_none() && self.question.is_none() => {
                let question = self.index_delta.question(self.epoch, after(self.now));
                self.question = Some(question);
                self.moved = false;
            }
            Step::Answer if self.answer.is_none() => {
                self.answer = self.question.as_ref().map(|question| match question {
                    Question::Whole(_) => Answer::Index(self.index.clone()),
                    Question::Update(_, update) => {
                        let is_member = |path: &String| self.index.contains(path.as_str());
                        Answer::Members(update.paths.iter().map(is_member).collect())
                    }
                });
            }
            Step::Land if self.answer.is_some() => {
                let (question, answer) = (self.question.take(), self.answer.take());
                let index = match (question.unwrap(), answer.unwrap()) {
                    (Question::Whole(asked), Answer::Index(mut paths)) => {
                        paths.retain(|path| validate_path(path).is_ok());
                        let index = Arc::new(of(&paths));
                        self.index_delta.listed(asked, &index);
                        (index, asked.at)
                    }
                    (Question::Update(asked, update), Answer::Members(members)) => {
                        self.updates += 1;
                        self.index_delta.updated(asked, update, &members)
                    }
                    mixed => unreachable!("{mixed:?}"),
                };
                if !self.moved {
                    self.cached = Some(index);
                }
            }
            Step::Reconnect => {
                self.epoch += 1;
                self.announced.clear();
                self.index_delta.begin();
                self.cached = None;
                self.moved = true;
            }
            Step::Flush => {
                self.index.clear();
                self.announced.push_front(vec![FLUSHED.to_owned()]);
            }
            Step::Ask | Step::Answer | Step::Land => {}
        }
    }

    /// What is cached and not too old.
    fn cached(&self) -> Option<&Arc<PathIndex>> {
        let cached = self.cached.as_ref();
        let cached = cached.filter(|(_, listed)| after(self.now) < listed.plus(RELIST));
        cached.map(|(index, _)| index)
    }

    /// Hears all, and asks.
    fn admit(&mut self) -> BTreeSet<String> {
        for step in [
            Step::Answer,
            Step::Land,
            Step::Hear(usize::MAX),
            Step::Ask,
            Step::Answer,
            Step::Land,
        ] {
            self.step(step);
        }
        let cached = self.cached().expect("nothing moves");
        cached.paths().iter().cloned().collect()
    }

    fn expected(&self) -> BTreeSet<String> {
        let paths = self.index.iter().filter(|path| validate_path(path).is_ok());
        paths.map(ToString::to_string).collect()
    }

    /// Brings the index up to date. True if the only wrong paths are some that were changed
    /// unnamed, not long ago.
    fn is_right(&mut self) -> bool {
        let (found, expected) = (self.admit(), self.expected());
        let is_recent = |path: &String| {
            let changed = self.unnamed.get(path.as_str());
            changed.is_some_and(|at| after(self.now) < after(*at).plus(RELIST))
        };
        found.symmetric_difference(&expected).all(is_recent)
    }
}

fn of(paths: &BTreeSet<&'static str>) -> PathIndex {
    let paths = paths.iter().map(ToString::to_string);
    PathIndex::from(paths.collect::<std::collections::HashSet<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_is_redis_s_index_whenever_all_is_heard(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            if world.announced.is_empty() && world.cached().is_some() {
                prop_assert!(world.is_right(), "after {:?}: {:?}", step, world);
            }
        }
        prop_assert!(world.is_right(), "{world:?}");
        world.wait(2_000);
        prop_assert!(world.is_right(), "{world:?}");
        world.wait(30_000);
        prop_assert_eq!(world.admit(), world.expected());
    }
}

/// A world in which Redis is followed.
fn followed() -> World {
    let mut world = World::default();
    world.step(Step::Reconnect);
    world.admit();
    world
}

#[test]
fn a_change_asks_for_what_was_announced_alone() {
    let mut world = followed();
    for (path, add) in [(0, true), (2, true), (0, false)] {
        world.step(Step::Write(path, add));
        assert_eq!(world.admit(), world.expected());
    }
    assert_eq!(world.updates, 3);
}

#[test]
fn a_change_of_the_index_alone_asks_for_all_of_it() {
    let mut world = followed();
    for path in 0..3 {
        world.step(Step::Alone(path, true));
        assert_eq!(world.admit(), world.expected());
    }
    assert_eq!(world.updates, 0);
}

#[test]
fn a_slow_writer_s_second_command_is_seen_among_others() {
    let mut world = followed();
    world.step(Step::Begin(0, true, 1_900));
    world.step(Step::Hear(1));
    world.wait(1_500);
    world.step(Step::Write(1, true));
    assert_eq!(world.admit(), world.expected());
    world.wait(400);
    world.step(Step::Write(2, true));
    assert_eq!(world.admit(), world.expected());
    assert_eq!(world.updates, 2);
}

#[test]
fn what_is_changed_alone_beside_another_write_is_seen_within_the_time_of_a_listing() {
    for apart in [0, 1, 10_000, 29_000] {
        let mut world = followed();
        world.wait(apart);
        world.step(Step::Write(0, true));
        world.admit();
        world.step(Step::Alone(1, true));
        let changed = world.now;
        // What was announced by name is seen at once, again and again.
        for path in [2, 3, 2] {
            world.wait(9_999);
            world.step(Step::Write(path, !world.index.contains(PATHS[path])));
            assert!(world.admit().contains("a.py"));
        }
        world.wait(changed + 30_000 - world.now);
        assert_eq!(world.admit(), world.expected());
        // Nothing else had to change for that.
        world.step(Step::Alone(1, false));
        world.wait(30_000);
        assert_eq!(world.admit(), world.expected());
    }
}

#[test]
fn what_is_changed_alone_after_its_name_grew_old_is_seen_within_the_time_of_a_listing() {
    let mut world = World::default();
    world.step(Step::Write(0, true));
    world.step(Step::Hear(1));
    world.wait(30_000);
    // The answer still has it, and drops its name.
    world.step(Step::Ask);
    world.step(Step::Answer);
    world.step(Step::Alone(0, false));
    // So only what is named is asked for.
    world.step(Step::Write(1, true));
    assert!(world.is_right(), "{world:?}");
    world.wait(30_000);
    assert_eq!(world.admit(), world.expected());
}

#[test]
fn an_answer_that_was_overtaken_misses_nothing() {
    let (index_delta, [a, b]) = (IndexDelta::default(), ["a", "b"].map(String::from));
    index_delta.begin();
    let slow = index_delta.question(0, after(3_000));
    index_delta.add(&[a.clone(), INDEX_PATH.to_owned()], after(3_500));
    let quick = index_delta.question(0, after(6_000));
    let (Question::Whole(slow), Question::Whole(quick)) = (slow, quick) else {
        panic!("there is no base yet");
    };
    index_delta.listed(quick, &Arc::new(of(&BTreeSet::from(["a"]))));
    index_delta.listed(slow, &Arc::new(of(&BTreeSet::new())));
    index_delta.add(&[b, INDEX_PATH.to_owned()], after(7_000));
    let Question::Update(asked, update) = index_delta.question(0, after(7_000)) else {
        panic!("there is a base");
    };
    let members = vec![true; update.paths.len()];
    let (index, listed) = index_delta.updated(asked, update, &members);
    assert!(index.contains(&a) && index.contains("b"));
    assert_eq!(listed, after(3_000));
}

#[test]
fn what_was_asked_before_too_much_changed_is_no_base() {
    let index_delta = IndexDelta::default();
    index_delta.begin();
    let many: Vec<String> = (0..=MOST).map(|number| number.to_string()).collect();
    let Question::Whole(asked) = index_delta.question(0, after(0)) else {
        panic!("there is no base yet");
    };
    index_delta.add(&many, after(0));
    index_delta.listed(asked, &Arc::default());
    assert!(matches!(
        index_delta.question(0, after(0)),
        Question::Whole(_)
    ));
}

#[test]
fn where_redis_refuses_to_say_what_is_in_it_all_of_it_is_asked_for() {
    let mut world = followed();
    let asks_for_all = |world: &mut World| {
        world.step(Step::Write(0, !world.index.contains(PATHS[0])));
        world.step(Step::Hear(1));
        world.step(Step::Ask);
        let is_whole = matches!(world.question, Some(Question::Whole(_)));
        assert_eq!(world.admit(), world.expected());
        is_whole
    };
    assert!(!asks_for_all(&mut world));
    world.index_delta.refused();
    assert!(asks_for_all(&mut world));
    assert!(asks_for_all(&mut world));
    // It may be another server, or another user.
    world.step(Step::Reconnect);
    world.admit();
    assert!(!asks_for_all(&mut world));
}

#[test]
fn too_many_announcements_are_worth_a_new_index() {
    let mut world = followed();
    let paths: Vec<String> = (0..=MOST).map(|number| number.to_string()).collect();
    world.announced.push_back(paths);
    world.step(Step::Write(0, true));
    assert_eq!(world.admit(), world.expected());
    assert_eq!(world.updates, 0);
    assert!(world.index_delta.lock().recent.len() <= MOST);
}

#[test]
fn membership_is_told_for_each_path() {
    let paths = ["a".to_owned(), "b".to_owned()];
    let question = AskMembership { paths: &paths };
    let config = Config::new(crate::config::DEFAULT_REDIS_URL).unwrap();
    let decode = |value: Value| question.decode(vec![value], &config);
    let members = |values: &[i64]| Value::Array(values.iter().copied().map(Value::Int).collect());
    assert_eq!(decode(members(&[1, 0])).unwrap(), [true, false]);
    assert!(decode(members(&[1])).unwrap_err().is_unavailable());
    let forbidden = redis::parse_redis_value(b"-NOPERM no\r\n").unwrap();
    assert!(decode(forbidden).unwrap_err().is_refused());
}
