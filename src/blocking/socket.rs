//! A socket on which nothing takes longer than until a deadline.
//!
//! The library's synchronous connection can't serve here: its time-out counts anew for each piece
//! of a reply that trickles in, and a signal that arrives during a read with a time-out (Linux
//! restarts none of these) fails the call with `EINTR` and spoils the connection. Here every step
//! of IO has the time that is left until one absolute deadline, and is repeated after a signal.

use std::io::{self, Read, Write};
#[cfg(feature = "near-cache")]
use std::net::Shutdown;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(all(unix, feature = "near-cache"))]
use std::os::fd::{AsFd as _, BorrowedFd};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How far a socket's own time-out may overshoot the deadline. Setting it exactly would cost a
/// system call for each read.
const SLACK: Duration = Duration::from_millis(5);

/// How long a thread may take to start. In a child that was forked while its parent started one, it
/// never does.
const BIRTH: Duration = Duration::from_millis(100);

/// A stream whose time-outs follow the deadline. They are remembered, so that most reads set none.
pub(crate) struct Socket {
    stream: Stream,
    deadline: Instant,
    /// The time-outs that the stream has now.
    read_timeout: Duration,
    write_timeout: Duration,
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    /// Connects by `deadline`, all of name resolution and each address together.
    pub(crate) fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<Self> {
        connect_tcp(host, port, deadline).map(|stream| Self::new(Stream::Tcp(stream), deadline))
    }

    #[cfg(unix)]
    pub(crate) fn connect_unix(path: &Path, deadline: Instant) -> io::Result<Self> {
        let path = path.to_owned();
        // Connecting blocks, without a time-out, while the server's backlog is full, as that of a
        // frozen server soon is.
        let stream = within(deadline, move || UnixStream::connect(path))?;
        Ok(Self::new(Stream::Unix(stream), deadline))
    }

    fn new(stream: Stream, deadline: Instant) -> Self {
        let (read_timeout, write_timeout) = (Duration::MAX, Duration::MAX);
        Self {
            stream,
            deadline,
            read_timeout,
            write_timeout,
        }
    }

    /// True if there is nothing to read, not even the end. Three system calls, and no round trip as
    /// a PING would be.
    pub(crate) fn is_quiet(&self) -> bool {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream,
            // The standard library has no way to peek at these.
            #[cfg(unix)]
            Stream::Unix(_) => return true,
        };
        let peek = stream
            .set_nonblocking(true)
            .and_then(|()| stream.peek(&mut [0]));
        let quiet = peek.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        quiet && stream.set_nonblocking(false).is_ok()
    }

    /// What the system can wait for.
    #[cfg(all(unix, feature = "near-cache"))]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }

    /// Ends the connection, also where a forked child has inherited it: closing our descriptor
    /// would leave the child's open, and Redis would go on feeding a tracking connection that no
    /// listener reads.
    #[cfg(feature = "near-cache")]
    pub(crate) fn shut_down(&self) {
        // It may have ended by itself.
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// From now on reads and writes end by this time.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Does one step of IO, and repeats it while it was only interrupted by a signal, or its
    /// time-out, which may be shorter than the deadline, ended it too early.
    fn step<T>(
        &mut self,
        set_timeout: fn(&mut Self, Duration) -> io::Result<()>,
        io: &mut dyn FnMut(&mut Stream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            set_timeout(self, left)?;
            match io(&mut self.stream) {
                Err(error) if is_passing(&error) => {}
                done => return done,
            }
        }
    }
}

