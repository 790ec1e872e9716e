//! Serves a real workspace from throw-away servers: `make demo`.
//!
//! Postgres gets every module of a directory (by default Python's own library), the operator's tool
//! warms Redis from it, and four workers look all of them up while a service saves, moves and
//! deletes some. At the end, every module must come back byte for byte, the tool must find no
//! drift, then explain and mend some; and it publishes a sample to a Redis that has no database.

#[path = "../../tests/support/mod.rs"]
mod support;
mod tool;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use bifrost_module_cache::{CachedModule, Config, blocking, nonblocking, postgres, tokio_postgres};
use support::{Postgres, RedisServer};
use tool::Tool;

const WORKERS: usize = 4;
/// How many modules the service saves, moves and deletes, each.
const CHANGES: usize = 100;
const MOST_BYTES: u64 = 16 << 20;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let root = env::args_os()
        .nth(1)
        .map_or_else(default_root, PathBuf::from);
    let workspace = Workspace::read(&root)?;
    let bytes: usize = workspace.modules.iter().map(|m| m.content.len()).sum();
    let (modules, refused) = (workspace.modules, workspace.refused);
    println!(
        "workspace  {}: {} modules, {:.1} MB ({refused} files can't be modules: left out)",
        root.display(),
        modules.len(),
        megabytes(bytes),
    );

    let (redis, database) = (RedisServer::start(), Postgres::start());
    database.create_workspace("workspace_files");
    let start = Instant::now();
    fill(&mut database.client(), &modules)?;
    println!(
        "postgres   {} rows on port {} in {:.1?}, redis on port {}; both go when this ends",
        modules.len(),
        database.port(),
        start.elapsed(),
        redis.port(),
    );

    let config = || Config::new(redis.url());
    let reader = blocking::ModuleReader::new(config()?)?;
    let tool = Tool::new(&redis.url(), &database.url())?;
    tool.run(&["warm", "--wait", "30s"], 0)?;
    tool.run(&["status"], 0)?;
    println!();

    let plan = Plan::new(&modules)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = AtomicBool::new(false);
    let service = async {
        let changed = change(&plan, config()?, &database.url()).await;
        done.store(true, Ordering::Release);
        changed
    };
    let start = Instant::now();
    let (sights, changed) = thread::scope(|scope| {
        let spawn = |worker| {
            let (reader, plan, modules, done) = (reader.clone(), &plan, &modules, &done);
            let first = worker * modules.len() / WORKERS;
            scope.spawn(move || look_up(&reader, plan, modules, first, done))
        };
        let workers: Vec<_> = (0..WORKERS).map(spawn).collect();
        let changed = runtime.block_on(service);
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("no panic");
        let sights: Outcome<Vec<Sight>> = workers.into_iter().map(join).collect();
        (sights, changed)
    });
    let (sight, changed) = (Sight::merge(sights?), changed?);
    println!(
        "workers    {WORKERS} threads, {}, {:.0} per second",
        spread(&sight.times),
        rate(sight.times.len(), start.elapsed()),
    );
    println!(
        "           found {} ({} of them changed meanwhile), absent {} ({} never existed)",
        sight.found, sight.renewed, sight.absent, sight.asked_in_vain,
    );
    println!(
        "service    {} saved, {} moved, {} deleted, Postgres and cache together: {}",
        plan.saved.len(),
        plan.moved.len(),
        plan.deleted.len(),
        spread(&changed),
    );

    let expected = plan.outcome(&modules);
    if table(&mut database.client())? != expected {
        return Err("the table does not hold what the service wrote".into());
    }
    check_blocking(&reader, &expected, &plan)?;
    runtime.block_on(check_nonblocking(config()?, &expected, &plan))?;
    tool.run(&["verify", "--quiet"], 0)?;
    break_and_mend(&tool, &redis, &expected)?;
    publish_sample()
}

