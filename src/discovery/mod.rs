//! Who holds the keys now? Asked where a connection is opened, by both facades; nothing above a
//! connection knows of it.
//!
//! At a fixed address: whichever server it leads to. Otherwise sentinels name the primary, or the
//! nodes of a cluster the owner of our slot; and what they say counts when that server has proved
//! it. All within one deadline, and until then again and again: during a failover the right answer
//! is still to come.

mod cluster;
pub(crate) mod migrating;
mod sentinel;

use std::fmt;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, RedisConnectionInfo, Value};

use crate::command::request::Request;
use crate::config::Config;
use crate::config::place::{Place, elsewhere, shown};
use crate::error::{Error, Outage};

/// How long to wait before all are asked again. A graceful failover takes some 300 ms.
const PAUSE: Duration = Duration::from_millis(30);

/// A round that begins with less time may find silent who is merely slow.
const ENOUGH: Duration = Duration::from_millis(200);

/// What a facade brings: connections to a given server, and a way to wait.
pub(crate) trait Dial {
    type Connection;

    /// Connects and logs in within so long.
    async fn dial(&self, to: Server<'_>, limit: Duration) -> Result<Self::Connection, Error>;

    /// Asks over a connection that was just made.
    async fn ask(
        &self,
        connection: &mut Self::Connection,
        request: &Request,
        limit: Duration,
    ) -> Result<Vec<Value>, Error>;

    async fn pause(&self, duration: Duration);
}

/// A server, and how to log in to it.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) addr: &'a ConnectionAddr,
    pub(crate) login: &'a RedisConnectionInfo,
}

/// A connection to the server that holds the keys.
pub(crate) struct Opened<Conn> {
    pub(crate) connection: Conn,
    /// As [`Known::moves`](crate::config::known::Known::moves) was then: with another number it may
    /// lead elsewhere.
    pub(crate) moves: u64,
}

/// Opens a connection to the server that holds the keys now.
pub(crate) async fn open<D: Dial>(
    dial: &D,
    config: &Config,
    deadline: Instant,
) -> Result<Opened<D::Connection>, Error> {
    let search = Search {
        dial,
        config,
        deadline,
    };
    if let Place::Sentinels(_) = config.place
        && let Some(opened) = sentinel::known(&search).await
    {
        return Ok(opened);
    }
    let mut before = None;
    loop {
        let (mut said, left) = (Said::default(), search.left());
        let opened = match &config.place {
            Place::Fixed => {
                let connection = search.holder(config.redis.addr(), 1).await?;
                let moves = 0;
                return Ok(Opened { connection, moves });
            }
            Place::Sentinels(sentinels) => sentinel::round(&search, sentinels, &mut said).await,
            Place::Cluster(nodes) => cluster::round(&search, nodes, &mut said).await,
        };
        if let Some(opened) = opened {
            return Ok(opened);
        }
        if search.left() <= 2 * PAUSE || said.is_final() {
            return Err(said.or(before, left).error());
        }
        before = Some(said);
        dial.pause(PAUSE).await;
    }
}

/// Asks the sentinels again if their last answer is too old; one caller at a time. After a graceful
/// failover the old primary goes on taking writes for some ten seconds, and closes no connection.
///
/// That no sentinel answers changes nothing: then the server that is known is the best there is. A node
/// of a cluster needs no such question, because it refuses what it does not own.
pub(crate) async fn confirm<D: Dial>(dial: &D, config: &Config, limit: Duration) {
    let Place::Sentinels(sentinels) = &config.place else {
        return;
    };
    if config.known.holder().is_none() {
        return;
    }
    if !config.known.is_to_be_asked(config.discovery_max_age) {
        return;
    }
    let search = Search {
        dial,
        config,
        deadline: Instant::now() + limit,
    };
    sentinel::confirm(&search, sentinels).await;
}

/// One search, with what it has until its deadline.
struct Search<'a, D> {
    dial: &'a D,
    config: &'a Config,
    deadline: Instant,
}

impl<D: Dial> Search<'_, D> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// One of so many equal parts of the time that is left: who is silent must not use up the time
    /// of the others.
    fn share(&self, parts: usize) -> Duration {
        self.left() / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
    }

    /// The places of so many addresses, from the one on that was right last.
    fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<D> {
        let first = self.config.known.first();
        (0..count).map(move |at| (first + at) % count)
    }

    /// Connects to a server that may hold the keys.
    async fn holder(&self, addr: &ConnectionAddr, parts: usize) -> Result<D::Connection, Error> {
        let login = self.config.redis.redis_settings();
        let server = Server { addr, login };
        self.dial.dial(server, self.share(parts)).await
    }

    /// An announced address as it is reached from here.
    fn announced(&self, host: &str, port: u16) -> ConnectionAddr {
        let (host, port) = match &self.config.address_map {
            Some(map) => map(host, port),
            None => (host.to_owned(), port),
        };
        elsewhere(self.config.redis.addr(), host, port)
    }
}

/// What those said who were asked, for the error.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// The first refusal that no time mends, such as a wrong password.
    refusal: Option<Error>,
    /// Whether anything went wrong that time may mend.
    has_hope: bool,
}

impl Said {
    fn add(&mut self, who: &ConnectionAddr, what: impl fmt::Display) {
        self.lines.push(format!("{} {what}", shown(who)));
    }

    /// What went wrong with this server.
    fn failed(&mut self, who: &ConnectionAddr, error: Error) {
        let why = match &error {
            Error::Unavailable { cause, .. } => cause.to_string(),
            Error::Refused { code, hint, .. } => format!("refused with {code}: {hint}"),
            other => other.to_string(),
        };
        self.add(who, format_args!("failed: {why}"));
        if error.is_transient() {
            self.has_hope = true;
        } else {
            self.refusal.get_or_insert(error.of_redis(&shown(who)));
        }
    }

    /// This round, or the one before it if this one began with so little time that it may tell of
    /// nothing but that.
    fn or(self, before: Option<Self>, left: Duration) -> Self {
        match before {
            Some(before) if left < ENOUGH => before,
            _ => self,
        }
    }

    /// Whether asking again can't help.
    fn is_final(&self) -> bool {
        self.refusal.is_some() && !self.has_hope
    }

    /// The error of the whole search. Where all refuse for good, the first refusal.
    fn error(self) -> Error {
        match self.refusal {
            Some(refusal) if !self.has_hope => refusal,
            _ => Error::Unavailable {
                server: String::new(),
                cause: Outage::NoHolder,
                may_have_been_applied: false,
                source: Some(self.lines.join("; ").into()),
            },
        }
    }
}
