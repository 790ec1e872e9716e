//! Tells users what changed, on a thread of its own behind a bounded queue: whatever a hook does
//! there, the listener goes on reading.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use arc_swap::ArcSwap;

/// What may have changed in Redis: what a hook of `NearCache::on_invalidate` is called with.
///
/// ```
/// use bifrost_module_cache::near::Invalidation;
///
/// let change = Invalidation::Paths(vec!["a.py".to_owned()]);
/// assert!(change.concerns("a.py") && !change.concerns("b.py"));
/// assert!(Invalidation::Everything.concerns("b.py"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation {
    /// The modules at these paths were written or removed.
    Paths(Vec<String>),
    /// Any module may have changed: Redis was flushed, the connection was lost or came back, or
    /// changes came faster than they were taken in.
    Everything,
}

impl Invalidation {
    /// Whether the module at `path` may have changed.
    #[must_use]
    pub fn concerns(&self, path: &str) -> bool {
        match self {
            Self::Paths(paths) => paths.iter().any(|changed| changed == path),
            Self::Everything => true,
        }
    }
}

type Hook = Arc<dyn Fn(&Invalidation) + Send + Sync>;

/// How many paths may wait before they become an [`Invalidation::Everything`]: a hook that hangs
/// must not make memory grow.
const CAPACITY: usize = 1_024;

/// Code of this crate that is told at once, in the listener's own thread or task: it must not wait.
pub(crate) trait ChangeSink: Send + Sync {
    /// These paths changed; the index may be among them.
    fn paths(&self, paths: &[String]);

    fn everything(&self);
}

/// The hooks of a near cache. A forked child takes them along and gives them a thread of its own,
/// so they stand behind an `ArcSwap`: a mutex might be inherited locked.
#[derive(Default)]
pub(crate) struct Registry {
    hooks: ArcSwap<Vec<Hook>>,
    sink: Option<Arc<dyn ChangeSink>>,
}

impl Registry {
    #[cfg(feature = "postgres")]
    pub(crate) fn with_sink(sink: Arc<dyn ChangeSink>) -> Self {
        Self {
            sink: Some(sink),
            ..Self::default()
        }
    }

    pub(crate) fn add(&self, hook: impl Fn(&Invalidation) + Send + Sync + 'static) {
        let hook: Hook = Arc::new(hook);
        self.hooks.rcu(|hooks| {
            let hooks = hooks.iter().chain([&hook]);
            hooks.cloned().collect::<Vec<_>>()
        });
    }
}

/// The invalidations that wait to be told to hooks, in one process.
pub(crate) struct Hooks {
    registry: Arc<Registry>,
    queue: Arc<Queue>,
}

/// The queue between the listener and the thread of the hooks.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Invalidation>,
    /// How many paths they name.
    paths: usize,
    has_thread: bool,
    closed: bool,
}

impl Hooks {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            queue: Arc::default(),
        }
    }

    /// Whether our own code is told, which then says itself what happens.
    pub(crate) fn have_sink(&self) -> bool {
        self.registry.sink.is_some()
    }

    /// All that was announced, the index included, of which users know nothing: for a sink alone.
    pub(crate) fn announced(&self, paths: &[String]) {
        if let Some(sink) = &self.registry.sink {
            sink.paths(paths);
        }
    }

    pub(crate) fn paths(&self, paths: Vec<String>) {
        if !paths.is_empty() {
            self.tell(Some(paths));
        }
    }

    pub(crate) fn everything(&self) {
        if let Some(sink) = &self.registry.sink {
            sink.everything();
        }
        self.tell(None);
    }

    /// Queues an invalidation, `None` for everything. Never waits: the listener calls it.
    fn tell(&self, paths: Option<Vec<String>>) {
        if self.registry.hooks.load().is_empty() {
            return;
        }
        let mut state = self.queue.lock();
        match paths {
            Some(paths) if state.waiting.is_empty() || state.paths + paths.len() <= CAPACITY => {
                state.paths += paths.len();
                state.waiting.push_back(Invalidation::Paths(paths));
            }
            // `Everything` covers all that waits, so it replaces it. A single message of more paths
            // than fit is told by name all the same, if nothing else waits.
            _ => {
                state.waiting.clear();
                state.paths = 0;
                state.waiting.push_back(Invalidation::Everything);
            }
        }
        drop(state);
        self.queue.news.notify_one();
    }

    /// Starts the thread, if there is something for it to do and it does not run.
    pub(crate) fn start(&self) -> io::Result<()> {
        if self.registry.hooks.load().is_empty() {
            return Ok(());
        }
        let mut state = self.queue.lock();
        if !state.has_thread {
            let (registry, queue) = (Arc::clone(&self.registry), Arc::clone(&self.queue));
            thread::Builder::new()
                .name("bifrost-near-hooks".to_owned())
                .spawn(move || serve(&registry, &queue))?;
            // Set after the thread has been started: a failure is tried again at the next call.
            state.has_thread = true;
        }
        Ok(())
    }

    /// Ends the thread, once the hook that it calls just now returns.
    pub(crate) fn stop(&self) {
        self.queue.lock().closed = true;
        self.queue.news.notify_one();
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next; `None` when it is over.
    fn next(&self) -> Option<Invalidation> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.waiting.pop_front() {
                if let Invalidation::Paths(paths) = &next {
                    state.paths -= paths.len();
                }
                return Some(next);
            }
            let woken = self.news.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread of the hooks. A hook that panics is logged and must not silence the others, nor end
/// the thread.
fn serve(registry: &Registry, queue: &Queue) {
    while let Some(invalidation) = queue.next() {
        for hook in registry.hooks.load_full().iter() {
            if catch_unwind(AssertUnwindSafe(|| hook(&invalidation))).is_err() {
                log::error!("A hook for invalidations panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_full_queue_becomes_one_that_names_everything() {
        let registry = Arc::new(Registry::default());
        let hooks = Hooks::new(Arc::clone(&registry));
        hooks.paths(vec!["before a hook.py".into()]);
        let (sender, told) = mpsc::channel();
        registry.add(move |invalidation| sender.send(invalidation.clone()).unwrap());
        let path = |n: usize| format!("{n}.py");
        for n in 0..CAPACITY {
            hooks.paths(vec![path(n)]);
        }
        assert_eq!(hooks.queue.lock().waiting.len(), CAPACITY);
        hooks.paths(vec![path(0), path(1)]);
        hooks.paths(vec![path(9)]);
        hooks.start().unwrap();
        assert_eq!(told.recv().unwrap(), Invalidation::Everything);
        assert_eq!(told.recv().unwrap(), Invalidation::Paths(vec![path(9)]));
        drop(hooks);
    }

    #[test]
    fn a_hook_that_panics_does_not_silence_the_others() {
        let registry = Arc::new(Registry::default());
        let hooks = Hooks::new(Arc::clone(&registry));
        registry.add(|_| panic!("on purpose"));
        let (sender, told) = mpsc::channel();
        registry.add(move |invalidation| sender.send(invalidation.clone()).unwrap());
        hooks.start().unwrap();
        hooks.everything();
        hooks.paths(vec!["a.py".into()]);
        assert!(told.recv().unwrap().concerns("a.py"));
        assert!(!told.recv().unwrap().concerns("b.py"));
    }
}
