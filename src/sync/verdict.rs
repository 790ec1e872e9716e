//! How what Redis holds for a path differs from what it should hold.
//!
//! Values are compared as bytes first and decoded only where the bytes differ, so a cache that is
//! right costs no JSON.

use std::collections::HashMap;

use super::inspect::Cached;
use crate::config::Config;
use crate::module::CachedModule;

/// How a path's entry differs from its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The entry equals the row, or there is neither.
    Right,
    /// A row without an entry.
    Missing,
    /// An entry that says something else than its row.
    Stale,
    /// An entry that can't be read.
    Corrupt,
    /// An entry without a row.
    Ghost,
    /// A place in the index, and neither entry nor row.
    IndexOnly,
    /// An entry that equals its row and has no place in the index.
    KeyOnly,
    /// An entry that equals its row and will expire otherwise than our setting wants.
    Expiring,
}

#[cfg(feature = "postgres")]
impl Verdict {
    /// True where a row is not what a reader gets.
    pub(super) fn is_wrong(self) -> bool {
        matches!(self, Self::Missing | Self::Stale | Self::Corrupt)
    }
}

impl Cached {
    /// `row` is what the entry should say; `None` if there should be none.
    pub(crate) fn compare(
        &self,
        row: Option<&CachedModule>,
        config: &Config,
        path: &str,
    ) -> Verdict {
        match (&self.value, row) {
            (None, Some(_)) => Verdict::Missing,
            (None, None) if self.listed => Verdict::IndexOnly,
            (None, None) => Verdict::Right,
            (Some(_), None) => Verdict::Ghost,
            (Some(json), Some(_)) if json.len() > config.max_entry_bytes() => Verdict::Corrupt,
            (Some(json), Some(row)) if !row.is_encoded_as(json) => {
                // A foreign writer may encode the same module otherwise: Python's json.dumps adds
                // blanks and escapes.
                match CachedModule::from_json(path, json) {
                    Err(_) => Verdict::Corrupt,
                    Ok(entry) if entry != *row => Verdict::Stale,
                    Ok(_) => self.place(config),
                }
            }
            (Some(_), Some(_)) => self.place(config),
        }
    }

    /// The verdict on an entry that equals its row: is it listed, and does it expire as we want?
    fn place(&self, config: &Config) -> Verdict {
        if !self.listed {
            Verdict::KeyOnly
        } else if !self.lives_as_it_should(config) {
            Verdict::Expiring
        } else {
            Verdict::Right
        }
    }

    /// With a time to live of ours an entry is renewed once half of it has passed, so that a
    /// cache that is warmed again in time never runs out.
    fn lives_as_it_should(&self, config: &Config) -> bool {
        match (config.ttl, self.ttl) {
            (None, left) => left.is_none(),
            (Some(ttl), Some(left)) => left <= ttl && left >= ttl / 2,
            (Some(_), None) => false,
        }
    }
}

/// Rows by their path, without those that can't be cached: of a path that was not asked for, or
/// larger than the limit. Answers how many were too large.
pub(crate) fn cacheable<'a>(
    rows: &'a [CachedModule],
    paths: &[String],
    config: &Config,
) -> (HashMap<&'a str, &'a CachedModule>, usize) {
    let mut by_path: HashMap<&str, &CachedModule> =
        rows.iter().map(|row| (row.path.as_str(), row)).collect();
    let asked: std::collections::HashSet<&str> = paths.iter().map(String::as_str).collect();
    by_path.retain(|path, _| asked.contains(path));
    let before = by_path.len();
    by_path.retain(|path, row| {
        let fits = row.content.len() <= config.max_content_bytes;
        if !fits {
            log::warn!(
                "Skipped module {path:?}: its content has {} bytes, more than the limit",
                row.content.len()
            );
        }
        fits
    });
    let too_large = before - by_path.len();
    (by_path, too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn config() -> Config {
        Config::new("redis://localhost").unwrap()
    }

    fn row(content: &str) -> CachedModule {
        CachedModule::with_hash("a.py", content, "h").unwrap()
    }

    fn cached(value: Option<&CachedModule>) -> Cached {
        Cached {
            value: value.map(CachedModule::to_json),
            listed: true,
            ttl: None,
        }
    }

    fn verdict(cached: &Cached, row: Option<&CachedModule>) -> Verdict {
        cached.compare(row, &config(), "a.py")
    }

    #[test]
    fn each_difference_has_its_verdict() {
        let new = row("new");
        assert_eq!(verdict(&cached(Some(&new)), Some(&new)), Verdict::Right);
        assert_eq!(verdict(&cached(None), Some(&new)), Verdict::Missing);
        assert_eq!(
            verdict(&cached(Some(&row("old"))), Some(&new)),
            Verdict::Stale
        );
        assert_eq!(verdict(&cached(Some(&new)), None), Verdict::Ghost);
        assert_eq!(verdict(&cached(None), None), Verdict::IndexOnly);
        assert_eq!(
            verdict(
                &Cached {
                    listed: false,
                    ..cached(None)
                },
                None
            ),
            Verdict::Right
        );
        assert_eq!(
            verdict(
                &Cached {
                    listed: false,
                    ..cached(Some(&new))
                },
                Some(&new)
            ),
            Verdict::KeyOnly
        );
        assert_eq!(
            verdict(
                &Cached {
                    value: Some(b"{".to_vec()),
                    ..cached(None)
                },
                Some(&new)
            ),
            Verdict::Corrupt
        );
        let mut other_hash = new.clone();
        other_hash.hash.clear();
        assert_eq!(
            verdict(&cached(Some(&other_hash)), Some(&new)),
            Verdict::Stale
        );
    }

    #[test]
    fn an_entry_as_python_writes_it_is_right() {
        let json = br#"{"content": "\u00e9", "path": "a.py", "hash": "h"}"#;
        assert_eq!(
            verdict(
                &Cached {
                    value: Some(json.to_vec()),
                    ..cached(None)
                },
                Some(&row("é"))
            ),
            Verdict::Right
        );
    }

    #[test]
    fn an_unwanted_time_to_live_is_drift() {
        let new = row("new");
        let with = |ttl: Option<u64>| Cached {
            ttl: ttl.map(Duration::from_secs),
            ..cached(Some(&new))
        };
        assert_eq!(verdict(&with(Some(86_400)), Some(&new)), Verdict::Expiring);
        let hourly = config().with_ttl(Some(Duration::from_secs(3_600)));
        for (left, expected) in [
            (None, Verdict::Expiring),
            (Some(86_400), Verdict::Expiring),
            (Some(3_600), Verdict::Right),
            (Some(1_800), Verdict::Right),
            (Some(1_799), Verdict::Expiring),
        ] {
            assert_eq!(
                with(left).compare(Some(&new), &hourly, "a.py"),
                expected,
                "{left:?}"
            );
        }
    }
}
