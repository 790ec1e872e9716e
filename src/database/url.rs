//! What a database URL says: as services write it, for Python's drivers too, and without ever
//! showing the password in it.

#[cfg(feature = "tls")]
use std::time::Duration;

#[cfg(feature = "tls")]
use tokio_postgres::config::SslMode;
use tokio_postgres::config::{Config, Host};

use crate::config::address;
use crate::error::Error;

/// How long connecting may take altogether, unless the URL says otherwise.
#[cfg(feature = "tls")]
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// After how much silence the system probes the peer, and how long the peer may take to
/// acknowledge. Long work waits for Postgres without a time-out; a peer that is gone would hang it.
#[cfg(feature = "tls")]
const PEER_LIMIT: Duration = Duration::from_secs(30);

/// Where the Postgres at `url` is: `host:port/database`, for a message. Never the user or the
/// password.
///
/// # Errors
///
/// [`Error::InvalidConfig`] for a URL that can't be parsed; the error does not contain it.
pub fn postgres_address(url: &str) -> Result<String, Error> {
    let config = parse(url)?;
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => address(name, port),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        }
    });
    // Without a name, the client takes the user's name for the database's: not for a message.
    let database = config.get_dbname().map(|name| format!("/{name}"));
    let hosts = hosts.collect::<Vec<_>>().join(",");
    Ok(hosts + &database.unwrap_or_default())
}

/// The settings in `url`, with encryption required (the client's default, `prefer`, falls back to
/// plain text), and how long connecting may take altogether.
#[cfg(feature = "tls")]
pub(crate) fn encrypted(url: &str) -> Result<(Config, Duration), Error> {
    let mut config = parse(url)?;
    config.ssl_mode(SslMode::Require);
    let limit = config.get_connect_timeout().copied();
    // The client's own limit covers the TCP connection only. The handshakes of TLS and Postgres
    // come after that, so the caller enforces this one.
    Ok((config, limit.unwrap_or(CONNECT_LIMIT)))
}

/// The settings in `url`, such that a peer which is gone is noticed, and how long connecting may
/// take altogether.
#[cfg(feature = "tls")]
pub(crate) fn by_sslmode(url: &str, limit: Duration) -> Result<(Config, Duration), Error> {
    let mut config = parse(url)?;
    // The client's default for keepalives is two hours.
    config.keepalives_idle(config.get_keepalives_idle().min(PEER_LIMIT));
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(PEER_LIMIT);
    }
    let limit = config
        .get_connect_timeout()
        .map_or(limit, |own| limit.min(*own));
    Ok((config, limit))
}

/// Whether to encrypt. `prefer` does not ask for it: it accepts plain text.
#[cfg(feature = "tls")]
pub(crate) fn wants_tls(config: &Config) -> bool {
    config.get_ssl_mode() == SslMode::Require
}

/// Parses the URL. A URL that names no host is refused here, where the message can say so.
fn parse(url: &str) -> Result<Config, Error> {
    // The parser's own message may quote the URL, and with it the password.
    let plain = plain(url);
    let config: Config = plain
        .parse()
        .map_err(|_| Error::invalid_config(unparsable(&plain)))?;
    if config.get_hosts().is_empty() {
        return Err(Error::invalid_config("the database URL names no host"));
    }
    Ok(config)
}

const UNPARSABLE: &str = "the database URL can't be parsed: use postgres://[user:password@]host[:port]/database[?sslmode=require]";

/// What is wrong with the URL, as far as that can be said without showing a value: one of them may
/// be the password. Parameters are tried one by one, because the parser does not say which it
/// refuses.
fn unparsable(url: &str) -> String {
    let parameters = url
        .split_once("://")
        .and_then(|(_, rest)| split_parameters(rest));
    // With an `@` behind the question mark, that may be a character of the password.
    let Some((_, parameters)) = parameters.filter(|(_, parameters)| !parameters.contains('@'))
    else {
        return UNPARSABLE.to_owned();
    };
    let is_bad = |parameter: &str| {
        format!("postgres://host/?{parameter}")
            .parse::<Config>()
            .is_err()
    };
    let is_name = |key: &str| {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let mut bad = parameters.split('&').filter(|parameter| is_bad(parameter));
    match bad.find_map(|parameter| parameter.split_once('=')) {
        Some((key, _)) if is_name(key) => {
            let advice = if key == "sslrootcert" {
                "; the authority to trust is given by Tls::with_ca_pem"
            } else {
                ""
            };
            format!("the database URL's parameter {key} is unknown or has a wrong value{advice}")
        }
        _ => UNPARSABLE.to_owned(),
    }
}

/// The URL as the client understands it: without the driver of `SQLAlchemy`, with `sslmode` for
/// asyncpg's `ssl`, and with libpq's stricter modes under the name of the client's only one, which
/// is as strict.
fn plain(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => match scheme.split_once('+') {
            Some((scheme @ ("postgres" | "postgresql"), _)) => (scheme, rest),
            _ => (scheme, rest),
        },
        None => return url.to_owned(),
    };
    let Some((before, parameters)) = split_parameters(rest) else {
        return format!("{scheme}://{rest}");
    };
    let parameters: Vec<String> = parameters
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some(("sslmode" | "ssl", mode)) => format!("sslmode={}", plain_mode(mode)),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{scheme}://{before}?{}", parameters.join("&"))
}

