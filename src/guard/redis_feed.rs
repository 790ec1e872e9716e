//! Follows Redis as a near cache does, stores nothing, and puts what changed into the inbox.

use std::sync::Arc;

use redis::{Pipeline, Value};

use super::inbox::Inbox;
use crate::client::Client;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::command::server_id::{ServerId, ask_server_id, server_id};
use crate::config::Config;
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

    /// Whether another server is followed than this one: after a failover, the old one may keep its
    /// connections, and announces nothing of what its successor is told. It is left then.
    pub(super) fn suspects(&self, server: Option<ServerId>) -> bool {
        let is_other = self.instance.protocol.session.suspects(server);
        if is_other {
            self.instance.wake();
        }
        is_other
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

/// Asks a server who it is.
pub(super) struct Identify;

impl Command for Identify {
    /// `None` where it does not tell.
    type Reply = Option<ServerId>;

    fn operation(&self) -> &'static str {
        "identify"
    }

    fn request(&self, _: &Config) -> Request {
        let mut pipeline = Pipeline::with_capacity(2);
        ask_server_id(&mut pipeline);
        Request {
            pipeline,
            class: Class::Bulk,
        }
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<Self::Reply, Error> {
        server_id(reply::exactly(replies)?)
    }
}
