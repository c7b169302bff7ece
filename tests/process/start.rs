//! What the program says at its start, and what keeps it from starting.

use crate::broker::{Directory, Outcome, Setup, larder, listening_address, outcome};
use crate::client::{Client, Identity};
use larder_packet::{Qos, Version};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

#[test]
fn without_a_configuration_one_line_names_the_address_and_the_data_directory() {
    let directory = Directory::new();
    let data = directory.join("data");
    let mut child = larder()
        .args(["run", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let serves = serves(&line);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains(&data.display().to_string()), "{line}");
    serves.unwrap();
    assert_eq!(lines.next().transpose().unwrap(), None, "a second line");
}

/// A stored session can be had at the address that the line names.
fn serves(line: &str) -> io::Result<()> {
    let address = listening_address(line);
    let mut client = Client::connect(address, &Identity::stored("c", Version::V5))?;
    client.subscribe("t", Qos::AtLeastOnce)?;
    client.publish("t", b"hello")?;
    assert_eq!(client.next_message()?.payload, b"hello");
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_run_is_one_line_with_file_line_and_key() {
    for (text, line, key) in [
        ("data_dir = \"here\"\n", 1, "data_dir"),
        ("\n[limits]\nmemory_max = 48\n", 3, "limits.memory_max"),
        ("[limits]\nlinks = 0\n", 2, "limits.links"),
        ("[limits]\nmemory = \"1 MiB\"\n", 2, "memory"),
        ("[store]\nsettle_wait = \"20\"\n", 2, "store.settle_wait"),
        ("[[listener]]\nbind = \"1883\"\n", 2, "bind"),
        (
            "[[bridge]]\nname = \"cloud\"\nurl = \"http://c\"\n",
            3,
            "url",
        ),
        ("[store\n", 1, ""),
    ] {
        let directory = Directory::new();
        let file = directory.join("larder.toml");
        fs::write(&file, text).unwrap();
        for command in ["run", "check"] {
            let outcome = outcome(&[command, "--config", path(&file)]);
            refused(&outcome, 1, &format!("{}:{line}: ", path(&file)));
            assert!(outcome.stderr.contains(key), "{}", outcome.stderr);
        }
    }
    let nowhere = outcome(&["run", "--config", "/nowhere/larder.toml"]);
    refused(&nowhere, 1, "/nowhere/larder.toml: there is no such file");
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    for arguments in [
        &["run", "--fast"][..],
        &["walk"],
        &[],
        &["run", "--listen", "1883"],
    ] {
        refused(&outcome(arguments), 2, "larder --help");
    }
}

#[test]
fn a_data_directory_that_another_process_has_is_refused() {
    let broker = Setup::new("").start();
    let data = broker.data();
    let outcome = outcome(&["run", "--listen", "127.0.0.1:0", "--data", path(&data)]);
    refused(
        &outcome,
        1,
        &format!("process {} has this data_dir", broker.pid()),
    );
    // The one that has it goes on.
    broker
        .connect(&Identity::stored("c", Version::V5))
        .ping()
        .unwrap();
}

#[test]
fn an_address_that_is_in_use_is_refused() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let directory = Directory::new();
    let data = directory.join("data");
    let outcome = outcome(&["run", "--listen", &address, "--data", path(&data)]);
    refused(&outcome, 1, &format!("cannot listen on {address}"));
}

#[test]
fn a_data_directory_that_cannot_be_one_is_refused() {
    let directory = Directory::new();
    let file = directory.join("file");
    fs::write(&file, "").unwrap();
    for data in [file.clone(), file.join("below")] {
        let outcome = outcome(&["run", "--listen", "127.0.0.1:0", "--data", path(&data)]);
        refused(&outcome, 1, &format!("data_dir {}: ", path(&data)));
    }
    // Nor can one that is read-only, even to root.
    let outcome = outcome(&["run", "--listen", "127.0.0.1:0", "--data", "/proc/larder"]);
    refused(&outcome, 1, "data_dir /proc/larder: ");
}

#[test]
fn a_budget_above_memory_max_is_refused_and_check_prints_its_terms() {
    let directory = Directory::new();
    let file = directory.join("larder.toml");
    let configuration = |memory_max: &str| {
        let data = directory.join("data");
        fs::write(
            &file,
            format!("data_dir = {data:?}\n[limits]\nmemory_max = \"{memory_max}\"\n"),
        )
        .unwrap();
    };
    configuration("1 MiB");
    let run = outcome(&["run", "--config", path(&file)]);
    refused(&run, 1, "limits.memory_max: ");
    assert!(
        !directory.join("data").exists(),
        "nothing is made before it is known to fit"
    );
    let check = outcome(&["check", "--config", path(&file)]);
    assert_eq!(check.code, Some(1));
    assert!(check.stdout.contains("would not start"), "{}", check.stdout);

    configuration("64 MiB");
    let check = outcome(&["check", "--config", path(&file)]);
    assert_eq!((check.code, check.stderr.as_str()), (Some(0), ""));
    // The last table: its rows end in their bytes, and these make the sum.
    let (_, table) = check.stdout.split_once("\nMemory ").unwrap();
    let last_number = |line: &str| line.split_whitespace().last()?.parse::<u64>().ok();
    let rows: Vec<u64> = table.lines().skip(1).filter_map(last_number).collect();
    let [terms @ .., sum, memory_max] = &rows[..] else {
        panic!("{table}")
    };
    assert!(
        terms.len() > 5 && terms.iter().sum::<u64>() == *sum,
        "{table}"
    );
    assert!(*sum <= *memory_max && *memory_max == 64 << 20, "{table}");
}

/// It ended with this code, printed nothing but one line of error, and that has `part` in it.
fn refused(outcome: &Outcome, code: i32, part: &str) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(part),
        "no {part:?} in {}",
        outcome.stderr
    );
    assert_eq!(outcome.stdout, "");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
