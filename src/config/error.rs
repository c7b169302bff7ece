//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a configuration cannot be run. Prints as `larder.toml:14: limits.memory_max: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    fault: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In a file: its line, from 1, and the key, if it is about one.
    File {
        path: PathBuf,
        line: Option<usize>,
        key: Option<String>,
    },
    /// On the command line.
    Argument(String),
}

impl ConfigError {
    /// A fault of what the command line says.
    #[must_use]
    pub fn of_argument(argument: &str, fault: &str) -> ConfigError {
        ConfigError {
            place: Place::Argument(argument.to_owned()),
            fault: fault.to_owned(),
        }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
        let place = Place::File {
            path: path.to_owned(),
            line: None,
            key: None,
        };
        let fault = match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; name the configuration with --config".to_owned()
            }
            io::ErrorKind::InvalidData => "is not UTF-8, as TOML must be".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        ConfigError { place, fault }
    }

    /// A fault of what stands at `at` in `text`; without `at`, of what the file leaves out.
    pub(super) fn in_file(
        path: &Path,
        text: &str,
        at: Option<&Range<usize>>,
        fault: String,
    ) -> ConfigError {
        let line = at.map(|at| line(text, at.start));
        let key = at.and_then(|at| key_at(text, at.start));
        ConfigError {
            place: Place::File {
                path: path.to_owned(),
                line,
                key,
            },
            fault,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, line, key } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                f.write_str(": ")?;
                if let Some(key) = key {
                    write!(f, "{key}: ")?;
                }
            }
            Place::Argument(argument) => write!(f, "{argument}: ")?,
        }
        f.write_str(&self.fault)
    }
}

impl std::error::Error for ConfigError {}

fn line(text: &str, offset: usize) -> usize {
    let before = text.len().min(offset);
    1 + text.as_bytes()[..before]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// The path of the key whose name, value or table header covers `offset`, the innermost one. `None` in a text that is
/// not TOML.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut path = Vec::new();
    in_table(document.get_ref(), offset, &mut path).then(|| path.join("."))
}

fn in_table<'a>(table: &'a DeTable<'_>, offset: usize, path: &mut Vec<&'a str>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref());
        if in_value(value, offset, path) || key.span().contains(&offset) {
            return true;
        }
        path.pop();
    }
    false
}

/// A table's own span is its header: what it holds must be searched in any case.
fn in_value<'a>(value: &'a Spanned<DeValue<'_>>, offset: usize, path: &mut Vec<&'a str>) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => in_table(table, offset, path),
        DeValue::Array(items) => items.iter().any(|item| in_value(item, offset, path)),
        _ => false,
    };
    inside || value.span().contains(&offset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_is_found_by_its_place() {
        let text = "a = 1\n[b]\nc = 2\n[[d]]\ne = [{ f = 3 }, { f = \"4\" }]\n[[d]]\n g = 5\n";
        let key = |needle: &str| key_at(text, text.find(needle).unwrap());
        assert_eq!(key("1").as_deref(), Some("a"));
        assert_eq!(key("[b]").as_deref(), Some("b"));
        assert_eq!(key("2").as_deref(), Some("b.c"));
        assert_eq!(key("{ f").as_deref(), Some("d.e"));
        assert_eq!(key("\"4").as_deref(), Some("d.e.f"));
        assert_eq!(key("g =").as_deref(), Some("d.g"));
        assert_eq!(key("[[d]]").as_deref(), Some("d"));
        assert_eq!(key_at("a = ", 4), None);
        assert_eq!(line(text, text.find("g =").unwrap()), 7);
    }
}
