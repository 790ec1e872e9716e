//! Who wants to know what is written over a set of connections: near caches in the same process,
//! which are to show a writer what it wrote.

#[cfg(feature = "near-cache")]
use std::sync::{Arc, Weak};

#[cfg(feature = "near-cache")]
use arc_swap::ArcSwap;

/// Told after a write, whether it succeeded or not.
#[cfg(feature = "near-cache")]
pub(crate) trait Tied: Send + Sync {
    fn wrote(&self, paths: &[String]);

    fn wrote_everything(&self);
}

#[derive(Default)]
pub(crate) struct Ties {
    #[cfg(feature = "near-cache")]
    tied: ArcSwap<Vec<Weak<dyn Tied>>>,
}

/// A write under way. When it ends, however it does, those who are tied are told: a failed or
/// abandoned write may have been applied.
pub(crate) struct Writing<'a> {
    #[cfg(feature = "near-cache")]
    ties: &'a Ties,
    #[cfg(feature = "near-cache")]
    paths: Option<Vec<String>>,
    #[cfg(not(feature = "near-cache"))]
    nobody: std::marker::PhantomData<&'a ()>,
}

#[cfg(feature = "near-cache")]
impl Ties {
    pub(crate) fn add(&self, tied: &Weak<dyn Tied>) {
        self.tied.rcu(|ties| {
            let alive = ties.iter().filter(|tied| tied.strong_count() > 0);
            alive.chain([tied]).cloned().collect::<Vec<_>>()
        });
    }

    /// To be held while these paths are written.
    pub(crate) fn writing(&self, paths: impl FnOnce() -> Vec<String>) -> Writing<'_> {
        let nobody = self.tied.load().is_empty();
        Writing {
            ties: self,
            paths: Some(if nobody { Vec::new() } else { paths() }),
        }
    }

    /// To be held while anything may be written.
    pub(crate) fn writing_everything(&self) -> Writing<'_> {
        Writing {
            ties: self,
            paths: None,
        }
    }

    fn tied(&self) -> Vec<Arc<dyn Tied>> {
        self.tied.load().iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(feature = "near-cache")]
impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for tied in self.ties.tied() {
            match &self.paths {
                Some(paths) => tied.wrote(paths),
                None => tied.wrote_everything(),
            }
        }
    }
}

#[cfg(not(feature = "near-cache"))]
#[allow(clippy::unused_self, reason = "there is somebody with the feature")]
impl Ties {
    pub(crate) fn writing(&self, _: impl FnOnce() -> Vec<String>) -> Writing<'_> {
        self.writing_everything()
    }

    pub(crate) fn writing_everything(&self) -> Writing<'_> {
        Writing {
            nobody: std::marker::PhantomData,
        }
    }
}
