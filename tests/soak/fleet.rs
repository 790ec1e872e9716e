//! What a fleet costs: how soon a write is seen, and what each listening process costs the server
//! and the writer (`make soak`; the figures are printed).

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{Blocking, Near as _, RedisServer, World, patient, wait_until};
use bifrost_module_cache::CachedModule;
use bifrost_module_cache::blocking::{ModuleWriter, NearCache};
use bifrost_module_cache::near::NearCacheOptions;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;

const TRACKING: &[u8] =
    b"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX bifrost:module:\r\nPING here\r\n";

/// What the last of these commands is answered with.
const TRACKED: &[u8] = b"here\r\n";

fn module(path: &str, version: usize) -> CachedModule {
    CachedModule::new(path, format!("version = {version}\n")).unwrap()
}

/// Durations in the order of their length.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most) = (self.percentile(50), self.percentile(99));
        write!(f, "p50 {half:.1?}, p99 {most:.1?}")
    }
}

/// A bare connection to which changes are announced.
fn bare_listener(server: &RedisServer) -> TcpStream {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(TRACKING).unwrap();
    let mut answers = Vec::new();
    while !answers.ends_with(TRACKED) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answers.extend(byte);
    }
    socket
}

/// When each change of that path was announced to a bare connection.
fn announcements(server: &RedisServer, path: &str) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel();
    let mut socket = bare_listener(server);
    let path = path.to_owned().into_bytes();
    thread::spawn(move || {
        let mut stream = Vec::new();
        let mut bytes = [0; 4096];
        // Until the server ends.
        while let Ok(count @ 1..) = socket.read(&mut bytes) {
            let now = Instant::now();
            stream.extend(&bytes[..count]);
            let found = |stream: &[u8]| stream.windows(path.len()).position(|part| part == path);
            while let Some(place) = found(&stream) {
                stream.drain(..place + path.len());
                // The caller that asked may have gone.
                let _ = sender.send(now);
            }
        }
    });
    receiver
}

#[test]
#[ignore = "long: make soak"]
fn how_soon_a_write_is_seen_elsewhere() {
    const PATH: &str = "shared/pushed.py";
    const WRITES: usize = 5_000;
    let world = World::<Blocking>::new();
    let (server, writer) = (&world.redis, &world.writer);
    let near = NearCache::live(patient(&server.url()), NearCacheOptions::default());
    let announced = announcements(server, PATH);
    let is_seen = |expected: &CachedModule| near.get(PATH).unwrap().as_deref() == Some(expected);
    let (mut pushes, mut sights) = (Vec::new(), Vec::new());
    for version in 0..WRITES {
        let module = module(PATH, version);
        let start = Instant::now();
        writer.set(&module).unwrap();
        while !is_seen(&module) {
            // Two processors have other things to do than to ask.
            thread::yield_now();
        }
        sights.push(start.elapsed());
        pushes.push(announced.recv().unwrap() - start);
        // A write of a fleet meets listeners that sleep.
        thread::sleep(Duration::from_micros(300));
    }
    let (pushes, sights) = (Times::new(pushes), Times::new(sights));
    let ratio = |percent| {
        let (push, sight) = (pushes.percentile(percent), sights.percentile(percent));
        sight.as_secs_f64() / push.as_secs_f64()
    };
    println!("set to announced, bare connection: {pushes}");
    println!("set to seen in a near cache: {sights}");
    println!("ratio: p50 {:.2}, p99 {:.2}", ratio(50), ratio(99));
}

/// Bare connections that listen, all read by one thread.
struct Listeners {
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<u64>,
}