/// `WouldBlock` and `TimedOut` are the end of the socket's own time-out, `Interrupted` a signal:
/// the deadline decides.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The time-out that a socket should have with so much time left; `None` if its present one will
/// do. One that is too short costs a repetition, one that is too long the deadline.
fn better_timeout(now: Duration, left: Duration) -> Option<Duration> {
    let will_do = now <= left.saturating_add(SLACK) && now >= left / 2;
    (!will_do).then(|| left.max(Duration::from_millis(1)))
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step(
            |socket, left| {
                let Some(timeout) = better_timeout(socket.read_timeout, left) else {
                    return Ok(());
                };
                socket.read_timeout = timeout;
                match &socket.stream {
                    Stream::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
                    #[cfg(unix)]
                    Stream::Unix(stream) => stream.set_read_timeout(Some(timeout)),
                }
            },
            &mut |stream| match stream {
                Stream::Tcp(stream) => stream.read(buffer),
                #[cfg(unix)]
                Stream::Unix(stream) => stream.read(buffer),
            },
        )
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.step(
            |socket, left| {
                let Some(timeout) = better_timeout(socket.write_timeout, left) else {
                    return Ok(());
                };
                socket.write_timeout = timeout;
                match &socket.stream {
                    Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
                    #[cfg(unix)]
                    Stream::Unix(stream) => stream.set_write_timeout(Some(timeout)),
                }
            },
            &mut |stream| match stream {
                Stream::Tcp(stream) => stream.write(buffer),
                #[cfg(unix)]
                Stream::Unix(stream) => stream.write(buffer),
            },
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries each address, none for longer than its share of the time: one that is silent must not use
/// up the time of those behind it. The library counts its time-out anew for each.
fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = resolve(host, port, deadline)?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The addresses of a host. The system's resolver has no time-out, so a thread asks it; an address
/// needs none.
fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    within(deadline, move || {
        (host.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    })
}

/// How many threads may wait at the same time for what the system does without a time-out. With a
/// silent name server each takes half a minute, and each call would add one.
const MOST: u32 = 64;

static UNDER_WAY: UnderWay = UnderWay(AtomicU64::new(0));

/// How many threads are under way, and in which process (the upper half): a forked child inherits
/// the number, but none of its parent's threads.
struct UnderWay(AtomicU64);

impl UnderWay {
    fn count(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        let ours = u64::from(process::id()) << 32;
        let change = |before: u64| {
            let count = before.checked_sub(ours).map(u32::try_from);
            change(count.and_then(Result::ok).unwrap_or_default()).map(|now| ours | u64::from(now))
        };
        self.0.fetch_update(Relaxed, Relaxed, change).is_ok()
    }

    /// Counts one that begins, unless there are too many.
    fn begin(&'static self) -> io::Result<Place> {
        let has_room = self.count(|count| (count < MOST).then_some(count + 1));
        has_room
            .then(|| Place(self))
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

/// One of those under way, until it is dropped.
struct Place(&'static UnderWay);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count(|count| count.checked_sub(1));
    }
}

/// For what the system does without a time-out (resolving a name, connecting to a Unix socket): a
/// thread does it, and the caller waits until the deadline. A thread that comes too late ends by
/// itself.
///
/// Where no thread starts, as in a child that was forked while its parent started one, the caller
/// does the work itself, without a limit: better than to fail every call of such a child.
pub(super) fn within<T: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    within_of(&UNDER_WAY, deadline, work)
}

fn within_of<T: Send + 'static>(
    under_way: &'static UnderWay,
    deadline: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    // Released by the thread when it ends, not by the caller when it gives up: what counts is how
    // many threads there are.
    let place = under_way.begin()?;
    let work = move || {
        let done = work();
        drop(place);
        done
    };
    // Behind an `Option` that the first of the two takes: the thread, or after `BIRTH` the caller.
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (sender, receiver) = mpsc::sync_channel(1);
    let theirs = Arc::clone(&work);
    let thread = move || {
        if let Some(work) = take(&theirs) {
            // Without a receiver: the caller has reached its deadline.
            let _ = sender.send(work());
        }
    };
    thread::Builder::new()
        .name("bifrost-connect".to_owned())
        .spawn(thread)?;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut done = receiver.recv_timeout(left().min(BIRTH));
    if done.is_err() {
        if let Some(work) = take(&work).filter(|_| !left().is_zero()) {
            return work();
        }
        done = receiver.recv_timeout(left());
    }
    done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::RwLock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_timeout_is_set_only_where_it_matters() {
        assert_eq!(better_timeout(Duration::MAX, 250 * MS), Some(250 * MS));
        assert_eq!(better_timeout(250 * MS, 249 * MS), None);
        assert_eq!(better_timeout(250 * MS, 200 * MS), Some(200 * MS));
        assert_eq!(better_timeout(250 * MS, 5_000 * MS), Some(5_000 * MS));
        assert_eq!(better_timeout(250 * MS, MS / 2), Some(MS));
    }

    #[test]
    fn a_reply_that_trickles_in_does_not_outlast_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let trickle = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            while peer.write_all(b"x").is_ok() {
                thread::sleep(10 * MS);
            }
        });
        let start = Instant::now();
        let mut socket =
            Socket::connect_tcp("127.0.0.1", port, start + Duration::from_secs(5)).unwrap();
        socket.set_deadline(start + 100 * MS);
        let error = socket.read_exact(&mut [0; 10_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= 100 * MS && start.elapsed() < Duration::from_secs(2));
        drop(socket);
        trickle.join().unwrap();
    }

    #[test]
    fn what_hangs_is_bounded_by_number() {
        static UNDER_WAY: UnderWay = UnderWay(AtomicU64::new(0));
        // As a forked child finds it.
        let parent = u64::from(process::id() - 1) << 32;
        UNDER_WAY.0.store(parent | u64::from(MOST), Relaxed);
        let gate = Arc::new(RwLock::new(()));
        let hanging = gate.write().unwrap();
        let begun = Arc::new(AtomicU64::new(0));
        let hang = || {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            let wait = move || {
                begun.fetch_add(1, Relaxed);
                drop(gate.read());
                Ok(())
            };
            within_of(&UNDER_WAY, Instant::now() + MS, wait)
        };
        // Threads may be born late.
        while begun.load(Relaxed) < u64::from(MOST) {
            assert_eq!(hang().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        for _ in 0..MOST {
            assert_eq!(hang().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.load(Relaxed), u64::from(MOST));
        drop(hanging);
        while UNDER_WAY.0.load(Relaxed) != u64::from(process::id()) << 32 {
            thread::sleep(MS);
        }
        let later = Instant::now() + Duration::from_secs(60);
        within_of(&UNDER_WAY, later, || Ok(())).unwrap();
    }

    #[test]
    fn a_server_that_takes_nothing_in_does_not_outlast_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = Instant::now();
        let mut socket = Socket::connect_tcp("127.0.0.1", port, start + 100 * MS).unwrap();
        let error = socket.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
