//! A TCP proxy that delays, holds, swallows, cuts and resets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::wait_until;

const LIMIT: Duration = Duration::from_secs(10);
const CHUNK: usize = 256 * 1024;
/// What a direction holds before it stops reading: 64 MiB.
const QUEUE: usize = 256;

/// A proxy before a server on 127.0.0.1. What is set holds for all its connections, old and new,
/// until [`Proxy::resume`]; the latency stays.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    door: Mutex<Option<(Arc<TcpListener>, JoinHandle<()>)>>,
}

impl Proxy {
    /// Starts a proxy before 127.0.0.1:`target_port`.
    pub fn start(target_port: u16) -> Self {
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target_port),
            accepted: AtomicUsize::new(0),
            links: Mutex::new(Vec::new()),
            controls: Mutex::new(Controls::default()),
            changed: Condvar::new(),
        });
        let port = super::free_port();
        let proxy = Self {
            port,
            shared,
            door: Mutex::new(None),
        };
        proxy.accept();
        proxy
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, with Redis behind it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its URL, with Postgres behind it.
    #[cfg(feature = "postgres")]
    pub fn postgres_url(&self) -> String {
        super::postgres::url(self.port)
    }

    /// Sends new connections to another port.
    pub fn set_target(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Adds this much to every round trip, half of it each way; throughput is not limited.
    /// Timers and threads add some 0.3 ms.
    pub fn set_latency(&self, round_trip: Duration) {
        self.set(|controls| controls.delay = round_trip / 2);
    }

    /// Holds all bytes, in both directions; connections are still accepted.
    pub fn stall(&self) {
        self.set(|controls| controls.flows = [Flow::Hold; 2]);
    }

    /// Holds what the server sends.
    pub fn stall_replies(&self) {
        self.set_flow(Direction::Reply, Flow::Hold);
    }

    /// Swallows what the clients send.
    pub fn blackhole_requests(&self) {
        self.set_flow(Direction::Request, Flow::Swallow);
    }

    /// Swallows what the server sends: requests have their effect, no client hears of it.
    pub fn drop_replies(&self) {
        self.set_flow(Direction::Reply, Flow::Swallow);
    }

    /// Closes every connection once the server has sent `bytes` more on it, or, on a new one,
    /// `bytes` in all (the answers to the client's handshake are among them).
    pub fn cut_replies_after(&self, bytes: usize) {
        self.set_flow(Direction::Reply, Flow::Cut { bytes, once: false });
    }

    /// Like [`Proxy::cut_replies_after`], for the first connection that gets so far.
    pub fn cut_one_reply_after(&self, bytes: usize) {
        self.set_flow(Direction::Reply, Flow::Cut { bytes, once: true });
    }

    /// Lets bytes pass again, those held included. What was swallowed is lost.
    pub fn resume(&self) {
        self.set(|controls| controls.flows = [Flow::Pass; 2]);
    }

    /// Resets (RST) all connections that are open; returns when it is done.
    pub fn reset_all(&self) {
        let reset = |link: Arc<Link>| {
            self.shared.close(&link, End::Reset);
            Arc::downgrade(&link)
        };
        let links: Vec<Weak<Link>> = self.shared.open_links().into_iter().map(reset).collect();
        wait_until("the proxy's connections are closed", LIMIT, || {
            links.iter().all(|link| link.strong_count() == 0)
        });
    }

    /// Refuses new connections; those that are open stay.
    pub fn refuse(&self) {
        let door = lock(&self.door).take();
        if let Some((listener, thread)) = door {
            // Wakes the thread.
            let _ = SockRef::from(&*listener).shutdown(Shutdown::Both);
            drop(listener);
            thread.join().expect("the accepting thread does not panic");
        }
    }

    /// Ends [`Proxy::refuse`].
    pub fn accept(&self) {
        let mut door = lock(&self.door);
        if door.is_some() {
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port));
        let listener = Arc::new(listener.expect("the proxy's port is free"));
        let (shared, accepting) = (Arc::clone(&self.shared), Arc::clone(&listener));
        let thread = thread::spawn(move || serve(&shared, &accepting));
        *door = Some((listener, thread));
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open_links().len()
    }

    /// From now on, what is set holds for these connections only.
    pub fn aim(&self, aim: Aim) {
        self.set(|controls| controls.aim = aim);
    }

    fn set_flow(&self, direction: Direction, flow: Flow) {
        self.set(|controls| controls.flows[direction as usize] = flow);
    }

    fn set(&self, change: impl FnOnce(&mut Controls)) {
        let mut controls = lock(&self.shared.controls);
        change(&mut controls);
        controls.version += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
        for link in self.shared.open_links() {
            self.shared.close(&link, End::Orderly);
        }
    }
}

/// Which connections are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Aim {
    /// All of them.
    #[default]
    All,
    /// Those on which changes are announced.
    Followers,
    /// The others.
    Others,
}

impl Aim {
    fn is_at(self, link: &Link) -> bool {
        self == Self::All || (self == Self::Followers) == link.follows.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Request,
    Reply,
}

#[derive(Clone, Copy)]
enum End {
    Orderly,
    Reset,
}

#[derive(Clone, Copy, Default)]
enum Flow {
    #[default]
    Pass,
    Hold,
    Swallow,
    Cut {
        bytes: usize,
        once: bool,
    },
}

#[derive(Default)]
struct Controls {
    delay: Duration,
    aim: Aim,
    flows: [Flow; 2],
    /// Grows with each change: bytes until a cut are counted from there.
    version: u64,
}

struct Shared {
    target: AtomicU16,
    accepted: AtomicUsize,
    links: Mutex<Vec<Weak<Link>>>,
    controls: Mutex<Controls>,
    changed: Condvar,
}

/// A client's connection and ours to the server.
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// Whether the client has asked for announcements.
    follows: AtomicBool,
    closed: AtomicBool,
}

