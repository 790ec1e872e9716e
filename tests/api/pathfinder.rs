//! `resolve` answers as Python's own `PathFinder` does for the same files on a disk.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::support::{Near, Nearby, PATIENCE, Reader, World, Writer, on_both_facades, python};
use bifrost_module_cache::near::NearCacheOptions;
use bifrost_module_cache::{CachedModule, Resolution};
use redis::Commands as _;
use tempfile::TempDir;

on_both_facades! {
    names_of_the_standard_library
    names_of_odd_trees
    names_while_files_come_and_go
}

/// What a finder found: package, module or namespace, and where.
type Found = Option<(String, String)>;

fn script() -> Command {
    let mut python = Command::new(python());
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/pathfinder.py"));
    python
}

/// Python's finder over a directory.
struct PathFinder {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl PathFinder {
    fn start(directory: &Path) -> Self {
        let mut process = script()
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        Self {
            questions: process.stdin.take().expect("a pipe"),
            answers: BufReader::new(process.stdout.take().expect("a pipe")),
            process,
        }
    }

    fn find(&mut self, names: &[String]) -> Vec<Found> {
        let question = serde_json::to_string(names).unwrap();
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).expect("an answer in JSON")
    }
}

impl Drop for PathFinder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same files on a disk and in Redis.
struct Mirror<F: Nearby> {
    world: World<F>,
    reader: F::Reader,
    near: F::Near,
    directory: TempDir,
    files: BTreeSet<String>,
    finder: PathFinder,
}

impl<F: Nearby> Mirror<F> {
    /// Whose index is at most so old.
    fn new(index_age: Duration) -> Self {
        let world = World::<F>::with(|config| config.with_index_max_age(index_age));
        let directory = TempDir::new().unwrap();
        let config = world.reader_config().with_index_max_age(index_age);
        let options = NearCacheOptions::default().with_staleness_bound(PATIENCE);
        Self {
            reader: F::Reader::new(config.clone()).unwrap(),
            near: F::Near::live(config, options),
            finder: PathFinder::start(directory.path()),
            files: BTreeSet::new(),
            world,
            directory,
        }
    }

    /// Adds a file, unless no disk could hold it beside the others. Every other one comes from a
    /// foreign writer.
    fn add(&mut self, path: &str) -> bool {
        let file = self.directory.path().join(path);
        let created = fs::create_dir_all(file.parent().unwrap()).and_then(|()| {
            // The content is its path, to tell it from all others.
            fs::write(&file, path)
        });
        if created.is_err() || !self.files.insert(path.to_owned()) {
            self.prune(&file);
            return false;
        }
        let module = CachedModule::new(path, path).unwrap();
        if self.files.len().is_multiple_of(2) {
            self.world.writer.set(&module).unwrap();
        } else {
            let mut redis = self.world.redis.connection();
            let (key, json) = (format!("bifrost:module:{path}"), module.to_json());
            let () = redis.set(key, json).unwrap();
            let () = redis.sadd("bifrost:module:index", path).unwrap();
        }
        true
    }

    /// Removes a file as a foreign writer does: with two commands.
    fn remove(&mut self, path: &str) {
        assert!(self.files.remove(path));
        let file = self.directory.path().join(path);
        fs::remove_file(&file).unwrap();
        self.prune(&file);
        let mut redis = self.world.redis.connection();
        let () = redis.del(format!("bifrost:module:{path}")).unwrap();
        let () = redis.srem("bifrost:module:index", path).unwrap();
    }

