//! Which paths Redis knows: those of the index, and of all keys where SCAN is permitted.
//!
//! SCAN is optional for a writer, because it shows the names of all keys, also foreign ones.

use std::collections::HashSet;

use redis::Value;

use crate::client::dedicated::send;
use crate::client::transport::DedicatedConnection;
use crate::command::index::Members;
use crate::command::reply;
use crate::command::request::{Class, Command, Request};
use crate::config::Config;
use crate::error::Error;
use crate::keys::validate_path;

/// The paths of the index, and of the keys where SCAN is permitted.
#[derive(Debug, Default)]
pub(crate) struct CachedPaths {
    pub(crate) paths: HashSet<String>,
    /// Members of the index that can't be paths.
    pub(crate) bad: Vec<Vec<u8>>,
    /// Whether the keys were looked through: an entry that the index does not name is found only
    /// so.
    pub(crate) scanned: bool,
}

/// The index first; then SCAN, which finds entries that the index does not name. SCAN may tell a
/// key twice, hence a set.
pub(crate) async fn cached_paths<Conn: DedicatedConnection>(
    connection: &mut Conn,
    scans: bool,
    config: &Config,
) -> Result<CachedPaths, Error> {
    let index = send(connection, &Members, config).await?;
    let mut found = CachedPaths {
        paths: index.paths,
        bad: index.bad,
        scanned: false,
    };
    if !scans {
        return Ok(found);
    }
    let mut cursor = b"0".to_vec();
    loop {
        match send(connection, &Scan { cursor: &cursor }, config).await {
            Ok((next, paths)) => {
                found.paths.extend(paths);
                cursor = next;
            }
            // The ACL forbids SCAN. The index has to do, and the report says so.
            Err(error) if error.is_refused() => return Ok(found),
            Err(error) => return Err(error),
        }
        // The cursor is opaque, up to 64 bits, and ends with 0: handed back as it came.
        if cursor == b"0" {
            found.scanned = true;
            return Ok(found);
        }
    }
}

/// One step through the keys; answers the next cursor and the paths found.
struct Scan<'a> {
    cursor: &'a [u8],
}

impl Command for Scan<'_> {
    type Reply = (Vec<u8>, Vec<String>);

    fn operation(&self) -> &'static str {
        "scan"
    }

    fn request(&self, config: &Config) -> Request {
        let mut command = redis::cmd("SCAN");
        command
            .arg(self.cursor)
            .arg("MATCH")
            .arg(format!("{}*", config.keys.module_prefix()))
            .arg("COUNT")
            .arg(1_000);
        Request::one(command, Class::Bulk)
    }

    fn decode(&self, replies: Vec<Value>, config: &Config) -> Result<Self::Reply, Error> {
        let mut parts = reply::sequence(reply::single(replies)?)?.into_iter();
        let (Some(cursor), Some(keys)) = (parts.next(), parts.next()) else {
            return Err(reply::unexpected());
        };
        let mut paths = Vec::new();
        for key in reply::sequence(keys)? {
            let key = reply::bytes(key)?.unwrap_or_default();
            // The index itself lies under the same prefix, and a foreign key there may be no path:
            // neither is ours to remove.
            let path = key
                .strip_prefix(config.keys.module_prefix().as_bytes())
                .and_then(|path| std::str::from_utf8(path).ok());
            paths.extend(
                path.filter(|path| validate_path(path).is_ok())
                    .map(str::to_owned),
            );
        }
        Ok((reply::bytes(cursor)?.unwrap_or_default(), paths))
    }
}
