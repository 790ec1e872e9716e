//! The task that follows Redis for a near cache. It lives in the runtime in which the near cache
//! was made; when that ends, the next call that has to ask Redis starts another one in its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{PushInfo, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;

use super::connect::{Dialer, open};
use super::connection::{Connection, Task};
use super::connections::Connections;
use crate::command::reply;
use crate::command::request::Request;
use crate::config::Config;
use crate::discovery;
use crate::error::{Error, Outage};
use crate::near::cache::SpawnListener;
use crate::near::instance::{Instance, ListenerHandle};
use crate::near::listener::{ListenerConnection, ListenerIo, listen};

impl SpawnListener for Connections {
    fn spawn_listener(&self, instance: &Arc<Instance>) -> Result<Box<dyn ListenerHandle>, Error> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::invalid_config(
                "a near cache must be made and used inside a tokio runtime",
            ));
        };
        let wanted = Arc::new(Notify::new());
        let io = TaskIo {
            config: self.config.with_resp3(),
            wanted: Arc::clone(&wanted),
        };
        let instance = Arc::clone(instance);
        let task = Task(runtime.spawn(async move { listen(&io, &instance).await }));
        Ok(Box::new(TaskHandle { wanted, task }))
    }
}

/// The task ends when this is dropped.
struct TaskHandle {
    wanted: Arc<Notify>,
    task: Task<()>,
}

impl ListenerHandle for TaskHandle {
    fn wake(&self) {
        self.wanted.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.task.0.is_finished()
    }
}

/// What the task needs to connect and to be woken.
struct TaskIo {
    config: Config,
    wanted: Arc<Notify>,
}

impl ListenerIo for TaskIo {
    type Connection = TrackingConnection;

    async fn connect(&self) -> Result<TrackingConnection, Error> {
        // Unbounded, because the listener must always drain the connection: a dropped invalidation
        // would be a stale module.
        let (sender, pushes) = unbounded_channel();
        let deadline = Instant::now() + self.config.connect_timeout;
        let opened = open(&self.config, Some(sender), deadline).await?;
        Ok(TrackingConnection {
            config: self.config.clone(),
            connection: opened.connection.led_by(opened.moves),
            pushes,
            asked: None,
            answers: VecDeque::new(),
            wanted: Arc::clone(&self.wanted),
        })
    }

    async fn pause(&self, duration: Duration) {
        sleep(duration).await;
    }

    fn is_over(&self) -> bool {
        // The task is aborted when its handle is dropped, at any await.
        false
    }
}

/// The tracking connection. The library reads it in a task of its own and hands pushes over through
/// a channel, answers through the future of the request.
struct TrackingConnection {
    config: Config,
    connection: Connection,
    pushes: UnboundedReceiver<PushInfo>,
    asked: Option<Task<RedisResult<Vec<Value>>>>,
    /// Answers that were received together and not handed on yet.
    answers: VecDeque<Value>,
    wanted: Arc<Notify>,
}

impl ListenerConnection for TrackingConnection {
    async fn send(&mut self, request: Request) -> Result<(), Error> {
        let sender = self.connection.sender.clone();
        // A task, so that announcements are applied while the answer is still to come.
        let asked = tokio::spawn(async move { sender.send(&request).await });
        self.asked = Some(Task(asked));
        Ok(())
    }

    async fn is_elsewhere(&mut self, limit: Duration) -> bool {
        let (config, pushes) = (&self.config, None);
        discovery::confirm(&Dialer { config, pushes }, config, limit).await;
        config.known.moves() != self.connection.moves()
    }

    async fn receive(&mut self, limit: Duration) -> Result<Option<Value>, Error> {
        // Announcements first. The driver handles the connection in order, so what Redis announced
        // before an answer is in the channel before the answer is here: the lease is renewed after
        // all of it.
        if let Ok(push) = self.pushes.try_recv() {
            return Ok(Some(value(push)));
        }
        if let Some(answer) = self.answers.pop_front() {
            return Ok(Some(answer));
        }
        let lost = || reply::outage(Outage::Lost, None);
        let answered = async {
            match &mut self.asked {
                Some(asked) => (&mut asked.0).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answers = answered => {
                self.asked = None;
                let answers = answers.map_err(|_| lost())?;
                let answers = answers.map_err(|error| reply::client_error(&error, Outage::Lost))?;
                self.answers.extend(answers);
                Ok(None)
            }
            push = self.pushes.recv() => push.map(value).map(Some).ok_or_else(lost),
            _ = &mut self.connection.driver.0 => Err(lost()),
            () = self.wanted.notified() => Ok(None),
            () = sleep(limit) => Ok(None),
        }
    }
}

/// The library hands pushes over in a type of its own; the core reads them as the value that came.
fn value(PushInfo { kind, data }: PushInfo) -> Value {
    Value::Push { kind, data }
}
