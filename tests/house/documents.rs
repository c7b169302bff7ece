//! What is written about the configuration and `$SYS`, held against the program.

use crate::source::{files, read, root};
use larder::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const EXAMPLE: &str = "systemd/larder.toml";
const MACHINE_BYTES: u64 = 1 << 30;

#[test]
fn every_example_of_a_configuration_is_right() {
    let example = read(EXAMPLE);
    let in_full = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // A file that is not there; and of the passwords only one may stand there.
            Some(key) if names_a_file(key) => line,
            Some(key) if !key.starts_with(' ') => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let mut examples = vec![
        (EXAMPLE.to_owned(), example),
        (format!("{EXAMPLE} with every key"), in_full),
    ];
    let readme = read("README.md");
    let blocks = readme.split("```toml\n").skip(1);
    examples.extend(blocks.enumerate().map(|(index, block)| {
        (
            format!("README.md, configuration {}", index + 1),
            block.split("```").next().unwrap().to_owned(),
        )
    }));
    assert!(examples.len() > 2, "README.md shows a configuration");

    for (name, text) in examples {
        let file = std::env::temp_dir().join(format!("larder-house-{}.toml", std::process::id()));
        fs::write(&file, &text).unwrap();
        let loaded = Config::load(&file, MACHINE_BYTES);
        fs::remove_file(&file).unwrap();
        loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn names_a_file(line: &str) -> bool {
    let key = line.split(' ').next();
    ["password_file", "ca", "cert", "key"].contains(&key.unwrap())
}

#[test]
fn readme_has_every_key_and_its_default() {
    let told = told(&read("README.md"));
    let known = known(&read(EXAMPLE));
    let names = |keys: &BTreeMap<String, String>| keys.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&told), names(&known), "README.md against {EXAMPLE}");
    for (key, default) in told {
        if let Some(default) = default.strip_prefix('`') {
            let default = default.trim_end_matches('`');
            assert_eq!(
                default,
                known[&key].trim_matches('"'),
                "the default of {key}"
            );
        }
    }
}

#[test]
fn readme_has_every_sys_topic() {
    let topics = |text: &str, end: char| -> BTreeSet<String> {
        text.split("$SYS/")
            .skip(1)
            .map(|rest| rest.split(end).next().unwrap().to_owned())
            .filter(|topic| topic.contains('/'))
            // The averages of a load are told together.
            .map(|topic| topic.trim_end_matches("/+").to_owned())
            .collect()
    };
    let sources = ["src/broker/sys.rs", "src/broker/sys/clients.rs"];
    let published: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| topics(&code(&read(source)), '"'))
        .collect();
    assert!(published.len() > 20, "{published:?}");
    let readme = read("README.md");
    let told: BTreeSet<String> = readme
        .lines()
        .filter(|line| line.starts_with("| `$SYS/"))
        .flat_map(|line| topics(line.split(" | ").next().unwrap(), '`'))
        .collect();
    assert_eq!(told, published);
}

/// A source file without its comments.
fn code(source: &str) -> String {
    let lines = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn links_lead_somewhere() {
    let mut documents = vec!["README.md".to_owned()];
    for folder in ["docs", "targets", "tests"] {
        documents.extend(markdown(folder));
    }
    for document in documents {
        let folder = Path::new(&document).parent().unwrap().to_owned();
        for link in read(&document).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = root().join(&folder).join(target);
            assert!(path.exists(), "{document}: {target}");
        }
    }
    assert!(files("src").len() > 60);
}

fn markdown(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            found.extend(markdown(&name));
        } else if name.ends_with(".md") {
            found.push(name);
        }
    }
    found
}

/// Keys by their full names, and their defaults, from the first two columns of README's tables.
fn told(readme: &str) -> BTreeMap<String, String> {
    let reference = readme
        .split_once("\n## Configuration\n")
        .and_then(|(_, rest)| rest.split("\n## ").next())
        .expect("README.md has a section `Configuration`");
    reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let (key, rest) = line.split_once("` | ").unwrap();
            let default = rest.split_once(" | ").unwrap().0;
            (key.to_owned(), default.to_owned())
        })
        .collect()
}

/// The same from the example, where each stands in a line that is commented out.
fn known(example: &str) -> BTreeMap<String, String> {
    let mut table = String::new();
    let mut keys = BTreeMap::new();
    for line in example.lines() {
        let Some(line) = line.strip_prefix('#').filter(|line| !line.starts_with(' ')) else {
            continue;
        };
        if line.starts_with('[') {
            table = format!("{}.", line.trim_matches(['[', ']']));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let name = format!("{table}{key}");
            // forward = [{ filter = "a", qos = 1 }]
            if let Some(inner) = value.strip_prefix("[{ ") {
                let inner = inner.trim_end_matches(" }]");
                for pair in inner.split(", ") {
                    let (key, value) = pair.split_once(" = ").unwrap();
                    keys.insert(format!("{name}.{key}"), value.to_owned());
                }
            } else {
                keys.insert(name, value.to_owned());
            }
        }
    }
    keys
}
