//! What can be said on the command line. The doc comments here are the texts of `--help`, and of
//! the man page.

#![allow(
    clippy::doc_markdown,
    reason = "these are the texts of --help, where backticks would show"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bifrost_module_cache::sync::SyncOptions;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

const EXIT_CODES: &str = "\
Exit codes:
  0  fine: done, found, warm, no drift
  1  the answer is no: not found, not warm, or cache and database differ
  2  usage: an argument is wrong or missing
  3  unavailable: Redis or Postgres can't be reached, or has to be tried again
  4  refused or misconfigured: a password, a permission, a URL, a file, an empty workspace
  5  corrupt: what is stored can't be read
  130 and 143  stopped by SIGINT or SIGTERM; all can be run again";

/// Warm, watch over and mend the cache of Python modules in Redis.
#[derive(Parser)]
#[command(name = "bifrost-modules", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub servers: ServerArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Variables are not read by clap: it could show what they hold.
#[derive(Args)]
#[command(next_help_heading = "Servers")]
pub struct ServerArgs {
    /// Redis; rediss:// for TLS [env: REDIS_URL] [default: redis://localhost:6379/0]
    ///
    /// Others on this machine can read the arguments of a process: give a password in the variable
    /// or in a file. No message shows it.
    #[arg(long, global = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// A file that holds the URL of Redis, such as a mounted secret [env: REDIS_URL_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// What goes before every key, where the services set a namespace [env: BIFROST_NAMESPACE]
    #[arg(long, global = true, value_name = "TEXT")]
    pub namespace: Option<String>,
    /// Postgres; ?sslmode=require for TLS [env: DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// A file that holds the URL of Postgres [env: DATABASE_URL_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// The authorities to trust over TLS, in PEM, instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate to show over TLS, in PEM
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The table that holds the workspace
    #[arg(
        long,
        global = true,
        value_name = "TABLE",
        default_value = "workspace_files"
    )]
    pub table: String,
    /// How long entries live, where the services set a time to live, such as 24h
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// How large a module may be, where the services set another limit
    #[arg(long, global = true, value_name = "BYTES", default_value_t = 16 << 20)]
    pub max_content_bytes: usize,
    /// How long a server may take to answer
    ///
    /// Long work is given up when nothing has come of it for a minute, or for twice this time where
    /// that is longer.
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print JSON: one object, or one a line where it is a list
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only what was asked for: no reports, progress, hints or warnings
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Load all modules of the database into the cache, and mark it as complete
    ///
    /// What an init container runs. It may be killed at any time and run again.
    Warm {
        /// Wait for so long for Redis, Postgres and its table to be ready, such as 60s
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Option<Duration>,
        #[command(flatten)]
        removals: Removals,
    },
    /// Tell whether the cache is complete, and since when
    Status,
    /// Compare all of the cache with the database
    Verify,
    /// Mend what differs from the database
    Repair {
        #[command(flatten)]
        removals: Removals,
    },
    /// Bring single modules to what the database has, or out of the cache where it has none
    Refresh {
        /// Such as shared/halopsa.py
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// List the cached modules: bytes, hash and path
    Ls {
        /// Only paths that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Print the source of a module, byte for byte
    Get {
        /// Such as shared/halopsa.py
        path: String,
    },
    /// Tell what modules' names stand for: a package, a module, a namespace, or nothing
    Resolve {
        /// Such as shared.halopsa
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Tell why a module is missing or old
    ///
    /// With a database it tells apart: just created and not cached, cache cleared, and a bug in
    /// invalidation. It goes by updated_at, of which a plain timestamp is taken for UTC. Of a name
    /// it looks at the parents, too.
    Explain {
        /// A path, such as shared/halopsa.py, or a name, such as shared.halopsa
        #[arg(value_name = "PATH|NAME")]
        subject: String,
    },
    /// Show how the cached source differs from the database's
    Diff {
        /// Such as shared/halopsa.py
        path: String,
    },
    /// Bring a directory of .py files into the cache, for those without a database
    ///
    /// Hidden files and directories are left out. Symbolic links are followed, as those of a
    /// mounted volume. Nothing is sent unless every file can be a module, and every link leads to
    /// something in the directory.
    Publish {
        /// The root of the workspace
        dir: PathBuf,
        /// Remove all other modules, and mark the cache as complete
        #[arg(long)]
        exact: bool,
        #[command(flatten)]
        removals: Removals,
    },
    /// Remove modules from the cache
    ///
    /// With a database, delete the row instead, or the next warm-up brings the module back.
    Rm {
        /// Such as shared/halopsa.py
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Move a module in the cache, for those without a database
    ///
    /// It moves what it reads: what others save there at that moment is lost.
    Mv {
        /// Where it is
        old: String,
        /// Where it is to be
        new: String,
    },
    /// Remove all modules from the cache; it is cold then
    Clear {
        /// Say that this is meant
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Print what changes, as it changes, until it is stopped
    Watch {
        /// Only paths that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Keep the cache equal to the database, whatever others write, until it is stopped
    ///
    /// A service to run beside services that write to Redis in the wrong order, twice or not at all.
    /// It needs to read the database only. SIGTERM and SIGINT end it with code 0; an outage of
    /// either server does not.
    Guard {
        #[command(flatten)]
        guard: GuardArgs,
        #[command(flatten)]
        limits: Limits,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print a man page
    Man {
        /// Of this command, such as warm, and not of the whole
        command: Option<String>,
    },
}

#[derive(Args)]
pub struct GuardArgs {
    /// How often to ask the database which rows changed
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub poll: Duration,
    /// Be told by triggers instead, and ask where that does not work
    #[arg(long)]
    pub listen: bool,
    /// For how long to leave alone what a transaction may be about to commit
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// How often to compare everything, whatever was seen to change
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub sweep: Duration,
    /// How much later than another guard to look, so as to mostly find it mended
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub standby: Duration,
    /// Serve /metrics, /healthz and /readyz here: a port of 127.0.0.1, or an address such as
    /// 0.0.0.0:9187
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Print the SQL of the triggers for --listen, for a migration of yours, and end
    #[arg(long)]
    pub print_trigger: bool,
}

/// An address, or a port of this machine alone.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| (Ipv4Addr::LOCALHOST, port).into());
    port.or_else(|_| text.parse())
        .map_err(|_| "it is neither a port nor an address with a port".to_owned())
}

/// With `publish`, of `--exact`.
#[derive(Args, Clone, Copy, Default)]
pub struct Removals {
    #[command(flatten)]
    pub limits: Limits,
    /// Write and remove nothing, and say what would be
    #[arg(long)]
    pub dry_run: bool,
}

/// How much may be removed.
#[derive(Args, Clone, Copy, Default)]
pub struct Limits {
    /// Say that a workspace without any module is meant: all others are removed
    #[arg(long, conflicts_with = "max_prune")]
    pub allow_empty: bool,
    /// Which share of the cached modules may be removed, from 0 to 1 [default: 0.5 if more than 20
    /// are cached]
    ///
    /// More is more often the wrong database than a change of the workspace: then nothing is
    /// written or removed, and it ends with code 4.
    #[arg(long, value_name = "SHARE")]
    pub max_prune: Option<f64>,
}

impl Removals {
    pub fn any(self) -> bool {
        self.limits.allow_empty || self.limits.max_prune.is_some() || self.dry_run
    }

    pub fn options<'a>(self) -> SyncOptions<'a> {
        let options = SyncOptions::default()
            .with_allow_empty(self.limits.allow_empty)
            .with_dry_run(self.dry_run);
        match self.limits.max_prune {
            Some(share) => options.with_max_prune(share),
            None => options,
        }
    }
}

impl Command {
    /// Whether stopping it in the middle may leave work half done.
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Self::Warm { .. }
                | Self::Repair { .. }
                | Self::Refresh { .. }
                | Self::Publish { .. }
                | Self::Rm { .. }
                | Self::Mv { .. }
                | Self::Clear { .. }
        )
    }
}
