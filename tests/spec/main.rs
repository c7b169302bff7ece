//! MQTT conversations, byte by byte: plays every file of `v311/` and `v5/` against a broker. README.md says how to read,
//! write and run them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "this is a program of its own, with its own clock"
)]

mod broker;
mod conformance;
mod format;
mod pattern;
mod play;
mod property;
mod shorthand;
mod words;

use broker::{Broker, Setup};
use format::Conversation;
use play::{Rules, Traces};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

#[test]
fn conversations() {
    let began = Instant::now();
    let all = read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec"))
        .unwrap_or_else(|error| panic!("{error}"));
    let setup = Setup::from_environment().unwrap_or_else(|error| panic!("{error}"));
    // One that never starts is told once, not for each conversation.
    setup
        .broker(&[])
        .map(drop)
        .unwrap_or_else(|error| panic!("{error}"));
    let rules = Rules {
        patience: setup.patience(),
        peer: std::env::var_os("LARDER_SPEC_PEER").is_some(),
    };

    let filter = std::env::var("SPEC").unwrap_or_default();
    let (wanted, others): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|conversation| is_wanted(conversation, &filter));
    let (playable, skipped): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|conversation| {
        let lacks_own_broker =
            conversation.needs_own_broker() && matches!(setup, Setup::Running(_));
        let is_our_own_choice = conversation.own_choice && rules.peer;
        !(lacks_own_broker || is_our_own_choice)
    });
    let failures = play_all(&playable, &setup, rules);

    for failure in &failures {
        say(&format!("\n{failure}\n"));
    }
    say(&format!(
        "spec: {} conversations, {} failed; {} skipped, {} filtered out; {:.1} s",
        playable.len(),
        failures.len(),
        skipped.len(),
        others.len(),
        began.elapsed().as_secs_f32()
    ));
    assert!(
        !playable.is_empty(),
        "no conversation matches SPEC={filter}"
    );
    assert!(
        failures.is_empty(),
        "{} of {} conversations failed",
        failures.len(),
        playable.len()
    );
}

/// Straight to standard error, which the test harness does not hold back.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn read_all(directory: &Path) -> Result<Vec<Conversation>, String> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let names = format::names("names.txt", &read(&directory.join("names.txt"))?)?;
    let mut all = Vec::new();
    for version in ["v311", "v5"] {
        let folder = directory.join(version);
        let entries =
            fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut files = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
            .collect::<Vec<_>>();
        files.sort();
        for file in files.iter().filter(|file| file.ends_with(".txt")) {
            all.extend(format::conversations(
                &format!("{version}/{file}"),
                &read(&folder.join(file))?,
                &names,
            )?);
        }
    }
    Ok(all)
}

/// `SPEC=3.1` is chapter 3.1 of both versions, and not 3.10; anything else is looked for in `file:line: title`.
fn is_wanted(conversation: &Conversation, filter: &str) -> bool {
    let Conversation {
        file, line, title, ..
    } = conversation;
    if !filter.is_empty()
        && filter
            .chars()
            .all(|letter| letter.is_ascii_digit() || letter == '.')
    {
        return file
            .split_once('/')
            .is_some_and(|(_, name)| name.starts_with(&format!("{filter}-")));
    }
    format!("{file}:{line}: {title}").contains(filter)
}

/// Several brokers side by side, since most of a conversation is waiting; on each of them one conversation at a time,
/// so that none sees another's messages.
fn play_all(conversations: &[&Conversation], setup: &Setup, rules: Rules) -> Vec<String> {
    let workers = if matches!(setup, Setup::Running(_)) {
        1
    } else {
        4
    };
    let next = Mutex::new(conversations.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(conversations.len()) {
            scope.spawn(|| {
                let mut broker = Err("not started".to_owned());
                loop {
                    let Some(conversation) = next.lock().unwrap().next() else {
                        return;
                    };
                    if let Err(why) = play_one(conversation, &mut broker, setup, rules) {
                        failures
                            .lock()
                            .unwrap()
                            .push((&conversation.file, conversation.line, why));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    failures.into_iter().map(|(_, _, why)| why).collect()
}

/// Plays on the worker's broker, or on a fresh one, and leaves a broker without sessions and retained messages, or none.
fn play_one(
    conversation: &Conversation,
    broker: &mut Result<Broker, String>,
    setup: &Setup,
    rules: Rules,
) -> Result<(), String> {
    let traces = Traces::of(conversation);
    if broker.is_err() || conversation.fresh {
        *broker = setup.broker(&conversation.settings);
        if let (Ok(running), Setup::Running(_)) = (&*broker, setup) {
            // An earlier run may have left sessions or retained messages.
            play::forget(&traces, running.address, rules)?;
        }
    }
    let Ok(running) = broker else {
        return Err(format!(
            "tests/spec/{}:{}: no broker: {}",
            conversation.file,
            conversation.line,
            broker.as_ref().err().unwrap()
        ));
    };
    let mut result = play::play(conversation, running, rules);
    let tidied = play::forget(&traces, running.address, rules);
    if let Some(obituary) = running.obituary() {
        result = result
            .map_err(|why| format!("{why}\n  {obituary}"))
            .and(Err(format!(
                "tests/spec/{}:{}: {obituary}\n  after “{}”",
                conversation.file, conversation.line, conversation.title
            )));
    }
    if tidied.is_err() || result.is_err() || conversation.fresh {
        *broker = Err("ended".to_owned());
    }
    result
}

#[test]
fn titles_are_unique_in_their_file() {
    let all = read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec"))
        .unwrap_or_else(|error| panic!("{error}"));
    let mut seen = BTreeSet::new();
    for Conversation {
        file, line, title, ..
    } in &all
    {
        assert!(seen.insert((file, title)), "{file}:{line}: “{title}” again");
    }
}
