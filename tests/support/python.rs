//! A Python that knows Redis.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A `python3` that can `import redis`: the one that `BIFROST_TEST_PYTHON` names, the one that
/// `make test` sets up, or one of the system.
///
/// # Panics
/// When there is none.
pub fn python() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python3");
    let candidates = env::var_os("BIFROST_TEST_PYTHON").map_or_else(
        || vec![own, "python3".into(), "/usr/bin/python3".into()],
        |named| vec![named.into()],
    );
    let knows_redis = |python: &PathBuf| {
        let status = Command::new(python)
            .args(["-c", "import redis"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(knows_redis).expect(
        "no python3 can import redis: run \"make test\" (it sets one up) or install the Debian \
         package python3-redis",
    )
}
