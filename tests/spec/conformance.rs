//! `docs/conformance.md`, held against the lists of clauses, the files, the conversations, and what the crate
//! documentation says of departures.

use crate::format::Conversation;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/conformance.md";
/// The folder of conversations, and how the page and the crate documentation name that version.
const VERSIONS: [(&str, &str); 2] = [("v311", "3.1.1"), ("v5", "5.0")];

/// What the page is held against.
struct Known<'a> {
    root: &'a Path,
    conversations: &'a [Conversation],
    /// Departures that the crate documentation tells of: name of the version, clause.
    departures: BTreeSet<(String, String)>,
    /// What README.md says is not in this version.
    absent: String,
}

/// A numbered statement of the standard.
struct Clause {
    /// `3.1.0-1` for `[MQTT-3.1.0-1]`.
    label: String,
    /// It binds only the client.
    is_clients: bool,
}

/// A row of the page.
struct Row<'a> {
    clause: &'a str,
    obeyed: &'a str,
    shown: &'a str,
}

#[test]
fn every_clause_is_obeyed_and_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let conversations = crate::read_all(&root.join("tests/spec")).unwrap();
    let known = Known {
        root,
        conversations: &conversations,
        departures: departures(&read(root, "src/lib.rs")),
        absent: section(&read(root, "README.md"), "## Today's limits", "\nAnd ").to_lowercase(),
    };
    let page = read(root, PAGE);
    let mut faults = Vec::new();
    for (folder, name) in VERSIONS {
        let clauses = clauses(&read(root, &format!("tests/spec/clauses-{folder}.txt")));
        let table = section(&page, &format!("## MQTT {name}"), "\n## ");
        faults.extend(faults_of_table(table, (folder, name), &clauses, &known));
        faults.extend(faults_of_citations(folder, &clauses, &conversations));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn faults_of_table(
    table: &str,
    (folder, name): (&str, &str),
    clauses: &[Clause],
    known: &Known,
) -> Vec<String> {
    let rows = rows(table);
    let listed: Vec<&str> = clauses.iter().map(|clause| clause.label.as_str()).collect();
    let told: Vec<&str> = rows.iter().map(|row| row.clause).collect();
    if let Some(at) = (0..listed.len().max(told.len())).find(|at| listed.get(*at) != told.get(*at))
    {
        return vec![format!(
            "{PAGE}: {name}: a row for {:?} where one for {:?} belongs",
            told.get(at),
            listed.get(at)
        )];
    }
    let mut faults = Vec::new();
    for (row, clause) in rows.iter().zip(clauses) {
        let at = |why: fmt::Arguments| format!("{PAGE}: {name} {}: {why}", row.clause);
        let departs = known
            .departures
            .contains(&(name.to_owned(), row.clause.to_owned()));
        let (obeyed, why) = match row.obeyed.split_once(", departs: ") {
            Some((obeyed, why)) => (obeyed, Some(why)),
            None => (row.obeyed, None),
        };
        if why.is_some() != departs {
            faults.push(at(format_args!("src/lib.rs does not say the same")));
        }
        let mut must_be_shown = false;
        if let Some(what) = obeyed.strip_prefix("not in this version: ") {
            if !known.absent.contains(&what.to_lowercase()) {
                faults.push(at(format_args!(
                    "README.md does not say that it lacks {what}"
                )));
            }
        } else if (obeyed == "client") != clause.is_clients {
            faults.push(at(format_args!("the list does not say whom it binds")));
        } else if obeyed != "client" {
            must_be_shown = true;
            let files = obeyed.split(", ");
            faults.extend(
                files
                    .filter_map(|file| fault_of_file(file, known.root))
                    .map(|fault| at(format_args!("{fault}"))),
            );
        }
        let shown: Vec<&str> = row
            .shown
            .split(" · ")
            .filter(|item| !item.is_empty())
            .collect();
        if must_be_shown && shown.is_empty() {
            faults.push(at(format_args!("nothing shows it")));
        }
        faults.extend(
            shown
                .iter()
                .filter_map(|item| fault_of_item(item, folder, row.clause, known))
                .map(|fault| at(format_args!("{fault}"))),
        );
    }
    faults
}

/// A file below `src/`, or of another crate of the workspace.
fn fault_of_file(quoted: &str, root: &Path) -> Option<String> {
    let Some(file) = quoted
        .strip_prefix('`')
        .and_then(|file| file.strip_suffix('`'))
    else {
        return Some(format!("{quoted} is no file"));
    };
    let exists = root.join("src").join(file).is_file() || root.join(file).is_file();
    (!exists).then(|| format!("there is no {file}"))
}

/// `` `3.1-connect` Title `` is a conversation, `` `tests/….rs` name `` another test.
fn fault_of_item(item: &str, folder: &str, clause: &str, known: &Known) -> Option<String> {
    let Some((file, title)) = item
        .strip_prefix('`')
        .and_then(|item| item.split_once("` "))
    else {
        return Some(format!("{item} is neither a conversation nor a test"));
    };
    if file.ends_with(".rs") {
        let text = fs::read_to_string(known.root.join(file)).unwrap_or_default();
        return (!text.contains(&format!("\nfn {title}()")))
            .then(|| format!("{file} has no test {title}"));
    }
    let path = format!("{folder}/{file}.txt");
    let found = known
        .conversations
        .iter()
        .find(|conversation| conversation.file == path && conversation.title == title);
    match found {
        None => Some(format!("{path} has no conversation “{title}”")),
        Some(found) if !found.clauses.contains(&format!("[MQTT-{clause}]")) => {
            Some(format!("{path}: “{title}” does not cite it"))
        }
        Some(_) => None,
    }
}

/// Clauses that conversations cite, and the standard does not have.
fn faults_of_citations(
    folder: &str,
    clauses: &[Clause],
    conversations: &[Conversation],
) -> Vec<String> {
    let known: BTreeSet<String> = clauses
        .iter()
        .map(|clause| format!("[MQTT-{}]", clause.label))
        .collect();
    let of_version = conversations
        .iter()
        .filter(|conversation| conversation.file.starts_with(folder));
    of_version
        .flat_map(|conversation| {
            let labels = conversation.clauses.iter();
            labels
                .filter(|label| label.starts_with("[MQTT-") && !known.contains(*label))
                .map(|label| {
                    format!(
                        "tests/spec/{}:{}: there is no {label}",
                        conversation.file, conversation.line
                    )
                })
        })
        .collect()
}

/// A line is a label, and perhaps `client`; `#` begins a comment.
fn clauses(text: &str) -> Vec<Clause> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| Clause {
            label: line.trim_end_matches(" client").to_owned(),
            is_clients: line.ends_with(" client"),
        })
        .collect()
}

