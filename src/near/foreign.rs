//! Names, answered from memory. Most are not ours, and are asked for again and again: that such a
//! name is not found is kept under the name itself, so that it costs one look.

use std::sync::atomic::Ordering::SeqCst;

use super::clock::Tick;
use super::kept::{INDEX_PATH, Kept};
use super::protocol::Protocol;
use super::store::{Entry, Key};
use crate::Resolution;
use crate::resolution::Name;

/// Why a name is not found: nothing of what was looked at had changed since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence {
    /// The stripes of the two paths and of the index, and their generations before the look.
    looks: [(usize, u64); 3],
}

impl Protocol {
    /// The answer for a name, if all that it takes is kept. Whether it may be kept itself, which
    /// takes locks, is asked only then.
    pub(crate) fn resolve(
        &self,
        name: &str,
        now: Tick,
        may_keep: impl FnOnce() -> bool,
    ) -> Option<Resolution> {
        let is_foreign = self.store.read(Key::Name(name), |entry| match &entry.kept {
            Kept::Foreign(evidence) if self.is_valid(entry, now) && self.holds(evidence) => {
                entry.visit();
                Some(())
            }
            _ => None,
        });
        if is_foreign.is_some() {
            self.counters.absent_hits.add(2);
            return Some(Resolution::NotFound);
        }
        let Some(parsed) = Name::parse(name) else {
            return Some(Resolution::NotFound);
        };
        self.resolve_parsed(name, &parsed, now, may_keep)
    }

    fn resolve_parsed(
        &self,
        name: &str,
        parsed: &Name,
        now: Tick,
        may_keep: impl FnOnce() -> bool,
    ) -> Option<Resolution> {
        // Before the look: what changes while it lasts makes it worthless.
        let evidence = self.evidence(parsed);
        let mut looks = Looks::default();
        let mut look = |path: &str| {
            self.store.read(Key::Path(path), |entry| {
                if !self.is_valid(entry, now) {
                    return None;
                }
                entry.visit();
                looks.add(entry);
                Some(entry.kept.clone())
            })
        };
        let mut absent = 0;
        for path in parsed.candidates() {
            match look(path)? {
                Kept::Module(module) => {
                    self.counters.module_hits.add_one();
                    self.counters.absent_hits.add(absent);
                    return Some(Resolution::sourced(parsed, module));
                }
                Kept::Absent => absent += 1,
                Kept::Index(..) | Kept::Foreign(_) => return None,
            }
        }
        let Kept::Index(index, _) = look(INDEX_PATH)? else {
            return None;
        };
        self.counters.absent_hits.add(absent);
        let answer = Resolution::without_source(parsed, &index);
        if let (Resolution::NotFound, Some(evidence), Some(epoch)) =
            (&answer, evidence, looks.epoch())
            && may_keep()
        {
            let kept = Kept::Foreign(Box::new(evidence));
            let entry = Entry::new(&name.into(), kept, epoch, now, looks.expires);
            let evicted = self.store.insert(entry);
            self.counters.evictions.add(evicted);
        }
        Some(answer)
    }

    /// `None` for a name so long that it can't have both paths: not worth it.
    fn evidence(&self, name: &Name) -> Option<Evidence> {
        let looks = [name.package()?, name.module()?, INDEX_PATH].map(|path| {
            let stripe = self.index(path);
            (stripe, self.generations[stripe].load(SeqCst))
        });
        Some(Evidence { looks })
    }

    fn holds(&self, evidence: &Evidence) -> bool {
        let mut looks = evidence.looks.iter();
        looks.all(|(stripe, generation)| self.generations[*stripe].load(SeqCst) == *generation)
    }
}

/// What was looked at.
struct Looks {
    epochs: Option<(u64, u64)>,
    expires: Tick,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            epochs: None,
            expires: Tick::from_bits(u64::MAX),
        }
    }
}

impl Looks {
    fn add(&mut self, entry: &Entry) {
        let (first, last) = self.epochs.unwrap_or((entry.epoch, entry.epoch));
        self.epochs = Some((first.min(entry.epoch), last.max(entry.epoch)));
        self.expires = self.expires.min(entry.expires);
    }