impl Listeners {
    fn start(server: &RedisServer, count: usize) -> Self {
        let sockets: Vec<_> = (0..count).map(|_| bare_listener(server)).collect();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap();
            runtime.block_on(async {
                let reading: Vec<_> = sockets
                    .into_iter()
                    .map(|socket| {
                        socket.set_nonblocking(true).unwrap();
                        let mut socket = tokio::net::TcpStream::from_std(socket).unwrap();
                        tokio::spawn(async move {
                            let mut bytes = vec![0; 16 * 1024];
                            let mut total = 0;
                            while let Ok(count @ 1..) = socket.read(&mut bytes).await {
                                total += count as u64;
                            }
                            total
                        })
                    })
                    .collect();
                // The server closes them, so that each has read all.
                stopped.await.unwrap();
                let mut total = 0;
                for reading in reading {
                    total += reading.await.unwrap();
                }
                total
            })
        });
        Self {
            stop: Some(stop),
            thread,
        }
    }

    /// How many bytes they were sent.
    fn finish(mut self, server: &RedisServer) -> u64 {
        server.command("CLIENT KILL TYPE normal SKIPME yes");
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// The processor time that the server has taken.
fn server_time(redis: &mut redis::Connection) -> Duration {
    let info: String = redis::cmd("INFO").arg("cpu").query(redis).unwrap();
    let field = |name: &str| {
        let found = info.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().parse::<f64>().unwrap()
    };
    Duration::from_secs_f64(field("used_cpu_user:") + field("used_cpu_sys:"))
}

/// Waits until the server has sent what it has to: what is sent late counts too.
fn settle(redis: &mut redis::Connection) {
    let idle = Duration::from_millis(60);
    wait_until("the server is idle", Duration::from_secs(60), || {
        let before = server_time(redis);
        thread::sleep(idle);
        server_time(redis).saturating_sub(before) < idle / 20
    });
}

/// What something cost.
struct Cost {
    /// The server's time.
    server: Duration,
    /// How long the writer waits, in half of its calls and in 99 of 100.
    writer: Duration,
    slowest: Duration,
    /// What the listeners were sent.
    sent: u64,
}

fn cost(
    listeners: usize,
    prepare: impl Fn(&ModuleWriter),
    calls: usize,
    call: impl Fn(&ModuleWriter, usize),
) -> Cost {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let writer = ModuleWriter::new(patient(&server.url())).unwrap();
    prepare(&writer);
    let listening = Listeners::start(&server, listeners);
    settle(&mut redis);
    let before = server_time(&mut redis);
    let mut times = Vec::new();
    for number in 0..calls {
        let start = Instant::now();
        call(&writer, number);
        times.push(start.elapsed());
        // So that each is announced for itself, to listeners that sleep.
        thread::sleep(Duration::from_millis(1));
    }
    settle(&mut redis);
    let server_time = server_time(&mut redis).saturating_sub(before);
    let sent = listening.finish(&server);
    let calls = u32::try_from(calls).unwrap();
    let times = Times::new(times);
    Cost {
        server: server_time / calls,
        writer: times.percentile(50),
        slowest: times.percentile(99),
        sent: sent / u64::from(calls),
    }
}

/// Of three measurements, interleaved, each figure's median.
fn costs(what: &str, measure: impl Fn(usize) -> Cost) {
    const LISTENERS: [usize; 4] = [0, 1, 100, 500];
    let mut all: [Vec<Cost>; 4] = Default::default();
    for _ in 0..3 {
        for (costs, listeners) in all.iter_mut().zip(LISTENERS) {
            costs.push(measure(listeners));
        }
    }
    let median = |costs: &[Cost], figure: fn(&Cost) -> Duration| {
        Times::new(costs.iter().map(figure).collect()).percentile(50)
    };
    let one = [
        median(&all[1], |cost| cost.server),
        median(&all[1], |cost| cost.writer),
    ];
    for (costs, listeners) in all.iter().zip(LISTENERS) {
        let server = median(costs, |cost| cost.server);
        let writer = median(costs, |cost| cost.writer);
        println!(
            "{what}, {listeners} listening: server {server:.1?} ({:.2} x), writer {writer:.1?} \
             ({:.2} x), p99 {:.1?}; {} bytes announced",
            server.as_secs_f64() / one[0].as_secs_f64(),
            writer.as_secs_f64() / one[1].as_secs_f64(),
            median(costs, |cost| cost.slowest),
            costs[0].sent,
        );
    }
}

#[test]
#[ignore = "long: make soak"]
fn what_a_set_costs_a_fleet() {
    costs("one set", |listeners| {
        let set = |writer: &ModuleWriter, number: usize| {
            writer.set(&module("shared/often.py", number)).unwrap();
        };
        cost(listeners, |writer| set(writer, 0), 1_000, set)
    });
}

#[test]
#[ignore = "long: make soak"]
fn what_a_warm_up_costs_a_fleet() {
    let modules: Vec<_> = (0..10_000)
        .map(|number| {
            module(
                &format!("package_{}/module_{number}.py", number % 100),
                number,
            )
        })
        .collect();
    costs("a warm-up of 10,000 modules", |listeners| {
        let warm = |writer: &ModuleWriter, _: usize| {
            assert!(writer.publish_exact(&modules).unwrap().complete);
        };
        cost(listeners, |_| (), 1, warm)
    });
}
