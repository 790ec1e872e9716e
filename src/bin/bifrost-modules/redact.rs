//! Keeps passwords out of messages. These quote arguments, and a URL may have been given where
//! something else was meant.

/// How our own messages show the form of a URL: no secret, so it is not cut off.
const FORM: &str = "://[user:password@]";

/// A message, cut off where a password may begin: where that ends can't be told, because it may
/// hold any character.
pub fn redacted(text: &str) -> String {
    if let Some((before, after)) = text.split_once(FORM) {
        return [redacted(before), redacted(after)].join(FORM);
    }
    let lower = text.to_ascii_lowercase();
    let marks = ["://", "password=", "passwd=", "pwd="];
    let ends = marks
        .iter()
        .filter_map(|mark| Some(lower.find(mark)? + mark.len()));
    // `user:hunter2@host`, a URL whose scheme was forgotten.
    let logins = text.match_indices('@').filter_map(|(at, _)| {
        let word = text[..at]
            .rfind(char::is_whitespace)
            .map_or(0, |end| end + 1);
        Some(word + text[word..at].find(':')? + 1)
    });
    let end = ends.chain(logins).min();
    end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]))
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
            "redis localhost:6379/0 is unavailable: no connection could be made",
            "invalid module path \"a//b@c.py\": it has an empty segment",
            "",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn a_message_ends_where_a_password_may_begin() {
        for (text, shown) in [
            ("can't read redis://u:p@h/0: why", "can't read redis:…"),
            ("db://h/a?user=u&password=p: why", "db://…"),
            ("host=h PGPASSWORD=p: why", "host=h PGPASSWORD=…"),
            ("path \"u:p@h\": why", "path \"u:…"),
            (
                "use db://[user:password@]host, not u:p@h",
                "use db://[user:password@]host, not u:…",
            ),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }
}
