//! A child of this process, and what it shares with its parent.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// A forked process that runs `work`, and its end of a channel to us.
pub struct Child {
    pid: libc::pid_t,
    channel: UnixStream,
}

impl Child {
    pub fn fork(work: impl FnOnce(&mut UnixStream)) -> Self {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // SAFETY: the child goes on in this function alone and never returns from it.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork failed");
        if pid > 0 {
            return Self { pid, channel: ours };
        }
        drop(ours);
        // A child that hangs is killed, and the parent sees it.
        // SAFETY: it has no preconditions.
        unsafe { libc::alarm(120) };
        let work = std::panic::AssertUnwindSafe(|| work(&mut theirs));
        let status = i32::from(std::panic::catch_unwind(work).is_err());
        // Not `exit`: what the parent would run at its end, and the servers, are the parent's.
        // SAFETY: it ends the process.
        unsafe { libc::_exit(status) }
    }

    /// Waits for the child to say that it has come so far.
    pub fn wait(&mut self) {
        listen(&mut self.channel);
    }

    /// Lets the child go on.
    pub fn go(&mut self) {
        say(&mut self.channel);
    }

    pub fn join(self) {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!((pid, status), (self.pid, 0), "the child failed");
    }
}

pub fn say(channel: &mut UnixStream) {
    channel.write_all(b"!").unwrap();
}

pub fn listen(channel: &mut UnixStream) {
    channel
        .read_exact(&mut [0])
        .expect("the other one is alive");
}

/// The names of this process's threads.
pub fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    names.map(|name| name.trim().to_owned()).collect()
}
