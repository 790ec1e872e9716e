//! Names, answered from memory.
//!
//! Most names that Python asks for are not ours, and are asked for again and again. That such a
//! name is not found is stored under the name itself, so that it costs one look instead of three.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::clock::Tick;
use super::protocol::Protocol;
use super::rule::Rule;
use super::store::{Entry, Key};
use super::value::{Cached, Evidence, Found, INDEX_PATH, Read};
use crate::paths::name::Name;
use crate::resolution::Resolution;

/// What is stored of a name's two paths.
pub(crate) struct Source {
    pub(crate) module: Found,
    /// How many of them were found to be absent, for the counters.
    absent: u64,
    expires: Tick,
}

impl Protocol {
    /// The answer for a name, if all that it takes is stored.
    ///
    /// `may_insert` is asked only before a negative answer is stored, because it costs a look at
    /// the process id. It is false in a forked child that still reads what it inherited: storing
    /// takes locks that a thread may hold which the child does not have.
    pub(crate) fn resolve(
        &self,
        name: &str,
        now: Tick,
        may_insert: impl FnOnce() -> bool,
    ) -> Option<Resolution> {
        let is_negative = self
            .store
            .read(Key::Name(name), |entry| match &entry.cached {
                Cached::Negative(evidence) if self.is_valid(entry, now) && self.holds(evidence) => {
                    entry.visit();
                    Some(())
                }
                _ => None,
            });
        if is_negative.is_some() {
            // It stands for two paths that were not looked at one by one.
            self.counters.absent_hits.add(2);
            return Some(Resolution::NotFound);
        }
        let Some(parsed) = Name::parse(name) else {
            return Some(Resolution::NotFound);
        };
        self.resolve_parsed(name, &parsed, now, may_insert)
    }

    /// The answer from the entries of the two paths and of the index, and a negative answer stored
    /// for the next time.
    fn resolve_parsed(
        &self,
        name: &str,
        parsed: &Name,
        now: Tick,
        may_insert: impl FnOnce() -> bool,
    ) -> Option<Resolution> {
        // The generations are noted before the look. A change while it lasts moves one of them, and
        // the negative answer below is then invalid from the beginning.
        let (epoch, evidence) = (self.session.epoch(), self.evidence(parsed));
        let Source {
            module,
            absent,
            expires,
        } = self.source(parsed, now)?;
        if let Some(module) = module {
            self.count(true, absent);
            return Some(Resolution::sourced(parsed, module));
        }
        let index = |entry: &Entry| match &entry.cached {
            Cached::Index(index, _) if self.is_valid(entry, now) => {
                entry.visit();
                Some((Arc::clone(index), entry.expires))
            }
            _ => None,
        };
        let (index, listed) = self.store.read(Key::Path(INDEX_PATH), index)?;
        self.count(false, absent);
        let answer = Resolution::without_source(parsed, &index);
        if let (Resolution::NotFound, Some(evidence)) = (&answer, evidence)
            && may_insert()
        {
            let cached = Cached::Negative(Box::new(evidence));
            let read = Read { epoch, number: 0 };
            let entry = Entry::new(&name.into(), cached, read, now, expires.min(listed));
            let evicted = self.store.insert(entry);
            self.counters.evictions.add(evicted);
        }
        Some(answer)
    }

    /// Counts a name that was answered by what is stored of its sources.
    pub(crate) fn count_source(&self, source: &Source) {
        self.count(source.module.is_some(), source.absent);
    }

    fn count(&self, has_module: bool, absent: u64) {
        if has_module {
            self.counters.module_hits.add_one();
        }
        self.counters.absent_hits.add(absent);
    }

    /// The source of a name, or that there is none, if that is stored.
    ///
    /// That there is none takes one read that found neither path. With two reads, a module that
    /// moved from the one path to the other between them would be missed by both.
    pub(crate) fn source(&self, name: &Name, now: Tick) -> Option<Source> {
        let mut source = Source {
            module: None,
            absent: 0,
            expires: Tick::from_bits(u64::MAX),
        };
        let mut other = None;
        for path in name.candidates() {
            let (cached, read, expires) = self.store.read(Key::Path(path), |entry| {
                if !self.is_valid(entry, now) {
                    return None;
                }
                entry.visit();
                Some((entry.cached.clone(), entry.read, entry.expires))
            })?;
            source.expires = source.expires.min(expires);
            match cached {
                Cached::Module(module) => {
                    source.module = Some(module);
                    break;
                }
                Cached::Absent if other.is_none_or(|other| other == read) => {}
                Cached::Absent if !self.rules.enforces(Rule::OneRead) => {}
                Cached::Absent | Cached::Index(..) | Cached::Negative(_) => return None,
            }
            other = Some(read);
            source.absent += 1;
        }
        Some(source)
    }

    /// The generations on which a negative answer rests. `None` for a name so long that one of its
    /// paths is too long: rare enough not to be stored.
    fn evidence(&self, name: &Name) -> Option<Evidence> {
        let looks = [name.package()?, name.module()?, INDEX_PATH].map(|path| {
            let stripe = self.index(path);
            (stripe, self.generations[stripe].load(SeqCst))
        });
        Some(Evidence { looks })
    }

