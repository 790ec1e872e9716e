//! Encryption of the way to Redis and Postgres, with rustls.
//!
//! There is no setting that turns the verification of certificates off.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// Which certificate authorities to trust, and which certificate to show: for
/// [`Config::with_tls`](crate::Config::with_tls) and `connect_postgres`.
///
/// The default trusts the certificate authorities of the system.
///
/// ```no_run
/// use bifrost_module_cache::{Config, Tls};
///
/// let tls = Tls::with_ca_pem(&std::fs::read("ca.pem")?)?
///     .with_client_certificate_pem(&std::fs::read("client.pem")?, &std::fs::read("client.key")?)?;
/// let config = Config::new("rediss://cache.internal:6379/0")?.with_tls(tls);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Tls {
    /// `None`: those of the system.
    authorities: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Arc<Identity>>,
    /// `None`: the host that is connected to.
    server_name: Option<String>,
    /// Made when it is first needed, because reading the system's authorities is IO, which
    /// constructors don't do. Shared by clones.
    client: Arc<OnceLock<Arc<ClientConfig>>>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// Trusts the certificate authorities in `pem`, and no others.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if it holds no certificate, or one that can't be read.
    pub fn with_ca_pem(pem: &[u8]) -> Result<Self, Error> {
        let authorities = certificates(pem, "the certificate authority's PEM")?;
        Ok(Self {
            authorities: Some(authorities),
            ..Self::default()
        })
    }

    /// Shows this certificate to a server that asks for one. The first certificate is the client's
    /// own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if either can't be read. The error shows neither.
    pub fn with_client_certificate_pem(self, chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = certificates(chain, "the client certificate's PEM")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Error::invalid_config("the client key's PEM can't be read"))?;
        Ok(Self {
            identity: Some(Arc::new(Identity { chain, key })),
            client: Arc::default(),
            ..self
        })
    }

    /// Which name Redis's certificate must be for, in place of the host that is connected to.
    ///
    /// Sentinels and clusters announce addresses, which certificates are rarely for. For all
    /// connections to Redis and its sentinels; Postgres is not concerned.
    #[must_use]
    pub fn with_server_name(self, name: impl Into<String>) -> Self {
        Self {
            server_name: Some(name.into()),
            ..self
        }
    }

    /// The name that the certificate of this host must be for.
    #[cfg(any(feature = "blocking", feature = "nonblocking"))]
    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, Error> {
        server_name(self.server_name.as_deref().unwrap_or(host))
    }

    /// The settings of rustls, made once. Two threads may make them at the same time: the first one
    /// counts, and nothing is locked that a fork could leave locked.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(client) = self.client.get() {
            return Ok(Arc::clone(client));
        }
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(authorities) => {
                for authority in authorities {
                    roots.add(authority.clone()).map_err(|_| {
                        Error::invalid_config("a certificate authority can't be used")
                    })?;
                }
            }
            None => {
                // Errors are ignored: some systems have a broken file among many good ones. That
                // none was good is noticed below.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(Error::invalid_config(
                "the system has no certificate authorities: name one with Tls::with_ca_pem",
            ));
        }
        // Named here, because rustls panics where the process has not chosen a provider, and a
        // library should not choose one for the process.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| Error::invalid_config("this build has no TLS version"))?
            .with_root_certificates(roots);
        let mut client = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|_| {
                    Error::invalid_config("the client key does not fit the client certificate")
                })?,
        };
        // The store of sessions has a lock, which a forked child could inherit locked.
        client.resumption = Resumption::disabled();
        Ok(Arc::clone(self.client.get_or_init(|| Arc::new(client))))
    }
}

#[cfg(feature = "postgres")]
impl Tls {
    /// The same trust and identity for Postgres.
    pub(crate) fn postgres_connector(
        &self,
    ) -> Result<tokio_postgres_rustls_improved::MakeRustlsConnect, Error> {
        let config = ClientConfig::clone(&*self.client_config()?);
        Ok(tokio_postgres_rustls_improved::MakeRustlsConnect::new(
            config,
        ))
    }
}

/// The name that a server's certificate must be for.
#[cfg(any(feature = "blocking", feature = "nonblocking"))]
fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| Error::invalid_config("the host is neither a name nor an address"))
}

/// True if a handshake failed because one side does not trust the other.
pub(crate) fn is_distrust(error: &io::Error) -> bool {
    use rustls::{AlertDescription as Alert, Error as Tls};
    let Some(error) = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<Tls>())
    else {
        return false;
    };
    matches!(
        error,
        Tls::InvalidCertificate(_)
            | Tls::NoCertificatesPresented
            | Tls::AlertReceived(
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    // A certificate of a known name that another key has signed.
                    | Alert::DecryptError
                    | Alert::CertificateRequired
                    | Alert::HandshakeFailure
            )
    )
}

/// The certificates in a PEM. None at all is an error: the wrong file was given, and it would show
/// only at the first connection.
fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::invalid_config(format!("{what} can't be read")))?;
    if found.is_empty() {
        return Err(Error::invalid_config(format!(
            "{what} holds no certificate"
        )));
    }
    Ok(found)
}

/// Shows no key: only how many authorities there are, and whether there is a certificate to show.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            authorities,
            identity,
            server_name,
            client: _,
        } = self;
        f.debug_struct("Tls")
            .field("authorities", &authorities.as_ref().map(Vec::len))
            .field("client_certificate", &identity.is_some())
            .field("server_name", server_name)
            .finish()
    }
}
