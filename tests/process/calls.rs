//! System calls, as `strace -f -yy -xx` writes them.
//!
//! Lines stand in the order in which the kernel was entered and left, as far as one thing depends on another: a thread
//! is let go from a call after that line was written.

use std::collections::BTreeMap;

/// A system call: the lines at which it was entered and left, from 0.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) entered: usize,
    pub(crate) left: usize,
    pub(crate) name: String,
    /// What the first file descriptor stands for.
    pub(crate) file: String,
    /// The strings among the arguments, one after the other.
    pub(crate) data: Vec<u8>,
    /// The arguments as they are written, strings and all.
    pub(crate) arguments: String,
    pub(crate) returned: i64,
}

impl Call {
    /// The strings among the arguments.
    pub(crate) fn strings(&self) -> Vec<String> {
        let strings = self.arguments.split('"').skip(1).step_by(2);
        strings
            .map(|string| String::from_utf8_lossy(&unescape(string)).into_owned())
            .collect()
    }

    /// The last argument, a number.
    pub(crate) fn last_number(&self) -> Option<u64> {
        self.arguments.rsplit(", ").next()?.parse().ok()
    }
}

/// The system calls, in the order in which they returned.
///
/// # Errors
/// A sentence, for a trace that is cut.
pub(crate) fn calls(trace: &str) -> Result<Vec<Call>, String> {
    let mut unfinished: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((entered, begun)) = unfinished.remove(thread) else {
                return Err(format!("line {}: what is resumed?", number + 1));
            };
            let end = resumed.split_once(" resumed>").map_or("", |(_, end)| end);
            calls.extend(call(&format!("{begun}{end}"), entered, number)?);
        } else {
            calls.extend(call(rest, number, number)?);
        }
    }
    Ok(calls)
}

/// One call: `pwrite64(5<\x2f…>, "\x00…", 24, 32) = 24`. Signals and exits are none.
fn call(text: &str, entered: usize, left: usize) -> Result<Option<Call>, String> {
    let Some((name, rest)) = text.split_once('(') else {
        return Ok(None);
    };
    // The arguments are hexadecimal, so this is the only such sign; strace aligns it after a resumed call.
    let Some((arguments, returned)) = rest.rsplit_once(" = ") else {
        return Ok(None);
    };
    let arguments = arguments.trim_end();
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    let returned = returned.split([' ', '<']).next().unwrap_or_default();
    // A process that is being killed leaves `?`.
    let Ok(returned) = returned.parse() else {
        return Ok(None);
    };
    let file = arguments.split_once('<').map_or("", |(_, file)| file);
    let file = file.split_once(">,").map_or(file, |(file, _)| file);
    let mut data = Vec::new();
    let mut quoted = arguments.split('"').skip(1);
    while let (Some(string), after) = (quoted.next(), quoted.next()) {
        if after.is_some_and(|after| after.starts_with("...")) {
            return Err(format!(
                "line {}: the data are cut: trace with a larger -s",
                entered + 1
            ));
        }
        data.extend(unescape(string));
    }
    Ok(Some(Call {
        entered,
        left,
        name: name.to_owned(),
        file: String::from_utf8_lossy(&unescape(file.trim_end_matches('>'))).into_owned(),
        data,
        arguments: arguments.to_owned(),
        returned,
    }))
}

/// Reads `\x2f`; what is not escaped stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = rest
            .strip_prefix(b"\\x")
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}
