//! A server that speaks Redis's protocol, knows a few modules and does as the test says: answers
//! wait until they are released, and pushes are sent when the test wants them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifrost_module_cache::CachedModule;

use super::{PATIENCE, fake_server, wait_until};

const PREFIX: &str = "bifrost:module:";

/// What it calls itself by default.
pub const RUN_ID: &str = "00000000000000aa00000000000000000000dead";

/// The command by which a near cache asks for a heartbeat.
pub const HEARTBEAT: &str = "INFO replication";

/// A server under the test's control. It goes with the process.
pub struct ScriptedRedis {
    url: String,
    shared: Arc<Shared>,
}

/// What to do about a command.
pub enum Reply {
    /// Answer it as Redis would.
    Usual,
    Raw(Vec<u8>),
    /// Close the connection.
    Close,
}

type Rule = Arc<dyn Fn(&Peer) -> Reply + Send + Sync>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    modules: BTreeMap<String, Vec<u8>>,
    peers: Vec<Arc<Peer>>,
    rules: HashMap<String, Rule>,
    gates: HashMap<String, Sender<Held>>,
    calls: HashMap<String, usize>,
    accepted: usize,
    /// Is sent before the next sign of life.
    pending: Vec<u8>,
}

/// One connection.
pub struct Peer {
    stream: TcpStream,
    writing: Mutex<()>,
    address: SocketAddr,
    follows: AtomicBool,
    resp3: AtomicBool,
}

/// Where the answers to a command wait, in the order in which it came.
pub struct Gate(Receiver<Held>);

/// An answer, made when the command came, that waits to be released. Dropped, it is.
pub struct Held {
    answer: Vec<u8>,
    release: SyncSender<Option<Vec<u8>>>,
}

impl Gate {
    /// The next one, which is to come.
    pub fn next(&self) -> Held {
        self.0.recv_timeout(PATIENCE).expect("a command comes")
    }

    /// The next one, if it is here.
    pub fn try_next(&self) -> Option<Held> {
        self.0.try_recv().ok()
    }
}

impl Held {
    /// Lets it go.
    pub fn release(self) {
        let answer = self.answer.clone();
        self.answer(answer);
    }

    /// Lets another answer go in its place.
    pub fn answer(self, answer: Vec<u8>) {
        // The connection may have gone.
        let _ = self.release.send(Some(answer));
    }

    /// Nothing is answered: the test that holds it has written what there was.
    pub fn forget(self) {
        let _ = self.release.send(None);
    }
}

impl ScriptedRedis {
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let url = fake_server(move |stream| {
            // It ends with the connection, one way or another.
            let _ = serving.serve(stream);
        });
        Self { url, shared }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Writes a module and announces nothing.
    pub fn set(&self, path: &str, content: &str) {
        let module = CachedModule::new(path, content).expect("a path");
        let mut state = self.shared.lock();
        state.modules.insert(path.to_owned(), module.to_json());
    }

    /// Removes a module and announces nothing.
    pub fn remove(&self, path: &str) {
        self.shared.lock().modules.remove(path);
    }

    /// From now on, what this says is answered to a command (of two words after CLIENT).
    pub fn rule(&self, command: &str, rule: impl Fn(&Peer) -> Reply + Send + Sync + 'static) {
        let mut state = self.shared.lock();
        state.rules.insert(command.to_owned(), Arc::new(rule));
    }

    /// Ends [`rule`](Self::rule).
    pub fn no_rule(&self, command: &str) {
        self.shared.lock().rules.remove(command);
    }

    /// From now on, the answers to a command wait, heartbeats only where changes are announced.
    pub fn hold(&self, command: &str) -> Gate {
        let (sender, held) = channel();
        self.shared.lock().gates.insert(command.to_owned(), sender);
        Gate(held)
    }

    /// Ends [`hold`](Self::hold) for those that come.
    pub fn no_hold(&self, command: &str) {
        self.shared.lock().gates.remove(command);
    }

    /// How often a command came.
    pub fn calls(&self, command: &str) -> usize {
        let state = self.shared.lock();
        state.calls.get(command).copied().unwrap_or_default()
    }

    /// How many connections were made.
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Who wants to hear of changes.
    pub fn followers(&self) -> Vec<Arc<Peer>> {
        let state = self.shared.lock();
        let follows = |peer: &&Arc<Peer>| peer.follows();
        state.peers.iter().filter(follows).cloned().collect()
    }

