//! Every command of PROOF.md runs something that is there.

use crate::source::{files, read};

#[test]
fn every_command_of_the_proof_names_what_there_is() {
    let groups = groups();
    let commands = commands(&read("PROOF.md"));
    assert!(commands.len() > 15, "{commands:?}");
    let wrong: Vec<String> = commands
        .iter()
        .filter_map(|command| fault(command, &groups))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for wrong in [
        "tests/run nothing",
        "cargo test --test process no_such_test",
        "cargo test --test nothing",
        "NO_SUCH_VARIABLE=1 tests/run power",
        "make proof",
    ] {
        assert!(fault(wrong, &groups).is_some(), "{wrong}");
    }
}

/// What stands in backquotes and is to be run.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| word.contains("tests/run ") || word.contains("cargo "))
        .map(|command| command.replace('\n', " "))
        .collect()
}

fn groups() -> Vec<String> {
    let table = read("tests/run");
    let rows = table
        .lines()
        .filter(|line| line.matches(" | ").count() >= 3);
    rows.map(|row| row.split(['|', ' ']).next().unwrap().to_owned())
        .collect()
}

/// What is wrong with a command, if anything is.
fn fault(command: &str, groups: &[String]) -> Option<String> {
    let mut words = command.split(' ').peekable();
    while let Some((variable, _)) = words.peek().and_then(|word| word.split_once('=')) {
        let quoted = format!("\"{variable}\"");
        if !tests().iter().any(|file| read(file).contains(&quoted)) {
            return Some(format!("{command}: no test reads {variable}"));
        }
        words.next();
    }
    match words.next() {
        Some("tests/run") => {
            let unknown = words.find(|word| !groups.iter().any(|group| group == word))?;
            Some(format!("{command}: there is no group {unknown}"))
        }
        Some("cargo") => {
            let words: Vec<&str> = words.take_while(|word| *word != "--").collect();
            let ["test", "--test", target, names @ ..] = &words[..] else {
                return Some(format!("{command}: not `cargo test --test`"));
            };
            let folder = format!("tests/{target}/");
            let files: Vec<String> = tests();
            let files: Vec<&String> = files
                .iter()
                .filter(|file| file.starts_with(&folder))
                .collect();
            if files.is_empty() {
                return Some(format!("{command}: there is no {folder}"));
            }
            let is_there = |name: &&&str| {
                let (module, function) = (format!("{folder}{name}.rs"), format!("fn {name}()"));
                files
                    .iter()
                    .any(|file| **file == module || read(file).contains(&function))
            };
            let missing = names.iter().find(|name| !is_there(name))?;
            Some(format!("{command}: there is no test {missing}"))
        }
        _ => Some(format!("{command}: not a command of this house")),
    }
}

fn tests() -> Vec<String> {
    files("tests")
}