    /// Whether a negative answer still holds: nothing that it rests on has moved. Three loads, and
    /// no look at the entries, which may have been evicted since.
    fn holds(&self, evidence: &Evidence) -> bool {
        let mut looks = evidence.looks.iter();
        looks.all(|(stripe, generation)| self.generations[*stripe].load(SeqCst) == *generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::server_id::ServerId;
    use crate::module::CachedModule;
    use crate::near::coherence::index_delta::RELIST;
    use crate::near::coherence::protocol::Answer;
    use crate::near::coherence::rule::Rules;
    use crate::near::coherence::store::Room;
    use crate::near::options::NearCacheOptions;
    use crate::paths::index::PathIndex;
    use std::collections::HashSet;
    use std::time::Duration;

    const AGE: Duration = Duration::from_secs(300);

    /// A protocol that follows Redis, with these values stored.
    fn protocol(modules: &[&str], absent: &[&str], index: &[&str]) -> Protocol {
        with_rules(modules, absent, index, Rules::default())
    }

    fn with_rules(modules: &[&str], absent: &[&str], index: &[&str], rules: Rules) -> Protocol {
        let protocol = Protocol::new(NearCacheOptions::default(), rules);
        protocol.begin(ServerId::new(1), now());
        for path in modules {
            let module = CachedModule::new(*path, "").unwrap();
            keep(&protocol, path, Cached::Module(Arc::new(module)));
        }
        keep_all(&protocol, absent.iter().map(|path| (*path, Cached::Absent)));
        list(&protocol, index);
        protocol
    }

    fn now() -> Tick {
        Tick::from_bits(1 << 40)
    }

    fn resolve(protocol: &Protocol, name: &str, now: Tick) -> Option<Resolution> {
        protocol.resolve(name, now, || true)
    }

    fn keep(protocol: &Protocol, path: &str, cached: Cached) {
        keep_all(protocol, [(path, cached)]);
    }

    /// The answer to one request.
    fn keep_all<'a>(protocol: &Protocol, answers: impl IntoIterator<Item = (&'a str, Cached)>) {
        let marks = protocol.marks(now());
        assert!(marks.are_live());
        let answer = Answer {
            read: protocol.begin_marked(&marks),
            server: Some(ServerId::new(1)),
            at: now(),
        };
        for (path, cached) in answers {
            protocol.insert_marked(path, cached, &marks, &answer, Room::Make);
        }
    }

    fn list(protocol: &Protocol, paths: &[&str]) {
        let paths: HashSet<String> = paths.iter().map(ToString::to_string).collect();
        let index = Cached::Index(Arc::new(PathIndex::from(paths)), now());
        keep(protocol, INDEX_PATH, index);
    }

    fn is_negative(protocol: &Protocol, name: &str) -> bool {
        matches!(resolve(protocol, name, now()), Some(Resolution::NotFound))
    }

    fn has_negative(protocol: &Protocol, name: &str) -> bool {
        let is_stored = |entry: &Entry| matches!(entry.cached, Cached::Negative(_)).then_some(());
        protocol.store.read(Key::Name(name), is_stored).is_some()
    }

    const ABSENT: [&str; 2] = ["a/b/__init__.py", "a/b.py"];

    #[test]
    fn all_that_an_answer_takes_must_be_kept() {
        for (absent, index) in [
            (&ABSENT[..1], true),
            (&ABSENT[1..], true),
            (&ABSENT[..], false),
        ] {
            let protocol = protocol(&[], absent, &[]);
            if !index {
                protocol.invalidate(INDEX_PATH);
            }
            assert_eq!(resolve(&protocol, "a.b", now()), None);
        }
        let module = |answer| match answer {
            Some(Resolution::Package(module) | Resolution::Module(module)) => module.path.clone(),
            answer => panic!("{answer:?}"),
        };
        // A module needs no index.
        let protocol = protocol(&["a/b.py"], &["a/b/__init__.py"], &[]);
        protocol.invalidate(INDEX_PATH);
        assert_eq!(module(resolve(&protocol, "a.b", now())), "a/b.py");
    }

    #[test]
    fn it_is_kept_until_anything_changes_that_it_rests_on() {
        for changed in [ABSENT[0], ABSENT[1], INDEX_PATH] {
            let protocol = protocol(&[], &ABSENT, &["a/c.py"]);
            assert!(is_negative(&protocol, "a.b") && has_negative(&protocol, "a.b"));
            // Without what it rests on: nothing of that has changed.
            for path in ABSENT {
                protocol.store.remove(path);
            }
            assert!(is_negative(&protocol, "a.b"));
            protocol.invalidate(changed);
            assert!(!is_negative(&protocol, "a.b"), "{changed}");
        }
    }

