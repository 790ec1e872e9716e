//! All cached paths and their directories, from memory where the index is stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Near, SpawnListener};
use super::coherence::clock::Tick;
use super::coherence::index_delta::{AskMembership, Question};
use super::coherence::value::{Cached, INDEX_PATH};
use super::instance::Instance;
use crate::client::transport::Budget;
use crate::client::{call, read};
use crate::command::index::Members;
use crate::command::reply;
use crate::command::server_id::ServerId;
use crate::error::Error;
use crate::paths::index::PathIndex;
use crate::paths::listing::Listing;
use crate::resolution::resolve;

impl<T: SpawnListener> Near<T> {
    pub(crate) async fn paths(&self) -> Result<Arc<HashSet<String>>, Error> {
        let index = self.index(self.bulk_budget()).await?;
        Ok(Arc::clone(index.paths()))
    }

    /// The index for resolving names. Where it is too large to be stored, it would be fetched for
    /// each unknown name; so the reader's listing is used, which may be as old as `index_max_age`.
    pub(super) async fn directories(
        &self,
        instance: &Instance,
        budget: Budget,
    ) -> Result<Arc<PathIndex>, Error> {
        match self.client.listings.last() {
            Some(last) if !instance.protocol.admits(&last.index) => {
                let listing = resolve::listing(&*self.client, budget).await?;
                Ok(Arc::clone(&listing.index))
            }
            _ => self.index(budget).await,
        }
    }

    /// The index: a hit, or read once for all callers that want it, as a path is.
    async fn index(&self, budget: Budget) -> Result<Arc<PathIndex>, Error> {
        if let Some(Cached::Index(index, _)) =
            self.instance().protocol.cached(INDEX_PATH, Tick::now())
        {
            return Ok(index);
        }
        let instance = self.own_instance();
        match self.look_up(instance, INDEX_PATH, budget).await.1? {
            Cached::Index(index, _) => Ok(index),
            // `ask_index` stores only an index there, and no module has that path.
            Cached::Module(_) | Cached::Absent | Cached::Negative(_) => Err(reply::unexpected()),
        }
    }

    /// Asks Redis for the index: only whether the paths that were announced are in it, if that is
    /// enough to bring the last one up to date, else for the whole.
    pub(super) async fn ask_index(
        &self,
        instance: &Instance,
        budget: Budget,
    ) -> Result<(Cached, Option<ServerId>), Error> {
        let (client, protocol) = (&*self.client, &instance.protocol);
        let index_delta = &protocol.index_delta;
        let (now, taken) = (Tick::now(), Instant::now());
        // Without a session no base can be brought up to date: the whole index is asked for.
        let epoch = protocol.session.begin_read(now);
        let whole = match epoch.map(|epoch| index_delta.question(epoch, now)) {
            Some(Question::Update(asked, update)) => {
                let paths = &update.paths;
                let answer = call::read_within(client, &AskMembership { paths }, budget).await;
                match answer {
                    Ok((members, server)) => {
                        self.check_server(instance, server);
                        // Another server's answer says nothing about the index of the one followed.
                        if protocol.session.accepts(asked.epoch, server) {
                            let (index, listed) = index_delta.updated(asked, update, &members);
                            return Ok((Cached::Index(index, listed), server));
                        }
                    }
                    // An ACL may forbid SMISMEMBER, and Redis before 6.2 does not know it.
                    Err(error) if error.is_refused() => index_delta.refused(),
                    Err(error) => return Err(error),
                }
                // The update was refused, or came from another server: ask for the whole.
                Some(asked)
            }
            Some(Question::Whole(asked)) => Some(asked),
            None => None,
        };
        let (members, server) = call::read_within(client, &Members, budget).await?;
        self.check_server(instance, server);
        let index = Arc::new(PathIndex::from(read::listed(client, members)));
        // Too large to be stored: `directories` looks for it in the listings.
        if !protocol.admits(&index) {
            let index = Arc::clone(&index);
            client.listings.set(Listing { index, taken });
        } else if let Some(asked) = whole
            && protocol.session.accepts(asked.epoch, server)
        {
            index_delta.listed(asked, &index);
        }
        Ok((Cached::Index(index, now), server))
    }
}
