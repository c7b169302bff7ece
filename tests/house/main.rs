//! The rules of the house, held on the source itself: who may know whom, how long a file may be, and that what is
//! written about the configuration and `$SYS` is what the program does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documents;
mod layers;
mod proof;
mod source;

use layers::{LAYERS, faults};
use source::{Token, code, files, read};

/// Past this a second idea has moved in.
const FILE_LINES_MAX: usize = 600;

#[test]
fn who_may_know_whom() {
    let dependencies = dependencies();
    let found: Vec<String> = product()
        .iter()
        .flat_map(|file| faults(file, &read(file), &dependencies))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn layers_know_only_what_is_below_them() {
    for (at, layer) in LAYERS.iter().enumerate() {
        for known in layer.knows {
            let module = known.split("::").next().unwrap();
            let place = LAYERS.iter().position(|other| other.name == module);
            assert!(
                place.is_some_and(|place| place < at),
                "{} knows {module}, which is not below it",
                layer.name
            );
        }
    }
}

#[test]
fn what_breaks_the_rules_is_seen() {
    let dependencies = dependencies();
    for (file, text, expected) in [
        (
            "src/broker/publish.rs",
            "use mio::Poll;",
            "broker does not name the crate mio",
        ),
        (
            "src/broker/publish.rs",
            "fn f() { std::thread::sleep(x) }",
            "broker is pure",
        ),
        (
            "src/broker/publish.rs",
            "use std::time::{Duration, Instant};",
            "std::time::Instant: broker is pure",
        ),
        (
            "src/broker/publish.rs",
            "use crate::net::{LinkId, Sockets};",
            "broker does not know net",
        ),
        (
            "src/broker/deep/er.rs",
            "use super::super::super::store::Threads;",
            "broker does not know store",
        ),
        (
            "src/broker/publish.rs",
            "use crate::{limits, server};",
            "broker does not know server",
        ),
        (
            "src/store/writer.rs",
            "fn f(c: rusqlite::Connection) {}",
            "rusqlite is named only in src/store/sqlite.rs",
        ),
        (
            "src/limits.rs",
            "use crate::time::Mono;",
            "limits does not know time",
        ),
        (
            "src/observe/log.rs",
            "use rustix::time::clock_gettime;",
            "rustix::time is named only in src/clock.rs",
        ),
        (
            "bridge/relay.rs",
            "use tokio::time::sleep;",
            "the relay does not name the crate tokio",
        ),
        (
            "src/packet/decode.rs",
            "use std::io::Read;",
            "larder-packet is pure",
        ),
        ("src/new/mod.rs", "", "belongs to no layer"),
    ] {
        let found = faults(file, text, &dependencies);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{file}: {text}: {found:?}"
        );
    }
    for (file, text) in [
        (
            "src/broker/publish.rs",
            "use crate::net::{LinkId, Origin}; use super::link::Link; use std::time::Duration;",
        ),
        (
            "src/broker/publish.rs",
            "#[cfg(test)] mod tests { use std::thread; } // mio::Poll",
        ),
        (
            "src/main.rs",
            "use larder::cli::{self, Command}; fn main() { cli::parse() }",
        ),
    ] {
        assert_eq!(faults(file, text, &dependencies), [""; 0], "{file}: {text}");
    }
}

#[test]
fn a_file_holds_one_idea() {
    let long: Vec<String> = product()
        .iter()
        .map(|file| (file, read(file).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(file, lines)| format!("{file}: {lines} lines; which second idea moved in?"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let mut left = Vec::new();
    for folder in ["src", "bridge", "tests"] {
        for file in files(folder) {
            left.extend(left_for_later(&file, &read(&file)));
        }
    }
    assert!(left.is_empty(), "{}", left.join("\n"));
    for bad in [
        "fn f() { todo!() }",
        "unimplemented!(\"x\");",
        "#[ignore] fn f() {}",
    ] {
        assert_eq!(left_for_later("x.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(
        left_for_later(
            "x.rs",
            "#[ignore = \"needs root\"] fn ignore() {} // todo!()"
        ),
        [""; 0]
    );
}

/// `todo!`, `unimplemented!`, and `#[ignore]` that does not say why.
fn left_for_later(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut left = Vec::new();
    for at in 0..code.len() {
        let (line, Token::Word(word)) = &code[at] else {
            continue;
        };
        let before = at.checked_sub(1).map(|at| &code[at].1);
        let after = code.get(at + 1).map(|(_, token)| token);
        let is_left = match word.as_str() {
            "todo" | "unimplemented" => after == Some(&Token::Mark('!')),
            "ignore" => before == Some(&Token::Mark('[')) && after == Some(&Token::Mark(']')),
            _ => false,
        };
        if is_left {
            left.push(format!("{file}:{line}: {word}"));
        }
    }
    left
}

/// The files of the product. A crate's tests know whom they like.
fn product() -> Vec<String> {
    let mut product = files("src");
    product.extend(files("bridge"));
    product.retain(|file| !file.contains("/tests/") && !file.ends_with("/tests.rs"));
    assert!(product.len() > 60, "the files are found: {product:?}");
    product
}

/// The crates that the workspace uses, as code writes them.
fn dependencies() -> Vec<String> {
    let manifests = ["Cargo.toml", "bridge/Cargo.toml", "src/packet/Cargo.toml"];
    let mut names = Vec::new();
    for manifest in manifests {
        let text = read(manifest);
        let section = text
            .split_once("\n[dependencies]\n")
            .map_or("", |(_, rest)| rest.split("\n[").next().unwrap());
        let keys = section.lines().filter_map(|line| line.split_once(" = "));
        names.extend(keys.map(|(name, _)| name.replace('-', "_")));
    }
    assert!(names.contains(&"rusqlite".to_owned()), "{names:?}");
    names.sort();
    names.dedup();
    names
}