/// What a bug in a service would do, and an operator about it.
fn break_and_mend(
    tool: &Tool,
    redis: &RedisServer,
    expected: &BTreeMap<String, String>,
) -> Outcome<()> {
    let path = expected.keys().next().ok_or("there is no module")?;
    let older = CachedModule::new(path, "# An older version\n")?;
    blocking::ModuleWriter::new(Config::new(redis.url())?)?.set(&older)?;
    tool.run(&["explain", path], 1)?;
    tool.run(&["repair", "--quiet"], 0)?;
    tool.run(&["verify", "--quiet"], 0)?;
    tool.run(&["explain", path], 0)
}

/// The sample, for those without a database.
fn publish_sample() -> Outcome<()> {
    let redis = RedisServer::start();
    let tool = Tool::new(&redis.url(), "")?;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample");
    let sample = sample.to_str().ok_or("the path is not UTF-8")?;
    tool.run(&["publish", "--exact", sample], 0)?;
    tool.run(&["ls"], 0)
}

/// The modules of a directory.
struct Workspace {
    modules: Vec<CachedModule>,
    refused: usize,
}

impl Workspace {
    fn read(root: &Path) -> Outcome<Self> {
        let mut workspace = Self {
            modules: Vec::new(),
            refused: 0,
        };
        workspace
            .read_dir(root, root)
            .map_err(|e| format!("{}: {e}", root.display()))?;
        if workspace.modules.is_empty() {
            return Err(format!("{} has no Python modules", root.display()).into());
        }
        workspace.modules.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(workspace)
    }

    fn read_dir(&mut self, root: &Path, dir: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Symbolic links are neither of both.
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() && entry.file_name() != "site-packages" {
                self.read_dir(root, &path)?;
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "py") {
                match module(root, &path) {
                    Some(module) => self.modules.push(module),
                    None => self.refused += 1,
                }
            }
        }
        Ok(())
    }
}

/// The module in a file, unless it is unreadable, no UTF-8, too large, or has a NUL, which
/// Postgres can't hold.
fn module(root: &Path, file: &Path) -> Option<CachedModule> {
    let path = file.strip_prefix(root).ok()?.to_str()?;
    if fs::metadata(file).ok()?.len() > MOST_BYTES {
        return None;
    }
    let content = fs::read_to_string(file).ok()?;
    let module = CachedModule::new(path, content).ok()?;
    (!module.content.contains('\0')).then_some(module)
}

fn default_root() -> PathBuf {
    let script = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    let python = Command::new("python3").args(["-c", script]).output();
    let library = python.ok().and_then(|output| {
        let path = String::from_utf8(output.stdout).ok()?;
        Some(PathBuf::from(path.trim_end()))
    });
    library
        .filter(|path| path.join("os.py").is_file())
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample"))
}

fn fill(client: &mut postgres::Client, modules: &[CachedModule]) -> Outcome<()> {
    let mut transaction = client.transaction()?;
    let insert = transaction.prepare(
        "INSERT INTO workspace_files (path, content, content_hash, entity_type)
         VALUES ($1, $2, $3, 'module')",
    )?;
    for module in modules {
        let CachedModule {
            path,
            content,
            hash,
        } = module;
        transaction.execute(&insert, &[path, content, hash])?;
    }
    Ok(transaction.commit()?)
}

/// What the service is going to change.
struct Plan {
    saved: BTreeMap<String, CachedModule>,
    /// By the old path.
    moved: BTreeMap<String, CachedModule>,
    deleted: HashSet<String>,
}

