//! Leaves entries alone that a writer may be about to commit.
//!
//! A service that writes to Redis before it commits makes an entry that differs from its row for
//! some milliseconds. Mended at once, readers would see the new value, the old one and the new one
//! again. So transactions that are open are waited for, each as long as the grace and no longer: a
//! report that runs for an hour holds nothing up but the first time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::client::transport::Transport;
use crate::database::workspace::{Database, Workspace};
use crate::error::Error;

/// How often it is looked whether they have ended: soon at first, because most end soon.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// The transactions that were open at the last look, and when each was first seen.
#[derive(Debug, Default)]
pub(super) struct Grace {
    seen: HashMap<String, Instant>,
}

/// Who was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// Nobody was there.
    ForNobody,
    /// All have ended.
    UntilTheEnd,
    /// Some have not, and were given their time.
    InVain,
}

impl Grace {
    /// Waits until each transaction that is open now has ended or had its time.
    pub(super) async fn wait<T: Transport, D: Database>(
        &mut self,
        transport: &T,
        workspace: &mut Workspace<D>,
        grace: Duration,
    ) -> Result<Waited, Error> {
        if grace.is_zero() {
            return Ok(Waited::ForNobody);
        }
        let open = workspace.open_transactions().await?;
        let mut young = self.look(open.clone(), grace, Instant::now());
        if young.is_empty() {
            let nobody = open.is_empty();
            return Ok(if nobody {
                Waited::ForNobody
            } else {
                Waited::InVain
            });
        }
        let mut pause = FIRST_PAUSE;
        loop {
            transport.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let open = workspace.open_transactions().await?;
            let still_young = self.look(open.clone(), grace, Instant::now());
            // Those that began meanwhile have not written what was seen before.
            young.retain(|transaction| open.contains(transaction));
            if young.is_empty() {
                return Ok(Waited::UntilTheEnd);
            }
            if !young.iter().any(|it| still_young.contains(it)) {
                return Ok(Waited::InVain);
            }
        }
    }

    /// Notes who is open now; answers who of them has time left.
    fn look(&mut self, open: Vec<String>, grace: Duration, now: Instant) -> Vec<String> {
        let before = std::mem::take(&mut self.seen);
        for transaction in open {
            let first = before.get(&transaction).copied().unwrap_or(now);
            self.seen.insert(transaction, first);
        }
        let young = self.seen.iter().filter(|(_, first)| now - **first < grace);
        young.map(|(transaction, _)| transaction.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transaction_has_its_time_once() {
        let mut grace = Grace::default();
        let (limit, start) = (Duration::from_millis(250), Instant::now());
        let mut look = |open: &[&str], ms| {
            let open = open.iter().map(|it| (*it).to_owned()).collect();
            let mut young = grace.look(open, limit, start + Duration::from_millis(ms));
            young.sort_unstable();
            young.concat()
        };
        assert_eq!(look(&["a"], 0), "a");
        assert_eq!(look(&["a", "b"], 249), "ab");
        assert_eq!(
            look(&["a", "b"], 250),
            "b",
            "a report is not waited for again"
        );
        assert_eq!(look(&["a"], 900), "");
        // Its name is used again by another transaction, once it has ended.
        assert_eq!(look(&[], 901), "");
        assert_eq!(look(&["a"], 902), "a");
    }
}
