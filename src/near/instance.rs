//! The near cache of one process. A forked child has an instance of its own: it inherits neither
//! the thread that follows Redis nor the right to touch a lock, which a thread that it doesn't have
//! may hold for ever.

use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::race::OnceBox;

use super::coherence::message::Heartbeat;
use super::coherence::protocol::Protocol;
use super::coherence::rule::Rules;
use super::hooks::{Hooks, Registry};
use super::options::NearCacheOptions;
use crate::config::Config;
use crate::config::place::Place;
use crate::error::Error;
use crate::keys::Keys;

/// All that belongs to one process: what is stored, the listener, and the queue of the hooks.
pub(crate) struct Instance {
    process: u32,
    pub(crate) protocol: Protocol,
    pub(crate) hooks: Hooks,
    pub(crate) keys: Arc<Keys>,
    pub(crate) heartbeat: Heartbeat,
    listener: Mutex<Option<Box<dyn ListenerHandle>>>,
    /// Whether the listener has begun to run. In a child that was forked while its parent started a
    /// thread, none ever does: the standard library held a lock meanwhile, which the child inherits
    /// locked. The thread is spawned, and hangs there.
    pub(crate) has_begun: AtomicBool,
    /// The instance of a forked child, in the child's copy of this one. A `OnceBox` takes no lock,
    /// which a `OnceLock` might find held.
    child: OnceBox<Arc<Instance>>,
}

/// The listener of a facade: a thread or a task, which ends when this is dropped.
pub(crate) trait ListenerHandle: Send + Sync {
    /// Has the listener look at once whether a caller wants a heartbeat or an end of the session.
    fn wake(&self);

    /// True if it will never follow Redis again, as after the end of the runtime that ran it.
    fn has_ended(&self) -> bool;
}

impl Instance {
    pub(crate) fn new(
        options: &NearCacheOptions,
        registry: &Arc<Registry>,
        config: &Config,
        rules: Rules,
    ) -> Self {
        Self {
            process: process::id(),
            protocol: Protocol::new(options.clone(), rules),
            hooks: Hooks::new(Arc::clone(registry)),
            keys: Arc::clone(&config.keys),
            heartbeat: match config.place {
                Place::Fixed | Place::Sentinels(_) => Heartbeat::Reign,
                Place::Cluster(_) => Heartbeat::Owner,
            },
            listener: Mutex::new(None),
            has_begun: AtomicBool::new(false),
            child: OnceBox::new(),
        }
    }

    /// Whether this process made it. Asks the system, which takes longer than a hit: not for the
    /// hot path.
    pub(crate) fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    pub(crate) fn child(&self) -> Option<&Arc<Self>> {
        self.child.get()
    }

    /// The child's instance, made by the first thread that needs it. Two threads may both make one:
    /// the first counts.
    pub(crate) fn child_or_init(&self, instance: impl FnOnce() -> Self) -> &Arc<Self> {
        self.child.get_or_init(|| Box::new(Arc::new(instance())))
    }

    /// Starts a listener, unless one runs already. Takes a lock, so only in the instance's own
    /// process.
    pub(crate) fn ensure_listener(
        self: &Arc<Self>,
        start: impl FnOnce(&Arc<Self>) -> Result<Box<dyn ListenerHandle>, Error>,
    ) -> Result<(), Error> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener
            .as_ref()
            .is_none_or(|listener| listener.has_ended())
        {
            *listener = Some(start(self)?);
        }
        Ok(())
    }

    pub(crate) fn wake(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = &*listener {
            listener.wake();
        }
    }

    /// Ends the threads of this instance.
    pub(crate) fn stop(&self) {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(listener);
        self.hooks.stop();
    }
}