/// The rows of a table: clause, what it asks, by what it is obeyed, by what that is shown.
fn rows(table: &str) -> Vec<Row<'_>> {
    let lines = table.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = lines.filter_map(|line| {
        let cells: Vec<&str> = line
            .trim_end_matches('|')
            .split(" |")
            .map(str::trim)
            .collect();
        match cells[..] {
            [clause, _, obeyed, shown] => Some(Row {
                clause,
                obeyed,
                shown,
            }),
            _ => None,
        }
    });
    cells
        .filter(|row| row.clause.starts_with(|first: char| first.is_ascii_digit()))
        .collect()
}

/// What the crate documentation lists below "Where it departs": `3.1.1 [MQTT-…], 5.0 [MQTT-…]`, each label with the
/// version named last before it.
fn departures(lib: &str) -> BTreeSet<(String, String)> {
    let text = section(lib, "//! # Where it departs from the standard", "\n//! # ");
    let mut version = "";
    let mut found = BTreeSet::new();
    for word in text.split_whitespace() {
        let word = word.trim_end_matches([',', ';', ':', '.']);
        if VERSIONS.iter().any(|(_, name)| *name == word) {
            version = word;
        } else if let Some(label) = word
            .strip_prefix("[MQTT-")
            .and_then(|label| label.strip_suffix(']'))
        {
            found.insert((version.to_owned(), label.to_owned()));
        }
    }
    found
}

/// What stands between a heading and `end`, or the end of the text.
fn section<'a>(text: &'a str, heading: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("there is no heading {heading}"));
    rest.split(end).next().unwrap_or_default()
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn what_a_page_lacks_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = "== A title\n[MQTT-1.1-1] [MQTT-1.1-9]\nA > C0 00\n";
    let conversations =
        crate::format::conversations("v5/9-test.txt", text, &crate::format::Names::new()).unwrap();
    let known = Known {
        root,
        conversations: &conversations,
        departures: departures(
            "//! # Where it departs from the standard\n//!\n//! - 5.0 [MQTT-1.1-2]: so.\n//! # More\n",
        ),
        absent: "**websocket.** none.".to_owned(),
    };
    let clauses = clauses("# A comment\n1.1-1\n1.1-2\n1.1-3 client\n1.1-4\n");
    let faults = |page: &str| faults_of_table(page, ("v5", "5.0"), &clauses, &known);

    let right = [
        "| 1.1-1 | a | `broker/mod.rs` | `9-test` A title |",
        "| 1.1-2 | b | `server.rs`, departs: so | `tests/spec/main.rs` conversations |",
        "| 1.1-3 | c | client | |",
        "| 1.1-4 | d | not in this version: WebSocket | |",
    ];
    assert_eq!(faults(&right.join("\n")), [""; 0]);
    for (row, wrong, why) in [
        (
            0,
            "",
            "a row for Some(\"1.1-2\") where one for Some(\"1.1-1\")",
        ),
        (0, "| 1.1-1 | a | `broker/mod.rs` | |", "nothing shows it"),
        (
            0,
            "| 1.1-1 | a | `broker/none.rs` | `9-test` A title |",
            "there is no broker/none.rs",
        ),
        (
            0,
            "| 1.1-1 | a | `broker/mod.rs` | `9-test` Another |",
            "no conversation “Another”",
        ),
        (0, "| 1.1-1 | a | client | |", "whom it binds"),
        (
            0,
            "| 1.1-1 | a | not in this version: QoS 2 | |",
            "README.md",
        ),
        (
            0,
            "| 1.1-1 | a | `broker/mod.rs`, departs: so | `9-test` A title |",
            "src/lib.rs",
        ),
        (
            1,
            "| 1.1-2 | b | `server.rs`, departs: so | `9-test` A title |",
            "does not cite it",
        ),
        (
            1,
            "| 1.1-2 | b | `server.rs` | `tests/spec/main.rs` conversations |",
            "src/lib.rs",
        ),
        (
            1,
            "| 1.1-2 | b | `server.rs`, departs: so | `tests/spec/main.rs` none |",
            "no test none",
        ),
        (
            2,
            "| 1.1-3 | c | `server.rs` | `tests/spec/main.rs` conversations |",
            "whom it binds",
        ),
    ] {
        let mut page = right;
        page[row] = wrong;
        let found = faults(&page.join("\n"));
        assert!(
            found.len() == 1 && found[0].contains(why),
            "{wrong}: {found:?}"
        );
    }
    assert_eq!(
        faults_of_citations("v5", &clauses, &conversations),
        ["tests/spec/v5/9-test.txt:1: there is no [MQTT-1.1-9]"]
    );
}
