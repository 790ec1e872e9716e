//! Where Redis may be, as a URL says it: at an address, where sentinels say, or in a cluster.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use crate::error::Error;

/// How the server that holds the keys is found.
#[derive(Clone)]
pub(crate) enum Place {
    /// At the address in the URL, whichever server that leads to.
    Fixed,
    /// Sentinels name it.
    Sentinels(Sentinels),
    /// Any node of a cluster names the owner of our slot.
    Cluster(Vec<ConnectionAddr>),
}

/// Who is asked for the primary, and how.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) addresses: Vec<ConnectionAddr>,
    /// The name under which the sentinels know the primary.
    pub(crate) service: String,
    pub(crate) login: RedisConnectionInfo,
}

/// What a URL says.
pub(crate) struct Parsed {
    /// How to reach and to log in to the server that holds the keys. Its address counts where the
    /// place is fixed only.
    pub(crate) redis: ConnectionInfo,
    pub(crate) place: Place,
}

const SENTINEL: [&str; 4] = [
    "redis+sentinel",
    "redis-sentinel",
    "rediss+sentinel",
    "rediss-sentinel",
];
const CLUSTER: [&str; 4] = [
    "redis+cluster",
    "redis-cluster",
    "rediss+cluster",
    "rediss-cluster",
];

const SENTINEL_PORT: u16 = 26_379;
const REDIS_PORT: u16 = 6_379;

/// Reads a URL of any of the three kinds. No error contains it.
pub(crate) fn parse(url: &str) -> Result<Parsed, Error> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if SENTINEL.contains(&scheme) {
        return sentinels(url);
    }
    if CLUSTER.contains(&scheme) {
        return cluster(url);
    }
    let redis = info(url).ok_or_else(|| {
        Error::invalid_config(
            "the redis URL can't be parsed: use redis://[user:password@]host[:port][/database], redis+sentinel://host[:port],…/service or redis+cluster://host[:port],…",
        )
    })?;
    Ok(Parsed {
        redis,
        place: Place::Fixed,
    })
}

/// The library's reading of a URL. Its own message may quote the URL, and with it the password.
fn info(url: &str) -> Option<ConnectionInfo> {
    url.into_connection_info().ok()
}

/// A URL with several hosts, in its parts; none is decoded yet.
struct Parts<'a> {
    /// `redis` or `rediss`.
    scheme: &'a str,
    /// With its `@`; empty for none.
    login: &'a str,
    hosts: &'a str,
    /// What follows the hosts, without the first `/`.
    path: &'a str,
    parameters: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let at = authority.rfind('@').map_or(0, |at| at + 1);
        Some(Self {
            scheme: if scheme.starts_with("rediss") {
                "rediss"
            } else {
                "redis"
            },
            login: &authority[..at],
            hosts: &authority[at..],
            path,
            parameters: parameters.split('&').filter(|it| !it.is_empty()).collect(),
        })
    }

    /// Takes a parameter out of the others.
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let of = |parameter: &&str| {
            parameter
                .split_once('=')
                .is_some_and(|(key, _)| key == name)
        };
        let at = self.parameters.iter().position(of)?;
        self.parameters.remove(at).split_once('=').map(|it| it.1)
    }

    /// What the library makes of one host.
    fn host(&self, host: &str, login: &str, port: u16, database: &str) -> Option<ConnectionInfo> {
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if has_port {
            String::new()
        } else {
            format!(":{port}")
        };
        let parameters = self.parameters.join("&");
        let scheme = self.scheme;
        info(&format!(
            "{scheme}://{login}{host}{port}/{database}?{parameters}"
        ))
    }

    /// Each host with the login of the data, and their addresses.
    fn all(&self, port: u16, database: &str) -> Option<(ConnectionInfo, Vec<ConnectionAddr>)> {
        let infos: Option<Vec<_>> = self
            .hosts
            .split(',')
            .map(|host| self.host(host, self.login, port, database))
            .collect();
        let infos = infos?;
        let addresses = infos.iter().map(|info| info.addr().clone()).collect();
        Some((infos.into_iter().next()?, addresses))
    }
}

