//! Against a simulated Redis, with writers that take their time.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::mem;

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
    /// Out of the index alone, which names nobody.
    Lose(usize),
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
        (0..PATHS.len()).prop_map(Step::Lose),
        (0..3_000u64).prop_map(Step::Wait),
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
    Members(Membership),
    Index(BTreeSet<&'static str>),
}

/// Redis, and one near cache that keeps its index.
#[derive(Default)]
struct World {
    now: u64,
    index: BTreeSet<&'static str>,
    /// Second commands to come.
    halves: Vec<(u64, usize, bool)>,
    announced: VecDeque<Vec<String>>,
    announcements: Announcements,
    epoch: u64,
    question: Option<Question>,
    answer: Option<Answer>,
    moved: bool,
    kept: Option<Arc<PathIndex>>,
    updates: usize,
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
            Step::Lose(path) => self.write(path, false, Vec::new()),
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
                        self.announcements.add(&message, after(self.now));
                    }
                    if flushed || message.iter().any(|path| path == INDEX_PATH) {
                        self.kept = None;
                        self.moved = true;
                    }
                }
            }
            Step::Ask if self.kept.is_none() && self.question.is_none() => {
                let question = self.announcements.question(self.epoch, after(self.now));
                self.question = Some(question);
                self.moved = false;
            }
            Step::Answer if self.answer.is_none() => {
                self.answer = self.question.as_ref().map(|question| match question {
                    Question::Whole(_) => Answer::Index(self.index.clone()),
                    Question::Update(_, update) => {
                        let is_member = |path: &String| self.index.contains(path.as_str());
                        Answer::Members(Membership {
                            members: update.paths.iter().map(is_member).collect(),
                            count: Some(self.index.len()),
                        })
                    }
                });
            }
            Step::Land if self.answer.is_some() => {
                let (question, answer) = (self.question.take(), self.answer.take());
                let index = match (question.unwrap(), answer.unwrap()) {
                    (Question::Whole(asked), Answer::Index(paths)) => {
                        let (paths, bad): (BTreeSet<_>, BTreeSet<_>) =
                            paths.iter().partition(|path| validate_path(path).is_ok());
                        let index = Arc::new(of(&paths));
                        let bad = bad.into_iter().map(Vec::from).collect();
                        self.announcements.listed(&asked, &index, bad);
                        index
                    }
                    (Question::Update(asked, update), Answer::Members(members)) => {
                        let index = self.announcements.updated(&asked, update, &members);
                        let Some(index) = index else {
                            // The whole index is the next answer.
                            self.question = Some(Question::Whole(asked));
                            return;
                        };
                        self.updates += 1;
                        index
                    }
                    mixed => unreachable!("{mixed:?}"),
                };
                if !self.moved {
                    self.kept = Some(index);
                }
            }
            Step::Reconnect => {
                self.epoch += 1;
                self.announced.clear();
                self.announcements.begin(after(self.now));
                self.kept = None;
                self.moved = true;
            }
            Step::Flush => {
                self.index.clear();
                self.announced.push_front(vec![FLUSHED.to_owned()]);
            }
            Step::Ask | Step::Answer | Step::Land => {}
        }
    }

    /// Hears all, and asks.
    fn settle(&mut self) -> BTreeSet<String> {
        // An answer may show that another question is to be asked.
        let again = [Step::Answer, Step::Land, Step::Answer, Step::Land];
        for step in again.into_iter().chain([Step::Hear(usize::MAX)]) {
            self.step(step);
        }
        for step in [Step::Ask].into_iter().chain(again) {
            self.step(step);
        }
        let kept = self.kept.as_ref().expect("nothing moves");
        kept.paths().iter().cloned().collect()
    }

    fn expected(&self) -> BTreeSet<String> {
        let paths = self.index.iter().filter(|path| validate_path(path).is_ok());
        paths.map(ToString::to_string).collect()
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
            if world.announced.is_empty() && world.kept.is_some() {
                prop_assert_eq!(world.settle(), world.expected(), "after {:?}", step);
            }
        }
        prop_assert_eq!(world.settle(), world.expected());
        world.wait(2_000);
        prop_assert_eq!(world.settle(), world.expected());
    }
}

/// One that has followed Redis for long enough.
fn followed() -> World {
    let mut world = World::default();
    world.step(Step::Reconnect);
    world.wait(2_000);
    world.settle();
    world
}

