//! Redis and Postgres, as the arguments name them, with the time-outs that suit a tool: an operator
//! waits longer than an import.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bifrost_module_cache::blocking::{ModuleReader, ModuleWriter, connect_postgres_by_sslmode};
use bifrost_module_cache::guard::trigger_sql;
use bifrost_module_cache::postgres::Client;
use bifrost_module_cache::sync::SyncOptions;
use bifrost_module_cache::{Config, DEFAULT_REDIS_URL, Error, Tls, postgres_address};

use crate::args::{Removals, ServerArgs};
use crate::failure::{Exit, Failure};
use crate::secrets;
use crate::stderr::Stderr;
use crate::watchdog;

/// How long a whole batch may take, or longer where `--timeout` says so.
const BULK: Duration = Duration::from_secs(30);

/// How long the library waits for open transactions before it looks again.
const BARRIER: Duration = Duration::from_secs(5);

/// The servers, the settings and what the arguments say of them. Nothing is connected to before a
/// command needs it.
pub struct Servers<'a> {
    args: &'a ServerArgs,
    config: Config,
    /// The operator did not say which Redis is meant. Messages say so: the usual cause of an outage
    /// is then a variable that is not set.
    is_default: bool,
    tls: Tls,
}

impl<'a> Servers<'a> {
    pub fn new(args: &'a ServerArgs) -> Result<Self, Failure> {
        let url = secrets::url(
            args.redis_url.as_deref(),
            args.redis_url_file.as_deref(),
            "REDIS_URL",
            "--redis-url",
        )?;
        let tls = tls(args)?;
        let namespace = match &args.namespace {
            Some(namespace) => Some(namespace.clone()),
            None => secrets::var("BIFROST_NAMESPACE")?,
        };
        let config = Config::new(url.as_deref().unwrap_or(DEFAULT_REDIS_URL))?
            .with_tls(tls.clone())
            .with_namespace(namespace.unwrap_or_default())
            // The tool asks from one or two threads.
            .with_pool_size(2)
            .with_ttl(args.ttl)
            .with_max_content_bytes(args.max_content_bytes)
            .with_workspace_table(&args.table);
        let config = within(config, args.timeout).with_bulk_deadline(bulk(args));
        Ok(Self {
            args,
            config,
            is_default: url.is_none(),
            tls,
        })
    }

    pub fn reader(&self) -> Result<ModuleReader, Failure> {
        Ok(ModuleReader::new(self.config.clone())?)
    }

    pub fn writer(&self) -> Result<ModuleWriter, Failure> {
        Ok(ModuleWriter::new(self.config.clone())?)
    }

    /// Refuses a file that is too large to be cached, before it is read.
    pub fn fits(&self, path: &str, bytes: usize) -> Result<(), Failure> {
        let limit = self.args.max_content_bytes;
        if bytes <= limit {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "the content of module {path} has {bytes} bytes, more than the limit of {limit}: raise it with --max-content-bytes"
        )))
    }

    /// The SQL of the triggers for a guard.
    pub fn trigger_sql(&self) -> Result<String, Failure> {
        Ok(trigger_sql(&self.config)?)
    }

    /// How long a server may take to answer.
    pub fn timeout(&self) -> Duration {
        self.args.timeout
    }

    /// The database, if one was named.
    pub fn database(&self) -> Result<Option<Database<'_>>, Failure> {
        let url = secrets::url(
            self.args.database_url.as_deref(),
            self.args.database_url_file.as_deref(),
            "DATABASE_URL",
            "--database-url",
        )?;
        url.map(|url| {
            Ok(Database {
                address: postgres_address(&url)?,
                url,
                servers: self,
            })
        })
        .transpose()
    }

    /// The database, without which the command can do nothing.
    pub fn needed_database(&self) -> Result<Database<'_>, Failure> {
        self.database()?.ok_or_else(|| {
            Failure::usage("a database is needed: give --database-url-file, or set DATABASE_URL")
        })
    }

    /// Which Redis is asked, for a report.
    pub fn redis(&self) -> String {
        let unset = if self.is_default {
            " (the default: REDIS_URL is not set)"
        } else {
            ""
        };
        format!("{}{unset}", self.redis_address())
    }

    pub fn redis_address(&self) -> String {
        self.config.redis_address()
    }

    /// An error of a call that used Redis alone, which names it itself.
    pub fn failure(&self, error: Error) -> Failure {
        let redis = error.is_unavailable() || error.is_busy() || error.is_refused();
        let (unnamed, failure) = (error.server().is_none(), Failure::from(error));
        match () {
            () if redis && unnamed => failure.at(&self.redis()),
            () if redis && self.is_default => {
                let message = format!("{}; REDIS_URL is not set", failure.message);
                Failure { message, ..failure }
            }
            () => failure,
        }
    }

    /// Whether Redis answers within this time.
    fn ask_redis(&self, limit: Duration) -> Result<(), Failure> {
        let reader = ModuleReader::new(within(self.config.clone(), limit))?;
        match reader.status() {
            // Redis answers, if with a mark that can't be read: a warm-up replaces it.
            Err(error) if !error.is_corrupt() => Err(self.failure(error)),
            _ => Ok(()),
        }
    }
}

/// Postgres, not yet connected to.
pub struct Database<'a> {
    servers: &'a Servers<'a>,
    url: String,
    address: String,
}

