//! Conversation files: text to steps. README.md describes the format.

use crate::pattern::{self, Pattern};
use crate::shorthand::{self, Version};
use std::collections::BTreeMap;
use std::time::Duration;

/// One conversation: what its clients send to a broker, and what they must hear.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// File below `tests/spec`, and line of the title.
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) title: String,
    /// The clauses that it follows from, as cited.
    pub(crate) clauses: Vec<String>,
    /// Cites `[Larder]`: another broker may rightly behave differently.
    pub(crate) own_choice: bool,
    /// Needs a broker of its own.
    pub(crate) fresh: bool,
    /// What that broker's configuration says beyond the defaults, as lines of TOML.
    pub(crate) settings: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

impl Conversation {
    /// Whether a broker that runs already will not do.
    pub(crate) fn needs_own_broker(&self) -> bool {
        let is_restart = |step: &Step| matches!(step.action, Action::Restart);
        self.fresh || self.steps.iter().any(is_restart)
    }
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// A client's part, by its name.
    Client(String, Turn),
    /// Nothing for so long.
    Wait(Duration),
    /// The broker is killed and started again on the same data.
    Restart,
}

#[derive(Debug)]
pub(crate) enum Turn {
    /// Sends these bytes, over a new connection if there is none.
    Send(Vec<u8>),
    /// The same, each byte by itself.
    SendSlowly(Vec<u8>),
    /// The next packet must be this one.
    Receive(Expected),
    /// Some packet must come, whichever it is.
    Hears,
    /// A PINGREQ must be answered before anything else comes.
    Silent,
    /// The broker must close the connection, and send nothing before.
    Closed,
    /// Closes the connection without a DISCONNECT.
    Drops,
}

/// A packet that a client must hear.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) pattern: Pattern,
    /// The client's, for telling the packet in words.
    pub(crate) version: Version,
    /// It is written in words, without a Reason String: then there may be one, whichever it is.
    pub(crate) any_reason_string: bool,
}

/// The names of `names.txt`, each for some words.
pub(crate) type Names = BTreeMap<String, Vec<String>>;

/// Reads `names.txt`: `name = words`.
pub(crate) fn names(file: &str, text: &str) -> Result<Names, String> {
    let mut names = Names::new();
    for Line { number, text } in lines(text) {
        let at = |why: String| format!("{file}:{number}: {why}");
        let (name, meaning) = text
            .split_once('=')
            .ok_or_else(|| at("expected `name = words`".into()))?;
        names.insert(name.trim().to_owned(), words(meaning).map_err(at)?);
    }
    Ok(names)
}

/// Reads a file of conversations; its folder gives the version that clients speak unless they say otherwise.
pub(crate) fn conversations(
    file: &str,
    text: &str,
    names: &Names,
) -> Result<Vec<Conversation>, String> {
    let version = if file.contains("v311/") {
        Version::V311
    } else {
        Version::V5
    };
    let mut conversations: Vec<Conversation> = Vec::new();
    let mut versions = BTreeMap::new();
    for Line { number, text } in lines(text) {
        let at = |why: String| format!("{file}:{number}: {why}");
        if let Some(title) = text.strip_prefix("== ") {
            conversations.push(Conversation {
                file: file.to_owned(),
                line: number,
                title: title.trim().to_owned(),
                clauses: Vec::new(),
                own_choice: false,
                fresh: false,
                settings: Vec::new(),
                steps: Vec::new(),
            });
            versions.clear();
            continue;
        }
        let conversation = conversations
            .last_mut()
            .ok_or_else(|| at("a conversation begins with `== title`".into()))?;
        if let Some(setting) = text.strip_prefix("with ") {
            conversation.settings.push(setting.trim().to_owned());
            conversation.fresh = true;
        } else if text.starts_with('[') {
            clauses(&text, conversation).map_err(at)?;
        } else {
            let action = action(&text, names, version, &mut versions).map_err(at)?;
            conversation.steps.push(Step {
                line: number,
                action,
            });
        }
    }
    let lacking = conversations
        .iter()
        .find(|conversation| conversation.clauses.is_empty() || conversation.steps.is_empty());
    match lacking {
        Some(Conversation { line, title, .. }) => Err(format!(
            "{file}:{line}: “{title}” lacks its clause, like [MQTT-3.1.0-1], or its steps"
        )),
        None => Ok(conversations),
    }
}

/// Splits at blanks outside of quotes.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut escaped = false;
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character.is_whitespace() && !quoted => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        words.last_mut().expect("never empty").push(character);
    }
    words.retain(|word| !word.is_empty());
    if quoted {
        Err("no closing quote".into())
    } else {
        Ok(words)
    }
}

/// A line with those that continue it, without comments.
struct Line {
    number: usize,
    text: String,
}

fn lines(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line);
        let continues = line.starts_with([' ', '\t']);
        match (lines.last_mut(), line.trim()) {
            (_, "") => {}
            (Some(last), more) if continues => {
                last.text.push(' ');
                last.text.push_str(more);
            }
            (_, text) => lines.push(Line {
                number: index + 1,
                text: text.to_owned(),
            }),
        }
    }
    lines
}

/// A comment is `#` at the beginning of a line or after a blank, outside of quotes. A title has none.
fn without_comment(line: &str) -> &str {
    if line.starts_with("== ") {
        return line;
    }
    let (mut quoted, mut escaped, mut blank) = (false, false, true);
    for (at, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if blank && !quoted => return &line[..at],
            _ => {}
        }
        blank = character.is_whitespace();
    }
    line
}

