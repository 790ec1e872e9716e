//! A module as JSON, and whether some JSON is just that.
//!
//! Written by hand: the library looks at one byte after another, which takes three times as long,
//! and a warm-up writes all modules and compares them again. Reading stays with the library, which
//! refuses what is not JSON.

use std::io::Write as _;

use redis::{RedisWrite, ToRedisArgs};

use crate::module::CachedModule;

/// How many bytes are looked at at once: what the compiler makes one vector of.
const BLOCK: usize = 16;

impl CachedModule {
    /// The JSON that is stored in Redis: compact UTF-8, fields in the order content, path, hash.
    /// Python's `json.loads` reads it to the same strings.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.expected_len());
        self.encode(&mut |piece| {
            json.extend_from_slice(piece);
            true
        });
        json
    }

    /// The same as the argument of a command, encoded where the command keeps it: a warm-up would
    /// otherwise copy every module once more.
    pub(crate) fn as_argument(&self) -> impl ToRedisArgs + '_ {
        Json(self)
    }

    /// How long the JSON is about: source code is mostly text that needs no escapes, plus a `\n`
    /// per line.
    fn expected_len(&self) -> usize {
        self.content.len() + self.content.len() / 16 + self.path.len() + 128
    }

    /// Whether `json` is what [`to_json`](Self::to_json) makes of this module, without making it: a
    /// comparison stops at the first difference, and copies nothing.
    pub(crate) fn is_encoded_as(&self, json: &[u8]) -> bool {
        let mut rest = json;
        let equal = self.encode(&mut |piece| {
            rest.strip_prefix(piece)
                .inspect(|after| rest = after)
                .is_some()
        });
        equal && rest.is_empty()
    }

    /// Emits the JSON piece by piece, until `emit` says that the rest is not wanted. Writing and
    /// comparing share it, so they can't disagree about the format.
    fn encode(&self, emit: &mut impl FnMut(&[u8]) -> bool) -> bool {
        emit(b"{\"content\":\"")
            && escape(self.content.as_bytes(), emit)
            && emit(b"\",\"path\":\"")
            && escape(self.path.as_bytes(), emit)
            && emit(b"\",\"hash\":\"")
            && escape(self.hash.as_bytes(), emit)
            && emit(b"\"}")
    }
}

struct Json<'a>(&'a CachedModule);

impl ToRedisArgs for Json<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.reserve_space_for_args([self.0.expected_len()]);
        let mut argument = out.writer_for_next_arg();
        self.0
            .encode(&mut |piece| argument.write_all(piece).is_ok());
    }
}

fn escape(text: &[u8], emit: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain(rest));
        if !emit(plain) {
            return false;
        }
        let Some((&byte, after)) = special.split_first() else {
            return true;
        };
        let escaped = match byte {
            b'\n' => emit(b"\\n"),
            b'"' => emit(b"\\\""),
            b'\\' => emit(b"\\\\"),
            b'\t' => emit(b"\\t"),
            b'\r' => emit(b"\\r"),
            0x08 => emit(b"\\b"),
            0x0c => emit(b"\\f"),
            control => emit(format!("\\u{control:04x}").as_bytes()),
        };
        if !escaped {
            return false;
        }
        rest = after;
    }
}

/// How many bytes need no escape.
fn plain(text: &[u8]) -> usize {
    let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    // `fold` and not `any`: without an early end, a block takes a few vector instructions.
    let is_plain = |block: &&[u8]| !block.iter().fold(false, |any, byte| any | is_special(byte));
    let blocks = BLOCK * text.chunks_exact(BLOCK).take_while(is_plain).count();
    let rest = &text[blocks..];
    blocks + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_the_library_writes(
            content in "([ -~]|[\\x00-\\x1f\"\\\\]|[a-z]{20}|\\PC|\u{7f}){0,60}", hash in any::<String>(), other in any::<prop::sample::Index>()
        ) {
            let module = CachedModule::with_hash("é\"\\.py".replace('\\', ""), content, hash).unwrap();
            let json = module.to_json();
            prop_assert_eq!(&json, &serde_json::to_vec(&module).unwrap());
            let packed = |argument: &dyn Fn(&mut redis::Cmd)| {
                let mut command = redis::cmd("SET");
                argument(&mut command);
                command.get_packed_command()
            };
            let as_argument = packed(&|command| _ = command.arg(module.as_argument()));
            prop_assert_eq!(as_argument, packed(&|command| _ = command.arg(&json)));
            prop_assert!(module.is_encoded_as(&json));
            let at = other.index(json.len());
            prop_assert!(!module.is_encoded_as(&json[..at]));
            let mut changed = json.clone();
            changed[at] ^= 1;
            prop_assert!(!module.is_encoded_as(&changed));
            changed[at] ^= 1;
            changed.push(b' ');
            prop_assert!(!module.is_encoded_as(&changed));
        }
    }
}
