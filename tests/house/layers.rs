//! Who may know whom. A file is held to the line of its layer: the modules it may name, the crates it may name, and
//! whether it is *pure*, which is to name nothing by which a program touches the world.

use crate::source::{Named, code, paths};

/// A module at the root of `larder`, or another part of the workspace.
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    /// The modules of `larder` that it may name, or single items of them.
    pub(crate) knows: &'static [&'static str],
    /// The crates that it may name besides `std`.
    pub(crate) crates: &'static [&'static str],
    pub(crate) pure: bool,
}

/// From the bottom up: a layer knows only what stands above it in this list.
///
/// The core knows of the network two names and nothing that does anything: a link's and its origin's.
pub(crate) const LAYERS: &[Layer] = &[
    layer("limits", &[], &[]).pure(),
    layer("time", &[], &["serde"]).pure(),
    layer("record", &["time"], &["larder_packet", "serde"]).pure(),
    layer("clock", &["time"], &["rustix"]),
    layer(
        "observe",
        &[],
        &["log", "simple_logger", "rustix", "heapless"],
    ),
    layer(
        "config",
        &[],
        &["larder_packet", "larder_bridge", "log", "serde", "toml"],
    ),
    layer(
        "net",
        &["time"],
        &["log", "mio", "rustix", "signal_hook", "socket2"],
    ),
    layer(
        "store",
        &["record", "time"],
        &[
            "larder_packet",
            "log",
            "rusqlite",
            "postcard",
            "crc",
            "serde",
            "serde_bytes",
            "rustix",
        ],
    ),
    layer(
        "broker",
        &["limits", "time", "record", "net::LinkId", "net::Origin"],
        &["larder_packet", "log", "hashbrown", "foldhash", "heapless"],
    )
    .pure(),
    layer(
        "server",
        &["limits", "time", "record", "net", "broker"],
        &[],
    )
    .pure(),
    layer(
        "budget",
        &[
            "limits", "record", "observe", "config", "net", "store", "broker",
        ],
        &["larder_bridge", "log"],
    ),
    layer(
        "cli",
        &[
            "limits", "time", "record", "clock", "observe", "config", "net", "store", "broker",
            "server", "budget",
        ],
        &[
            "larder_packet",
            "larder_bridge",
            "lexopt",
            "log",
            "rustix",
            "signal_hook",
        ],
    ),
    layer("main", &["cli", "budget"], &[]),
];

/// The crates beside `larder`, by their folders, and files of theirs that are held to more than their folder.
/// That they do not name `larder` is the compiler's to see.
pub(crate) const CRATES: &[(&str, Layer)] = &[
    ("src/packet/", layer("larder-packet", &[], &[]).pure()),
    ("bridge/relay.rs", RELAY),
    ("bridge/flow.rs", RELAY),
    ("bridge/rule.rs", RELAY),
    ("bridge/message.rs", RELAY),
    ("bridge/redial.rs", RELAY),
    (
        "bridge/",
        layer(
            "larder-bridge",
            &[],
            &[
                "larder_packet",
                "rumqttc",
                "tokio",
                "bytes",
                "log",
                "pki_types",
                "webpki",
                "rustls",
                "tokio_rustls",
                "embedded_tls",
                "embedded_io",
                "embedded_io_async",
                "rand_core",
                "ring",
                "sha2",
                "signature",
            ],
        ),
    ),
];

/// The rules of the relay: what a simulator runs.
const RELAY: Layer = layer("the relay", &[], &["larder_packet", "bytes", "log"]).pure();

/// What is named in one room only, whoever its neighbours are.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[
    ("rusqlite", &["src/store/sqlite.rs", "src/store/sqlite/"]),
    ("postcard", &["src/store/blob.rs", "src/store/sqlite.rs"]),
    ("crc", &["src/store/blob.rs"]),
    ("simple_logger", &["src/observe/log.rs"]),
    ("toml", &["src/config/"]),
    ("rumqttc", &["bridge/client.rs", "bridge/client/"]),
    ("rustls", &["bridge/tls/standard.rs"]),
    ("embedded_tls", &["bridge/tls/small.rs"]),
    ("webpki", &["bridge/tls/"]),
    ("rustix::time", &["src/clock.rs"]),
];

/// By these a program touches the world, or depends on more than its arguments.
const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::io",
    "std::os",
    "std::env",
    "std::thread",
    "std::process",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::time::*",
    "std::hash::RandomState",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::*",
];

