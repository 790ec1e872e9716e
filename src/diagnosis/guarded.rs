//! What a guard says of itself, as it is kept in Redis beside the mark of a complete cache.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::rfc3339;

/// A guard that keeps the cache equal to the database: `guard` of
/// [`Status`](super::status::Status). While it is there, what is wrong will be right in a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guarded {
    /// Since when, by the clock of the guard's machine; whole seconds.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub since: SystemTime,
    /// When it last had both servers, so that no change went unseen before; whole seconds.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub checked: SystemTime,
    /// How it learns of changed rows: `poll` or `listen`.
    pub feed: String,
    /// How many paths it had still to look at.
    pub pending: u64,
    /// How many cached modules without a row it does not remove, because they are too many.
    pub withheld: u64,
}

/// What is stored under [`GUARD_KEY`](crate::keys::GUARD_KEY).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardEntry {
    pub(crate) id: String,
    /// Seconds since 1970, as `checked`.
    pub(crate) since: u64,
    pub(crate) checked: u64,
    pub(crate) feed: String,
    pub(crate) pending: u64,
    pub(crate) withheld: u64,
    pub(crate) standby_ms: u64,
}

impl Guarded {
    /// `None` for what can't be read: a newer version may write something else, and no diagnosis
    /// should fail for that.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        let entry: GuardEntry = serde_json::from_slice(json).ok()?;
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Some(Self {
            since: at(entry.since)?,
            checked: at(entry.checked)?,
            feed: entry.feed,
            pending: entry.pending,
            withheld: entry.withheld,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_the_documented_form_and_is_none_in_another() {
        let json = r#"{"id":"a","since":1,"checked":2,"feed":"poll","pending":3,"withheld":4,"standby_ms":0}"#;
        let guarded = Guarded::read(json.as_bytes()).unwrap();
        assert_eq!((guarded.pending, guarded.withheld), (3, 4));
        assert_eq!(guarded.since, UNIX_EPOCH + Duration::from_secs(1));
        let entry: GuardEntry = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), json);
        let late = json.replace("\"since\":1", &format!("\"since\":{}", u64::MAX));
        for bad in ["", "{}", "7", &late] {
            assert_eq!(Guarded::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
