//! What is sent at once, and the meaning of its answer.

use redis::{Cmd, Pipeline, Value};

use crate::config::Config;
use crate::error::Error;
use crate::observe::Outcome;

/// Which time-outs hold for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Small, and a worker's import waits for it.
    Lookup,
    /// The request or its answer may be large. In `nonblocking` it goes over a connection of its
    /// own, where it holds up no lookup.
    Bulk,
}

/// Commands that are sent in one packet. It holds module sources and passwords, hence no `Debug`.
pub(crate) struct Request {
    pub(crate) pipeline: Pipeline,
    pub(crate) class: Class,
}

impl Request {
    pub(crate) fn one(command: Cmd, class: Class) -> Self {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        Self { pipeline, class }
    }

    /// The commands as one MULTI, all of whose replies come back: see [`reply::transaction`].
    pub(crate) fn transaction(commands: impl IntoIterator<Item = Cmd>, class: Class) -> Self {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(redis::cmd("MULTI"));
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.add_command(redis::cmd("EXEC"));
        Self { pipeline, class }
    }

    /// Whether it is a MULTI.
    pub(crate) fn is_transaction(&self) -> bool {
        let first = self.pipeline.cmd_iter().next();
        let word = first.and_then(|command| command.args_iter().next());
        matches!(word, Some(redis::Arg::Simple(b"MULTI")))
    }

    /// How many values answer it.
    pub(crate) fn replies(&self) -> usize {
        self.pipeline.len()
    }
}

/// A request and the meaning of its answer.
pub(crate) trait Command {
    type Reply;

    /// Whether it may change a module, the index or the mark. If its answer is lost, the error must
    /// say that it may have been applied.
    const WRITES: bool = false;

    /// What an observer is told of it as: one of the words in docs/metrics.md, never a path, because
    /// it becomes a label.
    fn operation(&self) -> &'static str;

    /// How a call ended that was answered so.
    fn outcome(_: &Self::Reply) -> Outcome {
        Outcome::Done
    }

    fn request(&self, config: &Config) -> Request;

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Self::Reply, Error>;
}
