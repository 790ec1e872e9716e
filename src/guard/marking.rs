//! What is known of a cache that a sweep found incomplete, until its mark can be written.

use std::time::Instant;

use crate::sync::mark::Completion;

/// A cache that is to be marked as complete once nothing waits to be mended any more.
pub(super) struct Marking {
    pub(super) completion: Completion,
    pub(super) modules: usize,
    pub(super) verified: bool,
    /// When the first entry expires, if any does.
    pub(super) expires: Option<Instant>,
}
