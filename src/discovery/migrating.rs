//! Reads while our slot is on its way from one node of a cluster to another.
//!
//! The old owner answers for keys that it still has, and says `ASK` for others, be they at the new
//! owner or nowhere; of several keys in one command it says `TRYAGAIN`. So each key is asked for by
//! itself, and then at the new owner. Writes are not followed: key and index must change together,
//! and are refused until the slot has arrived.

use std::time::Instant;

use redis::{Cmd, Pipeline, Value};

use super::{Dial, Search};
use crate::command::migrating::{asking, has_many_keys, on_its_way, singly, target};
use crate::command::reply;
use crate::command::request::Request;
use crate::config::Config;
use crate::config::place::Place;
use crate::error::Error;

/// Completes the answers to a read; `None` if there is nothing to complete. `source` asks the node
/// that gave them.
pub(crate) async fn complete<D: Dial>(
    dial: &D,
    config: &Config,
    request: &Request,
    replies: &[Value],
    source: impl AsyncFnOnce(&Request) -> Result<Vec<Value>, Error>,
    deadline: Instant,
) -> Result<Option<Vec<Value>>, Error> {
    let is_cluster = matches!(config.place, Place::Cluster(_));
    if !is_cluster || request.is_transaction() || !replies.iter().any(on_its_way) {
        return Ok(None);
    }
    let search = Search {
        dial,
        config,
        deadline,
    };
    let late: Vec<&Cmd> = request
        .pipeline
        .cmd_iter()
        .zip(replies)
        .filter(|(_, reply)| on_its_way(reply))
        .map(|(command, _)| command)
        .collect();
    // One answer for each key of each command that was refused.
    let single: Vec<Vec<Cmd>> = late.iter().map(|command| singly(command)).collect();
    let commands: Vec<&Cmd> = single.iter().flatten().collect();
    let mut answers = source(&all(&commands, request)).await?;
    if answers.len() != commands.len() {
        return Err(reply::unexpected());
    }
    let Some((host, port)) = answers.iter().find_map(target) else {
        return Ok(Some(merged(replies, &late, &single, answers)));
    };
    let addr = search.announced(&host, port);
    let mut connection = search.holder(&addr, 2).await?;
    let moved: Vec<usize> = (0..answers.len())
        .filter(|at| target(&answers[*at]).is_some())
        .collect();
    let asked: Vec<&Cmd> = moved.iter().map(|at| commands[*at]).collect();
    let asked = asking(&asked, request.class);
    let found = dial.ask(&mut connection, &asked, search.left()).await?;
    // Each answer follows that to its ASKING.
    for (at, answer) in moved.into_iter().zip(found.into_iter().skip(1).step_by(2)) {
        answers[at] = answer;
    }
    Ok(Some(merged(replies, &late, &single, answers)))
}

fn all(commands: &[&Cmd], like: &Request) -> Request {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command((*command).clone());
    }
    Request {
        pipeline,
        class: like.class,
    }
}

/// The replies with those that were refused replaced: of a command for several keys by all of its
/// answers.
fn merged(
    replies: &[Value],
    late: &[&Cmd],
    single: &[Vec<Cmd>],
    answers: Vec<Value>,
) -> Vec<Value> {
    let mut answers = answers.into_iter();
    let mut completed = late.iter().zip(single).map(|(command, single)| {
        let mut own = answers.by_ref().take(single.len()).collect::<Vec<_>>();
        if has_many_keys(command) {
            Value::Array(own)
        } else {
            own.pop().unwrap_or(Value::Nil)
        }
    });
    let complete = |reply: &Value| {
        if on_its_way(reply) {
            completed.next().unwrap_or(Value::Nil)
        } else {
            reply.clone()
        }
    };
    replies.iter().map(complete).collect()
}
