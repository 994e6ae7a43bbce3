//! Which source file belongs to which part of a request's work.
//!
//! By the beginning of its path, the longest that fits. A file that is neither here nor among the helpers is told as not
//! attributed, so that what is new does not hide in what was there.

use serde::Serialize;

use super::callgrind::Belongs;

/// What a request's instructions are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Http,
    Edge,
    RequestIds,
    Semantics,
    Limits,
    Metrics,
    Logging,
    Time,
    Routing,
    Dispatch,
    Registry,
    Sdk,
    Handler,
    Encoding,
    Session,
    Link,
    Runtime,
    Allocator,
    Copying,
}

impl Part {
    pub(super) const ALL: [Self; 19] = [
        Self::Http,
        Self::Edge,
        Self::RequestIds,
        Self::Semantics,
        Self::Limits,
        Self::Metrics,
        Self::Logging,
        Self::Time,
        Self::Routing,
        Self::Dispatch,
        Self::Registry,
        Self::Sdk,
        Self::Handler,
        Self::Encoding,
        Self::Session,
        Self::Link,
        Self::Runtime,
        Self::Allocator,
        Self::Copying,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP parsing and encoding (hyper)",
            Self::Edge => "edge: connections, their bounds, bodies",
            Self::RequestIds => "request ids",
            Self::Semantics => "HTTP semantics, forwarded fields",
            Self::Limits => "limits, leases, what is in flight",
            Self::Metrics => "metrics",
            Self::Logging => "access log, tracing",
            Self::Time => "clocks, deadlines, timers",
            Self::Routing => "routing: lookup and decision",
            Self::Dispatch => "layers and dispatch",
            Self::Registry => "registry, health, admin",
            Self::Sdk => "SDK: dispatch and answer",
            Self::Handler => "extractors, handler, its response",
            Self::Encoding => "heads and frames: encoding, decoding",
            Self::Session => "session",
            Self::Link => "link: driver, batches, exchange",
            Self::Runtime => "runtime (tokio, mio)",
            Self::Allocator => "memory: allocator",
            Self::Copying => "memory: copying, comparing, clearing",
        }
    }
}

/// Own files by their path in the repository; of crates `name/src/...`; of the standard library `library/...`.
const PARTS: &[(Part, &[&str])] = &[
    (Part::Http, &["hyper/", "hyper-util/", "httparse/", "httpdate/", "h2/"]),
    (Part::Edge, &["router-gateway/src/edge"]),
    (Part::RequestIds, &["router-gateway/src/request_id", "router-gateway/src/layers/identify", "uuid/"]),
    (
        Part::Semantics,
        &[
            "router-gateway/src/http_semantics",
            "router-gateway/src/layers/message",
            "router-gateway/src/layers/intermediary",
            "router-common/src/hop_by_hop",
        ],
    ),
    (
        Part::Limits,
        &[
            "router-gateway/src/dispatch/budget",
            "router-gateway/src/dispatch/waiting",
            "router-gateway/src/edge/floor",
            "router-gateway/src/edge/held",
            "router-gateway/src/routing/instance",
            "router-common/src/session/lease",
            "router-common/src/session/budget",
            "router-common/src/limits",
        ],
    ),
    (Part::Metrics, &["router-gateway/src/telemetry", "prometheus-client/"]),
    (Part::Logging, &["router-gateway/src/layers/access_log", "tracing", "nu-ansi-term/", "matchers/", "regex"]),
    (
        Part::Time,
        &[
            "router-gateway/src/dispatch/stream",
            "transports/link/src/environment",
            "tokio/src/time",
            "tokio/src/runtime/time",
            "library/core/src/time",
            "library/std/src/time",
            "library/std/src/sys/time",
            "library/std/src/sys/pal/unix/time",
            "./time/",
        ],
    ),
    (
        Part::Routing,
        &[
            "router-gateway/src/routing",
            "router-common/src/path",
            "router-common/src/endpoint",
            "router-common/src/identity",
            "semver/",
            "arc-swap/",
        ],
    ),
    (
        Part::Dispatch,
        &[
            "router-gateway/src/dispatch",
            "router-gateway/src/layers",
            "router-gateway/src/stack",
            "router-gateway/src/respond",
            "router-common/src/problem",
            "tower",
        ],
    ),
    (
        Part::Registry,
        &[
            "router-gateway/src/registry",
            "router-gateway/src/admin",
            "router-gateway/src/links",
            "router-gateway/src/gateway",
            "router-gateway/src/workers",
            "router-gateway/src/main",
        ],
    ),
    (Part::Sdk, &["microservice-sdk/src"]),
    (
        Part::Handler,
        &[
            "microservice-sdk/src/extract",
            "microservice-sdk/src/handler",
            "microservice-sdk/src/response",
            "benches/bench-service",
            "serde",
        ],
    ),
    (
        Part::Encoding,
        &[
            "router-common/src/head",
            "router-common/src/codec",
            "router-common/src/frame",
            "router-common/src/wire",
            "transports/link/src/convert",
            "minicbor",
            "ciborium",
        ],
    ),
    (Part::Session, &["router-common/src/session"]),
    (Part::Link, &["transports/"]),
    (Part::Runtime, &["tokio/", "tokio-util/", "mio/", "parking_lot", "./nptl/"]),
    (Part::Allocator, &["libmimalloc-sys/", "mimalloc/", "./malloc/"]),
    (Part::Copying, &["./string/"]),
];

