//! Reports as JSON: what scripts read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::report::{Drift, Endpoints, Unverified};

pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Both whether and why not.
#[allow(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "as serde calls it"
)]
pub(super) fn verified<S: Serializer>(
    unverified: &Option<Unverified>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Verified {
        verified: bool,
        unverified: Option<Unverified>,
    }
    let verified = Verified {
        verified: unverified.is_none(),
        unverified: *unverified,
    };
    verified.serialize(serializer)
}

/// Counts and paths of each kind apart, because there may be many paths.
impl Serialize for Drift {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            clean: bool,
            modules: usize,
            counts: BTreeMap<&'a str, usize>,
            paths: BTreeMap<&'a str, &'a [String]>,
            bad_members: usize,
            skipped: usize,
            not_modules: usize,
            scanned: bool,
            unverified: Option<Unverified>,
            servers: &'a Endpoints,
        }
        let lists = self.lists();
        let shown = Shown {
            clean: self.is_clean(),
            modules: self.modules,
            counts: lists.map(|(kind, paths)| (kind, paths.len())).into(),
            paths: lists.into(),
            bad_members: self.bad_members,
            skipped: self.skipped,
            not_modules: self.not_modules,
            scanned: self.scanned,
            unverified: self.unverified,
            servers: &self.servers,
        };
        shown.serialize(serializer)
    }
}
