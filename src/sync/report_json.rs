//! Reports as JSON: what scripts read. docs/tool.md lists the fields.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// Seconds as a number: serde's own form of a `Duration` is an object of two numbers.
pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Both whether and why not, so that a script can test one boolean.
#[allow(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn verified<S: Serializer, Why: Serialize>(
    unverified: &Option<Why>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Verified<'a, Why> {
        verified: bool,
        unverified: &'a Option<Why>,
    }
    let verified = unverified.is_none();
    Verified {
        verified,
        unverified,
    }
    .serialize(serializer)
}
