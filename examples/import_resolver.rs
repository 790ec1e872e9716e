//! How an import hook finds modules: `cargo run --features near-cache --example import_resolver`.
//!
//! One near cache for the process, one snapshot for each execution, and for each `import` what
//! Python's import system and its finders do with it. The Redis is a throw-away one.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;

use bifrost_module_cache::blocking::{ModuleReader, ModuleWriter, NearCache};
use bifrost_module_cache::near::{NearCacheOptions, Snapshot};
use bifrost_module_cache::{CachedModule, Config, Resolution};
use support::{PATIENCE, RedisServer, wait_until};

/// What Python is told of a name, as its `ModuleSpec`.
#[derive(Debug)]
enum Spec {
    /// `spec_from_loader(name, loader)`: run this source.
    Module { origin: String, source: String },
    /// The same with `is_package=True`; submodules lie in this directory.
    Package {
        origin: String,
        source: String,
        search: String,
    },
    /// `ModuleSpec(name, None, is_package=True)`: nothing to run, submodules lie here.
    Namespace { search: String },
}

/// What Python raises.
#[derive(Debug)]
enum ImportFailure {
    /// `ModuleNotFoundError`: no finder knows the name. Says why ours does not.
    NotFound(String),
    /// `ImportError`: whether there is such a module could not be told.
    Failed(String),
}

/// The finder of one execution. It never sees half of the old and half of the new workspace.
struct Finder {
    snapshot: Snapshot,
    reader: ModuleReader,
}

impl Finder {
    fn new(near: &NearCache, reader: &ModuleReader) -> Result<Self, bifrost_module_cache::Error> {
        Ok(Self {
            snapshot: near.snapshot()?,
            reader: reader.clone(),
        })
    }

    /// `MetaPathFinder.find_spec`: `None` lets the next finder try.
    fn find_spec(&self, name: &str) -> Result<Option<Spec>, ImportFailure> {
        let failed = |error| ImportFailure::Failed(format!("can't import {name}: {error}"));
        Ok(match self.snapshot.resolve(name).map_err(failed)? {
            Resolution::Package(module) => Some(Spec::Package {
                search: name.replace('.', "/"),
                origin: module.path.clone(),
                source: module.content.clone(),
            }),
            Resolution::Module(module) => Some(Spec::Module {
                origin: module.path.clone(),
                source: module.content.clone(),
            }),
            Resolution::Namespace { path } => Some(Spec::Namespace { search: path }),
            Resolution::NotFound => None,
        })
    }

    /// `import a.b.c`, as Python's import system goes about it: `a`, `a.b`, `a.b.c`. Nothing lies
    /// below a module, so `a.py` hides `a/b.py`; the finder would not know.
    fn import(&self, name: &str) -> Result<Vec<Spec>, ImportFailure> {
        let ends = name.match_indices('.').map(|(end, _)| end);
        let mut specs = Vec::new();
        for part in ends.chain([name.len()]).map(|end| &name[..end]) {
            if matches!(specs.last(), Some(Spec::Module { .. })) {
                return Err(self.not_found(name));
            }
            // Here Python would ask its other finders too.
            let spec = self.find_spec(part)?.ok_or_else(|| self.not_found(name))?;
            specs.push(spec);
        }
        Ok(specs)
    }

    /// Asks Redis what an operator would want to know.
    fn not_found(&self, name: &str) -> ImportFailure {
        match self.reader.explain_name(name) {
            // Of now, and the execution sees the moment of its snapshot.
            Ok(why) if why.cause.is_fine() => ImportFailure::NotFound(format!(
                "no module named {name:?}: it is newer than this execution, run it again"
            )),
            Ok(why) => ImportFailure::NotFound(why.to_string()),
            Err(error) => ImportFailure::Failed(format!("can't import {name}: {error}")),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let redis = RedisServer::start();
    let config = Config::new(redis.url())?;
    let service = ModuleWriter::new(config.clone())?;
    let modules = [
        ("shared/__init__.py", ""),
        ("shared/halopsa.py", "def open_ticket(): ...\n"),
        ("workflows/onboarding.py", "import shared.halopsa\n"),
    ];
    let modules = modules.map(|(path, source)| CachedModule::new(path, source));
    service.publish_exact(&modules.into_iter().collect::<Result<Vec<_>, _>>()?)?;

    let reader = ModuleReader::new(config)?;
    let near = NearCache::new(reader.clone(), NearCacheOptions::default())?;
    wait_until("Redis is followed", PATIENCE, || near.is_live());

    println!("the first execution");
    let first = Finder::new(&near, &reader)?;
    for name in [
        "workflows.onboarding",
        "shared.halopsa",
        "shared.halopsa.client",
        "shared.halpsa",
        "numpy",
    ] {
        show(name, first.import(name));
    }

    service.rename(
        "shared/halopsa.py",
        &CachedModule::new("shared/tickets.py", "")?,
    )?;
    println!("a module was moved; the same execution, and the next one");
    let second = Finder::new(&near, &reader)?;
    for finder in [&first, &second] {
        show("shared.halopsa", finder.import("shared.halopsa"));
        show("shared.tickets", finder.import("shared.tickets"));
    }

    redis.kill();
    println!("redis is gone; an execution that runs, and one that begins");
    show("shared.tickets", second.import("shared.tickets"));
    show("shared.typo", second.import("shared.typo"));
    match Finder::new(&near, &reader) {
        Ok(_) => println!("  it began"),
        Err(error) => println!("  {error}"),
    }
    Ok(())
}

fn show(name: &str, imported: Result<Vec<Spec>, ImportFailure>) {
    match imported {
        Ok(mut specs) => match specs.pop() {
            Some(Spec::Module { origin, source }) => {
                println!("  import {name}: run {origin}, {} bytes", source.len());
            }
            Some(Spec::Package {
                origin,
                source,
                search,
            }) => {
                let bytes = source.len();
                println!("  import {name}: run {origin}, {bytes} bytes; more in {search}/");
            }
            Some(Spec::Namespace { search }) => println!("  import {name}: a directory, {search}/"),
            None => println!("  import {name}: nothing was asked for"),
        },
        Err(ImportFailure::NotFound(why)) => println!("  ModuleNotFoundError: {why}"),
        Err(ImportFailure::Failed(why)) => println!("  ImportError: {why}"),
    }
}