const fn layer(
    name: &'static str,
    knows: &'static [&'static str],
    crates: &'static [&'static str],
) -> Layer {
    Layer {
        name,
        knows,
        crates,
        pure: false,
    }
}

impl Layer {
    const fn pure(mut self) -> Layer {
        self.pure = true;
        self
    }
}

/// What is wrong with the paths that a file names. `dependencies`: the crates that the workspace uses, as code writes
/// them.
pub(crate) fn faults(file: &str, text: &str, dependencies: &[String]) -> Vec<String> {
    let module = module(file);
    let Some(layer) = layer_of(file, &module) else {
        return vec![format!(
            "{file}: belongs to no layer; give it a line in tests/house/layers.rs"
        )];
    };
    let mut faults = Vec::new();
    for Named { line, words } in paths(&code(text)) {
        let path = resolved(&words, &module, layer.name);
        let external = ["std", "core", "alloc"].contains(&path.words[0].as_str())
            || dependencies.contains(&path.words[0]);
        let fault = match (path.is_ours, external) {
            (true, _) => unknown_module(layer, &path.words),
            (false, true) => unknown_crate(layer, file, &path.words),
            (false, false) => None,
        };
        faults.extend(fault.map(|fault| format!("{file}:{line}: {}: {fault}", words.join("::"))));
    }
    faults
}

fn layer_of(file: &str, module: &[String]) -> Option<&'static Layer> {
    if let Some((_, layer)) = CRATES.iter().find(|(prefix, _)| file.starts_with(prefix)) {
        return Some(layer);
    }
    let name = module.first().map_or("main", String::as_str);
    LAYERS.iter().find(|layer| layer.name == name)
}

/// `src/broker/mod.rs` and `src/broker.rs` are `["broker"]`. The root has no words.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut words: Vec<String> = path.split('/').map(str::to_owned).collect();
    if words.last().is_some_and(|last| last == "mod") || matches!(path, "lib" | "main") {
        words.pop();
    }
    words
}

struct Resolved {
    words: Vec<String>,
    /// From the root of `larder`.
    is_ours: bool,
}

fn resolved(words: &[String], module: &[String], layer: &str) -> Resolved {
    let mut here = module.to_vec();
    let mut rest = words;
    let is_ours = match rest[0].as_str() {
        "crate" => {
            here.clear();
            rest = &rest[1..];
            true
        }
        "self" => {
            rest = &rest[1..];
            true
        }
        "super" => {
            while rest.first().is_some_and(|word| word == "super") {
                here.pop();
                rest = &rest[1..];
            }
            true
        }
        // The program names its library.
        "larder" if layer == "main" => {
            here.clear();
            rest = &rest[1..];
            true
        }
        _ => {
            here.clear();
            false
        }
    };
    here.extend(rest.iter().cloned());
    if here.is_empty() {
        // `use super::*` and its like name the root itself.
        here.push("*".to_owned());
    }
    Resolved {
        words: here,
        is_ours,
    }
}

fn unknown_module(layer: &Layer, path: &[String]) -> Option<String> {
    // Another crate's own modules are its own business.
    let is_in_larder = LAYERS.iter().any(|other| other.name == layer.name);
    if !is_in_larder || path[0] == layer.name || layer.knows.iter().any(|known| begins(path, known))
    {
        return None;
    }
    Some(format!("{} does not know {}", layer.name, path[0]))
}

fn unknown_crate(layer: &Layer, file: &str, path: &[String]) -> Option<String> {
    let room = ROOMS.iter().find(|(what, rooms)| {
        begins(path, what) && !rooms.iter().any(|room| file.starts_with(room))
    });
    if let Some((what, rooms)) = room {
        return Some(format!("{what} is named only in {}", rooms.join(", ")));
    }
    if layer.pure && IMPURE.iter().any(|impure| begins(path, impure)) {
        return Some(format!(
            "{} is pure: time, randomness and the outcome of I/O are arguments",
            layer.name
        ));
    }
    let is_known = ["std", "core", "alloc"].contains(&path[0].as_str())
        || layer.crates.contains(&path[0].as_str());
    (!is_known).then(|| format!("{} does not name the crate {}", layer.name, path[0]))
}

fn begins(path: &[String], with: &str) -> bool {
    let with: Vec<&str> = with.split("::").collect();
    path.len() >= with.len() && path.iter().zip(&with).all(|(word, with)| word == with)
}
