//! Whatever a path is: it has a key of its own, and by the rules, or it is refused.
//!
//! `cargo fuzz run path`; on a stable toolchain with `RUSTC_BOOTSTRAP=1`.

#![no_main]

use bifrost_module_cache::keys::{
    MAX_PATH_CHARS, MODULE_INDEX_KEY, MODULE_KEY_PREFIX, module_key, validate_path,
};
use libfuzzer_sys::fuzz_target;

/// The rules, in the words of their documentation.
fn is_valid(path: &str) -> bool {
    let mut segments = path.split('/');
    (1..=MAX_PATH_CHARS).contains(&path.chars().count())
        && path != "index"
        && !path.contains(char::is_control)
        && !path.contains('\\')
        && segments.all(|segment| !matches!(segment, "" | "." | ".."))
}

fuzz_target!(|path: &str| {
    assert_eq!(validate_path(path).is_ok(), is_valid(path));
    match module_key(path) {
        Ok(key) => {
            assert!(is_valid(path));
            assert_ne!(key, MODULE_INDEX_KEY);
            assert_eq!(key.strip_prefix(MODULE_KEY_PREFIX), Some(path));
        }
        Err(error) => {
            assert!(error.is_invalid_path());
            assert!(error.to_string().len() < 2_000, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
});
