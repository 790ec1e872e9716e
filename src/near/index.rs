//! All cached paths and their directories, over the connections of either facade.

use std::collections::HashSet;
use std::sync::Arc;

use super::announced::{AskMembership, Question};
use super::cache::{Listen, Near};
use super::clock::Tick;
use super::kept::{INDEX_PATH, Kept};
use super::life::Life;
use crate::commands::Members;
use crate::identity::ServerId;
use crate::resolution::PathIndex;
use crate::transport::Budget;
use crate::{Error, call, operations, reply};

impl<T: Listen> Near<T> {
    pub(crate) async fn paths(&self) -> Result<Arc<HashSet<String>>, Error> {
        let index = self.index(self.bulk_budget()).await?;
        Ok(Arc::clone(index.paths()))
    }

    pub(super) async fn index(&self, budget: Budget) -> Result<Arc<PathIndex>, Error> {
        if let Some(Kept::Index(index)) = self.life().protocol.kept(INDEX_PATH, Tick::now()) {
            return Ok(index);
        }
        let life = self.own_life();
        match self.look_up(life, INDEX_PATH, budget).await.1? {
            Kept::Index(index) => Ok(index),
            // Nothing else is kept there.
            Kept::Module(_) | Kept::Absent | Kept::Foreign(_) => Err(reply::unexpected()),
        }
    }

    /// Asks only for what was announced, if that is enough.
    pub(super) async fn ask_index(
        &self,
        life: &Life,
        budget: Budget,
    ) -> Result<(Arc<PathIndex>, Option<ServerId>), Error> {
        let (transport, protocol) = (&*self.transport, &life.protocol);
        let now = Tick::now();
        let epoch = protocol.session.begin_read(now);
        let mut whole = None;
        match epoch.map(|epoch| protocol.announcements.question(epoch, now)) {
            Some(Question::Update(asked, update)) => {
                let paths = &update.paths;
                let answer = call::read_within(transport, &AskMembership { paths }, budget).await;
                let (membership, server) = answer?;
                self.hear_from(life, server);
                // Another server's answer says nothing about this index.
                if protocol.session.accepts(asked.epoch, server)
                    && let Some(index) = protocol.announcements.updated(&asked, update, &membership)
                {
                    return Ok((index, server));
                }
                whole = Some(asked);
            }
            Some(Question::Whole(asked)) => whole = Some(asked),
            None => {}
        }
        let (members, server) = call::read_within(transport, &Members, budget).await?;
        self.hear_from(life, server);
        let bad = members.bad.iter().cloned().collect();
        let index = Arc::new(operations::listed(transport, members).into());
        if let Some(asked) = whole.filter(|asked| protocol.session.accepts(asked.epoch, server)) {
            protocol.announcements.listed(&asked, &index, bad);
        }
        Ok((index, server))
    }
}
