//! What Redis was really asked.

use ::redis::{Connection, Value};

use super::RedisServer;

/// Listens to every command that a server executes, of all clients, in their order (MONITOR).
pub struct Monitor {
    listening: Connection,
    own: Connection,
}

impl Monitor {
    /// Starts to listen.
    pub fn start(server: &RedisServer) -> Self {
        let own = server.connection();
        let mut listening = server.connection();
        ::redis::cmd("MONITOR")
            .exec(&mut listening)
            .expect("MONITOR is answered");
        Self { listening, own }
    }

    /// The names of the commands since the start, or since the last time this was asked.
    pub fn commands(&mut self) -> Vec<String> {
        const END: &str = "\"ECHO\" \"the end\"";
        ::redis::cmd("ECHO")
            .arg("the end")
            .exec(&mut self.own)
            .expect("ECHO is answered");
        let mut commands = Vec::new();
        loop {
            let line = match self.listening.recv_response().expect("a line of MONITOR") {
                Value::SimpleString(line) => line,
                other => panic!("{other:?} is no line of MONITOR"),
            };
            if line.ends_with(END) {
                return commands;
            }
            // `1700000000.123456 [0 127.0.0.1:50000] "GET" "key"`
            let (_, command) = line.split_once("] \"").expect("a command after its client");
            let name = command.split('"').next().unwrap_or_default();
            commands.push(name.to_uppercase());
        }
    }
}