    /// The other connections.
    pub fn readers(&self) -> Vec<Arc<Peer>> {
        let state = self.shared.lock();
        let reads = |peer: &&Arc<Peer>| !peer.follows();
        state.peers.iter().filter(reads).cloned().collect()
    }

    /// Who follows it: exactly one does.
    pub fn follower(&self) -> Arc<Peer> {
        let followers = self.followers();
        assert_eq!(followers.len(), 1, "one connection follows");
        Arc::clone(&followers[0])
    }

    /// Sends this to the followers.
    pub fn tell(&self, bytes: &[u8]) {
        self.follower().write(bytes).expect("the follower is there");
    }

    /// Sends this to the followers as late as it may be: just before the next sign of life.
    pub fn tell_late(&self, bytes: &[u8]) {
        self.shared.lock().pending.extend_from_slice(bytes);
    }
}

/// The message that these paths have changed.
pub fn changed<S: AsRef<str>>(paths: &[S]) -> Vec<u8> {
    let keys: Vec<String> = paths
        .iter()
        .map(|path| format!("{PREFIX}{}", path.as_ref()))
        .collect();
    changed_keys(&keys)
}

/// The message that these keys have changed.
pub fn changed_keys<S: AsRef<str>>(keys: &[S]) -> Vec<u8> {
    let mut bytes = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", keys.len()).into_bytes();
    for key in keys {
        bytes.extend(bulk(key.as_ref().as_bytes()));
    }
    bytes
}

/// The message that everything has gone.
pub fn flushed() -> Vec<u8> {
    b">2\r\n$10\r\ninvalidate\r\n_\r\n".to_vec()
}

/// A string.
pub fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

/// The answer to `INFO server`.
pub fn info(run_id: &str) -> Vec<u8> {
    bulk(format!("# Server\r\nredis_version:7.0.0\r\nrun_id:{run_id}\r\n").as_bytes())
}

/// The answer to [`HEARTBEAT`].
pub fn replication(role: &str) -> Vec<u8> {
    let replid = "00000000000000cc00000000000000000000dead";
    bulk(format!("# Replication\r\nrole:{role}\r\nmaster_replid:{replid}\r\n").as_bytes())
}

/// The answer to `CLIENT TRACKINGINFO`: as a map with `%`, as RESP2 says it with `*`.
pub fn tracking(kind: char, flags: &[&str], prefix: &str) -> Vec<u8> {
    let fields = if kind == '%' { 3 } else { 6 };
    let mut bytes = format!("{kind}{fields}\r\n").into_bytes();
    bytes.extend(bulk(b"flags"));
    let set = if kind == '%' { '~' } else { '*' };
    bytes.extend(format!("{set}{}\r\n", flags.len()).into_bytes());
    for flag in flags {
        bytes.extend(bulk(flag.as_bytes()));
    }
    bytes.extend(bulk(b"redirect"));
    bytes.extend(b":0\r\n");
    bytes.extend(bulk(b"prefixes"));
    bytes.extend(b"*1\r\n");
    bytes.extend(bulk(prefix.as_bytes()));
    bytes
}

