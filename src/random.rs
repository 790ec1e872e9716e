//! Chance, good enough for jitter and for names that no other process takes. Not for secrets.

/// A random number, from the keys of the standard library's hasher: no dependency for a few
/// numbers.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::time::{SystemTime, UNIX_EPOCH};
    let mut hasher = RandomState::new().build_hasher();
    // Forked children inherit the same keys, and would all draw the same numbers.
    hasher.write_u32(std::process::id());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    hasher.write_u128(now.unwrap_or_default().as_nanos());
    hasher.finish()
}
