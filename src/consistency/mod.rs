//! How the cache is brought to what the database says, and kept there, while others write.
//!
//! Two pieces carry everything: [`inspect`] tells what Redis holds and how that compares with a
//! row; [`settle`] brings paths to what a source says now, under WATCH, so that whoever writes in
//! between wins. Warm-up, verification and repair are made of them.

mod absence;
#[cfg(feature = "postgres")]
mod diagnose;
mod eviction;
mod exact;
mod inspect;
mod json;
mod mark;
mod options;
mod publish;
mod report;
mod settle;
mod survey;
#[cfg(feature = "postgres")]
mod verify;
#[cfg(feature = "postgres")]
mod warm;

pub use absence::{Explanation, Status};
#[cfg(feature = "postgres")]
pub use diagnose::{Cause, Diagnosis, RowState};
pub use options::{Progress, Stage, SyncOptions};
pub use publish::Change;
pub use report::{
    Drift, DryRun, Endpoints, PublishReport, RefreshReport, RepairReport, Unverified, WarmReport,
};

pub(crate) use absence::{explain, explain_all, status};
#[cfg(feature = "postgres")]
pub(crate) use diagnose::{Row, diagnose};
pub(crate) use exact::publish_exact;
pub(crate) use mark::run_id;
pub(crate) use publish::publish;
pub(crate) use settle::{Fetch, refresh, unread};
#[cfg(feature = "postgres")]
pub(crate) use verify::{repair, verify};
#[cfg(feature = "postgres")]
pub(crate) use warm::warm;

use crate::{CachedModule, Config, Error};

/// How many modules one batch holds at most.
pub(crate) const BATCH_MODULES: usize = 200;

/// How many bytes of content one batch holds at most, unless a single module is larger.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// In which order paths are fetched, so much at once.
#[derive(Default)]
pub(crate) struct Plan {
    /// Those that have a module.
    pub(crate) batches: Vec<Vec<String>>,
    /// Those that had none when the plan was made.
    pub(crate) rowless: Vec<Vec<String>>,
}

/// What a source has.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) modules: Vec<CachedModule>,
    /// How many more there are that are larger than the limit.
    pub(crate) too_large: usize,
}

/// Where the truth about modules is read.
pub(crate) trait Source {
    /// Which database that is, if it is one.
    fn server(&self) -> Option<&str> {
        None
    }

    /// Nothing is read by it that may be older than a watch.
    async fn plan(&mut self, paths: Vec<String>, _: &Config) -> Result<Plan, Error> {
        Ok(Plan {
            batches: paths.chunks(BATCH_MODULES).map(<[_]>::to_vec).collect(),
            ..Plan::default()
        })
    }

    /// The current modules of these paths; a path that has none is left out.
    async fn fetch(&mut self, paths: &[String]) -> Result<Fetched, Error>;
}

/// Cuts into batches bounded by count and bytes.
pub(crate) fn batches<T>(
    items: impl IntoIterator<Item = T>,
    most: usize,
    most_bytes: usize,
    size: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = size(&item);
        if batch.len() == most || (!batch.is_empty() && bytes + more > most_bytes) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// A random number, good enough for jitter and for a name that nobody else takes.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::time::{SystemTime, UNIX_EPOCH};
    let mut hasher = RandomState::new().build_hasher();
    // Children of one process inherit the same state.
    hasher.write_u32(std::process::id());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    hasher.write_u128(now.unwrap_or_default().as_nanos());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_keep_order_and_bounds(sizes in prop::collection::vec(0..2 * BATCH_BYTES, 0..600)) {
            let cut = batches(sizes.clone(), BATCH_MODULES, BATCH_BYTES, |size| *size);
            prop_assert_eq!(cut.concat(), sizes);
            for batch in &cut {
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_MODULES);
                prop_assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES);
            }
        }
    }

    #[test]
    fn small_modules_fill_batches() {
        assert_eq!(
            batches(vec![1; 401], BATCH_MODULES, BATCH_BYTES, |size| *size)
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>(),
            [200, 200, 1]
        );
    }
}