impl Plan {
    /// Three neighbours of every few modules: all over the workspace, none twice.
    fn new(modules: &[CachedModule]) -> Outcome<Self> {
        let mut plan = Self {
            saved: BTreeMap::new(),
            moved: BTreeMap::new(),
            deleted: HashSet::new(),
        };
        let step = (modules.len() / CHANGES).max(3);
        for group in modules.chunks_exact(step).take(CHANGES) {
            let [save, relocate, delete] = [&group[0], &group[1], &group[2]];
            let content = format!("{}\n# Saved by the demo: ✓\n", save.content);
            let saved = CachedModule::new(&save.path, content)?;
            plan.saved.insert(save.path.clone(), saved);
            // A path that gets too long stays where it is.
            let target = format!("moved_by_demo/{}", relocate.path);
            if let Ok(moved) = CachedModule::new(target, &relocate.content) {
                plan.moved.insert(relocate.path.clone(), moved);
            }
            plan.deleted.insert(delete.path.clone());
        }
        Ok(plan)
    }

    /// Whether a lookup of `original` may give `seen` while the service is at work.
    fn allows(&self, original: &CachedModule, seen: Option<&CachedModule>) -> bool {
        let path = &original.path;
        match seen {
            Some(seen) => seen == original || self.saved.get(path) == Some(seen),
            None => self.moved.contains_key(path) || self.deleted.contains(path),
        }
    }

    /// All contents, by path, when the service is done.
    fn outcome(&self, modules: &[CachedModule]) -> BTreeMap<String, String> {
        let gone =
            |m: &&CachedModule| self.moved.contains_key(&m.path) || self.deleted.contains(&m.path);
        let kept = modules.iter().filter(|m| !gone(m));
        kept.chain(self.saved.values())
            .chain(self.moved.values())
            .map(|m| (m.path.clone(), m.content.clone()))
            .collect()
    }

    fn gone(&self) -> impl Iterator<Item = &String> {
        self.moved.keys().chain(&self.deleted)
    }
}

