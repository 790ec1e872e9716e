//! Takes the mark of a complete cache away. It is written by
//! [`Completion`](crate::sync::mark::Completion).

use redis::Value;

use super::reply;
use super::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;

/// Takes the mark of a complete cache away.
pub(crate) struct Unmark {
    /// Whether to delete the generation as well, so that warm-ups under way do not write the mark
    /// afterwards.
    pub(crate) generation: bool,
}

impl Command for Unmark {
    type Reply = ();
    const WRITES: bool = true;

    fn operation(&self) -> &'static str {
        "unmark"
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("DEL");
        command.arg(config.keys.complete());
        if self.generation {
            command.arg(&config.keys.generation);
        }
        Request::one(command, Class::Lookup)
    }

    fn decode(&self, replies: Vec<Value>, _: &Config) -> Result<(), Error> {
        reply::integer(reply::single(replies)?).map(drop)
    }
}
