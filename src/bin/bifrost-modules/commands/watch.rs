//! `watch`: prints what changes, as it changes. It follows Redis as a near cache does, by its
//! hooks.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use bifrost_module_cache::Error;
use bifrost_module_cache::blocking::{ModuleReader, NearCache};
use bifrost_module_cache::near::{Invalidation, NearCacheOptions};
use serde::Serialize;

use super::ls::{Entry, entries};
use crate::failure::{Exit, Failure};
use crate::output::{BAD, DIM, GOOD, Output, PLAIN, harmless};
use crate::servers::Servers;
use crate::text;

/// How many paths are looked at together.
const BATCH: usize = 100;

/// How long to wait for the hook's first call, which tells that Redis is followed now.
const FIRST_CHANGE: Duration = Duration::from_secs(1);

/// How often to look whether the reader of the pipe has gone, while nothing changes.
const GLANCE: Duration = Duration::from_millis(500);

const NOTHING: &[&str] = &[];

/// One line of JSON.
#[derive(Default, Serialize)]
struct News<'a> {
    time: String,
    event: &'static str,
    path: Option<&'a str>,
    bytes: Option<usize>,
    hash: Option<&'a str>,
    modules: Option<usize>,
}

pub fn watch(servers: &Servers<'_>, output: &mut Output, prefix: &str) -> Result<Exit, Failure> {
    let failed = |error| servers.failure(error);
    let reader = servers.reader()?;
    // A round trip before anything else: a near cache would not tell an outage, but try again for
    // ever.
    let status = reader.status();
    status.map_err(failed)?;
    let near = NearCache::new(reader.clone(), NearCacheOptions::default()).map_err(failed)?;
    // A channel without room: what comes while one change is printed waits in the queue of the near
    // cache, which is bounded and becomes "everything" when it is full.
    let (sender, changes) = mpsc::sync_channel(0);
    near.on_invalidate(move |change| {
        // Without a receiver: `watch` is ending.
        let _ = sender.send(change.clone());
    })
    .map_err(failed)?;
    // Returns when Redis is followed, or with the reason why it can't be.
    near.prefetch_paths(NOTHING).map_err(failed)?;
    // The beginning of a session is told as "everything", unless it began before the hook was
    // there. It is no news: the count below is taken after it.
    let _ = changes.recv_timeout(FIRST_CHANGE);
    let mut watch = Watch {
        reader,
        prefix,
        hasher: RandomState::new(),
        known: HashMap::new(),
    };
    watch.forget().map_err(failed)?;
    watch.print_all(output, "watching")?;
    while !output.is_closed() {
        let change = match changes.recv_timeout(GLANCE) {
            Ok(change) => change,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match change {
            Invalidation::Paths(paths) => watch.changed(output, &paths)?,
            _ if !near.is_live() => print(output, &News::new("lost"))?,
            _ => match watch.forget() {
                Ok(()) => watch.print_all(output, "everything")?,
                // Redis has gone again. When it comes back, the hook is called once more.
                Err(_) => print(output, &News::new("lost"))?,
            },
        }
    }
    Ok(Exit::Fine)
}

/// What is known, so that only real changes are printed.
struct Watch<'a> {
    reader: ModuleReader,
    prefix: &'a str,
    hasher: RandomState,
    /// What was there when a path was last looked at, to tell news from repetitions.
    known: HashMap<String, Seen>,
}

#[derive(PartialEq)]
enum Seen {
    /// The index names it.
    Listed,
    /// A hash of the module.
    Module(u64),
    Corrupt,
}

impl Watch<'_> {
    /// After a loss anything may have changed: forgets what was seen, and takes the index for it.
    fn forget(&mut self) -> Result<(), Error> {
        let paths = self.reader.paths()?;
        self.known = paths.into_iter().map(|path| (path, Seen::Listed)).collect();
        Ok(())
    }

    /// Looks at changed paths, in batches. Where Redis can't be asked now, they are told without
    /// details.
    fn changed(&mut self, output: &mut Output, paths: &[String]) -> Result<(), Failure> {
        let watched = paths.iter().filter(|path| path.starts_with(self.prefix));
        let watched: Vec<String> = watched.cloned().collect();
        for batch in watched.chunks(BATCH) {
            let Ok(entries) = entries(&self.reader, batch) else {
                for path in batch {
                    print(output, &News::of("changed", path))?;
                }
                continue;
            };
            for (path, entry) in batch.iter().zip(&entries) {
                self.print(output, path, entry)?;
            }
        }
        Ok(())
    }

    fn print(&mut self, output: &mut Output, path: &str, entry: &Entry) -> Result<(), Failure> {
        // What is as it was is no news: a `refresh` reserved the path before writing to it, or a
        // writer wrote what was there.
        let seen = match entry {
            Entry::Gone => {
                if self.known.remove(path).is_some() {
                    print(output, &News::of("removed", path))?;
                }
                return Ok(());
            }
            Entry::Corrupt => Seen::Corrupt,
            Entry::Cached(module) => Seen::Module(self.hasher.hash_one(module)),
        };
        if self.known.get(path) == Some(&seen) {
            return Ok(());
        }
        self.known.insert(path.to_owned(), seen);
        let Entry::Cached(module) = entry else {
            return print(output, &News::of("corrupt", path));
        };
        let saved = News {
            bytes: Some(module.content.len()),
            hash: Some(&module.hash),
            ..News::of("saved", path)
        };
        print(output, &saved)
    }

    fn print_all(&self, output: &mut Output, event: &'static str) -> Result<(), Failure> {
        let watched = self.known.keys();
        let watched = watched.filter(|path| path.starts_with(self.prefix));
        let modules = Some(watched.count());
        print(
            output,
            &News {
                modules,
                ..News::new(event)
            },
        )
    }
}

impl<'a> News<'a> {
    fn new(event: &'static str) -> Self {
        Self {
            time: text::time(SystemTime::now()),
            event,
            ..Self::default()
        }
    }

    fn of(event: &'static str, path: &'a str) -> Self {
        Self {
            path: Some(path),
            ..Self::new(event)
        }
    }
}

/// Prints and flushes at once, also into a pipe: its reader waits for news as it comes.
fn print(output: &mut Output, news: &News<'_>) -> Result<(), Failure> {
    if output.json {
        output.json(news)?;
    } else {
        let style = match news.event {
            "saved" => GOOD,
            "removed" | "corrupt" | "lost" => BAD,
            _ => PLAIN,
        };
        let what = match (news.event, news.path, news.modules) {
            ("lost", ..) => "Redis can't be followed: changes from now on are not seen".to_owned(),
            ("everything", _, Some(modules)) => {
                format!(
                    "any module may have changed; {} now",
                    text::counted(modules, "module")
                )
            }
            (_, Some(path), _) => path.to_owned(),
            (_, None, modules) => text::counted(modules.unwrap_or(0), "module"),
        };
        let details = match (news.bytes, news.hash) {
            (Some(bytes), Some(hash)) => {
                format!("  {}, {}", text::counted(bytes, "byte"), harmless(hash))
            }
            _ => String::new(),
        };
        let time = output.paint(DIM, &news.time);
        let name = output.paint(style, format_args!("{:<10}", news.event));
        output.line(format_args!("{time}  {name}  {what}{details}"))?;
    }
    output.flush()
}