/// What everybody uses: counted to whoever calls it, as is what is inlined.
const HELPERS: &[&str] = &[
    "library/",
    "rust/deps/",
    "router-common/src/lib",
    "./csu/",
    "./io/",
    "./misc/",
    "./socket/",
    "bytes/",
    "fnv/",
    "futures",
    "hashbrown/",
    "http/",
    "http-body",
    "indexmap/",
    "itoa/",
    "memchr/",
    "once_cell/",
    "pin-project",
    "rustc-hash/",
    "slab/",
    "smallvec/",
];

/// Of functions without a source file, by their names.
const NAMES: &[(Part, &[&str])] = &[
    (Part::Time, &["clock_gettime", "__vdso_clock_gettime"]),
    (Part::Allocator, &["malloc", "calloc", "realloc", "free", "_int_malloc", "_int_free", "posix_memalign"]),
    (Part::Copying, &["memcpy", "memmove", "memset", "memcmp", "bcmp"]),
];

/// A part, and the entry of its table by which something belongs to it.
pub(super) type Entry = (Part, &'static str);

/// Where `function`'s instructions from `file` belong. `root` is the repository.
pub(super) fn belongs(root: &str, function: &str, file: &str) -> Belongs<Entry> {
    let path = shortened(root, file);
    let entries = PARTS.iter().flat_map(|(part, entries)| entries.iter().map(|entry| (*part, *entry)));
    let fitting = entries.filter(|(_, entry)| path.starts_with(entry));
    if let Some(entry) = fitting.max_by_key(|(_, entry)| entry.len()) {
        return Belongs::To(entry);
    }
    // By version, as in `memcpy@GLIBC_2.14`.
    let name = function.split('@').next().unwrap_or(function);
    let mut names = NAMES.iter().flat_map(|(part, names)| names.iter().map(|name| (*part, *name)));
    if let Some(entry) = names.find(|(_, of_table)| *of_table == name) {
        return Belongs::To(entry);
    }
    // `???` is what callgrind says where there is no source.
    let is_helper = path == "???" || HELPERS.iter().any(|helper| path.starts_with(helper));
    if is_helper { Belongs::ToCaller } else { Belongs::Unknown }
}

/// `…/registry/src/INDEX/tokio-1.54.1/src/…` is `tokio/src/…`, `/rustc/HASH/library/…` is `library/…`.
fn shortened(root: &str, file: &str) -> String {
    if let Some(own) = file.strip_prefix(root) {
        return own.trim_start_matches('/').to_owned();
    }
    if let Some((_, of_crate)) = file.split_once("/registry/src/")
        && let Some((_, of_crate)) = of_crate.split_once('/')
        && let Some((package, path)) = of_crate.split_once('/')
    {
        let name = package.rsplit_once('-').map_or(package, |(name, _)| name);
        return format!("{name}/{path}");
    }
    if let Some((_, library)) = file.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/')) {
        return library.to_owned();
    }
    file.strip_prefix("/rust/").map_or_else(|| file.to_owned(), |rest| format!("rust/{rest}"))
}

/// Own paths of the table that do not begin any file's: what they named has moved.
pub(super) fn stale(exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    const OWN: [&str; 5] = ["router-gateway/", "router-common/", "microservice-sdk/", "transports/", "benches/"];
    let named = PARTS.iter().flat_map(|(_, prefixes)| prefixes.iter()).chain(HELPERS).copied();
    named.filter(|path| OWN.iter().any(|own| path.starts_with(own)) && !exists(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "/home/x/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";

    fn part(function: &str, file: &str) -> Belongs<Part> {
        match belongs("/work", function, file) {
            Belongs::To((part, _)) => Belongs::To(part),
            Belongs::ToCaller => Belongs::ToCaller,
            Belongs::Unknown => Belongs::Unknown,
        }
    }

    fn of(file: &str) -> Belongs<Part> {
        part("f", file)
    }

    #[test]
    fn the_longest_beginning_decides() {
        assert_eq!(of("/work/router-gateway/src/dispatch.rs"), Belongs::To(Part::Dispatch));
        assert_eq!(of("/work/router-gateway/src/dispatch/budget.rs"), Belongs::To(Part::Limits));
        assert_eq!(of("/work/router-common/src/session.rs"), Belongs::To(Part::Session));
        assert_eq!(of(&format!("{REGISTRY}/tokio-1.54.1/src/runtime/park.rs")), Belongs::To(Part::Runtime));
        assert_eq!(of(&format!("{REGISTRY}/tokio-1.54.1/src/runtime/time/wheel/mod.rs")), Belongs::To(Part::Time));
        assert_eq!(of(&format!("{REGISTRY}/http-1.5.0/src/header/map.rs")), Belongs::ToCaller);
        assert_eq!(of("/rustc/59807616/library/core/src/ptr/mod.rs"), Belongs::ToCaller);
    }

    #[test]
    fn what_is_new_belongs_to_nobody() {
        assert_eq!(of("/work/router-gateway/src/brand_new.rs"), Belongs::Unknown);
        assert_eq!(of(&format!("{REGISTRY}/newcomer-0.1.0/src/lib.rs")), Belongs::Unknown);
        assert_eq!(part("memcpy@GLIBC_2.14", "???"), Belongs::To(Part::Copying));
        assert_eq!(part("0x1234", "???"), Belongs::ToCaller);
    }

    #[test]
    fn what_has_moved_is_told() {
        let stale = stale(|path| !path.starts_with("router-gateway/src/edge"));
        let expected = ["router-gateway/src/edge", "router-gateway/src/edge/floor", "router-gateway/src/edge/held"];
        assert_eq!(stale, expected);
    }
}
