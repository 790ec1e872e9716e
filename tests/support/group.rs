//! Redis as a group: a primary with replicas that sentinels watch over, or a cluster.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Connection, RedisResult, Value};
use tempfile::TempDir;

use super::process::{Farewell, Process, Slot, start_on_free_port};
use super::redis::{RedisServer, binary, connect};
use super::world::TENANT;
use super::{free_port, wait_until};

/// How long a group may take to form, or a failover to come to its end.
const FORMATION: Duration = Duration::from_secs(60);

/// After how long a silent primary is given up by its group.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);

const SERVICE: &str = "mymaster";

/// A sentinel.
pub struct Sentinel {
    slot: Slot,
    port: u16,
    // Last: removed when the sentinel has gone.
    _dir: TempDir,
}

impl Sentinel {
    fn start(primary: u16, more: &str) -> Self {
        Self::start_with(primary, |port| format!("port {port}\n{more}"))
    }

    /// One that speaks TLS alone, with the certificates in these files.
    pub fn with_tls(primary: u16, files: &Path) -> Self {
        let file = |name| files.join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        Self::start_with(primary, |port| {
            format!(
                "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n\
                 tls-ca-cert-file {ca}\ntls-cert-file {certificate}\ntls-key-file {key}\n"
            )
        })
    }

    fn start_with(primary: u16, settings: impl Fn(u16) -> String) -> Self {
        let dir = TempDir::with_prefix("bifrost-sentinel-").expect("a temporary directory");
        let (port, process) = start_on_free_port("redis-server --sentinel", |port| {
            let file = dir.path().join("sentinel.conf");
            let down_after = DOWN_AFTER.as_millis();
            let more = settings(port);
            let settings = format!(
                "bind 127.0.0.1\nloglevel notice\n\
                 sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
                 sentinel down-after-milliseconds {SERVICE} {down_after}\n\
                 sentinel failover-timeout {SERVICE} 5000\n{more}"
            );
            fs::write(&file, settings).expect("a file in it");
            let mut command = Command::new(binary());
            command.arg(&file).arg("--sentinel");
            Process::start(&mut command, dir.path(), "+monitor", Farewell::Kill)
        });
        Self {
            slot: Slot::new("redis-server --sentinel", process),
            port,
            _dir: dir,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn freeze(&self) {
        self.slot.running(|process| process.freeze());
    }

    pub fn kill(&self) {
        self.slot.kill();
    }

    /// The primary's port, as it says.
    fn named(&self, url: &str) -> Option<u16> {
        let client = redis::Client::open(url.replace("PORT", &self.port.to_string())).ok()?;
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(SERVICE);
        let (_, port): (String, u16) = command.query(&mut connection).ok()?;
        Some(port)
    }
}

/// Three sentinels, a primary and two replicas.
pub struct SentinelGroup {
    pub servers: [RedisServer; 3],
    pub sentinels: [Sentinel; 3],
    /// How a sentinel is reached; its port is to be put in.
    url: String,
}

impl SentinelGroup {
    pub fn start() -> Self {
        Self::start_with("", "redis://127.0.0.1:PORT")
    }

    /// With sentinels that want a password.
    pub fn with_password(password: &str) -> Self {
        let settings = format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        Self::start_with(&settings, &format!("redis://:{password}@127.0.0.1:PORT"))
    }

    fn start_with(settings: &str, url: &str) -> Self {
        let primary = RedisServer::start();
        let port = primary.port().to_string();
        let replica = || RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        let servers = [primary, replica(), replica()];
        let sentinels = [(); 3].map(|()| Sentinel::start(servers[0].port(), settings));
        let group = Self {
            servers,
            sentinels,
            url: url.to_owned(),
        };
        for sentinel in &group.sentinels {
            let mut connection = connect(&url.replace("PORT", &sentinel.port.to_string()));
            wait_until("the sentinels know all of the group", FORMATION, || {
                let mut command = redis::cmd("SENTINEL");
                command.arg("MASTER").arg(SERVICE);
                let said: std::collections::HashMap<String, String> =
                    command.query(&mut connection).unwrap();
                said["num-slaves"] == "2" && said["num-other-sentinels"] == "2"
            });
        }
        group
    }

    /// All sentinels.
    pub fn url(&self) -> String {
        self.url_with("redis+sentinel", "")
    }

    /// With the login of a user for the data, as `user:password@`.
    pub fn url_as(&self, login: &str) -> String {
        self.url_with("redis+sentinel", login)
    }

    fn url_with(&self, scheme: &str, login: &str) -> String {
        let ports = self.sentinels.each_ref().map(Sentinel::port);
        sentinel_url(scheme, login, &ports)
    }

    /// The server that the first living sentinel names.
    pub fn primary(&self) -> Option<&RedisServer> {
        let port = self.sentinels.iter().find_map(|it| it.named(&self.url))?;
        self.servers.iter().find(|server| server.port() == port)
    }

    /// Waits until another server than this one is the primary, and says so.
    pub fn until_promoted(&self, old: u16) -> &RedisServer {
        let mut new = None;
        wait_until("another server is the primary", FORMATION, || {
            let found = self.primary().filter(|server| server.port() != old);
            new = found.filter(|server| server.info("role") == "master");
            new.is_some()
        });
        new.expect("it was found")
    }

    /// `SENTINEL FAILOVER`.
    pub fn fail_over(&self) {
        let url = self
            .url
            .replace("PORT", &self.sentinels[0].port.to_string());
        let mut command = redis::cmd("SENTINEL");
        command.arg("FAILOVER").arg(SERVICE);
        // It refuses while an earlier one has not come to its end everywhere.
        wait_until("the sentinel begins a failover", FORMATION, || {
            command.exec(&mut connect(&url)).is_ok()
        });
    }
}

/// A URL of sentinels on these ports.
pub fn sentinel_url(scheme: &str, login: &str, ports: &[u16]) -> String {
    let hosts: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    format!("{scheme}://{login}{}/{SERVICE}/0", hosts.join(","))
}

/// A cluster of three primaries, each with a replica.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    pub fn start() -> Self {
        let nodes: Vec<RedisServer> = (0..6).map(|_| node()).collect();
        let cluster = Self { nodes };
        for (at, node) in cluster.nodes.iter().enumerate() {
            node.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
            if at < 3 {
                let slots: Vec<String> = (0..16_384)
                    .filter(|slot| slot % 3 == at)
                    .map(|slot| slot.to_string())
                    .collect();
                node.command(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
            }
            let first = &cluster.nodes[0];
            let bus = bus(first);
            node.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", first.port()));
        }
        wait_until("the nodes know each other", FORMATION, || {
            let all = |node: &RedisServer| cluster_info(node, "cluster_known_nodes") == "6";
            cluster.nodes.iter().all(all)
        });
        for at in 3..6 {
            let primary = id(&cluster.nodes[at - 3]);
            let replicate = format!("CLUSTER REPLICATE {primary}");
            cluster.nodes[at].command(&replicate);
        }
        wait_until("the cluster is complete", FORMATION, || {
            let is_complete = |(at, node): (usize, &RedisServer)| {
                cluster_info(node, "cluster_state") == "ok"
                    && (at < 3 || node.info("master_link_status") == "up")
                    && (at >= 3 || node.info("connected_slaves") == "1")
            };
            cluster.nodes.iter().enumerate().all(is_complete)
        });
        cluster
    }

    /// All nodes.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    pub fn url_as(&self, login: &str) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{login}{}", hosts.join(","))
    }

