//! What the visitor sees: headings, lines, and on a terminal one line that changes.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Stdout, Write};

/// Every line fits a terminal of 80 columns.
const COLUMNS: usize = 79;
const BAR_COLUMNS: usize = 24;

/// Standard output. Where it is not a terminal, only whole lines without control characters are written.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
    live: bool,
    colour: bool,
    /// A line that changes stands on the terminal, without its end.
    open: bool,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let out = io::stdout();
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let live = out.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        Screen {
            out,
            live,
            colour: live && !set("NO_COLOR"),
            open: false,
        }
    }

    pub(super) fn title(&mut self, text: &str) {
        let text = self.styled(Style::Bold, text);
        self.write(&format!("{text}\n"));
    }

    /// Begins a scene.
    pub(super) fn heading(&mut self, number: u32, text: &str) {
        let text = self.styled(Style::Bold, &format!("{number}  {text}"));
        self.write(&format!("\n{text}\n"));
    }

    /// A line that stays, in place of the one that changes.
    pub(super) fn line(&mut self, text: &str) {
        self.write(&format!("   {text}\n"));
    }

    /// A line that gives way to the next one; shown on a terminal only.
    pub(super) fn live(&mut self, text: &str) {
        if self.live {
            let text: String = text.chars().take(COLUMNS - 3).collect();
            self.write(&format!("   {text}"));
            self.open = true;
        }
    }

    /// How far it is, for a terminal only.
    pub(super) fn progress(&mut self, done: u64, of: u64, text: &str) {
        if self.live {
            let share = done as f64 / of.max(1) as f64;
            let full = ((share * BAR_COLUMNS as f64) as usize).min(BAR_COLUMNS);
            let bar = format!("{:.<BAR_COLUMNS$}", "#".repeat(full));
            // Rounded down: 100 % is all.
            self.live(&format!(
                "[{bar}] {:3.0} %  {text}",
                (share * 100.0).floor()
            ));
        }
    }

    /// A row of the table: what, how much, and what it means.
    pub(super) fn row(&mut self, name: &str, value: &str, note: &str) {
        let value = format!("{value:>11}");
        self.write_row(name, &value, note);
    }

    /// A row that decides.
    pub(super) fn verdict_row(&mut self, name: &str, value: &str, note: &str, good: bool) {
        let style = if good { Style::Good } else { Style::Bad };
        let value = self.styled(style, &format!("{value:>11}"));
        self.write_row(name, &value, note);
    }

    /// The last line.
    pub(super) fn verdict(&mut self, text: &str, good: bool) {
        let style = if good { Style::Good } else { Style::Bad };
        let text = self.styled(style, text);
        self.write(&format!("\n   {text}\n"));
    }

    fn write_row(&mut self, name: &str, value: &str, note: &str) {
        let note = self.styled(Style::Dim, note);
        let row = format!("   {name:<16}{value}   {note}");
        self.write(&format!("{}\n", row.trim_end()));
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "1;32",
            Style::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn write(&mut self, text: &str) {
        let begin = if self.open { "\r\x1b[K" } else { "" };
        self.open = false;
        // Where nobody reads any more, the exit code still tells.
        let _ = write!(self.out, "{begin}{text}");
        let _ = self.out.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.open {
            self.write("");
        }
    }
}

/// A number with its thousands apart.
pub(super) fn count(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that suits them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let shown = [0, 999, 1_000, 98_765, 1_234_567].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "98,765", "1,234,567"]);
        let shown = [0, 1_023, 1_536, 8 << 20].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "8.0 MiB"]);
    }
}
