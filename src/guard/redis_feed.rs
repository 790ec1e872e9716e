//! Follows Redis as a near cache does, stores nothing, and puts what changed into the inbox.

use std::sync::Arc;

use super::inbox::Inbox;
use crate::client::Client;
use crate::error::Error;
use crate::near::cache::SpawnListener;
use crate::near::coherence::clock::Tick;
use crate::near::coherence::rule::Rules;
use crate::near::coherence::value::INDEX_PATH;
use crate::near::hooks::{ChangeSink, Registry};
use crate::near::instance::Instance;
use crate::near::options::NearCacheOptions;

/// Follows Redis until it is dropped.
pub(super) struct RedisFeed {
    instance: Arc<Instance>,
}

impl ChangeSink for Inbox {
    fn paths(&self, paths: &[String]) {
        if paths.iter().any(|path| path == INDEX_PATH) {
            self.index();
        }
        self.add(paths.iter().cloned());
    }

    fn everything(&self) {
        Inbox::everything(self);
    }
}

impl RedisFeed {
    pub(super) fn start<T: SpawnListener>(
        client: &Client<T>,
        inbox: &Arc<Inbox>,
    ) -> Result<Self, Error> {
        let options = NearCacheOptions::default();
        let sink: Arc<dyn ChangeSink> = Arc::clone(inbox) as _;
        let registry = Arc::new(Registry::with_sink(sink));
        let instance = Instance::new(&options, &registry, client.config(), Rules::default());
        let this = Self {
            instance: Arc::new(instance),
        };
        this.ensure(client)?;
        Ok(this)
    }

    /// Starts the listener again where it has ended, as after the end of a runtime.
    pub(super) fn ensure<T: SpawnListener>(&self, client: &Client<T>) -> Result<(), Error> {
        let spawn = |instance: &Arc<Instance>| client.transport.spawn_listener(instance);
        self.instance.ensure_listener(spawn)
    }

    /// Why Redis is not followed, or was not the last time.
    pub(super) fn failure(&self) -> Option<String> {
        self.instance.protocol.stats(Tick::now()).last_failure
    }

    /// Whether Redis is followed now.
    pub(super) fn is_live(&self) -> bool {
        self.instance.protocol.session.is_live(Tick::now())
    }
}

impl Drop for RedisFeed {
    fn drop(&mut self) {
        self.instance.stop();
    }
}
