//! `refresh_from` as services write it: in a task, in a handler, with the errors that they have.
//! That this compiles is most of the test.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::support::{Blocking, Nonblocking, World, block_on};
use bifrost_module_cache::sync::RefreshReport;
use bifrost_module_cache::{CachedModule, Error, nonblocking};

type Boxed = Box<dyn StdError + Send + Sync>;

/// A database of which the cache knows nothing.
struct Store {
    contents: Option<&'static str>,
}

#[derive(Debug)]
struct Closed;

impl Store {
    fn ask(&self, paths: &[String]) -> Result<Vec<(String, String)>, Closed> {
        let contents = self.contents.ok_or(Closed)?;
        let rows = paths.iter().map(|path| (path.clone(), contents.to_owned()));
        Ok(rows.collect())
    }

    async fn ask_later(&self, paths: &[String]) -> Result<Vec<(String, String)>, Closed> {
        tokio::task::yield_now().await;
        self.ask(paths)
    }
}

/// An error for each of the two things that can fail, as `thiserror` would derive it.
#[derive(Debug)]
enum Failed {
    Store(Closed),
    Module(Error),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store is closed")
    }
}

impl StdError for Closed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the modules could not be read")
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Module(error) => Some(error),
        }
    }
}

impl From<Closed> for Failed {
    fn from(error: Closed) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Module(error)
    }
}

/// The modules of rows, with any error that there is.
fn modules<E: From<Error>>(rows: Vec<(String, String)>) -> Result<Vec<CachedModule>, E> {
    rows.into_iter()
        .map(|(path, content)| Ok(CachedModule::new(path, content)?))
        .collect()
}

/// The future that a handler gives to its server, as axum asks for it.
type Response = Pin<Box<dyn Future<Output = Result<RefreshReport, Boxed>> + Send + 'static>>;

trait Handler: Clone + Send + Sync + 'static {
    fn call(self, writer: nonblocking::ModuleWriter, store: Arc<Store>) -> Response;
}

impl<F, Answer> Handler for F
where
    F: FnOnce(nonblocking::ModuleWriter, Arc<Store>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Result<RefreshReport, Boxed>> + Send + 'static,
{
    fn call(self, writer: nonblocking::ModuleWriter, store: Arc<Store>) -> Response {
        Box::pin(self(writer, store))
    }
}

async fn saved_with_any_error(
    writer: nonblocking::ModuleWriter,
    store: Arc<Store>,
) -> Result<RefreshReport, Boxed> {
    let (store, path) = (&store, String::from("a.py"));
    let fetch = |paths: Vec<String>| async move {
        let rows = store.ask_later(&paths).await?;
        modules::<Boxed>(rows)
    };
    Ok(writer.refresh_from(&[path], fetch).await?)
}

async fn saved_with_an_enum(
    writer: nonblocking::ModuleWriter,
    store: Arc<Store>,
) -> Result<RefreshReport, Boxed> {
    let fetch = |paths: Vec<String>| {
        let store = Arc::clone(&store);
        async move { modules::<Failed>(store.ask_later(&paths).await?) }
    };
    Ok(writer.refresh_from(&["a.py"], fetch).await?)
}

/// All that it is given is borrowed, for less than for ever.
async fn saved_with_what_is_borrowed(
    writer: &nonblocking::ModuleWriter,
    store: &Store,
    paths: &[&str],
) -> Result<RefreshReport, Boxed> {
    let fetch = async |paths: Vec<String>| modules::<Boxed>(store.ask_later(&paths).await?);
    Ok(writer.refresh_from(paths, fetch).await?)
}

fn handlers() -> [fn(nonblocking::ModuleWriter, Arc<Store>) -> Response; 3] {
    [
        |writer, store| saved_with_any_error.call(writer, store),
        |writer, store| saved_with_an_enum.call(writer, store),
        |writer, store| {
            Box::pin(async move { saved_with_what_is_borrowed(&writer, &store, &["a.py"]).await })
        },
    ]
}

#[test]
fn a_handler_brings_what_its_database_says() {
    let world = World::<Nonblocking>::new();
    let writer = &world.writer;
    for (handler, contents) in handlers().into_iter().zip(["1", "2", "3"]) {
        let store = Arc::new(Store {
            contents: Some(contents),
        });
        let task = async { tokio::spawn(handler(writer.clone(), store)).await };
        assert_eq!(block_on(task).unwrap().unwrap().written, 1);
        let found = block_on(writer.reader().get("a.py")).unwrap().unwrap();
        assert_eq!(found.content, contents);
    }
}

#[test]
fn a_handler_is_told_what_its_database_failed_with() {
    let world = World::<Nonblocking>::new();
    let writer = &world.writer;
    for handler in handlers() {
        let failed = block_on(handler(writer.clone(), Arc::new(Store { contents: None })));
        the_store_is_closed(&failed.unwrap_err());
    }
}

#[test]
fn a_thread_is_told_what_its_database_failed_with() {
    let world = World::<Blocking>::new();
    let writer = world.writer.clone();
    let closed = Store { contents: None };
    let thread = std::thread::spawn(move || -> Result<RefreshReport, Boxed> {
        let fetch = |paths: Vec<String>| modules::<Boxed>(closed.ask(&paths)?);
        Ok(writer.refresh_from(&["a.py"], fetch)?)
    });
    the_store_is_closed(&thread.join().unwrap().unwrap_err());
}

fn the_store_is_closed(error: &Boxed) {
    let told = error.downcast_ref::<Error>().expect("ours");
    assert!(told.is_database(), "{told:?}");
    let causes = std::iter::successors(told.source(), |error| (*error).source());
    let found = causes.filter(|cause| cause.is::<Closed>()).count();
    assert_eq!(found, 1, "{told:?}");
}