fn sentinels(url: &str) -> Result<Parsed, Error> {
    let read = || {
        let mut parts = Parts::of(url)?;
        let user = parts.take("sentinel_username").unwrap_or_default();
        let password = parts.take("sentinel_password");
        let (service, database) = parts.path.split_once('/').unwrap_or((parts.path, ""));
        let (redis, addresses) = parts.all(SENTINEL_PORT, database)?;
        // A query may hold what ends a login in a URL.
        let quoted = |text: &str| {
            text.replace(':', "%3A")
                .replace('@', "%40")
                .replace('/', "%2F")
        };
        let login = password.map_or(String::new(), |password| {
            format!("{}:{}@", quoted(user), quoted(password))
        });
        let host = parts.hosts.split(',').next()?;
        let login = parts.host(host, &login, SENTINEL_PORT, "")?;
        let service = info(&format!("redis://{service}@host"))?;
        let service = service.redis_settings().username()?.to_owned();
        let login = login.redis_settings().clone();
        // What a sentinel is asked needs no RESP3.
        let login = login.set_protocol(redis::ProtocolVersion::RESP2);
        let place = Place::Sentinels(Sentinels {
            addresses,
            service,
            login,
        });
        Some(Parsed { redis, place })
    };
    read().ok_or_else(|| {
        Error::invalid_config(
            "the redis URL can't be parsed: use redis+sentinel://[user:password@]host[:port][,host…]/service[/database][?sentinel_username=…&sentinel_password=…]",
        )
    })
}

fn cluster(url: &str) -> Result<Parsed, Error> {
    let read = || {
        let parts = Parts::of(url)?;
        let (redis, nodes) = parts.all(REDIS_PORT, parts.path)?;
        (redis.redis_settings().db() == 0).then_some(Parsed {
            redis,
            place: Place::Cluster(nodes),
        })
    };
    read().ok_or_else(|| {
        Error::invalid_config(
            "the redis URL can't be parsed: use redis+cluster://[user:password@]host[:port][,host…], without a database: a cluster has one",
        )
    })
}

/// `host:port`, with brackets around an IPv6 address, or its last group could be taken for the
/// port.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An address in a message: `host:port`, or a path.
pub(crate) fn shown(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            address(host, *port)
        }
        other => other.to_string(),
    }
}

/// Several, separated by commas.
pub(crate) fn all_shown(addresses: &[ConnectionAddr]) -> String {
    addresses.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// The same kind of address for another server: encrypted where this one is.
pub(crate) fn elsewhere(like: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match like.clone() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure,
            tls_params,
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// Shows no login.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("Fixed"),
            Self::Sentinels(Sentinels {
                addresses,
                service,
                login: _,
            }) => write!(f, "Sentinels({service} of {})", all_shown(addresses)),
            Self::Cluster(nodes) => write!(f, "Cluster({})", all_shown(nodes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_are_read_with_both_logins() {
        let parsed = parse("redis+sentinel://user:p%40w@h1,h2:1,[::1]/my%2Fmaster/3?protocol=resp3&sentinel_username=s&sentinel_password=a:b/c%25").unwrap();
        let settings = parsed.redis.redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("user"), Some("p@w"), 3)
        );
        assert!(settings.protocol().supports_resp3());
        let Place::Sentinels(sentinels) = parsed.place else {
            panic!("{:?}", parsed.place);
        };
        assert_eq!(all_shown(&sentinels.addresses), "h1:26379,h2:1,[::1]:26379");
        assert_eq!(sentinels.service, "my/master");
        let login = &sentinels.login;
        assert_eq!(
            (login.username(), login.password(), login.db()),
            (Some("s"), Some("a:b/c%"), 0)
        );
        for alias in ["redis-sentinel://h/m", "redis+sentinel://h/m/0"] {
            let Place::Sentinels(sentinels) = parse(alias).unwrap().place else {
                panic!("{alias}");
            };
            assert_eq!(sentinels.login.password(), None);
        }
    }

    #[test]
    fn a_cluster_has_one_database() {
        let parsed = parse("redis+cluster://u:p@h1,h2:7000").unwrap();
        let Place::Cluster(nodes) = parsed.place else {
            panic!("{:?}", parsed.place);
        };
        assert_eq!(all_shown(&nodes), "h1:6379,h2:7000");
        assert_eq!(parsed.redis.redis_settings().password(), Some("p"));
        assert!(parse("redis+cluster://h/0").is_ok());
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_quoted() {
        for url in [
            "redis+sentinel://user:hunter2@h1,h2",
            "redis+sentinel://user:hunter2@h1/",
            "redis+sentinel://user:hunter2@/m",
            "redis+sentinel://user:hunter2@h:99999/m",
            "redis+sentinel://user:hunter2@h/m/hunter2",
            "redis+cluster://user:hunter2@h/1",
            "redis+cluster://user:hunter2@",
            "redis+cluster://user:hunter2@h,",
            "redis+other://user:hunter2@h",
        ] {
            let error = parse(url).err().expect(url);
            assert!(error.is_invalid_config(), "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