    /// The directories of Redis are never empty.
    fn prune(&self, file: &Path) {
        let above = file.ancestors().skip(1);
        for directory in above.take_while(|above| *above != self.directory.path()) {
            if fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }

    /// Asks both for all of these names; answers how many there are.
    fn compare(&mut self, names: BTreeSet<String>) -> usize {
        let names: Vec<String> = names.into_iter().collect();
        let parts: BTreeSet<&str> = names.iter().flat_map(|name| chain(name)).collect();
        let parts: Vec<&str> = parts.into_iter().collect();
        let each: Vec<Resolution> = parts
            .iter()
            .map(|part| self.reader.resolve(part).unwrap())
            .collect();
        assert_eq!(self.reader.resolve_many(&parts).unwrap(), each);
        self.compare_near(&parts, &each);
        let resolved: HashMap<&str, Resolution> = parts.into_iter().zip(each).collect();
        let theirs = self.finder.find(&names);
        for (name, theirs) in names.iter().zip(theirs) {
            let ours = as_python_asks(name, &resolved);
            assert_eq!(ours, theirs, "{name:?} among {:?}", self.files);
        }
        names.len()
    }
}

impl<F: Nearby> Mirror<F> {
    /// The near cache and its snapshots answer as the reader does, twice.
    fn compare_near(&self, names: &[&str], expected: &[Resolution]) {
        self.near.until_announced();
        let snapshot = self.near.snapshot().unwrap();
        assert_eq!(snapshot.resolve_many(names).unwrap(), expected);
        for _ in 0..2 {
            for (name, expected) in names.iter().zip(expected) {
                let answer = self.near.resolve(name).unwrap();
                assert_eq!(answer, *expected, "{name:?} among {:?}", self.files);
            }
            assert_eq!(self.near.resolve_many(names).unwrap(), expected);
        }
    }
}

/// A name after all of its parents.
fn chain(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices('.').map(|(end, _)| end);
    ends.chain([name.len()]).map(|end| &name[..end])
}

/// Our answer, parent by parent: what lies below a module is not asked for.
fn as_python_asks(name: &str, resolved: &HashMap<&str, Resolution>) -> Found {
    let mut found = None;
    for part in chain(name) {
        if matches!(&found, Some((kind, _)) if kind == "module") {
            return None;
        }
        let (kind, path) = match &resolved[part] {
            Resolution::NotFound => return None,
            Resolution::Namespace { path } => ("namespace", path),
            Resolution::Package(module) => ("package", &module.content),
            Resolution::Module(module) => ("module", &module.content),
        };
        found = Some((kind.to_owned(), path.clone()));
    }
    found
}

/// What is put after the name of a file, for names that nothing has, or should not have.
const ENDS: [&str; 10] = [
    "",
    "x",
    ".__init__",
    ".a",
    ".nope.b",
    ".",
    "/a",
    "\0",
    "\\",
    ".py",
];

/// Names that the file has, and names beside them.
fn names_around(path: &str, ends: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let segments: Vec<&str> = path.split('/').collect();
    for length in 1..=segments.len() {
        let directories = segments[..length].join(".");
        let stem = directories.strip_suffix(".py").unwrap_or(&directories);
        for end in ends {
            names.insert(format!("{stem}{end}"));
            names.insert(format!("{directories}{end}"));
        }
        names.insert(stem.to_uppercase());
        names.insert(segments[length - 1].to_owned());
    }
    names.insert(path.to_owned());
    names
}

/// The files below a directory that are no binaries, as paths relative to it.
fn sources(directory: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory.join(below)).unwrap() {
        let (entry, kind) = entry
            .map(|entry| (entry.file_name(), entry.file_type()))
            .unwrap();
        let (Some(name), kind) = (entry.to_str(), kind.unwrap()) else {
            continue;
        };
        let path = PathBuf::from(below).join(name);
        let path = path.to_str().unwrap();
        let binary = [".so", ".pyc", ".a", ".o", ".exe", ".whl"];
        if kind.is_dir() && !["__pycache__", "site-packages", "dist-packages"].contains(&name) {
            sources(directory, path, found);
        } else if kind.is_file() && !binary.iter().any(|end| name.ends_with(end)) {
            found.push(path.to_owned());
        }
    }
}

fn names_of_the_standard_library<F: Nearby>() {
    let output = script().output().unwrap();
    let library = String::from_utf8(output.stdout).unwrap();
    let mut files = Vec::new();
    sources(Path::new(library.trim_end()), "", &mut files);
    let mut mirror = Mirror::<F>::new(Duration::from_secs(1));
    let mut names = BTreeSet::new();
    for (number, path) in files.iter().enumerate() {
        assert!(mirror.add(path), "{path}");
        // More would take long and show no more.
        if number.is_multiple_of(2) {
            names.append(&mut names_around(path, &ENDS[..3]));
        }
    }
    let asked = mirror.compare(names);
    println!("{asked} names over {} files", files.len());
    assert!(asked >= 5_000, "only {asked} names");
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("it is below a usize")
    }

    /// Of few segments, so that they meet: packages beside modules, namespaces, what only looks
    /// like a module.
    fn path(&mut self) -> String {
        const DIRECTORIES: [&str; 12] = [
            "a",
            "a",
            "b",
            "b",
            "my-mod",
            "über",
            "日本語",
            "u\u{308}ber",
            "a b",
            "__init__",
            "a.py",
            "__init__.py",
        ];
        const FILES: [&str; 14] = [
            "__init__.py",
            "__init__.py",
            "a.py",
            "a.py",
            "b.py",
            "my-mod.py",
            "über.py",
            "日本語.py",
            "🦀.py",
            "a",
            "a.txt",
            "__init__.pyi",
            "A.PY",
            ".b.py",
        ];
        let depth = self.below(5);
        let mut segments: Vec<&str> = (0..depth).map(|_| DIRECTORIES[self.below(12)]).collect();
        segments.push(FILES[self.below(14)]);
        segments.join("/")
    }
}

fn names_of_odd_trees<F: Nearby>() {
    let mut asked = 0;
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut mirror = Mirror::<F>::new(Duration::from_secs(1));
        let mut names = BTreeSet::new();
        for _ in 0..[5, 20, 60, 150][random.below(4)] {
            let path = random.path();
            mirror.add(&path);
            names.append(&mut names_around(&path, &ENDS));
        }
        asked += mirror.compare(names);
    }
    println!("{asked} names");
    assert!(asked >= 5_000, "only {asked} names");
}

fn names_while_files_come_and_go<F: Nearby>() {
    let mut random = Random(1);
    let mut mirror = Mirror::<F>::new(Duration::ZERO);
    for _ in 0..60 {
        let path = match random.below(2) {
            0 if !mirror.files.is_empty() => {
                let number = random.below(mirror.files.len());
                let path = mirror.files.iter().nth(number).unwrap().clone();
                mirror.remove(&path);
                path
            }
            _ => {
                let path = random.path();
                mirror.add(&path);
                path
            }
        };
        mirror.compare(names_around(&path, &ENDS));
    }
}
