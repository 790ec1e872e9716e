//! Near caches of this process that observe a writer, so that a service sees its own writes.
//!
//! Redis announces a write on another connection, which may be later than the write's own answer.

#[cfg(feature = "near-cache")]
use std::sync::{Arc, Weak};

#[cfg(feature = "near-cache")]
use arc_swap::ArcSwap;

/// Told after a write, whether it succeeded, failed or was abandoned.
#[cfg(feature = "near-cache")]
pub(crate) trait WriteObserver: Send + Sync {
    fn wrote(&self, paths: &[String]);

    fn wrote_everything(&self);
}

/// The near caches that observe a writer. Weak, so that a writer holds none of them alive, and
/// without a lock, because a forked child writes, too.
#[derive(Default)]
pub(crate) struct WriteObservers {
    #[cfg(feature = "near-cache")]
    observers: ArcSwap<Vec<Weak<dyn WriteObserver>>>,
}

/// A write under way. Its `Drop` tells the observers, on success, error and cancellation alike: a
/// failed or abandoned write may have been applied.
pub(crate) struct Writing<'a> {
    #[cfg(feature = "near-cache")]
    observers: &'a WriteObservers,
    #[cfg(feature = "near-cache")]
    paths: Option<Vec<String>>,
    #[cfg(not(feature = "near-cache"))]
    none: std::marker::PhantomData<&'a ()>,
}

#[cfg(feature = "near-cache")]
impl WriteObservers {
    pub(crate) fn add(&self, observer: &Weak<dyn WriteObserver>) {
        self.observers.rcu(|observers| {
            // Near caches that were dropped leave their weak references here.
            let alive = observers
                .iter()
                .filter(|observer| observer.strong_count() > 0);
            alive.chain([observer]).cloned().collect::<Vec<_>>()
        });
    }

    /// To be held while these paths are written. They are copied only if a near cache observes.
    pub(crate) fn writing(&self, paths: impl FnOnce() -> Vec<String>) -> Writing<'_> {
        let is_unobserved = self.observers.load().is_empty();
        Writing {
            observers: self,
            paths: Some(if is_unobserved { Vec::new() } else { paths() }),
        }
    }

    /// To be held while anything may be written.
    pub(crate) fn writing_everything(&self) -> Writing<'_> {
        Writing {
            observers: self,
            paths: None,
        }
    }

    fn alive(&self) -> Vec<Arc<dyn WriteObserver>> {
        let observers = self.observers.load();
        observers.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(feature = "near-cache")]
impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for observer in self.observers.alive() {
            match &self.paths {
                Some(paths) => observer.wrote(paths),
                None => observer.wrote_everything(),
            }
        }
    }
}

#[cfg(not(feature = "near-cache"))]
#[allow(
    clippy::unused_self,
    reason = "with the feature there may be observers"
)]
impl WriteObservers {
    pub(crate) fn writing(&self, _: impl FnOnce() -> Vec<String>) -> Writing<'_> {
        self.writing_everything()
    }

    pub(crate) fn writing_everything(&self) -> Writing<'_> {
        Writing {
            none: std::marker::PhantomData,
        }
    }
}
