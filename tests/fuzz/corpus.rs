//! What the mutations begin with: what clients send in the conversations of tests/spec, and the configurations of the
//! documents.

use crate::format::{self, Action, Conversation, Turn};
use crate::targets::{PASS, SEND, Step, write_step};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every packet that a client sends, with its version before it.
pub(crate) fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for conversation in conversations_of_the_standard() {
        let version = u8::from(conversation.file.starts_with("v5/"));
        for step in conversation.steps {
            if let Action::Client(_, Turn::Send(bytes) | Turn::SendSlowly(bytes)) = step.action {
                packets.push([vec![version], bytes].concat());
            }
        }
    }
    packets.sort();
    packets.dedup();
    packets
}

/// Every conversation, as the steps that a target plays.
pub(crate) fn conversations() -> Vec<Vec<u8>> {
    conversations_of_the_standard().iter().map(played).collect()
}

fn played(conversation: &Conversation) -> Vec<u8> {
    let mut links = BTreeMap::new();
    let mut bytes = Vec::new();
    for step in &conversation.steps {
        match &step.action {
            Action::Client(name, turn) => {
                let next = u8::try_from(links.len()).unwrap();
                let link = *links.entry(name).or_insert(next);
                match turn {
                    Turn::Send(sent) | Turn::SendSlowly(sent) => {
                        write_step(&mut bytes, SEND, link, sent);
                    }
                    Turn::Drops => write_step(&mut bytes, Step::Lose as u8, link, &[]),
                    _ => {}
                }
            }
            Action::Wait(time) => {
                let power = (time.as_millis().max(1)).ilog2();
                write_step(&mut bytes, PASS, u8::try_from(power).unwrap(), &[]);
            }
            Action::Restart => write_step(&mut bytes, Step::Crash as u8, 0, &[]),
        }
    }
    bytes
}

fn conversations_of_the_standard() -> Vec<Conversation> {
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    let names = fs::read_to_string(spec.join("names.txt")).unwrap();
    let names = format::names("names.txt", &names).unwrap();
    let mut all = Vec::new();
    for version in ["v311", "v5"] {
        for file in files(&spec.join(version), "txt") {
            let text = fs::read_to_string(spec.join(version).join(&file)).unwrap();
            let file = format!("{version}/{file}");
            all.extend(format::conversations(&file, &text, &names).unwrap());
        }
    }
    all
}

/// Configurations: the installed one, and all TOML of the documents and the configuration's own tests.
pub(crate) fn configurations() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let mut all = vec![read("systemd/larder.toml")];
    let readme = read("README.md");
    let blocks = readme.split("```").skip(1).step_by(2);
    all.extend(blocks.filter_map(|block| Some(block.strip_prefix("toml\n")?.to_owned())));
    // Each string that has a key in it: correct ones, and wrong ones.
    let tests = read("src/config/tests.rs");
    let strings = tests.split('"').skip(1).step_by(2);
    all.extend(strings.filter(|text| text.contains(" = ")).map(|text| {
        let text = text.replace("\\n\\\n", "\n").replace("\\n", "\n");
        text.replace('\\', "\"")
    }));
    // A value without its quotes is cut off there; each line by itself is of use as well.
    let lines: Vec<String> = all[0]
        .lines()
        .map(|line| line.trim_start_matches("# ").to_owned())
        .collect();
    all.extend(lines);
    all.into_iter().map(String::into_bytes).collect()
}

fn files(folder: &Path, extension: &str) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut files: Vec<String> = names
        .filter(|name| name.ends_with(&format!(".{extension}")))
        .collect();
    files.sort();
    files
}
