//! Rust source as this test reads it: the paths that it names, without comments, strings and unit tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A path that a file names, as it is written: `["crate", "net", "LinkId"]`. A `use` with braces gives one for each name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) words: Vec<String>,
}

/// What the code of a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    /// `::`
    Separator,
    Mark(char),
}

/// A token and its line, counted from 1.
pub(crate) type Placed = (usize, Token);

/// The code of a file: no comments, no literals, nothing under `#[cfg(test)]`.
pub(crate) fn code(text: &str) -> Vec<Placed> {
    without_tests(tokens(text))
}

/// All paths of two words or more.
pub(crate) fn paths(code: &[Placed]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let begins = matches!(code[at].1, Token::Word(_))
            && (at == 0 || code[at - 1].1 != Token::Separator || leads(code, at - 1));
        if begins {
            at = path(code, at, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found.retain(|named| named.words.len() > 1);
    found
}

/// Whether the separator at `at` begins a path, as in `::std::fs`.
fn leads(code: &[Placed], at: usize) -> bool {
    at == 0 || !matches!(&code[at - 1].1, Token::Word(_) | Token::Mark('>'))
}

/// Reads a path from `at` on, after the words in `prefix`; gives back where it ends.
fn path(code: &[Placed], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Named>) -> usize {
    let (line, depth) = (code[at].0, prefix.len());
    loop {
        match code.get(at).map(|(_, token)| token) {
            Some(Token::Word(word)) => prefix.push(word.clone()),
            Some(Token::Mark('*')) => prefix.push("*".to_owned()),
            Some(Token::Mark('{')) => {
                at = group(code, at + 1, prefix, found);
                prefix.truncate(depth);
                return at;
            }
            _ => break,
        }
        at += 1;
        if code.get(at).map(|(_, token)| token) != Some(&Token::Separator) {
            break;
        }
        at += 1;
    }
    found.push(Named {
        line,
        words: prefix.clone(),
    });
    prefix.truncate(depth);
    at
}

/// Reads the rest of `{a, b::c}`.
fn group(
    code: &[Placed],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Named>,
) -> usize {
    while let Some((_, token)) = code.get(at) {
        at = match token {
            Token::Mark('}') => return at + 1,
            // `a as b`: the new name is no path.
            Token::Word(word) if word == "as" => at + 2,
            Token::Word(_) | Token::Mark('{' | '*') => path(code, at, prefix, found),
            _ => at + 1,
        };
    }
    at
}

/// Leaves out what is compiled for unit tests only: `#[cfg(test)]` and the item after it.
fn without_tests(code: Vec<Placed>) -> Vec<Placed> {
    let cfg_test = ['#', '[', 'c', '(', 't', ')', ']'];
    let is_cfg_test = |at: usize| {
        code.len() >= at + cfg_test.len()
            && cfg_test
                .iter()
                .zip(&code[at..])
                .all(|(expected, (_, token))| match (expected, token) {
                    ('c', Token::Word(word)) => word == "cfg",
                    ('t', Token::Word(word)) => word == "test",
                    (mark, Token::Mark(found)) => mark == found,
                    _ => false,
                })
    };
    let mut kept = Vec::with_capacity(code.len());
    let mut at = 0;
    while at < code.len() {
        if is_cfg_test(at) {
            at = item_end(&code, at + cfg_test.len());
        } else {
            kept.push(code[at].clone());
            at += 1;
        }
    }
    kept
}

/// Where the item ends that begins at `at`: after its block, or after its semicolon.
fn item_end(code: &[Placed], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some((_, token)) = code.get(at) {
        at += 1;
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') if depth == 1 => return at,
            Token::Mark('}') => depth -= 1,
            Token::Mark(';') if depth == 0 => return at,
            _ => {}
        }
    }
    at
}

fn tokens(text: &str) -> Vec<Placed> {
    let mut rest = text;
    let mut line = 1;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (taken, token) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some(taken) = raw_string(rest) {
            (taken, None)
        } else if first == '"' {
            (quoted(rest, '"'), None)
        } else if first == '\'' {
            (character_or_lifetime(rest), None)
        } else if first.is_alphabetic() || first == '_' {
            let word = leading_word(rest);
            // The prefix of a byte or C string is no word.
            let prefix = matches!(word, "b" | "c") && rest[1..].starts_with(['"', '\'']);
            (word.len(), (!prefix).then(|| Token::Word(word.to_owned())))
        } else if first.is_ascii_digit() {
            (leading_word(rest).len(), None)
        } else if rest.starts_with("::") {
            (2, Some(Token::Separator))
        } else if first.is_whitespace() {
            (first.len_utf8(), None)
        } else {
            (first.len_utf8(), Some(Token::Mark(first)))
        };
        tokens.extend(token.map(|token| (line, token)));
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    tokens
}

fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            match text[at..].chars().next() {
                Some(c) => at += c.len_utf8(),
                None => return at,
            }
        }
    }
}

/// Length of the raw string at the beginning, if there is one: `r#"…"#`, `br"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let after = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end)? + end.len();
    Some(text.len() - body.len() + length)
}

/// Length of a literal between two `quote`s, with escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') {
        quoted(text, '\'')
    } else {
        1 + leading_word(&text[1..]).len()
    }
}

/// All Rust files below a folder of the workspace, sorted, with `/`-separated names from its root.
pub(crate) fn files(folder: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = r##"
        //! crate::comment
        use std::{fmt, io::{self, Write as _}};
        use crate::net::LinkId;
        /* mio::comment /* nested */ */
        fn f<'a>(x: &'a str, c: char) -> Vec::<u8> {
            let _ = "mio::string"; let _ = r#"mio::raw""#; let _ = ('"', '\'', b'"');
            <T as serde::Serialize>::f(); crate::limits::PAGES; log::info!("{}", super::x);
            ::std::thread::spawn(y);
        }
        #[cfg(test)]
        #[allow(x)]
        mod tests { use mio::Poll; fn f() { g(); } }
        #[cfg(test)]
        mod more;
        use a::*;
    "##;
    let found: Vec<String> = paths(&code(text))
        .iter()
        .map(|named| format!("{}: {}", named.line, named.words.join("::")))
        .collect();
    assert_eq!(
        found,
        [
            "3: std::fmt",
            "3: std::io::self",
            "3: std::io::Write",
            "4: crate::net::LinkId",
            "8: serde::Serialize",
            "8: crate::limits::PAGES",
            "8: log::info",
            "8: super::x",
            "9: std::thread::spawn",
            "16: a::*",
        ]
    );
}