    /// The session in which all of it was asked for, if it was one.
    fn epoch(&self) -> Option<u64> {
        self.epochs
            .filter(|(first, last)| first == last)
            .map(|(first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CachedModule;
    use crate::identity::ServerId;
    use crate::near::announced::RELIST;
    use crate::near::options::NearCacheOptions;
    use crate::near::rule::Rules;
    use crate::resolution::PathIndex;
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::Duration;

    const AGE: Duration = Duration::from_secs(300);

    /// That follows Redis, and keeps what this says.
    fn protocol(modules: &[&str], absent: &[&str], index: &[&str]) -> Protocol {
        let protocol = Protocol::new(NearCacheOptions::default(), Rules::default());
        protocol.begin(ServerId::new(1), now());
        for path in modules {
            let module = CachedModule::new(*path, "").unwrap();
            keep(&protocol, path, Kept::Module(Arc::new(module)));
        }
        for path in absent {
            keep(&protocol, path, Kept::Absent);
        }
        list(&protocol, index);
        protocol
    }

    fn now() -> Tick {
        Tick::from_bits(1 << 40)
    }

    fn resolve(protocol: &Protocol, name: &str, now: Tick) -> Option<Resolution> {
        protocol.resolve(name, now, || true)
    }

    fn keep(protocol: &Protocol, path: &str, kept: Kept) {
        let marks = protocol.marks(now()).expect("it follows");
        protocol.insert_marked(path, kept, &marks, Some(ServerId::new(1)), now());
    }

    fn list(protocol: &Protocol, paths: &[&str]) {
        let paths: HashSet<String> = paths.iter().map(ToString::to_string).collect();
        let index = Kept::Index(Arc::new(PathIndex::from(paths)), now());
        keep(protocol, INDEX_PATH, index);
    }

    fn is_foreign(protocol: &Protocol, name: &str) -> bool {
        matches!(resolve(protocol, name, now()), Some(Resolution::NotFound))
    }

    fn kept_foreign(protocol: &Protocol, name: &str) -> bool {
        let is_kept = |entry: &Entry| matches!(entry.kept, Kept::Foreign(_)).then_some(());
        protocol.store.read(Key::Name(name), is_kept).is_some()
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
            assert!(is_foreign(&protocol, "a.b") && kept_foreign(&protocol, "a.b"));
            // Without what it rests on: nothing of that has changed.
            for path in ABSENT {
                protocol.store.remove(path);
            }
            assert!(is_foreign(&protocol, "a.b"));
            protocol.invalidate(changed);
            assert!(!is_foreign(&protocol, "a.b"), "{changed}");
        }
    }

    #[test]
    fn it_ends_with_the_session_the_lease_and_what_it_rests_on() {
        let made = || {
            let protocol = protocol(&[], &ABSENT, &[]);
            assert!(is_foreign(&protocol, "a.b"));
            protocol
        };
        let flushed = made();
        flushed.session.flush();
        assert!(!is_foreign(&flushed, "a.b"));
        let lapsed = made();
        let bound = lapsed.session.bound();
        assert_eq!(resolve(&lapsed, "a.b", now().plus(bound)), None);
        let old = made();
        old.session.renew(now().plus(AGE));
        keep(
            &old,
            INDEX_PATH,
            Kept::Index(Arc::default(), now().plus(AGE)),
        );
        assert_eq!(resolve(&old, "a.b", now().plus(AGE)), None);
    }

    #[test]
    fn it_is_no_older_than_the_listing_of_the_index_may_be() {
        let protocol = protocol(&[], &ABSENT, &[]);
        // Brought up to date just now, and listed some time ago.
        let listed = now().minus(RELIST / 2);
        keep(&protocol, INDEX_PATH, Kept::Index(Arc::default(), listed));
        protocol.session.renew(now().plus(RELIST));
        let last = now().plus(RELIST / 2).minus(Duration::from_millis(1));
        for time in [now(), last] {
            let answer = resolve(&protocol, "a.b", time);
            assert_eq!(answer, Some(Resolution::NotFound));
        }
        assert_eq!(resolve(&protocol, "a.b", listed.plus(RELIST)), None);
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
            assert!(is_foreign(&protocol, name) && kept_foreign(&protocol, name));
        }
        let index = protocol.kept(INDEX_PATH, now());
        assert!(matches!(index, Some(Kept::Index(..))));
        assert!(protocol.hit("b.py", now()).flatten().is_some());
        // Each goes on its own.
        protocol.invalidate("b.py");
        assert!(protocol.hit("b.py", now()).is_none() && kept_foreign(&protocol, "b.py"));
        assert_eq!(protocol.stats(now()).absent_paths, absent.len() + 2);
    }

    #[test]
    fn what_is_not_one_s_own_is_only_looked_at() {
        let protocol = protocol(&[], &ABSENT, &[]);
        for _ in 0..2 {
            let answer = protocol.resolve("a.b", now(), || false);
            assert_eq!(answer, Some(Resolution::NotFound));
        }
        assert!(!kept_foreign(&protocol, "a.b"));
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
            assert!(is_foreign(&protocol, "a.b"));
        }
        assert_eq!(protocol.stats(now()).hits, 8);
    }
}
