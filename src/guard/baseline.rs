//! What the share of removals is measured by: what others cached, and not what the guard brought.

/// What the share of those without a row is measured by: what others cached.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// Whether the cache was incomplete at the last sweep: then what is missing is no news.
    pub(super) is_cold: bool,
    /// How many modules the guard has brought that were not there, in this sweep or since the hints
    /// were taken that it looks at.
    pub(super) added: usize,
    /// How many modules were cached when those without a row became too many.
    pub(super) too_many_of: Option<usize>,
}

impl Baseline {
    /// The guard has brought so many that were missing.
    pub(super) fn added(&mut self, modules: usize) {
        if !self.is_cold {
            self.added += modules;
        }
    }
}
