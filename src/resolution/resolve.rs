//! Resolves names: one round trip for the modules, and the index at most once in `index_max_age`.
//!
//! Most names that Python asks for are not ours. Each of them needs the index, to know that it is
//! no namespace, so a listing is shared by all clones, and only one call at a time fetches the next
//! one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Resolution;
use super::lookup::Lookup;
use crate::client::Client;
use crate::client::call;
use crate::client::read::{listed, served};
use crate::client::transport::{Budget, Transport};
use crate::command::reply;
use crate::command::request::Class;
use crate::error::Error;
use crate::module::CachedModule;
use crate::paths::listing::{Claim, Listing};
use crate::paths::name::Name;

/// How often a call that waits looks whether another one has fetched the index: a fraction of what
/// fetching takes.
const GLANCE: Duration = Duration::from_millis(1);

pub(crate) async fn resolve<T: Transport>(
    client: &Client<T>,
    name: &str,
) -> Result<Resolution, Error> {
    let budget = Budget::new(client.config(), Class::Lookup);
    let mut answers = resolve_all(client, &[name], budget).await?;
    Ok(answers.pop().unwrap_or(Resolution::NotFound))
}

pub(crate) async fn resolve_many<T: Transport, S: AsRef<str>>(
    client: &Client<T>,
    names: &[S],
) -> Result<Vec<Resolution>, Error> {
    let budget = Budget::new(client.config(), Class::Bulk);
    resolve_all(client, names, budget).await
}

/// Resolves names within a budget that may be that of a larger call. What can't be a path is not
/// found, without a question to Redis.
pub(crate) async fn resolve_all<T: Transport, S: AsRef<str>>(
    client: &Client<T>,
    names: &[S],
    budget: Budget,
) -> Result<Vec<Resolution>, Error> {
    let mut answers = vec![Resolution::NotFound; names.len()];
    let possible = |(i, name): (usize, &S)| Some((i, Name::parse(name.as_ref())?));
    let (places, names): (Vec<usize>, Vec<Name>) =
        names.iter().enumerate().filter_map(possible).unzip();
    if names.is_empty() {
        return Ok(answers);
    }
    let call = Call {
        client,
        budget,
        start: Instant::now(),
    };
    // In the same round trip where that is likely to be needed, and no other call fetches it.
    let claim = call.may_need_index(&names).then(|| call.claim()).flatten();
    let (modules, mut asked) = call.ask(&names, claim).await?;
    let mut listing = None;
    for ((place, name), module) in places.into_iter().zip(&names).zip(modules) {
        answers[place] = if let Some(module) = module {
            served(client, Some(&module))?;
            Resolution::sourced(name, Arc::new(module))
        } else {
            let listing = match &mut listing {
                Some(listing) => listing,
                none => none.insert(call.listing(asked.take()).await?),
            };
            Resolution::without_source(name, &listing.index)
        };
        if matches!(answers[place], Resolution::NotFound) {
            // Only a name that stands for nothing counts as absent: a namespace is an answer.
            served(client, None)?;
        }
    }
    Ok(answers)
}

/// The index, as old as `index_max_age` permits.
#[cfg(feature = "near-cache")]
pub(crate) async fn listing<T: Transport>(
    client: &Client<T>,
    budget: Budget,
) -> Result<Arc<Listing>, Error> {
    let call = Call {
        client,
        budget,
        start: Instant::now(),
    };
    call.listing(None).await
}

/// The modules of the names, and the index if it was asked for.
type Answer = (
    Vec<Option<CachedModule>>,
    Option<Result<Arc<Listing>, Error>>,
);

/// One call, of at most two requests.
struct Call<'a, T> {
    client: &'a Client<T>,
    budget: Budget,
    start: Instant,
}

impl<'a, T: Transport> Call<'a, T> {
    fn fresh(&self) -> Option<Arc<Listing>> {
        let max_age = self.client.config().index_max_age;
        self.client.listings.fresh(self.start, max_age)
    }

    /// Whether the call probably needs a fresh index, so that it is better asked for in the same
    /// round trip. A name that an old listing has a path for will most likely be found, and then
    /// needs none.
    fn may_need_index(&self, names: &[Name]) -> bool {
        let listings = &self.client.listings;
        // The last attempt to fetch the index failed. Asked for together with the modules it could
        // fail again and take them along.
        if listings.are_failing() {
            return false;
        }
        let Some(last) = listings.last() else {
            return true;
        };
        let is_listed = |name: &Name| name.candidates().any(|path| last.index.contains(path));
        self.fresh().is_none() && !names.iter().all(is_listed)
    }

    /// The right to fetch the index, if it is needed and no other call has it.
    fn claim(&self) -> Option<Claim<'a>> {
        let max_age = self.client.config().index_max_age;
        self.client.listings.claim(self.start, max_age)
    }

    /// The modules of the names; with a claim, the index in the same round trip.
    async fn ask(&self, names: &[Name], claim: Option<Claim<'a>>) -> Result<Answer, Error> {
        let lookup = Lookup {
            names,
            with_index: claim.is_some(),
            class: self.budget.class,
        };
        let taken = Instant::now();
        let reply = call::read_within(self.client, &lookup, self.budget).await;
        let Some(claim) = claim else {
            return Ok((reply?.0.modules, None));
        };
        let (reply, _) = reply.inspect_err(|_| claim.failed())?;
        let listing = match reply.index.unwrap_or_else(|| Err(reply::unexpected())) {
            Ok(members) => {
                let index = Arc::new(listed(self.client, members).into());
                Ok(claim.set(Listing { index, taken }))
            }
            Err(error) => {
                claim.failed();
                Err(error)
            }
        };
        Ok((reply.modules, Some(listing)))
    }

    /// A fresh listing: the one that came with the modules, one that another call fetches
    /// meanwhile, or one that this call fetches now.
    async fn listing(
        &self,
        mut asked: Option<Result<Arc<Listing>, Error>>,
    ) -> Result<Arc<Listing>, Error> {
        loop {
            if let Some(listing) = asked {
                return call::counted(self.client, listing);
            }
            if let Some(listing) = self.fresh() {
                return Ok(listing);
            }
            let left = self.budget.left();
            if left.is_zero() {
                return call::counted(self.client, Err(reply::timed_out()));
            }
            // Another call is fetching it. Looking again is cheap, and works alike in both facades
            // and in a forked child, where nothing would wake a waiter.
            let Some(claim) = self.claim() else {
                self.client.transport.pause(GLANCE.min(left)).await;
                continue;
            };
            (_, asked) = self.ask(&[], Some(claim)).await?;
        }
    }
}