    /// The node that owns the slot of [`TENANT`].
    pub fn owner(&self) -> Option<&RedisServer> {
        self.nodes.iter().find(|node| owns(node))
    }

    /// The replica of the owner.
    pub fn replica(&self) -> &RedisServer {
        let owner = self.owner().expect("an owner").port().to_string();
        let of_owner = |node: &&RedisServer| node.info("master_port") == owner;
        self.nodes.iter().find(of_owner).expect("a replica")
    }

    /// Another primary than the owner.
    pub fn other(&self) -> &RedisServer {
        let owner = self.owner().expect("an owner").port();
        let is_other = |node: &&RedisServer| node.port() != owner && node.info("role") == "master";
        self.nodes.iter().find(is_other).expect("another primary")
    }

    pub fn until_owned_by_another(&self, old: u16) -> &RedisServer {
        let mut new = None;
        wait_until("another node owns the slot", FORMATION, || {
            new = self.owner().filter(|node| node.port() != old);
            new.is_some()
        });
        new.expect("it was found")
    }

    /// Moves the slot of [`TENANT`] to another primary, key by key, and calls `between` after each
    /// step: the beginning, each key, and the end.
    pub fn migrate(&self, mut between: impl FnMut()) {
        let (from, to) = (self.owner().expect("an owner"), self.other());
        let slot = slot();
        to.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
        from.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
        between();
        let mut connection = from.connection();
        loop {
            let mut command = redis::cmd("CLUSTER");
            command.arg("GETKEYSINSLOT").arg(slot).arg(1);
            let keys: Vec<String> = command.query(&mut connection).unwrap();
            let Some(key) = keys.first() else { break };
            let mut command = redis::cmd("MIGRATE");
            command
                .arg("127.0.0.1")
                .arg(to.port())
                .arg(key)
                .arg(0)
                .arg(5_000);
            command.exec(&mut connection).unwrap();
            between();
        }
        for node in [to, from] {
            node.command(&format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
        }
        between();
    }
}

fn node() -> RedisServer {
    let mut arguments = vec!["--cluster-enabled", "yes"];
    let timeout = DOWN_AFTER.as_millis().to_string();
    arguments.extend(["--cluster-node-timeout", &timeout]);
    arguments.extend(["--cluster-replica-validity-factor", "0"]);
    let bus = free_port().to_string();
    if !RedisServer::is_old() {
        arguments.extend(["--cluster-port", &bus]);
    }
    RedisServer::start_with(&arguments)
}

/// The port on which a node speaks to others.
fn bus(node: &RedisServer) -> u16 {
    // `id ip:port@bus,host myself,master …`
    let nodes = cluster(node, "NODES");
    let own = nodes.lines().find(|line| line.contains("myself")).unwrap();
    let bus = own.split(['@', ',', ' ']).nth(2).unwrap();
    bus.parse().unwrap()
}

fn id(node: &RedisServer) -> String {
    cluster(node, "MYID")
}

fn cluster(node: &RedisServer, word: &str) -> String {
    let mut command = redis::cmd("CLUSTER");
    command.arg(word).query(&mut node.connection()).unwrap()
}

fn cluster_info(node: &RedisServer, field: &str) -> String {
    let info = cluster(node, "INFO");
    let prefix = format!("{field}:");
    let value = info.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_default().trim().to_owned()
}

fn slot() -> u16 {
    // CRC16 (XMODEM) of the hash tag.
    let tag = TENANT.split(['{', '}']).nth(1).unwrap();
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
        }
    }
    crc % 16_384
}

