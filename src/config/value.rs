//! Sizes and durations as a person writes them: "48 MiB", "20 ms".

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::time::Duration;

/// A number of bytes as the file has it: `"48 MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A time span as the file has it: `"20 ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// Prints a number of bytes as the configuration writes it: in the largest unit that gives a whole number.
#[derive(Clone, Copy, Debug)]
pub struct ShownSize(pub u64);

/// Prints a duration as the configuration writes it: in the largest unit that gives a whole number; what is finer than
/// a millisecond is cut.
#[derive(Clone, Copy, Debug)]
pub struct ShownDuration(pub Duration);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        deserializer.deserialize_str(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        deserializer.deserialize_str(SpanVisitor)
    }
}

impl fmt::Display for ShownSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownSize(bytes) = *self;
        let unit = SIZE_UNITS
            .iter()
            .rev()
            .find(|(_, unit)| bytes % unit == 0 && bytes > 0);
        match unit {
            Some((name, unit)) => write!(f, "{} {name}", bytes / unit),
            None => write!(f, "{bytes} B"),
        }
    }
}

impl fmt::Display for ShownDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        // One day is "24 h": it would need "day" for a unit.
        let fits = |unit: u128| milliseconds > 0 && milliseconds % unit == 0;
        for (name, unit) in [
            ("days", 86_400_000),
            ("h", 3_600_000),
            ("min", 60_000),
            ("s", 1_000),
        ] {
            if fits(unit) && (name, milliseconds / unit) != ("days", 1) {
                return write!(f, "{} {name}", milliseconds / unit);
            }
        }
        write!(f, "{milliseconds} ms")
    }
}

/// Units of sizes, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Units of durations, in milliseconds.
const DURATION_UNITS: [(&str, u64); 13] = [
    ("ms", 1),
    ("s", 1_000),
    ("second", 1_000),
    ("seconds", 1_000),
    ("min", 60_000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("h", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
];

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size in quotes with its unit, for example \"48 MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        let wrong = || {
            E::custom(format!(
                "{text:?} is not a size; write for example \"48 MiB\" (units: B, KiB, MiB, GiB)"
            ))
        };
        quantity(text, &SIZE_UNITS).map(Size).ok_or_else(wrong)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration in quotes with its unit, for example \"20 ms\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        let wrong = || {
            E::custom(format!(
                "{text:?} is not a duration; write for example \"20 ms\" (units: ms, s, min, h, days)"
            ))
        };
        quantity(text, &DURATION_UNITS)
            .map(|ms| Span(Duration::from_millis(ms)))
            .ok_or_else(wrong)
    }
}

/// A whole number and its unit, with or without spaces between them.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let number_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(number_end);
    let unit = unit.trim_start_matches(' ');
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let size = |text| quantity(text, &SIZE_UNITS);
        assert_eq!(size("0 B"), Some(0));
        assert_eq!(size("48 MiB"), Some(48 << 20));
        assert_eq!(size("48MiB"), Some(48 << 20));
        assert_eq!(size("2 GiB"), Some(2 << 30));
        for wrong in [
            "48 MB",
            "48",
            "MiB",
            "",
            "-1 B",
            "1.5 GiB",
            " 1 B",
            "1 B ",
            "1 mib",
            "17179869184 GiB",
        ] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations() {
        let duration = |text| quantity(text, &DURATION_UNITS);
        assert_eq!(duration("20 ms"), Some(20));
        assert_eq!(duration("20ms"), Some(20));
        assert_eq!(duration("1 second"), Some(1_000));
        assert_eq!(duration("2 min"), Some(120_000));
        assert_eq!(duration("30 days"), Some(30 * 86_400_000));
        for wrong in [
            "20",
            "m",
            "1 m",
            "1 month",
            "1h30",
            "-1 s",
            "999999999999 days",
        ] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written_back() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1_500, "1500 B"),
            (256 << 10, "256 KiB"),
            (1 << 30, "1 GiB"),
            (1 << 40, "1024 GiB"),
        ] {
            assert_eq!(ShownSize(bytes).to_string(), text);
            assert_eq!(quantity(text, &SIZE_UNITS), Some(bytes));
        }
        for (ms, text) in [
            (0, "0 ms"),
            (20, "20 ms"),
            (1_500, "1500 ms"),
            (60_000, "1 min"),
            (90_000, "90 s"),
            (86_400_000, "24 h"),
            (30 * 86_400_000, "30 days"),
            (3 * 86_400_000, "3 days"),
        ] {
            assert_eq!(ShownDuration(Duration::from_millis(ms)).to_string(), text);
            assert_eq!(quantity(text, &DURATION_UNITS), Some(ms));
        }
    }
}
