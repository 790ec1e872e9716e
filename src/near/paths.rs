//! All cached paths and their directories, over the connections of either facade.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Listen, Near};
use super::coherence::clock::Tick;
use super::coherence::index_delta::{AskMembership, Question};
use super::coherence::value::{INDEX_PATH, Kept};
use super::instance::Life;
use crate::client::transport::Budget;
use crate::client::{call, read};
use crate::command::index::Members;
use crate::command::reply;
use crate::command::server_id::ServerId;
use crate::error::Error;
use crate::paths::index::PathIndex;
use crate::paths::listing::Listing;
use crate::resolution::resolve;

impl<T: Listen> Near<T> {
    pub(crate) async fn paths(&self) -> Result<Arc<HashSet<String>>, Error> {
        let index = self.index(self.bulk_budget()).await?;
        Ok(Arc::clone(index.paths()))
    }

    /// For names: where the index is too large to be kept, as old as a reader's may be.
    pub(super) async fn directories(
        &self,
        life: &Life,
        budget: Budget,
    ) -> Result<Arc<PathIndex>, Error> {
        match self.transport.listings().last() {
            Some(last) if !life.protocol.admits(&last.index) => {
                let listing = resolve::listing(&*self.transport, budget).await?;
                Ok(Arc::clone(&listing.index))
            }
            _ => self.index(budget).await,
        }
    }

    async fn index(&self, budget: Budget) -> Result<Arc<PathIndex>, Error> {
        if let Some(Kept::Index(index, _)) = self.life().protocol.kept(INDEX_PATH, Tick::now()) {
            return Ok(index);
        }
        let life = self.own_life();
        match self.look_up(life, INDEX_PATH, budget).await.1? {
            Kept::Index(index, _) => Ok(index),
            // Nothing else is kept there.
            Kept::Module(_) | Kept::Absent | Kept::Foreign(_) => Err(reply::unexpected()),
        }
    }

    /// The index. Asks only for what was announced, if that is enough.
    pub(super) async fn ask_index(
        &self,
        life: &Life,
        budget: Budget,
    ) -> Result<(Kept, Option<ServerId>), Error> {
        let (transport, protocol) = (&*self.transport, &life.protocol);
        let announcements = &protocol.announcements;
        let (now, taken) = (Tick::now(), Instant::now());
        let epoch = protocol.session.begin_read(now);
        let whole = match epoch.map(|epoch| announcements.question(epoch, now)) {
            Some(Question::Update(asked, update)) => {
                let paths = &update.paths;
                let answer = call::read_within(transport, &AskMembership { paths }, budget).await;
                match answer {
                    Ok((members, server)) => {
                        self.hear_from(life, server);
                        // Another server's answer says nothing about this index.
                        if protocol.session.accepts(asked.epoch, server) {
                            let (index, listed) = announcements.updated(asked, update, &members);
                            return Ok((Kept::Index(index, listed), server));
                        }
                    }
                    // An ACL may forbid it, and Redis before 6.2 does not know it.
                    Err(error) if error.is_refused() => announcements.refused(),
                    Err(error) => return Err(error),
                }
                Some(asked)
            }
            Some(Question::Whole(asked)) => Some(asked),
            None => None,
        };
        let (members, server) = call::read_within(transport, &Members, budget).await?;
        self.hear_from(life, server);
        let index = Arc::new(PathIndex::from(read::listed(transport, members)));
        if !protocol.admits(&index) {
            let index = Arc::clone(&index);
            transport.listings().keep(Listing { index, taken });
        } else if let Some(asked) = whole
            && protocol.session.accepts(asked.epoch, server)
        {
            announcements.listed(asked, &index);
        }
        Ok((Kept::Index(index, now), server))
    }
}