impl Peer {
    /// Whether it has asked for announcements.
    pub fn follows(&self) -> bool {
        self.follows.load(SeqCst)
    }

    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(bytes)
    }

    /// Writes pieces, each when the client has taken in the one before.
    pub fn write_in_pieces<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.write(piece).expect("the peer is there");
            wait_until("the client has read a piece", PATIENCE, || {
                self.is_drained()
            });
        }
    }

    pub fn close(&self) {
        // It may have gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether nothing is between the two programs.
    fn is_drained(&self) -> bool {
        let ours = self.stream.local_addr().expect("an address").port();
        let theirs = self.address.port();
        let table = fs::read_to_string("/proc/net/tcp").expect("the system's list of connections");
        let queues = |local: u16, remote: u16| {
            let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
            let lines = table.lines().map(|line| line.split_whitespace());
            let mut found = lines.filter_map(|mut fields| {
                let (from, to) = (fields.nth(1)?, fields.next()?);
                (from.ends_with(&local) && to.ends_with(&remote)).then(|| fields.nth(1))?
            });
            found.next().map(str::to_owned)
        };
        let nothing = |queues: Option<String>, which: usize| {
            queues.is_none_or(|queues| queues.split(':').nth(which) == Some("00000000"))
        };
        nothing(queues(ours, theirs), 0) && nothing(queues(theirs, ours), 1)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut requests = BufReader::new(stream.try_clone()?);
        let peer = Arc::new(Peer {
            address: stream.peer_addr()?,
            stream,
            writing: Mutex::new(()),
            follows: AtomicBool::new(false),
            resp3: AtomicBool::new(false),
        });
        let mut state = self.lock();
        state.peers.push(Arc::clone(&peer));
        state.accepted += 1;
        drop(state);
        let served = self.answer_all(&peer, &mut requests);
        peer.close();
        let mut state = self.lock();
        state.peers.retain(|other| !Arc::ptr_eq(other, &peer));
        served
    }

    fn answer_all(&self, peer: &Peer, requests: &mut BufReader<TcpStream>) -> io::Result<()> {
        while let Some(words) = read_command(requests)? {
            let mut name = words[0].to_uppercase();
            if name == "CLIENT" {
                name = format!("{name} {}", words[1].to_uppercase());
            }
            if name == "INFO" && words.get(1).is_some_and(|section| section == "replication") {
                HEARTBEAT.clone_into(&mut name);
            }
            let rule = {
                let mut state = self.lock();
                *state.calls.entry(name.clone()).or_default() += 1;
                state.rules.get(&name).cloned()
            };
            // Before a rule is asked, which may want to know.
            if name == "CLIENT TRACKING" {
                peer.follows.store(true, SeqCst);
            }
            let answer = match rule.map_or(Reply::Usual, |rule| rule(peer)) {
                Reply::Usual => self.usual(peer, &name, &words),
                Reply::Raw(bytes) => bytes,
                Reply::Close => return Ok(()),
            };
            let gate = self.lock().gates.get(&name).cloned();
            let gate = gate.filter(|_| name != HEARTBEAT || peer.follows());
            let answer = match gate {
                Some(gate) => wait(&gate, answer),
                None => Some(answer),
            };
            peer.write(&answer.unwrap_or_default())?;
        }
        Ok(())
    }

    fn usual(&self, peer: &Peer, name: &str, words: &[String]) -> Vec<u8> {
        let mut state = self.lock();
        let module = |key: &String| {
            let module = key
                .strip_prefix(PREFIX)
                .and_then(|path| state.modules.get(path));
            module.map_or_else(|| peer.null(), |json| bulk(json))
        };
        let array = |items: Vec<Vec<u8>>| {
            [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat()
        };
        match name {
            "HELLO" => {
                peer.resp3
                    .store(words.get(1).is_some_and(|version| version == "3"), SeqCst);
                b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec()
            }
            "CLIENT TRACKINGINFO" => tracking('%', &["on", "bcast"], PREFIX),
            "INFO" => info(RUN_ID),
            HEARTBEAT if peer.follows() => {
                let mut bytes = std::mem::take(&mut state.pending);
                bytes.extend(replication("master"));
                bytes
            }
            HEARTBEAT => replication("master"),
            "PING" => b"+PONG\r\n".to_vec(),
            "GET" => module(&words[1]),
            "MGET" => array(words[1..].iter().map(module).collect()),
            "SMISMEMBER" => {
                let is_member = |path: &String| u8::from(state.modules.contains_key(path));
                let answer = |path| format!(":{}\r\n", is_member(path)).into_bytes();
                array(words[2..].iter().map(answer).collect())
            }
            "SMEMBERS" => array(
                state
                    .modules
                    .keys()
                    .map(|path| bulk(path.as_bytes()))
                    .collect(),
            ),
            _ => b"+OK\r\n".to_vec(),
        }
    }
}

impl Peer {
    fn null(&self) -> Vec<u8> {
        if self.resp3.load(SeqCst) {
            b"_\r\n".to_vec()
        } else {
            b"$-1\r\n".to_vec()
        }
    }
}

fn wait(gate: &Sender<Held>, answer: Vec<u8>) -> Option<Vec<u8>> {
    let (release, released) = sync_channel(1);
    let held = Held {
        answer: answer.clone(),
        release,
    };
    // If the test does not want to hold it any more, it goes.
    if gate.send(held).is_err() {
        return Some(answer);
    }
    released.recv().unwrap_or(Some(answer))
}

/// The words of the next command; `None` at the end.
fn read_command(from: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<String>>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = Vec::new();
    for _ in 0..number(&line) {
        line.clear();
        from.read_line(&mut line)?;
        let mut word = vec![0; number(&line) + 2];
        from.read_exact(&mut word)?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Ok(Some(words))
}

fn number(line: &str) -> usize {
    line[1..].trim_end().parse().expect("a number")
}