/// The service: changes Postgres first, then the cache. Gives the time that each change took.
async fn change(plan: &Plan, config: Config, database: &str) -> Outcome<Vec<Duration>> {
    let writer = nonblocking::ModuleWriter::new(config)?;
    let (client, connection) = tokio_postgres::connect(database, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let save = client
        .prepare(
            "UPDATE workspace_files SET content = $2, content_hash = $3, updated_at = now()
             WHERE path = $1",
        )
        .await?;
    let relocate = client
        .prepare("UPDATE workspace_files SET path = $2, updated_at = now() WHERE path = $1")
        .await?;
    let delete = client
        .prepare("UPDATE workspace_files SET is_deleted = TRUE, updated_at = now() WHERE path = $1")
        .await?;
    let mut times = Vec::new();
    for module in plan.saved.values() {
        let start = Instant::now();
        let CachedModule {
            path,
            content,
            hash,
        } = module;
        client.execute(&save, &[path, content, hash]).await?;
        writer.refresh(&client, &[path]).await?;
        times.push(start.elapsed());
    }
    for (old, module) in &plan.moved {
        let start = Instant::now();
        client.execute(&relocate, &[old, &module.path]).await?;
        writer.refresh(&client, &[old, &module.path]).await?;
        times.push(start.elapsed());
    }
    for path in &plan.deleted {
        let start = Instant::now();
        client.execute(&delete, &[path]).await?;
        writer.refresh(&client, &[path]).await?;
        times.push(start.elapsed());
    }
    drop(client);
    connection.await??;
    Ok(times)
}

/// What a worker saw.
#[derive(Default)]
struct Sight {
    found: usize,
    renewed: usize,
    absent: usize,
    asked_in_vain: usize,
    times: Vec<Duration>,
}

impl Sight {
    fn merge(sights: Vec<Self>) -> Self {
        let mut all = Self::default();
        for sight in sights {
            all.found += sight.found;
            all.renewed += sight.renewed;
            all.absent += sight.absent;
            all.asked_in_vain += sight.asked_in_vain;
            all.times.extend(sight.times);
        }
        all
    }

    fn look_up(
        &mut self,
        reader: &blocking::ModuleReader,
        path: &str,
    ) -> Outcome<Option<CachedModule>> {
        let start = Instant::now();
        let seen = reader.get(path)?;
        self.times.push(start.elapsed());
        match seen {
            Some(_) => self.found += 1,
            None => self.absent += 1,
        }
        Ok(seen)
    }
}

/// A worker: looks up everything at least once, and goes on until the service is done.
fn look_up(
    reader: &blocking::ModuleReader,
    plan: &Plan,
    modules: &[CachedModule],
    first: usize,
    done: &AtomicBool,
) -> Outcome<Sight> {
    let mut sight = Sight::default();
    loop {
        let last_round = done.load(Ordering::Acquire);
        let (before, after) = modules.split_at(first);
        for (turn, original) in after.iter().chain(before).enumerate() {
            let seen = sight.look_up(reader, &original.path)?;
            if !plan.allows(original, seen.as_ref()) {
                return Err(format!("a worker saw a wrong {}", original.path).into());
            }
            sight.renewed += usize::from(seen.is_some_and(|seen| seen != *original));
            // Imports of other people's packages come this way, too.
            if turn % 10 == 0 {
                let path = format!("third_party/{}", original.path);
                sight.asked_in_vain += 1;
                if sight.look_up(reader, &path)?.is_some() {
                    return Err(format!("a worker found {path}, which never existed").into());
                }
            }
        }
        if last_round {
            return Ok(sight);
        }
    }
}

/// The modules in the table: contents by path.
fn table(client: &mut postgres::Client) -> Outcome<BTreeMap<String, String>> {
    let rows = client.query(
        "SELECT path, content FROM workspace_files
         WHERE entity_type = 'module' AND NOT is_deleted AND content IS NOT NULL",
        &[],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn check_blocking(
    reader: &blocking::ModuleReader,
    expected: &BTreeMap<String, String>,
    plan: &Plan,
) -> Outcome<()> {
    let start = Instant::now();
    let paths: Vec<&String> = expected.keys().collect();
    for (path, seen) in paths.iter().zip(reader.get_many(&paths)?) {
        compare("blocking", path, seen.as_ref(), expected)?;
    }
    for path in plan.gone() {
        compare("blocking", path, reader.get(path)?.as_ref(), expected)?;
    }
    compare_paths("blocking", &reader.paths()?, expected)?;
    report_check("blocking", expected, start);
    Ok(())
}

async fn check_nonblocking(
    config: Config,
    expected: &BTreeMap<String, String>,
    plan: &Plan,
) -> Outcome<()> {
    let start = Instant::now();
    let reader = nonblocking::ModuleReader::new(config)?;
    for path in expected.keys().chain(plan.gone()) {
        compare("async", path, reader.get(path).await?.as_ref(), expected)?;
    }
    compare_paths("async", &reader.paths().await?, expected)?;
    report_check("async", expected, start);
    Ok(())
}

fn compare(
    facade: &str,
    path: &str,
    seen: Option<&CachedModule>,
    expected: &BTreeMap<String, String>,
) -> Outcome<()> {
    let content = expected.get(path);
    let is_right = match (seen, content) {
        (None, None) => true,
        (Some(seen), Some(content)) => *seen == CachedModule::new(path, content)?,
        _ => false,
    };
    if is_right {
        Ok(())
    } else {
        Err(format!("{facade}: {path} is not what the table holds").into())
    }
}

fn compare_paths(
    facade: &str,
    seen: &HashSet<String>,
    expected: &BTreeMap<String, String>,
) -> Outcome<()> {
    if seen.len() == expected.len() && expected.keys().all(|path| seen.contains(path)) {
        return Ok(());
    }
    Err(format!("{facade}: the index does not hold the paths of the table").into())
}

fn report_check(facade: &str, expected: &BTreeMap<String, String>, start: Instant) {
    println!(
        "check      {facade}: all {} modules are byte for byte those of the table ({:.1?})",
        expected.len(),
        start.elapsed(),
    );
}

fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    let [p50, p99] = [50, 99].map(|percent| at(percent).unwrap_or_default());
    format!("{} calls, p50 {p50:.0?}, p99 {p99:.0?}", times.len())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
