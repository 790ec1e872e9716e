//! Keeps passwords out of messages. These quote arguments, and a URL may have been given where
//! something else was meant.

const QUOTES: [char; 2] = ['\'', '"'];

/// How our own messages show the form of a URL.
const FORM: &str = "://[user:password@]";

/// A message without what looks like a password.
pub fn redacted(text: &str) -> String {
    let part = |part: &str| without_url(&without_parameter(part));
    let line = |line: &str| {
        let parts: Vec<String> = line.split(FORM).map(part).collect();
        parts.join(FORM)
    };
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// Without what follows `password=`, up to the quote that ends the argument.
fn without_parameter(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let ends = ["password=", "passwd=", "pwd="]
        .iter()
        .filter_map(|mark| Some(lower.find(mark)? + mark.len()));
    let Some(start) = ends.min() else {
        return text.to_owned();
    };
    let end = text[start..].rfind(QUOTES).map(|end| start + end);
    format!("{}…{}", &text[..start], &text[end.unwrap_or(text.len())..])
}

/// Without what comes before the `@` of a URL. A password may have anything in it; a message may
/// cut a URL short, and then all of it goes.
fn without_url(text: &str) -> String {
    let Some((before, after)) = text.split_once("://") else {
        return without_login(text);
    };
    let end = after
        .rfind('@')
        .or_else(|| after.rfind(QUOTES))
        .or_else(|| after.find(char::is_whitespace))
        .unwrap_or(after.len());
    let hidden = if end == 0 { "" } else { "…" };
    format!("{}://{hidden}{}", without_login(before), &after[end..])
}

/// Without the password of `user:hunter2@host`.
fn without_login(text: &str) -> String {
    let word = |word: &str| match (word.find(':'), word.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}:…{}", &word[..start], &word[end..]),
        _ => word.to_owned(),
    };
    text.split_inclusive(char::is_whitespace)
        .map(word)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::redacted;
    use crate::args::Cli;
    use clap::Parser as _;

    #[test]
    fn a_url_in_the_wrong_place_is_not_quoted() {
        for arguments in [
            &["status", "redis://user:hunter2@host"][..],
            &["redis://user:hun'ter2@host", "status"],
            &["status", "host=db password=hunter2"],
            &["get", "a.py", "postgres://user:x'hunter2'@host/a"],
            &["status", "--redis-ur=redis://user:hunter2@host"],
            &["warm", "--wait", "redis://user:hunter2@host"],
            &["completions", "redis://user:hunter2@host"],
            &["ls", "a", "-- redis://user:hunter2@host"],
            &["status", "user:hunter2@host"],
            &["status", "user:hun'ter2@host"],
            &["watch", "a", "PASSWORD=hunter2"],
            &["get", "a.py", "postgres://host/a?password=hun' ter2"],
            &["get", "a.py", "redis://:hun'ter2"],
            &["watch", "a", "host=db PGPASSWORD='hun ter2' user=a"],
        ] {
            let arguments = ["bifrost-modules"].iter().chain(arguments);
            let error = Cli::try_parse_from(arguments).err().expect("it is refused");
            let shown = redacted(&error.render().to_string());
            assert!(shown.starts_with("error: "), "{shown}");
            assert!(!shown.contains("ter2"), "{shown}");
        }
    }

    #[test]
    fn other_messages_stay_as_they_are() {
        for text in [
            "the database URL can't be parsed: use postgres://[user:password@]host[:port]/database",
            "localhost:6379: redis is unavailable: no connection could be made",
            "rediss:// needs the feature `tls`",
            "invalid module path \"a//b@c.py\": it has an empty segment",
            "",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn a_message_keeps_all_but_the_password() {
        for (text, shown) in [
            (
                "can't read redis://u:p@h/0: why",
                "can't read redis://…@h/0: why",
            ),
            ("path \"redis://u:cut…\": why", "path \"redis://…\": why"),
            ("redis://u:a b@c@h: why", "redis://…@h: why"),
            ("db://h/a?user=u&password=p: why", "db://…"),
            ("db://u:p@h/a?password=p", "db://…@h/a?password=…"),
            (
                "use db://[user:password@]host, not u:p@h",
                "use db://[user:password@]host, not u:…@h",
            ),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }
}
