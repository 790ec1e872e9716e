//! The near cache of one process. A forked child has a life of its own: it inherits neither the
//! thread that follows Redis nor the right to touch a lock, which a thread that it doesn't have
//! may hold for ever.

use std::process;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::race::OnceBox;

use super::coherence::protocol::Protocol;
use super::coherence::rule::Rules;
use super::hooks::{Hooks, Registry};
use super::options::NearCacheOptions;
use crate::error::Error;

pub(crate) struct Instance {
    process: u32,
    pub(crate) protocol: Protocol,
    pub(crate) hooks: Hooks,
    listener: Mutex<Option<Box<dyn ListenerHandle>>>,
    /// What follows Redis has start. In a child that was forked while its parent started a
    /// thread, none ever does: the standard library holds a lock meanwhile.
    pub(crate) has_begun: AtomicBool,
    child: OnceBox<Arc<Instance>>,
}

/// What follows Redis: a thread or a task, which ends when this is dropped.
pub(crate) trait ListenerHandle: Send + Sync {
    /// Has it look whether somebody wants something.
    fn wake(&self);

    fn has_ended(&self) -> bool;
}

impl Instance {
    pub(crate) fn new(options: &NearCacheOptions, registry: &Arc<Registry>, rules: Rules) -> Self {
        Self {
            process: process::id(),
            protocol: Protocol::new(options.clone(), rules),
            hooks: Hooks::new(Arc::clone(registry)),
            listener: Mutex::new(None),
            has_begun: AtomicBool::new(false),
            child: OnceBox::new(),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    pub(crate) fn child(&self) -> Option<&Arc<Self>> {
        self.child.get()
    }

    pub(crate) fn child_or_init(&self, instance: impl FnOnce() -> Self) -> &Arc<Self> {
        self.child.get_or_init(|| Box::new(Arc::new(instance())))
    }

    /// Starts to follow Redis, unless that goes on already.
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
