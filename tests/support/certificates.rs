//! Servers that speak TLS, and certificates made on the fly.

use bifrost_module_cache::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::Postgres;
use super::{RedisServer, free_port, private_dir, private_file};

/// The host of most certificates.
pub const ADDRESS: &str = "127.0.0.1";

/// A certificate authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("a test")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn tls(&self) -> Tls {
        Tls::with_ca_pem(self.pem().as_bytes()).unwrap()
    }

    pub fn issue(&self, host: &str) -> Issued {
        self.issue_with(host, |_| {})
    }

    pub fn issue_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// As a client shows it.
    pub fn client(&self) -> Issued {
        self.issue("a.client")
    }
}

/// A Redis with a plain port for assertions, and one for TLS.
pub struct TlsRedis {
    pub server: RedisServer,
    port: u16,
    files: TempDir,
}

impl TlsRedis {
    /// A server for every client.
    pub fn start(authority: &Authority, issued: &Issued) -> Self {
        Self::start_with(authority, issued, &["--tls-auth-clients", "no"])
    }

    /// A server for those who show a certificate of this authority.
    pub fn start_exclusive(authority: &Authority, issued: &Issued) -> Self {
        Self::start_with(authority, issued, &["--tls-auth-clients", "yes"])
    }

    pub fn start_with(authority: &Authority, issued: &Issued, more: &[&str]) -> Self {
        let files = private_dir("bifrost-tls-");
        let file = |name: &str, contents: &str| {
            let path = private_file(&files, name, contents);
            path.to_str().expect("a path in ASCII").to_owned()
        };
        let port = free_port();
        let settings = [
            ("--tls-port", port.to_string()),
            ("--tls-ca-cert-file", file("ca.pem", &authority.pem())),
            ("--tls-cert-file", file("server.pem", &issued.certificate)),
            ("--tls-key-file", file("server.key", &issued.key)),
        ];
        let settings = settings.iter().flat_map(|(name, value)| [*name, value]);
        let arguments: Vec<&str> = settings.chain(more.iter().copied()).collect();
        Self {
            server: RedisServer::start_with(&arguments),
            port,
            files,
        }
    }

    /// A sentinel that watches over it, with the same certificate.
    #[cfg(all(feature = "blocking", feature = "nonblocking"))]
    pub fn sentinel(&self) -> super::Sentinel {
        super::Sentinel::with_tls(self.port, self.files.path())
    }

    pub fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}/0", self.port)
    }
}

/// A Postgres that speaks TLS to those who ask for it.
pub fn tls_postgres(issued: &Issued) -> (Postgres, TempDir) {
    let files = private_dir("bifrost-tls-");
    let certificate = private_file(&files, "server.pem", &issued.certificate);
    let key = private_file(&files, "server.key", &issued.key);
    let postgres = Postgres::start_with(&[
        "ssl=on",
        &format!("ssl_cert_file={}", certificate.display()),
        &format!("ssl_key_file={}", key.display()),
    ]);
    (postgres, files)
}
