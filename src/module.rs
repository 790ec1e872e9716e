//! A cached module and its JSON, the format that services and workers in Python share with this
//! crate.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::keys;

/// The source of one Python module, as the specification's `CachedModule`.
///
/// In Redis it is a JSON object with the fields in this order, as the specification has them.
/// `hash` is opaque to this crate: it is stored to the letter, and empty where the writer knew
/// none.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub struct CachedModule {
    /// The source text. Empty is a valid module (`__init__.py`).
    pub content: String,
    /// Relative to the workspace, `/`-separated.
    pub path: String,
    /// SHA-256 of the file's bytes in lowercase hex, or `""` where unknown.
    pub hash: String,
}

impl CachedModule {
    /// A module with the hash of its content.
    ///
    /// ```
    /// # use bifrost_module_cache::CachedModule;
    /// let module = CachedModule::new("a.py", "")?;
    /// assert_eq!(
    ///     module.hash,
    ///     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    /// );
    /// # Ok::<(), bifrost_module_cache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], by the rules of [`keys::module_key`].
    pub fn new(path: impl Into<String>, content: impl Into<String>) -> Result<Self, Error> {
        let content = content.into();
        let hash = sha256_hex(&content);
        Self::with_hash(path, content, hash)
    }

    /// A module with a hash that the caller knows, which is stored to the letter and not checked.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPath`], by the rules of [`keys::module_key`].
    pub fn with_hash(
        path: impl Into<String>,
        content: impl Into<String>,
        hash: impl Into<String>,
    ) -> Result<Self, Error> {
        let path = path.into();
        keys::validate_path(&path)?;
        Ok(Self {
            content: content.into(),
            path,
            hash: hash.into(),
        })
    }

    /// True if the hash is that of the content, or is empty and says nothing.
    pub(crate) fn matches_hash(&self) -> bool {
        self.hash.is_empty() || self.hash == sha256_hex(&self.content)
    }

    /// Reads what is stored under the key of `path`, as Python or this crate wrote it.
    ///
    /// Unknown fields are ignored; a missing or null `hash` is `""`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], which names `path` and never shows the content: not an object, not
    /// valid JSON (a lone surrogate and trailing data included), a duplicate, missing or mistyped
    /// field, or the entry of another path.
    pub fn from_json(path: &str, json: &[u8]) -> Result<Self, Error> {
        let module: Self =
            serde_json::from_slice(json).map_err(|error| Error::corrupt(path, reason(&error)))?;
        if module.path != path {
            return Err(Error::corrupt(path, "it is the entry of another path"));
        }
        Ok(module)
    }
}

/// The content stays out: `{:?}` of a module lands in logs.
impl fmt::Debug for CachedModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            content,
            path,
            hash,
        } = self;
        f.debug_struct("CachedModule")
            .field("path", path)
            .field("hash", hash)
            .field("content", &format_args!("<{} bytes>", content.len()))
            .finish()
    }
}

/// Says where, not what: serde's own messages quote the values they stumble over.
fn reason(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Eof => "its JSON ends too early",
        Category::Data => "a field is missing, repeated or of the wrong type",
        Category::Syntax | Category::Io => "it is not valid JSON",
    };
    format!("{what}, at line {} column {}", error.line(), error.column())
}

/// Lowercase, as Python's `hexdigest` writes it: hashes are compared as text.
fn sha256_hex(content: &str) -> String {
    let digest = Sha256::digest(content.as_bytes());
    let mut hex = String::with_capacity(2 * digest.len());
    for byte in digest {
        write!(hex, "{byte:02x}").expect("writing to a String never fails");
    }
    hex
}

/// Written by hand because the derived one also accepts an array in place of the object.
impl<'de> Deserialize<'de> for CachedModule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Content,
    Path,
    Hash,
    #[serde(other)]
    Unknown,
}

/// Accepts an object only. A JSON array of three strings would fit the derived implementation, and
/// is not what the specification calls a module.
struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = CachedModule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with content, path and hash")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut content: Option<String> = None;
        let mut path: Option<String> = None;
        let mut hash: Option<Option<String>> = None;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Content => once(&mut content, "content", map.next_value()?)?,
                Field::Path => once(&mut path, "path", map.next_value()?)?,
                Field::Hash => once(&mut hash, "hash", map.next_value()?)?,
                Field::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(CachedModule {
            content: content.ok_or_else(|| serde::de::Error::missing_field("content"))?,
            path: path.ok_or_else(|| serde::de::Error::missing_field("path"))?,
            hash: hash.flatten().unwrap_or_default(),
        })
    }
}

