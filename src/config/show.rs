//! What `Debug` shows of a configuration.

use std::fmt;

use super::Config;

/// Shows where Redis is, not how to log in.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            redis,
            place,
            discovery_max_age,
            address_map,
            known: _,
            #[cfg(feature = "tls")]
                tls: _,
            keys,
            pool_size,
            max_in_flight,
            connect_timeout,
            response_timeout,
            pool_timeout,
            lookup_deadline,
            bulk_deadline,
            index_max_age,
            ttl,
            max_content_bytes,
            integrity,
            workspace_table,
            observer,
        } = self;
        f.debug_struct("Config")
            .field("redis", &format_args!("{}", redis.addr()))
            .field("place", place)
            .field("discovery_max_age", discovery_max_age)
            .field("address_map", &address_map.is_some())
            .field("database", &redis.redis_settings().db())
            .field("namespace", &keys.namespace())
            .field("pool_size", pool_size)
            .field("max_in_flight", max_in_flight)
            .field("connect_timeout", connect_timeout)
            .field("response_timeout", response_timeout)
            .field("pool_timeout", pool_timeout)
            .field("lookup_deadline", lookup_deadline)
            .field("bulk_deadline", bulk_deadline)
            .field("index_max_age", index_max_age)
            .field("ttl", ttl)
            .field("max_content_bytes", max_content_bytes)
            .field("integrity", integrity)
            .field("workspace_table", workspace_table)
            .field("observer", &observer.is_some())
            .finish()
    }
}