    #[test]
    fn it_ends_with_the_session_the_lease_and_what_it_rests_on() {
        let made = || {
            let protocol = protocol(&[], &ABSENT, &[]);
            assert!(is_negative(&protocol, "a.b"));
            protocol
        };
        let flushed = made();
        flushed.session.flush();
        assert!(!is_negative(&flushed, "a.b"));
        let lapsed = made();
        let bound = lapsed.session.bound();
        assert_eq!(resolve(&lapsed, "a.b", now().plus(bound)), None);
        let old = made();
        old.session.renew(now().plus(AGE));
        keep(
            &old,
            INDEX_PATH,
            Cached::Index(Arc::default(), now().plus(AGE)),
        );
        assert_eq!(resolve(&old, "a.b", now().plus(AGE)), None);
    }

    #[test]
    fn it_is_no_older_than_the_listing_of_the_index_may_be() {
        let protocol = protocol(&[], &ABSENT, &[]);
        // Brought up to date just now, and listed some time ago.
        let listed = now().minus(RELIST / 2);
        keep(&protocol, INDEX_PATH, Cached::Index(Arc::default(), listed));
        protocol.session.renew(now().plus(RELIST));
        let last = now().plus(RELIST / 2).minus(Duration::from_millis(1));
        for time in [now(), last] {
            let answer = resolve(&protocol, "a.b", time);
            assert_eq!(answer, Some(Resolution::NotFound));
        }
        assert_eq!(resolve(&protocol, "a.b", listed.plus(RELIST)), None);
    }

    /// `a.b` has a source at every moment: first a package, then a module, or the other way round.
    #[test]
    fn two_absences_of_two_moments_are_no_absence() {
        for [first, second] in [ABSENT, [ABSENT[1], ABSENT[0]]] {
            let missed = |rules| {
                let protocol = with_rules(&[], &[first], &[], rules);
                // It moved from the second path to the first, and that is still to be announced.
                keep(&protocol, second, Cached::Absent);
                let answer = resolve(&protocol, "a.b", now());
                assert_eq!(answer.is_some(), has_negative(&protocol, "a.b"));
                // One read of both tells.
                keep_all(&protocol, ABSENT.map(|path| (path, Cached::Absent)));
                assert!(is_negative(&protocol, "a.b"));
                answer == Some(Resolution::NotFound)
            };
            assert!(!missed(Rules::default()));
            let broken = Some(Rule::OneRead);
            assert!(missed(Rules { broken }));
        }
    }

    #[test]
    fn what_a_flush_overtakes_is_not_kept() {
        let protocol = protocol(&[], &ABSENT, &[]);
        let answer = protocol.resolve("a.b", now(), || {
            protocol.session.flush();
            true
        });
        assert_eq!(answer, Some(Resolution::NotFound));
        assert_eq!(resolve(&protocol, "a.b", now()), None);
    }

    #[test]
    fn what_changed_during_the_look_is_not_missed() {
        let protocol = protocol(&[], &ABSENT, &[]);
        let name = Name::parse("a.b").unwrap();
        let evidence = protocol.evidence(&name).unwrap();
        assert!(protocol.holds(&evidence));
        protocol.invalidate("a/b.py");
        assert!(!protocol.holds(&evidence));
    }

    #[test]
    fn a_name_may_be_spelled_like_a_path() {
        let absent = [
            "b/py/__init__.py",
            "b/py.py",
            "index/__init__.py",
            "index.py",
        ];
        let protocol = protocol(&["b.py"], &absent, &[]);
        for name in ["b.py", INDEX_PATH] {
            assert!(is_negative(&protocol, name) && has_negative(&protocol, name));
        }
        let index = protocol.cached(INDEX_PATH, now());
        assert!(matches!(index, Some(Cached::Index(..))));
        assert!(protocol.hit("b.py", now()).flatten().is_some());
        // Each goes on its own.
        protocol.invalidate("b.py");
        assert!(protocol.hit("b.py", now()).is_none() && has_negative(&protocol, "b.py"));
        assert_eq!(protocol.stats(now()).absent_paths, absent.len() + 2);
    }

    #[test]
    fn what_is_not_one_s_own_is_only_looked_at() {
        let protocol = protocol(&[], &ABSENT, &[]);
        for _ in 0..2 {
            let answer = protocol.resolve("a.b", now(), || false);
            assert_eq!(answer, Some(Resolution::NotFound));
        }
        assert!(!has_negative(&protocol, "a.b"));
    }

    #[test]
    fn a_namespace_is_found_and_looks_are_counted() {
        let protocol = protocol(&[], &ABSENT, &["a/b/c.py"]);
        for _ in 0..2 {
            let path = "a/b".to_owned();
            let answer = resolve(&protocol, "a.b", now());
            assert_eq!(answer, Some(Resolution::Namespace { path }));
        }
        assert_eq!(protocol.stats(now()).absent_hits, 4);
        list(&protocol, &[]);
        for _ in 0..2 {
            assert!(is_negative(&protocol, "a.b"));
        }
        assert_eq!(protocol.stats(now()).hits, 8);
    }
}
