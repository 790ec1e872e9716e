//! The guide: one page a question, as in the folder `docs` of the repository.
//!
//! | Question | Page |
//! | --- | --- |
//! | How do I operate the cache, and what do I do on a bad night? | [`tool`] |
//! | How does the cache stay right beside writers that are not? | [`guard`] |
//! | How do I get there with a fleet of plain Python writers? | [`plain_writers`] |
//! | How do I answer Python's imports? | [`resolution`] |
//! | How do repeated imports cost no round trip? | [`near_cache`] |
//! | How do workers and services in Python use it? | [`python`] |
//! | What is guaranteed, and where does it end? | [`guarantees`] |
//! | Which errors, time-outs and counters are there? | [`failures`] |
//! | What can I export to my monitoring? | [`metrics`] |
//! | Which permissions, TLS and secrets? | [`security`] |
//! | One address, sentinels or a cluster? | [`where_redis_is`] |
//! | How do I move a running fleet over? | [`migration`] |
//! | How fast is it? | [`performance`] |
//! | Why is it built like this? | [`design`] |

#![allow(clippy::doc_markdown, reason = "pages of prose name products")]

/// A page. Its links lead to files of the repository; these definitions come first, so that here
/// they lead to the pages instead.
macro_rules! page {
    ($name:ident, $file:literal $(, $feature:literal)*) => {
        /// [tool]: crate::guide::tool
        /// [causes]: crate::guide::tool#causes
        /// [guard]: crate::guide::guard
        /// [plain-writers]: crate::guide::plain_writers
        /// [migration]: crate::guide::migration
        /// [python]: crate::guide::python
        /// [resolution]: crate::guide::resolution
        /// [near-cache]: crate::guide::near_cache
        /// [fleet]: crate::guide::near_cache#what-a-fleet-costs
        /// [guarantees]: crate::guide::guarantees
        /// [failures]: crate::guide::failures
        /// [metrics]: crate::guide::metrics
        /// [security]: crate::guide::security
        /// [where-redis-is]: crate::guide::where_redis_is
        /// [design-consistency]: crate::guide::design::consistency
        /// [design-near-cache]: crate::guide::design::near_cache
        /// [design-guard]: crate::guide::design::guard
        ///
        // A page's examples need its features. Without these it is left out of doc tests only.
        #[cfg_attr(
            any(not(doctest), all($(feature = $feature),*)),
            doc = include_str!($file)
        )]
        pub mod $name {}
    };
}

page!(tool, "../docs/tool.md");
page!(
    guard,
    "../docs/guard.md",
    "blocking",
    "nonblocking",
    "near-cache",
    "postgres"
);
page!(plain_writers, "../docs/plain-writers.md");
page!(resolution, "../docs/resolution.md", "blocking");
page!(
    near_cache,
    "../docs/near-cache.md",
    "blocking",
    "near-cache"
);
page!(python, "../docs/python.md");
page!(guarantees, "../docs/guarantees.md");
page!(failures, "../docs/failures.md");
page!(metrics, "../docs/metrics.md");
page!(security, "../docs/security.md", "tls");
page!(where_redis_is, "../docs/where-redis-is.md");
page!(migration, "../docs/migration.md");
page!(performance, "../docs/performance.md");

/// Why it is built like this: the facts behind the rules, and the tests that show them.
pub mod design {
    page!(architecture, "../docs/design/architecture.md");
    page!(consistency, "../docs/design/consistency.md");
    page!(near_cache, "../docs/design/near-cache.md");
    page!(guard, "../docs/design/guard.md");
}
