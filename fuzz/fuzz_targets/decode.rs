//! Whatever is stored under a module's key: it is that module, or an error without its content.
//!
//! `cargo fuzz run decode`; on a stable toolchain with `RUSTC_BOOTSTRAP=1`.

#![no_main]

use bifrost_module_cache::CachedModule;
use libfuzzer_sys::fuzz_target;

const PATH: &str = "a.py";

macro_rules! text {
    ($reason:literal) => {
        concat!(
            "the cached entry of module a.py is corrupt: ",
            $reason,
            " Corrupt { path: \"a.py\", reason: \"",
            $reason,
            "\" }"
        )
    };
}

/// All that an error may say, without numbers.
const WORDS: [&str; 4] = [
    text!("its JSON ends too early, at line  column "),
    text!("a field is missing, repeated or of the wrong type, at line  column "),
    text!("it is not valid JSON, at line  column "),
    text!("it is the entry of another path"),
];

fuzz_target!(|json: &[u8]| {
    match CachedModule::from_json(PATH, json) {
        Ok(module) => {
            assert_eq!(module.path, PATH);
            let again = CachedModule::from_json(PATH, &module.to_json());
            assert_eq!(again.expect("what we write can be read"), module);
        }
        Err(error) => {
            assert!(error.is_corrupt());
            assert_eq!(error.path(), Some(PATH));
            // It says where and what kind, in our own words: a number is all that may differ.
            let text = format!("{error} {error:?}");
            let words = text.replace(|c: char| c.is_ascii_digit(), "");
            assert!(WORDS.contains(&words.as_str()), "{words}");
        }
    }
});
