//! Settings, as keyword arguments.

use std::time::Duration;

use bifrost_module_cache as cache;
use bifrost_module_cache::Integrity;
use pyo3::prelude::*;

use crate::errors::{invalid_config, raised};

/// How long to wait for Redis, how many connections to hold, and what to write.
///
/// Seconds are floats. A setting that is None has the crate's default: see the guide's page on
/// failures. A setting that can't be used is refused at once, as InvalidConfig.
///
/// namespace goes before every key: one namespace is one workspace. Where it is None and no URL is
/// given either, BIFROST_NAMESPACE says it.
#[pyclass(frozen, module = "bifrost_module_cache")]
#[derive(Clone)]
pub struct Config {
    settings: Settings,
    #[cfg(feature = "tls")]
    tls: Option<cache::Tls>,
}

#[derive(Clone)]
struct Settings {
    pool_size: Option<u32>,
    connect_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
    pool_timeout: Option<Duration>,
    lookup_deadline: Option<Duration>,
    bulk_deadline: Option<Duration>,
    index_max_age: Option<Duration>,
    ttl: Option<Duration>,
    max_content_bytes: Option<usize>,
    integrity: Integrity,
    namespace: Option<String>,
}

#[pymethods]
impl Config {
    #[new]
    #[pyo3(signature = (*, pool_size=None, connect_timeout=None, response_timeout=None,
        pool_timeout=None, lookup_deadline=None, bulk_deadline=None, index_max_age=None, ttl=None,
        max_content_bytes=None, integrity="off", namespace=None, ca_pem=None, client_certificate_pem=None,
        client_key_pem=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        pool_size: Option<u32>,
        connect_timeout: Option<f64>,
        response_timeout: Option<f64>,
        pool_timeout: Option<f64>,
        lookup_deadline: Option<f64>,
        bulk_deadline: Option<f64>,
        index_max_age: Option<f64>,
        ttl: Option<f64>,
        max_content_bytes: Option<usize>,
        integrity: &str,
        namespace: Option<String>,
        ca_pem: Option<Vec<u8>>,
        client_certificate_pem: Option<Vec<u8>>,
        client_key_pem: Option<Vec<u8>>,
    ) -> PyResult<Self> {
        let seconds = |name, value: Option<f64>| {
            let given = value.map(|value| seconds(py, name, value));
            given.transpose()
        };
        let settings = Settings {
            pool_size,
            connect_timeout: seconds("connect_timeout", connect_timeout)?,
            response_timeout: seconds("response_timeout", response_timeout)?,
            pool_timeout: seconds("pool_timeout", pool_timeout)?,
            lookup_deadline: seconds("lookup_deadline", lookup_deadline)?,
            bulk_deadline: seconds("bulk_deadline", bulk_deadline)?,
            index_max_age: seconds("index_max_age", index_max_age)?,
            ttl: seconds("ttl", ttl)?,
            max_content_bytes,
            integrity: match integrity {
                "off" => Integrity::Off,
                "warn" => Integrity::Warn,
                "enforce" => Integrity::Enforce,
                _ => {
                    let text = "integrity must be \"off\", \"warn\" or \"enforce\"";
                    return Err(invalid_config(py, text));
                }
            },
            namespace,
        };
        #[cfg(not(feature = "tls"))]
        if ca_pem.is_some() || client_certificate_pem.is_some() || client_key_pem.is_some() {
            return Err(invalid_config(py, "this build has no TLS"));
        }
        let config = Self {
            settings,
            #[cfg(feature = "tls")]
            tls: tls(py, ca_pem, client_certificate_pem, client_key_pem)?,
        };
        // Refuses what can't be used; connects to nothing.
        let checked = config.applied(py, cache::Config::new(cache::DEFAULT_REDIS_URL));
        let reader = cache::blocking::ModuleReader::new(checked?);
        reader.map_err(|error| raised(py, &error))?;
        Ok(config)
    }

    /// How long a call with much to read may take, in seconds; None for the default.
    #[getter]
    fn bulk_deadline(&self) -> Option<f64> {
        let deadline = self.settings.bulk_deadline;
        deadline.map(|deadline| deadline.as_secs_f64())
    }

    fn __repr__(&self) -> String {
        let settings = &self.settings;
        let mut shown = Vec::new();
        let mut show = |name: &str, value: Option<String>| {
            shown.extend(value.map(|value| format!("{name}={value}")));
        };
        let text = |seconds: Option<Duration>| seconds.map(|seconds| float(seconds.as_secs_f64()));
        show("pool_size", settings.pool_size.map(|size| size.to_string()));
        show("connect_timeout", text(settings.connect_timeout));
        show("response_timeout", text(settings.response_timeout));
        show("pool_timeout", text(settings.pool_timeout));
        show("lookup_deadline", text(settings.lookup_deadline));
        show("bulk_deadline", text(settings.bulk_deadline));
        show("index_max_age", text(settings.index_max_age));
        show("ttl", text(settings.ttl));
        let bytes = settings.max_content_bytes;
        show("max_content_bytes", bytes.map(|bytes| bytes.to_string()));
        let integrity = match settings.integrity {
            Integrity::Warn => Some("'warn'"),
            Integrity::Enforce => Some("'enforce'"),
            _ => None,
        };
        show("integrity", integrity.map(str::to_owned));
        let namespace = settings.namespace.as_ref();
        show(
            "namespace",
            namespace.map(|namespace| format!("{namespace:?}")),
        );
        format!("Config({})", shown.join(", "))
    }
}