#[test]
fn a_change_asks_for_what_was_announced_alone() {
    let mut world = followed();
    for (path, add) in [(0, true), (2, true), (0, false)] {
        world.step(Step::Write(path, add));
        assert_eq!(world.settle(), world.expected());
    }
    assert_eq!(world.updates, 3);
}

#[test]
fn a_change_of_the_index_alone_asks_for_all_of_it() {
    let mut world = followed();
    world.write(0, true, Vec::new());
    assert_eq!(world.settle(), world.expected());
    world.wait(2_000);
    world.settle();
    world.step(Step::Write(1, true));
    world.settle();
    world.wait(2_000);
    world.write(2, true, Vec::new());
    assert_eq!(world.settle(), world.expected());
}

#[test]
fn a_slow_writer_s_second_command_is_seen_among_others() {
    let mut world = followed();
    world.step(Step::Begin(0, true, 1_900));
    world.step(Step::Hear(1));
    world.wait(1_500);
    world.step(Step::Write(1, true));
    assert_eq!(world.settle(), world.expected());
    world.wait(400);
    world.step(Step::Write(2, true));
    assert_eq!(world.settle(), world.expected());
    assert_eq!(world.updates, 2);
}

#[test]
fn one_that_nobody_named_is_found_out_by_the_number() {
    let mut world = followed();
    world.step(Step::Write(0, true));
    world.write(1, true, Vec::new());
    assert_eq!(world.settle(), world.expected());
    world.step(Step::Write(2, true));
    world.step(Step::Lose(1));
    assert_eq!(world.settle(), world.expected());
}

#[test]
fn where_one_came_and_one_went_unnamed_it_is_seen_later() {
    let mut world = followed();
    world.step(Step::Write(1, true));
    world.settle();
    world.step(Step::Write(0, true));
    world.write(3, true, Vec::new());
    world.step(Step::Lose(1));
    world.wait(2_000);
    world.step(Step::Write(2, true));
    world.settle();
    world.wait(30_000);
    world.step(Step::Write(4, true));
    assert_eq!(world.settle(), world.expected());
}

#[test]
fn an_answer_that_was_overtaken_is_no_base() {
    let (announcements, [a, b]) = (Announcements::default(), ["a", "b"].map(String::from));
    announcements.begin(after(0));
    let slow = announcements.question(0, after(3_000));
    announcements.add(&[a.clone(), INDEX_PATH.to_owned()], after(3_500));
    let quick = announcements.question(0, after(6_000));
    let (Question::Whole(slow), Question::Whole(quick)) = (slow, quick) else {
        panic!("there is no base yet");
    };
    announcements.listed(
        &quick,
        &Arc::new(of(&BTreeSet::from(["a"]))),
        HashSet::new(),
    );
    announcements.listed(&slow, &Arc::new(of(&BTreeSet::new())), HashSet::new());
    announcements.add(&[b, INDEX_PATH.to_owned()], after(7_000));
    let Question::Update(asked, update) = announcements.question(0, after(7_000)) else {
        panic!("there is a base");
    };
    let membership = Membership {
        members: vec![true],
        count: Some(2),
    };
    let index = announcements.updated(&asked, update, &membership);
    assert!(index.expect("both are in it").contains(&a));
}

#[test]
fn too_many_announcements_are_worth_a_new_index() {
    let mut world = followed();
    let paths: Vec<String> = (0..=MOST).map(|number| number.to_string()).collect();
    world.announced.push_back(paths);
    world.step(Step::Write(0, true));
    assert_eq!(world.settle(), world.expected());
    assert_eq!(world.updates, 0);
    assert!(world.announcements.lock().recent.len() <= MOST);
}

#[test]
fn membership_is_told_for_each_path() {
    let paths = ["a".to_owned(), "b".to_owned()];
    let question = AskMembership { paths: &paths };
    let config = Config::new(crate::DEFAULT_REDIS_URL).unwrap();
    let decode = |values: &[i64], count: Value| {
        let values = values.iter().copied().map(Value::Int).collect();
        question.decode(vec![Value::Array(values), count], &config)
    };
    let answer = decode(&[1, 0], Value::Int(7)).unwrap();
    assert_eq!((answer.members, answer.count), (vec![true, false], Some(7)));
    let forbidden = redis::parse_redis_value(b"-NOPERM no\r\n").unwrap();
    assert_eq!(decode(&[1, 0], forbidden).unwrap().count, None);
    assert!(decode(&[1], Value::Int(7)).unwrap_err().is_unavailable());
}
