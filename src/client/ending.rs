//! Tells the observer, if there is one, how a call ended: exactly once, also where its caller drops
//! its future.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use redis::{Arg, Value};

use crate::command::request::{Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::observe::{CallEnded, Observe, Outcome};

/// The end of a call that is under way. Nothing is measured where nobody observes.
#[must_use]
pub(crate) struct Ending<'a>(Option<Observed<'a>>);

/// What is told when it is dropped.
struct Observed<'a> {
    observer: &'a dyn Observe,
    operation: &'static str,
    began: Instant,
    outcome: Outcome,
    retries: u32,
    bytes: u64,
}

impl<'a> Ending<'a> {
    /// The call begins now.
    pub(crate) fn of<C: Command>(command: &C, config: &'a Config) -> Self {
        Self(config.observer.as_deref().map(|observer| Observed {
            observer,
            operation: command.operation(),
            began: Instant::now(),
            outcome: Outcome::Cancelled,
            retries: 0,
            bytes: 0,
        }))
    }

    /// This is sent for the first time.
    pub(crate) fn sending(&mut self, request: &Request) {
        if let Some(observed) = &mut self.0 {
            observed.bytes += argument_bytes(request);
        }
    }

    /// The same is sent once more.
    pub(crate) fn sending_again(&mut self) {
        if let Some(observed) = &mut self.0 {
            observed.retries += 1;
        }
    }

    pub(crate) fn received(&mut self, replies: &[Value]) {
        if let Some(observed) = &mut self.0 {
            observed.bytes += replies.iter().map(reply_bytes).sum::<u64>();
        }
    }

    /// The call ended so.
    pub(crate) fn with<C: Command>(self, result: Result<&C::Reply, &Error>) {
        if let Some(mut observed) = self.0 {
            observed.outcome = result.map_or_else(Outcome::of, C::outcome);
        }
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let call = CallEnded {
            operation: self.operation,
            outcome: self.outcome,
            elapsed: self.began.elapsed(),
            retries: self.retries,
            bytes: self.bytes,
        };
        // An import must not fail because of what only watches it.
        if catch_unwind(AssertUnwindSafe(|| self.observer.call_ended(&call))).is_err() {
            log::error!("The observer of calls panicked");
        }
    }
}

/// All arguments, but not the commands' names.
fn argument_bytes(request: &Request) -> u64 {
    let commands = request.pipeline.cmd_iter();
    let arguments = commands.flat_map(|command| command.args_iter().skip(1));
    let bytes = arguments.map(|argument| match argument {
        Arg::Simple(bytes) => bytes.len() as u64,
        _ => 0,
    });
    bytes.sum()
}

/// All strings, but not the words of the protocol, such as OK.
fn reply_bytes(value: &Value) -> u64 {
    let all = |values: &[Value]| values.iter().map(reply_bytes).sum();
    match value {
        Value::BulkString(bytes) => bytes.len() as u64,
        Value::VerbatimString { text, .. } => text.len() as u64,
        Value::Array(values) | Value::Set(values) => all(values),
        Value::Map(pairs) => {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| reply_bytes(k) + reply_bytes(v)).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::modules::{Get, Set};
    use crate::error::Outage;
    use crate::module::CachedModule;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Told(Mutex<Vec<CallEnded>>);

    impl Observe for Told {
        fn call_ended(&self, call: &CallEnded) {
            self.0.lock().unwrap().push(*call);
        }
    }

    fn observed() -> (Arc<Told>, Config) {
        let told = Arc::new(Told::default());
        let config = Config::new("redis://localhost").unwrap();
        let config = config.with_observer(Arc::clone(&told) as Arc<dyn Observe>);
        (told, config)
    }

    #[test]
    fn each_call_is_told_of_once_however_it_ends() {
        let (told, config) = observed();
        let get = Get::new("a.py").unwrap();
        let end = || Ending::of(&get, &config);
        let module = CachedModule::new("a.py", "").unwrap();
        end().with::<Get>(Ok(&Some(module)));
        end().with::<Get>(Ok(&None));
        let cause = Outage::Rejected;
        end().with::<Get>(Err(&crate::command::reply::outage(cause, None)));
        drop(end());
        let mut again = end();
        again.sending_again();
        again.with::<Get>(Err(&Error::corrupt("a.py", "")));
        let told = told.0.lock().unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|call| (call.operation, call.outcome.as_str(), call.retries))
            .collect();
        let expected = [
            ("done", 0),
            ("absent", 0),
            ("rejected", 0),
            ("cancelled", 0),
            ("corrupt", 1),
        ];
        assert_eq!(told, expected.map(|(outcome, n)| ("get", outcome, n)));
    }

    #[test]
    fn arguments_and_strings_are_counted_without_words() {
        let (told, config) = observed();
        let module = CachedModule::new("a.py", "x = 1\n").unwrap();
        let command = Set::new(&module, &config).unwrap();
        let mut ending = Ending::of(&command, &config);
        ending.sending(&command.request(&config));
        // SET of the key and the value, SADD of the index and the path.
        let arguments = ["bifrost:module:a.py", "bifrost:module:index", "a.py"];
        let sent = arguments.concat().len() + module.to_json().len();
        let text = |text: &str| Value::BulkString(text.into());
        let replies = [
            Value::Okay,
            Value::SimpleString("QUEUED".into()),
            Value::Array(vec![Value::Int(1), Value::Nil, text("four")]),
            Value::Map(vec![(text("a"), Value::Set(vec![text("b")]))]),
        ];
        ending.received(&replies);
        ending.with::<Set>(Ok(&()));
        assert_eq!(told.0.lock().unwrap()[0].bytes, sent as u64 + 4 + 2);
    }

    #[test]
    fn a_panic_of_the_observer_is_caught() {
        struct Panics;
        impl Observe for Panics {
            fn call_ended(&self, _: &CallEnded) {
                panic!("on purpose");
            }
        }
        let config = Config::new("redis://localhost").unwrap();
        let config = config.with_observer(Arc::new(Panics));
        let get = Get::new("a.py").unwrap();
        Ending::of(&get, &config).with::<Get>(Ok(&None));
        drop(Ending::of(&get, &config));
    }
}