/// As Python shows a float.
fn float(value: f64) -> String {
    format!("{value:?}")
}

/// A duration that is given in seconds.
pub fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        let text = format!("{name} must be a number of seconds that is not negative");
        invalid_config(py, &text)
    })
}

#[cfg(feature = "tls")]
fn tls(
    py: Python<'_>,
    ca_pem: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
) -> PyResult<Option<cache::Tls>> {
    let failed = |error| raised(py, &error);
    let is_default = ca_pem.is_none() && certificate.is_none() && key.is_none();
    let mut tls = match ca_pem {
        Some(pem) => cache::Tls::with_ca_pem(&pem).map_err(failed)?,
        None => cache::Tls::default(),
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let shown = tls.with_client_certificate_pem(&certificate, &key);
            tls = shown.map_err(failed)?;
        }
        (None, None) => {}
        _ => {
            let text = "client_certificate_pem and client_key_pem belong together";
            return Err(invalid_config(py, text));
        }
    }
    Ok((!is_default).then_some(tls))
}

impl Config {
    fn applied(
        &self,
        py: Python<'_>,
        config: Result<cache::Config, cache::Error>,
    ) -> PyResult<cache::Config> {
        let mut config = config.map_err(|error| raised(py, &error))?;
        let settings = &self.settings;
        if let Some(size) = settings.pool_size {
            config = config.with_pool_size(size);
        }
        if let Some(timeout) = settings.connect_timeout {
            config = config.with_connect_timeout(timeout);
        }
        if let Some(timeout) = settings.response_timeout {
            config = config.with_response_timeout(timeout);
        }
        if let Some(timeout) = settings.pool_timeout {
            config = config.with_pool_timeout(timeout);
        }
        if let Some(deadline) = settings.lookup_deadline {
            config = config.with_lookup_deadline(deadline);
        }
        if let Some(deadline) = settings.bulk_deadline {
            config = config.with_bulk_deadline(deadline);
        }
        if let Some(age) = settings.index_max_age {
            config = config.with_index_max_age(age);
        }
        if let Some(bytes) = settings.max_content_bytes {
            config = config.with_max_content_bytes(bytes);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            config = config.with_tls(tls.clone());
        }
        if let Some(namespace) = &settings.namespace {
            config = config.with_namespace(namespace);
        }
        Ok(config
            .with_ttl(settings.ttl)
            .with_integrity(settings.integrity))
    }
}

/// The crate's configuration for what a constructor was given. Without a URL, `REDIS_URL` says it.
pub fn of(
    py: Python<'_>,
    url: Option<&str>,
    config: Option<&Bound<'_, Config>>,
) -> PyResult<cache::Config> {
    let base = match url {
        Some(url) => cache::Config::new(url),
        None => cache::Config::from_env(),
    };
    match config {
        Some(config) => config.get().applied(py, base),
        None => base.map_err(|error| raised(py, &error)),
    }
}