/// Bytes, none at the end of the stream, and when to deliver them.
type Chunk = (Instant, Vec<u8>);

/// What becomes of a chunk.
enum Verdict {
    Deliver,
    Swallow,
    /// Deliver so many bytes and close.
    Cut(usize),
    /// The connection was closed meanwhile.
    Closed,
}

impl Shared {
    fn open_links(&self) -> Vec<Arc<Link>> {
        let mut links = lock(&self.links);
        links.retain(|link| link.strong_count() > 0);
        links.iter().filter_map(Weak::upgrade).collect()
    }

    fn close(&self, link: &Link, how: End) {
        link.closed.store(true, Ordering::SeqCst);
        for stream in [&link.client, &link.server] {
            // They fail when the other side has gone: as good.
            let _ = match how {
                End::Orderly => stream.shutdown(Shutdown::Both),
                // It wakes the reading thread and sends nothing; the last owner's close resets.
                End::Reset => SockRef::from(stream)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| stream.shutdown(Shutdown::Read)),
            };
        }
        let _controls = lock(&self.controls);
        self.changed.notify_all();
    }

    /// Waits until a chunk is due and may pass.
    fn judge(&self, link: &Link, way: Direction, chunk: &Chunk, sent: &mut Sent) -> Verdict {
        let (due, bytes) = chunk;
        let mut controls = lock(&self.controls);
        loop {
            if link.closed.load(Ordering::SeqCst) {
                return Verdict::Closed;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                let waited = self.changed.wait_timeout(controls, wait);
                controls = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let flow = if controls.aim.is_at(link) {
                controls.flows[way as usize]
            } else {
                Flow::Pass
            };
            match flow {
                Flow::Hold => {
                    let waited = self.changed.wait(controls);
                    controls = waited.unwrap_or_else(PoisonError::into_inner);
                }
                Flow::Swallow if !bytes.is_empty() => return Verdict::Swallow,
                Flow::Pass | Flow::Swallow => return Verdict::Deliver,
                Flow::Cut { bytes: limit, once } => {
                    if sent.version != controls.version {
                        *sent = Sent::since(controls.version);
                    }
                    let left = limit - sent.bytes;
                    if bytes.len() < left || bytes.is_empty() {
                        sent.bytes += bytes.len();
                        return Verdict::Deliver;
                    }
                    if once {
                        controls.flows[way as usize] = Flow::Pass;
                    }
                    return Verdict::Cut(left);
                }
            }
        }
    }
}

/// Bytes delivered since a change of the controls.
struct Sent {
    version: u64,
    bytes: usize,
}

impl Sent {
    fn since(version: u64) -> Self {
        Self { version, bytes: 0 }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(shared: &Arc<Shared>, listener: &TcpListener) {
    while let Ok((client, _)) = listener.accept() {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let target = (Ipv4Addr::LOCALHOST, shared.target.load(Ordering::SeqCst));
        // No server: the client's connection is closed.
        let Ok(server) = TcpStream::connect(target) else {
            continue;
        };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            // A thread that writes looks from time to time whether it should stop.
            let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
        }
        let link = Arc::new(Link {
            client,
            server,
            follows: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        lock(&shared.links).push(Arc::downgrade(&link));
        for way in [Direction::Request, Direction::Reply] {
            let (sender, receiver) = sync_channel(QUEUE);
            let (reading, writing) = (Arc::clone(&link), Arc::clone(&link));
            let (delays, flows) = (Arc::clone(shared), Arc::clone(shared));
            thread::spawn(move || take(&delays, &reading, way, &sender));
            thread::spawn(move || deliver(&flows, &writing, way, &receiver));
        }
    }
}

/// Reads without end, noting when each chunk is due.
fn take(shared: &Shared, link: &Link, way: Direction, queue: &SyncSender<Chunk>) {
    let mut source = match way {
        Direction::Request => &link.client,
        Direction::Reply => &link.server,
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = source.read(&mut buffer).unwrap_or(0);
        let asked = buffer[..length].windows(8).any(|word| word == b"TRACKING");
        if asked && matches!(way, Direction::Request) {
            link.follows.store(true, Ordering::SeqCst);
        }
        let due = Instant::now() + lock(&shared.controls).delay;
        if queue.send((due, buffer[..length].to_vec())).is_err() || length == 0 {
            return;
        }
    }
}

fn deliver(shared: &Shared, link: &Link, way: Direction, queue: &Receiver<Chunk>) {
    let destination = match way {
        Direction::Request => &link.server,
        Direction::Reply => &link.client,
    };
    let mut sent = Sent::since(0);
    for chunk in queue {
        let bytes = &chunk.1;
        let verdict = shared.judge(link, way, &chunk, &mut sent);
        let written = match verdict {
            Verdict::Deliver if bytes.is_empty() => destination.shutdown(Shutdown::Write),
            Verdict::Deliver => write_all(destination, bytes, &link.closed),
            Verdict::Swallow => Ok(()),
            Verdict::Cut(length) => {
                let _ = write_all(destination, &bytes[..length], &link.closed);
                return shared.close(link, End::Orderly);
            }
            Verdict::Closed => return,
        };
        if written.is_err() && !link.closed.load(Ordering::SeqCst) {
            return shared.close(link, End::Orderly);
        }
    }
}

/// `Write::write_all` that gives up when the connection was closed from elsewhere.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8], closed: &AtomicBool) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if can_go_on(&e) && !closed.load(Ordering::SeqCst) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A time-out, or a signal: a socket with a time-out reports even those without a handler.
fn can_go_on(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
