//! Bytes of which some are left open: what a conversation expects, and how its values are written.

use std::ops::RangeInclusive;

/// Expected bytes in order, each as the range in which it may lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<RangeInclusive<u8>>);

const ANY: RangeInclusive<u8> = 0..=0xFF;

impl Pattern {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.0.push(byte..=byte);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.iter().map(|byte| *byte..=*byte));
    }

    pub(crate) fn append(&mut self, other: &Pattern) {
        self.0.extend_from_slice(&other.0);
    }

    /// Appends a Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
    pub(crate) fn varint(&mut self, mut value: usize) {
        loop {
            let low = u8::try_from(value & 0x7F).expect("seven bits");
            value >>= 7;
            self.push(if value > 0 { low | 0x80 } else { low });
            if value == 0 {
                return;
            }
        }
    }

    /// Appends a string or binary value with its two-byte length before it.
    pub(crate) fn counted(&mut self, value: &Pattern) -> Result<(), String> {
        let length = u16::try_from(value.len())
            .map_err(|_| format!("a value of {} bytes: at most 65535 fit", value.len()))?;
        self.bytes(&length.to_be_bytes());
        self.append(value);
        Ok(())
    }

    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        self.len() == bytes.len() && self.first_difference(bytes).is_none()
    }

    /// The offset of the first byte that differs, or at which one of the two ends.
    pub(crate) fn first_difference(&self, bytes: &[u8]) -> Option<usize> {
        let differs = self
            .0
            .iter()
            .zip(bytes)
            .position(|(want, got)| !want.contains(got));
        differs.or_else(|| (self.len() != bytes.len()).then(|| self.len().min(bytes.len())))
    }

    /// The bytes themselves; `None` if one of them is left open.
    pub(crate) fn exact(&self) -> Option<Vec<u8>> {
        let exact =
            |range: &RangeInclusive<u8>| (range.start() == range.end()).then(|| *range.start());
        self.0.iter().map(exact).collect()
    }

    /// The bytes with `filler` where any byte will do, and the lowest that will do elsewhere.
    pub(crate) fn filled(&self, filler: u8) -> Vec<u8> {
        let fill = |range: &RangeInclusive<u8>| {
            if *range == ANY {
                filler
            } else {
                *range.start()
            }
        };
        self.0.iter().map(fill).collect()
    }

    /// In hex; `??` where any byte will do, `3A-3B` where one of a range will.
    pub(crate) fn hex(&self) -> String {
        let hex = |range: &RangeInclusive<u8>| match (range.start(), range.end()) {
            _ if *range == ANY => "??".to_owned(),
            (low, high) if low == high => format!("{low:02X}"),
            (low, high) => format!("{low:02X}-{high:02X}"),
        };
        hex_of(self.0.iter().map(hex), self.len())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    hex_of(bytes.iter().map(|byte| format!("{byte:02X}")), bytes.len())
}

fn hex_of(bytes: impl Iterator<Item = String>, length: usize) -> String {
    const SHOWN: usize = 96;
    let mut shown = bytes.take(SHOWN).collect::<Vec<_>>().join(" ");
    if length > SHOWN {
        shown.push_str(&format!(" … ({length} bytes)"));
    }
    shown
}

/// Reads a string or binary value: `"text"` with `\xNN`, `\"` and `\\`; `0xA1B2`; `??`; each may end in `*n` to repeat it.
pub(crate) fn value(written: &str) -> Result<Pattern, String> {
    let (unit, times) = match written.rfind(['*', '"']) {
        Some(at) if written.as_bytes()[at] == b'*' => {
            let times = written[at + 1..]
                .parse::<usize>()
                .map_err(|_| format!("`{written}`: no number after *"))?;
            (&written[..at], times)
        }
        _ => (written, 1),
    };
    let unit = if let Some(quoted) = unit.strip_prefix('"') {
        let quoted = quoted
            .strip_suffix('"')
            .ok_or_else(|| format!("`{written}`: no closing quote"))?;
        text(quoted)?
    } else {
        pairs(unit.strip_prefix("0x").unwrap_or(unit))
            .ok_or_else(|| format!("`{written}` is neither \"text\" nor 0x and hex bytes"))?
    };
    Ok(Pattern(
        std::iter::repeat_n(unit.0, times).flatten().collect(),
    ))
}