/// Splits at the question mark. One before the `@` is a part of the password, as the client has it.
fn split_parameters(rest: &str) -> Option<(&str, &str)> {
    let login = rest.find('@').map_or(0, |end| end + 1);
    let at = login + rest[login..].find('?')?;
    Some((&rest[..at], &rest[at + 1..]))
}

/// The client has one mode with encryption, `require`, which always checks the certificate here. So
/// the stricter modes of libpq are that one. `allow` prefers plain text, and is treated so.
fn plain_mode(mode: &str) -> &str {
    match mode {
        "verify-ca" | "verify-full" | "true" => "require",
        "allow" | "false" => "disable",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_shows_no_secret() {
        for (url, address) in [
            ("postgres://user:hunter2@db/app", "db:5432/app"),
            (
                "postgresql+asyncpg://user:hunter2@db:5433/app",
                "db:5433/app",
            ),
            ("postgres://user:hunter2@[::1]:6000/app", "[::1]:6000/app"),
            ("postgres://user:hunter2@a:1,b:2/app", "a:1,b:2/app"),
            (
                "postgres://user:hun?ssl=ter2@db/app?ssl=true",
                "db:5432/app",
            ),
            ("host=db password=hunter2", "db:5432"),
        ] {
            assert_eq!(postgres_address(url).unwrap(), address);
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_being_quoted() {
        for url in [
            "hunter2",
            "",
            "postgres:///hunter2",
            "postgres://user:hunter2@db:port/app",
            "postgres://user:hunter2@db/app?hunter2=1",
            "postgres://user:x@?hunter=2&hunter2@db/app",
            "postgres://user:x@db/app?sslmode=hunter2",
            "postgres://user:x@db/app?sslpassword=hunter2",
        ] {
            let error = postgres_address(url).expect_err(url);
            assert!(error.is_invalid_config());
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_parameter_that_is_wrong_is_named() {
        for (parameters, words) in [
            ("sslmode=require&pgbouncer=true", "parameter pgbouncer is"),
            (
                "sslrootcert=/ca.pem",
                "sslrootcert is unknown or has a wrong value; the authority",
            ),
            ("connect_timeout=soon", "parameter connect_timeout is"),
            ("ssl=maybe", "parameter sslmode is"),
            ("nonsense", UNPARSABLE),
        ] {
            let error = postgres_address(&format!("postgres://u:x@db/app?{parameters}"));
            let text = error.expect_err(parameters).to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn only_what_asks_for_it_gets_tls() {
        for (mode, tls) in [
            ("", false),
            ("?sslmode=disable", false),
            ("?sslmode=allow", false),
            ("?sslmode=prefer", false),
            ("?sslmode=require", true),
            ("?sslmode=verify-ca", true),
            ("?connect_timeout=2&sslmode=verify-full", true),
            ("?ssl=require", true),
            ("?ssl=verify-full", true),
            ("?ssl=true", true),
            ("?ssl=false", false),
            ("?ssl=prefer", false),
        ] {
            let url = format!("postgresql+psycopg://db/app{mode}");
            let (config, limit) = by_sslmode(&url, Duration::from_secs(5)).unwrap();
            assert_eq!(wants_tls(&config), tls, "{mode}");
            let own = if mode.contains("connect_timeout") {
                2
            } else {
                5
            };
            assert_eq!(limit, Duration::from_secs(own), "{mode}");
            let (config, _) = encrypted(&format!("postgres://db/app{mode}")).unwrap();
            assert!(wants_tls(&config), "{mode}");
        }
    }
}
