//! A Postgres server of the test's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, str};

use tempfile::TempDir;

use super::process::{Farewell, Process, Slot, missing, program, start_on_free_port};

/// Postgres, with the superuser `postgres`, no password, and no care for durability. The variable
/// `BIFROST_TEST_PG_BIN` names a directory of binaries; otherwise the newest one below
/// `/usr/lib/postgresql` is taken, or else `PATH`.
pub struct Postgres {
    slot: Slot,
    port: u16,
    settings: Vec<String>,
    // Last: removed when the server has gone.
    dir: TempDir,
}

impl Postgres {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more settings, such as `"wal_level=logical"`.
    pub fn start_with(settings: &[&str]) -> Self {
        let dir = private_dir("bifrost-postgres-");
        create_data(&dir);
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let (port, process) = start_on_free_port("postgres", |port| launch(port, &settings, &dir));
        Self {
            slot: Slot::new("postgres", process),
            port,
            settings,
            dir,
        }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, for `postgres` and `tokio_postgres`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.slot.running(|process| process.pid())
    }

    /// A connection of its own.
    pub fn client(&self) -> ::postgres::Client {
        ::postgres::Client::connect(&self.url(), ::postgres::NoTls)
            .expect("Postgres accepts a connection")
    }

    /// SIGSTOP for the server and all its sessions.
    pub fn freeze(&self) {
        self.slot.running(|process| process.freeze());
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.slot.running(|process| process.thaw());
    }

    /// SIGKILL for the server and all its sessions; what was committed is kept.
    pub fn kill(&self) {
        let pid_file = self.dir.path().join("data/postmaster.pid");
        let segment = shared_memory(&fs::read_to_string(pid_file).unwrap_or_default());
        self.slot.kill();
        if let Some(id) = segment {
            // Nothing else would remove it. If it fails, some 50 bytes are lost.
            let _ = Command::new("ipcrm")
                .args(["-m", &id])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Starts it again, killing it first if it runs: same port, same data, same settings.
    pub fn restart(&self) {
        self.kill();
        let start = || launch(self.port, &self.settings, &self.dir);
        self.slot.restart(start);
    }

    /// Creates the table of modules under this name.
    pub fn create_workspace(&self, table: &str) {
        let statements = format!(
            "CREATE TABLE {table} (
                id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                path varchar(1000) UNIQUE NOT NULL,
                content text,
                content_hash varchar(64),
                entity_type varchar(20),
                is_deleted boolean NOT NULL DEFAULT FALSE,
                updated_at timestamp NOT NULL DEFAULT now()
            );
            CREATE INDEX ON {table} (path) WHERE entity_type = 'module' AND NOT is_deleted;"
        );
        self.client()
            .batch_execute(&statements)
            .expect("the table can be created");
    }
}

/// The URL of a Postgres, or of what stands before it, on this port.
pub fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

fn launch(port: u16, settings: &[String], dir: &TempDir) -> Result<Process, String> {
    const SETTINGS: [&str; 11] = [
        "listen_addresses=127.0.0.1",
        // None: their path must not exceed 107 bytes, and TCP is enough.
        "unix_socket_directories=",
        // No asynchronous commits, though: a kill would lose them.
        "fsync=off",
        "full_page_writes=off",
        "shared_buffers=16MB",
        "max_connections=100",
        "autovacuum=off",
        // In its directory, not in a place where it would stay behind.
        "dynamic_shared_memory_type=mmap",
        "log_destination=stderr",
        "logging_collector=off",
        // `now()` in a plain timestamp is then what the specification's Python writes there.
        "timezone=UTC",
    ];
    let mut command = as_ordinary_user("postgres");
    command.args(["-D", "data", "-p", &port.to_string()]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    let ready = "database system is ready to accept connections";
    Process::start(&mut command, dir.path(), ready, Farewell::Quit)
}

/// The id of the System V segment, from the text of `postmaster.pid`.
fn shared_memory(pid_file: &str) -> Option<String> {
    let ids = pid_file.lines().nth(6)?;
    ids.split_whitespace().nth(1).map(String::from)
}

/// Makes the data directory. `initdb` takes a second, so what it made is kept for other tests: as
/// one file, for it to be there in whole or not at all.
fn create_data(dir: &TempDir) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let name = format!("bifrost-postgres-{}-{}.tar", version(), own_uid());
    let kept = env::temp_dir().join(name);
    // Under a name that anybody could have guessed, only what is ours.
    let is_ours = fs::symlink_metadata(&kept)
        .is_ok_and(|kept| kept.is_file() && kept.uid() == own_uid() && kept.mode() & 0o022 == 0);
    let tar = |action: &str, file: &Path| {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(dir.path()).arg(action).arg(file);
        tar
    };
    if is_ours {
        run(&mut tar("-xf", &kept));
        return;
    }
    run(as_ordinary_user("initdb")
        .current_dir(dir.path())
        .args(["-D", "data", "-U", "postgres", "--auth=trust"])
        .args(["--encoding=UTF8", "--no-locale", "--no-sync"])
        .arg("--wal-segsize=1"));
    let aside = TempDir::with_prefix("bifrost-initdb-").expect("a temporary directory");
    let file = aside.path().join("data.tar");
    run(tar("-cf", &file).arg("data"));
    // If it fails, the next test takes a second longer.
    let _ = fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&file, &kept));
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
}

/// The third word of `postgres (PostgreSQL) 15.13 (Debian …)`.
fn version() -> String {
    let output = Command::new(binary("postgres")).arg("--version").output();
    let output = output.expect("postgres can be started").stdout;
    let text = str::from_utf8(&output).expect("a version in ASCII");
    let word = text.split_whitespace().nth(2).expect("a version number");
    word.replace('/', "-")
}

fn binary(name: &str) -> PathBuf {
    if let Some(dir) = env::var_os("BIFROST_TEST_PG_BIN") {
        let path = PathBuf::from(dir).join(name);
        assert!(
            path.is_file(),
            "{}",
            missing(&path.to_string_lossy(), "postgresql")
        );
        return path;
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = installed
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(name);
            path.is_file().then_some((version, path))
        })
        .max();
    newest.map_or_else(|| program(name, &[], "postgresql"), |(_, path)| path)
}

fn as_ordinary_user(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command.env("LC_ALL", "C");
    drop_privileges(&mut command);
    command
}

/// Postgres and `PgBouncer` refuse to run as root: lets `command` run as another user then.
pub fn drop_privileges(command: &mut Command) {
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
}

/// A temporary directory for a program that may have to run as another user.
pub fn private_dir(prefix: &str) -> TempDir {
    let dir = TempDir::with_prefix(prefix).expect("a temporary directory");
    if let Some((uid, gid)) = owner() {
        chown(dir.path(), Some(uid), Some(gid)).expect("root can give a directory away");
    }
    dir
}

/// A file in such a directory that only that program may read.
pub fn private_file(dir: &TempDir, name: &str, contents: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, contents).expect("a new file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    if let Some((uid, gid)) = owner() {
        chown(&path, Some(uid), Some(gid)).expect("root can give a file away");
    }
    path
}

/// The user and the group for a program that refuses to run as root; `None` if we are not root.
fn owner() -> Option<(u32, u32)> {
    if own_uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    let ids = ["postgres", "nobody"]
        .iter()
        .find_map(|name| user_ids(&passwd, name));
    Some(ids.expect("a user postgres or nobody"))
}

fn user_ids(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let fields = |line: &str| -> Option<(u32, u32)> {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    };
    passwd.lines().find_map(fields)
}

fn own_uid() -> u32 {
    fs::metadata("/proc/self").expect("/proc is mounted").uid()
}