/// Reads a number of `width` bytes: decimal; `58..60` for any of these, which may differ in the last byte only; or `0x`
/// and exactly that many bytes, of which some may be `??`.
pub(crate) fn number(written: &str, width: usize) -> Result<Pattern, String> {
    let wrong = || format!("`{written}` is not a number of {width} bytes");
    if let Some(digits) = written.strip_prefix("0x") {
        return pairs(digits)
            .filter(|bytes| bytes.len() == width)
            .ok_or_else(wrong);
    }
    let (low, high) = written.split_once("..").unwrap_or((written, written));
    let decimal = |digits: &str| {
        digits
            .parse::<u64>()
            .map(u64::to_be_bytes)
            .map_err(|_| wrong())
    };
    let (low, high) = (decimal(low)?, decimal(high)?);
    if low[..8 - width].iter().any(|byte| *byte != 0) || low[..7] != high[..7] {
        return Err(wrong());
    }
    Ok(Pattern(
        low.into_iter()
            .zip(high)
            .map(|(low, high)| low..=high)
            .skip(8 - width)
            .collect(),
    ))
}

fn text(quoted: &str) -> Result<Pattern, String> {
    let mut pattern = Pattern::default();
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        pattern.bytes(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        rest = if let Some(digits) = escape.strip_prefix('x').and_then(|escape| escape.get(..2)) {
            pattern.append(&pairs(digits).ok_or_else(|| format!("\\x{digits} is not a byte"))?);
            &escape[3..]
        } else if escape.starts_with(['"', '\\']) {
            pattern.bytes(&escape.as_bytes()[..1]);
            &escape[1..]
        } else {
            return Err(format!(
                "unknown escape in \"{quoted}\": there are \\xNN, \\\" and \\\\"
            ));
        };
    }
    pattern.bytes(rest.as_bytes());
    Ok(pattern)
}

fn pairs(digits: &str) -> Option<Pattern> {
    if digits.is_empty() || digits.len() % 2 != 0 || !digits.is_ascii() {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        b"??" => Some(ANY),
        _ if pair.iter().all(u8::is_ascii_hexdigit) => {
            let pair = std::str::from_utf8(pair).ok()?;
            let byte = u8::from_str_radix(pair, 16).ok()?;
            Some(byte..=byte)
        }
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>().map(Pattern)
}

#[test]
fn values_and_numbers_are_read_as_documented() {
    assert_eq!(
        value("\"a\\x00\\\"b\"").unwrap().exact().unwrap(),
        b"a\0\"b"
    );
    assert_eq!(value("\"ab\"*3").unwrap().exact().unwrap(), b"ababab");
    assert_eq!(value("\"a*2\"").unwrap().exact().unwrap(), b"a*2");
    assert_eq!(value("0xA1b2").unwrap().exact().unwrap(), [0xA1, 0xB2]);
    assert!(value("??*4").unwrap().matches(b"1234"));
    assert_eq!(number("258", 2).unwrap().exact().unwrap(), [1, 2]);
    assert!(number("0x01??", 2).unwrap().matches(&[1, 7]));
    let range = number("314..316", 2).unwrap();
    assert!(range.matches(&[1, 58]) && range.matches(&[1, 60]) && !range.matches(&[1, 61]));
    assert!(number("65536", 2).is_err() && number("255..256", 2).is_err());
    assert!(value("zz").is_err() && value("\"open").is_err() && value("\"\\q\"").is_err());
}

#[test]
fn a_variable_byte_integer_has_its_shortest_form() {
    for (value, bytes) in [
        (0, &[0x00][..]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
    ] {
        let mut pattern = Pattern::default();
        pattern.varint(value);
        assert_eq!(pattern.exact().unwrap(), bytes);
    }
}
