//! What both facades say, once: each includes these files, and says by its macro `facade!` how a
//! method is called there. Why: `docs/design/architecture.md`.

#[cfg(all(feature = "postgres", feature = "tls"))]
mod connect_postgres;
#[cfg(all(feature = "near-cache", feature = "postgres"))]
mod guard;
#[cfg(feature = "near-cache")]
mod near;
mod reader;
mod writer;

use super::connections;
#[cfg(feature = "postgres")]
use super::database;

#[cfg(all(feature = "postgres", feature = "tls"))]
pub use connect_postgres::{connect_postgres, connect_postgres_by_sslmode};
#[cfg(all(feature = "near-cache", feature = "postgres"))]
pub use guard::Guard;
#[cfg(feature = "near-cache")]
pub use near::NearCache;
pub use reader::ModuleReader;
pub use writer::ModuleWriter;