/// Refuses a field that comes twice: Python takes the last one, other parsers the first, so the
/// same entry would be two modules.
fn once<T, E: serde::de::Error>(
    slot: &mut Option<T>,
    name: &'static str,
    value: T,
) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::duplicate_field(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(json: &str) -> Result<CachedModule, Error> {
        CachedModule::from_json("a.py", json.as_bytes())
    }

    #[test]
    fn fields_are_written_compactly_in_the_specification_s_order() {
        let module = CachedModule::with_hash("a.py", "x = \"é\"\n", "H").unwrap();
        assert_eq!(
            String::from_utf8(module.to_json()).unwrap(),
            r#"{"content":"x = \"é\"\n","path":"a.py","hash":"H"}"#
        );
    }

    #[test]
    fn python_s_json_dumps_is_read() {
        let module =
            decode(r#"{"content": "s = '\u00e9\ud83e\udd80'\n", "path": "a.py", "hash": "h"}"#)
                .unwrap();
        assert_eq!(module.content, "s = 'é🦀'\n");
        assert_eq!(module.hash, "h");
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_order_is_free() {
        let module = decode(
            r#"{"z": [{"content": 1}], "hash": "h", "path": "a.py", "content": "", "z": 1}"#,
        )
        .unwrap();
        assert_eq!((module.content.as_str(), module.hash.as_str()), ("", "h"));
    }

    #[test]
    fn a_missing_or_null_hash_is_empty() {
        assert_eq!(
            decode(r#"{"content": "c", "path": "a.py"}"#).unwrap().hash,
            ""
        );
        assert_eq!(
            decode(r#"{"content": "c", "path": "a.py", "hash": null}"#)
                .unwrap()
                .hash,
            ""
        );
    }

    #[test]
    fn everything_else_is_corrupt_and_shows_no_content() {
        for json in [
            "",
            "null",
            "5",
            "\"SECRET\"",
            "[\"SECRET\", \"a.py\", \"h\"]",
            "{\"content\": \"SECRET\"",
            "{}",
            r#"{"path": "a.py", "hash": "SECRET"}"#,
            r#"{"content": "SECRET", "hash": "h"}"#,
            r#"{"content": null, "path": "a.py", "hash": "SECRET"}"#,
            r#"{"content": 5, "path": "a.py", "hash": "SECRET"}"#,
            r#"{"content": ["SECRET"], "path": "a.py", "hash": "h"}"#,
            r#"{"content": "SECRET", "path": "b.py", "hash": "h"}"#,
            r#"{"content": "SECRET", "path": "a.py", "hash": 7}"#,
            r#"{"content": "SECRET", "content": "SECRET", "path": "a.py", "hash": "h"}"#,
            r#"{"content": "c", "path": "a.py", "hash": null, "hash": "SECRET"}"#,
            r#"{"content": "c", "path": "a.py", "path": "a.py", "hash": "SECRET"}"#,
            r#"{"content": "SECRET\ud83e", "path": "a.py", "hash": "h"}"#,
            r#"{"content": "SECRET\udd80", "path": "a.py", "hash": "h"}"#,
            r#"{"content": "SECRET", "path": "a.py", "hash": "h"} {}"#,
            r#"{"content": "SECRET", "path": "a.py", "hash": "h",}"#,
            "{\"content\": \"SECRET\n\", \"path\": \"a.py\", \"hash\": \"h\"}",
            "\u{feff}{\"content\": \"SECRET\", \"path\": \"a.py\", \"hash\": \"h\"}",
        ] {
            let error = decode(json).expect_err(json);
            assert!(error.is_corrupt(), "{json}");
            assert_eq!(error.path(), Some("a.py"));
            assert!(
                !format!("{error} {error:?}").contains("SECRET"),
                "{error:?}"
            );
        }
        let not_utf8 = b"{\"content\": \"\xff\", \"path\": \"a.py\", \"hash\": \"h\"}";
        assert!(
            CachedModule::from_json("a.py", not_utf8)
                .unwrap_err()
                .is_corrupt()
        );
    }

    #[test]
    fn debug_shows_no_content() {
        let module = CachedModule::new("a.py", "SECRET").unwrap();
        let text = format!("{module:?}");
        assert!(
            text.contains("a.py") && text.contains("<6 bytes>") && !text.contains("SECRET"),
            "{text}"
        );
    }

    #[test]
    fn an_error_says_where_and_what_kind() {
        for (json, text) in [
            (
                "{\"content\": \"SECRET\"",
                "ends too early, at line 1 column 20",
            ),
            ("{\n\"content\": 5}", "wrong type, at line 2 column 12"),
            ("{\"content\": x}", "not valid JSON, at line 1 column 13"),
        ] {
            let error = decode(json).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn an_empty_hash_matches_and_any_other_must_be_right() {
        let with_hash = |hash: &str| CachedModule::with_hash("a.py", "abc", hash).unwrap();
        let right = CachedModule::new("a.py", "abc").unwrap();
        assert!(right.matches_hash() && with_hash("").matches_hash());
        assert!(!with_hash("h").matches_hash());
        assert!(!with_hash(&right.hash.to_uppercase()).matches_hash());
    }

    #[test]
    fn the_hash_is_sha_256_of_the_content() {
        // From FIPS 180-2's own example.
        let module = CachedModule::new("a.py", "abc").unwrap();
        assert_eq!(
            module.hash,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_bad_path_makes_no_module() {
        assert!(
            CachedModule::new("index", "")
                .unwrap_err()
                .is_invalid_path()
        );
        assert!(
            CachedModule::with_hash("a/../b", "", "")
                .unwrap_err()
                .is_invalid_path()
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(content in any::<String>(), hash in any::<String>(), path in "[a-zé🦀]{1,9}\\.py") {
            let module = CachedModule::with_hash(path.clone(), content, hash).unwrap();
            prop_assert_eq!(CachedModule::from_json(&path, &module.to_json()).unwrap(), module);
        }

        #[test]
        fn damaged_entries_never_panic_and_never_pass_as_another_path(
            content in any::<String>(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut json = CachedModule::with_hash("a.py", content, "h").unwrap().to_json();
            let at = at.index(json.len());
            json[at] = byte;
            if let Ok(module) = CachedModule::from_json("a.py", &json) {
                prop_assert_eq!(module.path, "a.py");
            }
        }
    }
}
