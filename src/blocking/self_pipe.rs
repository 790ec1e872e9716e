//! Wakes a thread that waits for a socket: the listener, when a caller wants a heartbeat or drops
//! the near cache. A blocking read can't be interrupted by another thread in any other way.

#[cfg(unix)]
pub(super) use super::self_pipe::unix::SelfPipe;

#[cfg(not(unix))]
pub(super) use super::self_pipe::other::SelfPipe;

#[cfg(unix)]
mod unix {
    use std::io::{self, Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::blocking::socket::Socket;

    /// A pair of sockets: a byte written to one wakes the thread that polls the other.
    pub(in crate::blocking) struct SelfPipe {
        write_end: UnixStream,
        read_end: UnixStream,
    }

    impl SelfPipe {
        pub(in crate::blocking) fn new() -> io::Result<Self> {
            let (write_end, read_end) = UnixStream::pair()?;
            write_end.set_nonblocking(true)?;
            read_end.set_nonblocking(true)?;
            Ok(Self {
                write_end,
                read_end,
            })
        }

        pub(in crate::blocking) fn wake(&self) {
            // If the socket's buffer is full, the thread has been woken already.
            let _ = (&self.write_end).write(&[1]);
        }

        /// Waits until a caller wakes this thread, or there is something to read, or for `limit`.
        /// True if there is something to read.
        pub(in crate::blocking) fn wait(
            &self,
            socket: Option<&Socket>,
            limit: Duration,
        ) -> io::Result<bool> {
            let mut events = vec![PollFd::new(&self.read_end, PollFlags::IN)];
            let socket = socket.map(Socket::as_fd);
            events.extend(socket.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let limit = Timespec::try_from(limit).ok();
            match poll(&mut events, limit.as_ref()) {
                // After a signal the caller looks at the clock and waits again.
                Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            // Takes all bytes out: many wakes are one.
            if !events[0].revents().is_empty() {
                while (&self.read_end)
                    .read(&mut [0; 64])
                    .is_ok_and(|read| read > 0)
                {}
            }
            Ok(events
                .get(1)
                .is_some_and(|event| !event.revents().is_empty()))
        }
    }
}

#[cfg(not(unix))]
mod other {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::blocking::socket::Socket;

    /// Without `poll` nothing wakes a thread that waits for a socket, so it looks often.
    pub(in crate::blocking) struct SelfPipe(AtomicBool);

    const OFTEN: Duration = Duration::from_millis(5);

    impl SelfPipe {
        #[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
        pub(in crate::blocking) fn new() -> io::Result<Self> {
            Ok(Self(AtomicBool::new(false)))
        }

        pub(in crate::blocking) fn wake(&self) {
            self.0.store(true, SeqCst);
        }

        #[allow(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
        pub(in crate::blocking) fn wait(
            &self,
            socket: Option<&Socket>,
            limit: Duration,
        ) -> io::Result<bool> {
            let end = Instant::now() + limit;
            loop {
                if socket.is_some_and(|socket| !socket.is_quiet()) {
                    return Ok(true);
                }
                if self.0.swap(false, SeqCst) || Instant::now() >= end {
                    return Ok(false);
                }
                thread::sleep(OFTEN);
            }
        }
    }
}
