//! Whether what is read matches its hash: not asked, logged, or required.

use crate::captured::{capture, lines_with};
use crate::support::{Facade, Reader, RedisServer, Writer, all_it_says, on_both_facades};
use bifrost_module_cache::{CachedModule, Config, Error, Integrity};
use log::Level;

on_both_facades! {
    off_asks_nothing
    warn_returns_the_module_and_says_so_without_its_content
    enforce_refuses_the_module_and_names_it
    an_empty_hash_says_nothing
    a_hash_is_taken_to_the_letter
}

const CONTENT: &str = "password = 's3cr3t'\n";

/// The warnings so far that have this word.
fn warnings_of(word: &str) -> Vec<String> {
    let lines = lines_with(word).into_iter();
    let warnings = lines.filter(|line| line.level <= Level::Warn);
    warnings.map(|line| line.message).collect()
}

/// Four modules, of which `name` is part of each path, and a reader that checks them so.
struct Scene<F: Facade> {
    _server: RedisServer,
    reader: F::Reader,
    right: CachedModule,
    wrong: CachedModule,
    unknown: CachedModule,
    upper: CachedModule,
}

impl<F: Facade> Scene<F> {
    fn new(name: &str, integrity: Option<Integrity>) -> Self {
        capture();
        let server = RedisServer::start();
        let config = Config::new(server.url()).unwrap();
        let writer = F::Writer::new(config.clone()).unwrap();
        let facade = std::any::type_name::<F>().rsplit(':').next().unwrap();
        let path = |kind: &str| format!("{facade}/{name}/{kind}.py");
        let right = CachedModule::new(path("right"), CONTENT).unwrap();
        let of_other = CachedModule::new("x", "").unwrap().hash;
        let with_hash =
            |kind: &str, hash: &str| CachedModule::with_hash(path(kind), CONTENT, hash).unwrap();
        let wrong = with_hash("wrong", &of_other);
        let unknown = with_hash("unknown", "");
        let upper = with_hash("upper", &right.hash.to_uppercase());
        for module in [&right, &wrong, &unknown, &upper] {
            writer.set(module).unwrap();
        }
        let config = match integrity {
            Some(integrity) => config.with_integrity(integrity),
            None => config,
        };
        Self {
            _server: server,
            reader: F::Reader::new(config).unwrap(),
            right,
            wrong,
            unknown,
            upper,
        }
    }

    fn get(&self, module: &CachedModule) -> Result<Option<CachedModule>, Error> {
        self.reader.get(&module.path)
    }

    fn get_many(&self, modules: &[&CachedModule]) -> Result<Vec<Option<CachedModule>>, Error> {
        let paths: Vec<&str> = modules.iter().map(|module| module.path.as_str()).collect();
        self.reader.get_many(&paths)
    }

    /// Both ways to read return it.
    fn assert_read(&self, module: &CachedModule) {
        assert_eq!(self.get(module).unwrap().as_ref(), Some(module));
        let found = self.get_many(&[&self.right, module]).unwrap();
        assert_eq!(found, [Some(self.right.clone()), Some(module.clone())]);
    }
}

fn off_asks_nothing<F: Facade>() {
    for (name, integrity) in [("default", None), ("off", Some(Integrity::Off))] {
        let scene = Scene::<F>::new(name, integrity);
        for module in [&scene.right, &scene.wrong, &scene.unknown, &scene.upper] {
            scene.assert_read(module);
        }
        assert_eq!(scene.reader.stats().mismatched, 0);
        assert_eq!(warnings_of(&scene.wrong.path).len(), 0);
    }
}

fn warn_returns_the_module_and_says_so_without_its_content<F: Facade>() {
    let scene = Scene::<F>::new("warn", Some(Integrity::Warn));
    scene.assert_read(&scene.right);
    assert_eq!(scene.reader.stats().mismatched, 0);
    scene.assert_read(&scene.wrong);
    let stats = scene.reader.stats();
    assert_eq!((stats.mismatched, stats.corrupt), (2, 0));
    let lines = warnings_of(&scene.wrong.path);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("hash")), "{lines:?}");
    assert_eq!(warnings_of(&scene.right.path).len(), 0);
    assert_eq!(warnings_of("s3cr3t").len(), 0);
}

fn enforce_refuses_the_module_and_names_it<F: Facade>() {
    let scene = Scene::<F>::new("enforce", Some(Integrity::Enforce));
    scene.assert_read(&scene.right);
    let wrong = &scene.wrong;
    for error in [
        scene.get(wrong).unwrap_err(),
        scene.get_many(&[&scene.right, wrong]).unwrap_err(),
    ] {
        assert!(error.is_corrupt() && !error.is_transient(), "{error:?}");
        assert_eq!(error.path(), Some(&*wrong.path));
        let text = all_it_says(&error);
        assert!(text.contains("hash") && !text.contains("s3cr3t"), "{text}");
    }
    let stats = scene.reader.stats();
    assert_eq!((stats.mismatched, stats.corrupt), (2, 2));
    // The error tells it all.
    assert_eq!(warnings_of(&wrong.path).len(), 0);
}

fn an_empty_hash_says_nothing<F: Facade>() {
    for (name, integrity) in [
        ("empty, warn", Integrity::Warn),
        ("empty, enforce", Integrity::Enforce),
    ] {
        let scene = Scene::<F>::new(name, Some(integrity));
        scene.assert_read(&scene.unknown);
        assert_eq!(scene.reader.stats().mismatched, 0);
        assert_eq!(warnings_of(&scene.unknown.path).len(), 0);
    }
}

/// In lowercase, as the specification writes it.
fn a_hash_is_taken_to_the_letter<F: Facade>() {
    let scene = Scene::<F>::new("letter", Some(Integrity::Enforce));
    assert!(scene.get(&scene.upper).unwrap_err().is_corrupt());
}