impl Database<'_> {
    fn connect(&self) -> Result<Client, Failure> {
        self.connect_within(self.servers.args.timeout)
    }

    fn connect_within(&self, limit: Duration) -> Result<Client, Failure> {
        connect_postgres_by_sslmode(&self.url, &self.servers.tls, limit)
            .map_err(|error| self.failure(error))
    }

    /// What connects whenever a guard needs it to.
    pub fn connector(
        &self,
    ) -> impl Fn() -> Result<Client, Error> + Clone + Send + Sync + 'static + use<> {
        let (url, tls) = (self.url.clone(), self.servers.tls.clone());
        let limit = self.servers.args.timeout;
        move || connect_postgres_by_sslmode(&url, &tls, limit)
    }

    /// Connects, and asks Redis at the same time: an error tells of both. Takes at most `limit`.
    pub fn connect_both(&self, limit: Duration) -> Result<Client, Failure> {
        let limit = limit.min(self.servers.args.timeout);
        // At the same time, so that one run tells of both: in a new deployment both may be wrong.
        let (redis, database) = thread::scope(|scope| {
            let redis = scope.spawn(|| self.servers.ask_redis(limit));
            let database = self.connect_within(limit);
            (redis.join().expect("no panic"), database)
        });
        match (redis, database) {
            (Ok(()), database) => database,
            (Err(redis), Err(database)) if redis.exit == database.exit => Err(Failure::new(
                redis.exit,
                format!("{}; {}", redis.message, database.message),
            )),
            // Both failed in different ways: the one that waiting does not mend comes first.
            (Err(redis), Err(database)) if redis.is_unavailable() => Err(database),
            (Err(redis), _) => Err(redis),
        }
    }

    /// The answer of a reader that asks both servers a few questions.
    pub fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&ModuleReader, &mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut client = self.connect()?;
        let reader = self.servers.reader()?;
        // Long enough for Redis to reach its own time-out twice and be named as the one that is
        // silent.
        let limit = self.servers.args.timeout.saturating_mul(2) + BARRIER;
        let result = watchdog::within(limit, limit, |_| {}, move |_| call(&reader, &mut client));
        self.heard(result, |_| {
            "the database did not answer in time: look for a lock on its table, or raise --timeout"
                .to_owned()
        })
    }

    /// The result of long work with both servers, which shows its progress on standard error. The
    /// first progress must come within `wait`.
    pub fn work<T: Send + 'static>(
        &self,
        stderr: &Stderr,
        removals: Removals,
        wait: Duration,
        call: impl FnOnce(SyncOptions<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let limit = bulk(self.servers.args).saturating_mul(2);
        let show = |progress| stderr.progress(progress);
        // A server that became ready at the end of `wait` still gets the time of one answer.
        let first = limit.min(wait.max(self.servers.args.timeout));
        let result = watchdog::within(first, limit, show, move |reports| {
            let options = removals
                .options()
                .with_progress(|progress| reports.progress(progress));
            call(options)
        });
        self.heard(result, |silence| {
            let silence = humantime::format_duration(Duration::from_secs(silence.as_secs()));
            format!("no progress for {silence}: the database is too slow, or a lock on its table holds it up; raise --timeout if it needs longer")
        })
    }

    /// Names the server in what went wrong: a silence can only be the database's, because every
    /// call to Redis has a deadline.
    fn heard<T>(
        &self,
        result: Result<Result<T, Error>, Duration>,
        silence: impl FnOnce(Duration) -> String,
    ) -> Result<T, Failure> {
        result
            .map_err(|time| Failure::new(Exit::Unavailable, silence(time)).at(&self.address))?
            .map_err(|error| self.failure(error))
    }

    /// An error of a call that used both servers.
    pub fn failure(&self, error: Error) -> Failure {
        if error.is_database() && error.server().is_none() {
            Failure::from(error).at(&self.address)
        } else {
            self.servers.failure(error)
        }
    }
}

/// For a batch over a slow network: half a minute, or what `--timeout` says if that is more.
fn bulk(args: &ServerArgs) -> Duration {
    BULK.max(args.timeout)
}

/// The configuration with every answer within this time. The deadline of bulk calls is apart.
fn within(config: Config, limit: Duration) -> Config {
    config
        .with_connect_timeout(limit)
        .with_response_timeout(limit)
        .with_pool_timeout(limit)
        .with_lookup_deadline(limit)
}

fn tls(args: &ServerArgs) -> Result<Tls, Failure> {
    let read = |file: &Path| {
        fs::read(file)
            .map_err(|error| Failure::refused(format!("can't read {}: {error}", file.display())))
    };
    let mut tls = Tls::default();
    if let Some(file) = &args.tls_ca {
        tls = Tls::with_ca_pem(&read(file)?)?;
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        tls = tls.with_client_certificate_pem(&read(certificate)?, &read(key)?)?;
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser as _;

    #[test]
    fn a_redis_that_nobody_named_is_said_to_be_the_default() {
        let mut cli = Cli::parse_from(["bifrost-modules", "status"]);
        cli.servers.redis_url = Some("redis://user:hunter2@cache:1/2".to_owned());
        let mut servers = Servers::new(&cli.servers).unwrap();
        assert_eq!(servers.redis(), "cache:1/2");
        servers.is_default = true;
        assert!(servers.redis().contains("REDIS_URL is not set"));
        let error = servers.reader().unwrap().get("a.py").unwrap_err();
        let message = servers.failure(error).message;
        assert!(message.contains("REDIS_URL is not set"), "{message}");
        assert_eq!(message.matches("cache:1/2").count(), 1, "{message}");
    }
}