fn clauses(text: &str, conversation: &mut Conversation) -> Result<(), String> {
    for word in text.split_whitespace() {
        match word
            .strip_prefix('[')
            .and_then(|word| word.strip_suffix(']'))
        {
            Some("Larder") => conversation.own_choice = true,
            Some(clause)
                if clause
                    .strip_prefix("MQTT-")
                    .unwrap_or(clause)
                    .starts_with(|first: char| first.is_ascii_digit()) =>
            {
                conversation.clauses.push(word.to_owned());
            }
            None if word == "fresh" => conversation.fresh = true,
            _ => {
                return Err(format!(
                    "`{word}` is neither a clause like [MQTT-3.1.0-1], a section like [3.1.2.10], [Larder] nor `fresh`"
                ));
            }
        }
    }
    Ok(())
}

fn action(
    text: &str,
    names: &Names,
    default: Version,
    versions: &mut BTreeMap<String, Version>,
) -> Result<Action, String> {
    let mut words = Vec::new();
    for word in self::words(text)? {
        match word.strip_prefix('$') {
            Some(name) => words.extend_from_slice(
                names
                    .get(name)
                    .ok_or_else(|| format!("`${name}` is not in names.txt"))?,
            ),
            None => words.push(word),
        }
    }
    let (client, verb, rest) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["broker", "restarts"] => return Ok(Action::Restart),
        ["wait", seconds, "s"] => {
            let seconds = seconds
                .parse::<f64>()
                .ok()
                .filter(|seconds| (0.0..=10.0).contains(seconds));
            return Ok(Action::Wait(Duration::from_secs_f64(
                seconds.ok_or("a wait is 0 to 10 seconds")?,
            )));
        }
        [client, verb, ..] if client.chars().all(|letter| letter.is_ascii_uppercase()) => {
            (client.to_owned(), verb, &words[2..])
        }
        _ => {
            return Err(format!(
                "`{text}` is no step: a step begins with a client's name, in capitals"
            ));
        }
    };
    let version = versions.entry(client.clone()).or_insert(default);
    let turn = match (verb, rest.is_empty()) {
        (">", false) => Turn::Send(sent(&packet(rest, version)?)?),
        (">>", false) => Turn::SendSlowly(sent(&packet(rest, version)?)?),
        ("<", false) => Turn::Receive(Expected {
            pattern: packet(rest, version)?,
            version: *version,
            any_reason_string: is_in_words(rest)
                && !rest.iter().any(|word| word.starts_with("reason_string=")),
        }),
        ("hears", true) => Turn::Hears,
        ("silent", true) => Turn::Silent,
        ("closed", true) => Turn::Closed,
        ("drops", true) => Turn::Drops,
        _ => {
            return Err(format!(
                "`{text}`: a client has >, >>, <, hears, silent, closed and drops"
            ));
        }
    };
    Ok(Action::Client(client, turn))
}

fn packet(words: &[String], version: &mut Version) -> Result<Pattern, String> {
    if is_in_words(words) {
        return shorthand::encode(words, version);
    }
    let mut bytes = Pattern::default();
    for word in words {
        bytes.append(&pattern::value(word)?);
    }
    Ok(bytes)
}

/// Whether a packet is written as a name and words, and not in bytes.
fn is_in_words(words: &[String]) -> bool {
    let first = words.first().map_or("", String::as_str);
    first.contains(|letter: char| letter.is_ascii_alphabetic() && !letter.is_ascii_hexdigit())
        && !first.starts_with('"')
}

fn sent(pattern: &Pattern) -> Result<Vec<u8>, String> {
    pattern
        .exact()
        .ok_or_else(|| "?? stands in what is expected, not in what is sent".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A comment\n== Says # aloud\n[MQTT-3.1.0-1] [Larder]\nwith limits.links = 9\nA > 10 02   # two lines\n    \"#\" 00\nA < CONNACK $limits\nB silent\nwait 0.5 s\n";

    fn read(text: &str) -> Result<Vec<Conversation>, String> {
        let names = names("names.txt", "limits = receive_maximum=64").unwrap();
        conversations("v5/x.txt", text, &names)
    }

    #[test]
    fn a_conversation_is_read_with_its_continuations_and_names() {
        let read = read(TEXT).unwrap();
        let [
            Conversation {
                title,
                clauses,
                own_choice: true,
                fresh: true,
                steps,
                line: 2,
                ..
            },
        ] = &read[..]
        else {
            panic!("{read:?}")
        };
        assert_eq!(
            (title.as_str(), &clauses[..]),
            ("Says # aloud", &["[MQTT-3.1.0-1]".to_owned()][..])
        );
        let [
            Step {
                line: 5,
                action: Action::Client(client, Turn::Send(bytes)),
            },
            Step {
                line: 7,
                action: Action::Client(_, Turn::Receive(expected)),
            },
            _,
            Step {
                line: 9,
                action: Action::Wait(_),
            },
        ] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!((client.as_str(), &bytes[..]), ("A", &b"\x10\x02#\0"[..]));
        assert!(
            expected.any_reason_string && expected.pattern.matches(b"\x20\x06\0\0\x03\x21\0\x40")
        );
    }

    #[test]
    fn an_error_names_file_and_line() {
        for (text, place) in [
            ("A > C0 00", "v5/x.txt:1:"),
            ("== t\nA > C0 00", "v5/x.txt:1:"),
            ("== t\n[3.1]\nA > HELLO", "v5/x.txt:3:"),
            ("== t\n[3.1]\n\nA > C0 ??", "v5/x.txt:4:"),
            ("== t\n[3.1]\nA > CONNECT id=\"x", "v5/x.txt:3:"),
            ("== t\n[3.1]\nA waits", "v5/x.txt:3:"),
            ("== t\n[3.1]\nA < CONNACK $nothing", "v5/x.txt:3:"),
            ("== t\n[three]\n", "v5/x.txt:2:"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(place), "{error}");
        }
    }
}
