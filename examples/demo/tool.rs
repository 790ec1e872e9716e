//! The operator's tool, as a shell would run it.

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;

/// `bifrost-modules`, with its servers in the environment.
pub struct Tool {
    program: PathBuf,
    redis: String,
    database: String,
}

impl Tool {
    /// It is built beside the examples.
    pub fn new(redis: &str, database: &str) -> Outcome<Self> {
        let name = format!("bifrost-modules{}", std::env::consts::EXE_SUFFIX);
        let own = std::env::current_exe()?;
        let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(&name));
        let program = found
            .into_iter()
            .find(|program| program.is_file())
            .ok_or("bifrost-modules is not built: run `make demo`")?;
        Ok(Self {
            program,
            redis: redis.to_owned(),
            database: database.to_owned(),
        })
    }

    /// Runs it and shows what it prints; another exit code than this is an error.
    pub fn run(&self, arguments: &[&str], code: i32) -> Outcome<()> {
        let line = format!("bifrost-modules {}", arguments.join(" "));
        println!("\n$ {line}");
        let status = Command::new(&self.program)
            .args(arguments)
            .env("REDIS_URL", &self.redis)
            .env("DATABASE_URL", &self.database)
            .status()?;
        if status.code() == Some(code) {
            return Ok(());
        }
        Err(format!("{line} ended with {status}, not with {code}").into())
    }
}