fn owns(node: &RedisServer) -> bool {
    let client = redis::Client::open(node.url()).expect("a URL");
    let ask = |mut connection: Connection| -> RedisResult<Value> {
        let key = format!("{TENANT}bifrost:module:index");
        redis::cmd("EXISTS").arg(key).query(&mut connection)
    };
    let limit = Duration::from_millis(500);
    let connection = client.get_connection_with_timeout(limit);
    let timed = connection.and_then(|connection| {
        connection.set_read_timeout(Some(limit))?;
        ask(connection)
    });
    timed.is_ok()
}

/// The server that holds the keys of a world: its own, or one of a group that the tests of a binary
/// use one after another, because it takes seconds to form.
pub enum Holder {
    Own(RedisServer),
    OfSentinels(MutexGuard<'static, Option<SentinelGroup>>),
    OfCluster(MutexGuard<'static, Option<Cluster>>),
}

static SENTINELS: Mutex<Option<SentinelGroup>> = Mutex::new(None);
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

impl Holder {
    /// Of a group with sentinels that no test has harmed, and empty.
    pub fn of_sentinels() -> Self {
        let mut group = SENTINELS.lock().unwrap_or_else(PoisonError::into_inner);
        let group_ref = group.get_or_insert_with(SentinelGroup::start);
        group_ref.servers[0].command("FLUSHALL");
        Self::OfSentinels(group)
    }

    pub fn of_cluster() -> Self {
        let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster_ref = cluster.get_or_insert_with(Cluster::start);
        cluster_ref.owner().expect("an owner").command("FLUSHALL");
        Self::OfCluster(cluster)
    }

    /// Where clients reach it.
    pub fn place_url(&self) -> String {
        match self {
            Self::Own(server) => server.url(),
            Self::OfSentinels(group) => group.as_ref().expect("a group").url(),
            Self::OfCluster(cluster) => cluster.as_ref().expect("a cluster").url(),
        }
    }
}

impl Deref for Holder {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        match self {
            Self::Own(server) => server,
            Self::OfSentinels(group) => &group.as_ref().expect("a group").servers[0],
            Self::OfCluster(cluster) => {
                let owner = cluster.as_ref().expect("a cluster").owner();
                owner.expect("an owner")
            }
        }
    }
}
