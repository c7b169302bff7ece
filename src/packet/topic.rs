//! Topic Names and Topic Filters [MQTT 4.7], Shared Subscriptions [MQTT 4.8.2].

/// Whether `name` is a Topic Name: 1 to 65,535 bytes [MQTT-4.7.3-1] [MQTT-4.7.3-3], no wildcard [MQTT-4.7.0-1], no
/// U+0000 [MQTT-4.7.3-2].
#[inline]
#[must_use]
pub fn name_is_valid(name: &str) -> bool {
    (1..=LENGTH_MAX).contains(&name.len()) && !has_any_of(name.as_bytes(), *b"\0+#")
}

/// Whether one of these bytes is there: eight are looked at together.
#[inline]
fn has_any_of(bytes: &[u8], wanted: [u8; 3]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest zero byte of a word, and perhaps others above it, come out as 0x80.
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut words = bytes.chunks_exact(8);
    let found = words.any(|word| {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        let of = |byte: u8| has_zero(word ^ (ONES * u64::from(byte)));
        of(wanted[0]) | of(wanted[1]) | of(wanted[2]) != 0
    });
    found || words.remainder().iter().any(|byte| wanted.contains(byte))
}

/// Whether `filter` is a Topic Filter: 1 to 65,535 bytes, no U+0000, `#` only as the whole last level
/// [MQTT-4.7.1-1], `+` only as a whole level [MQTT-4.7.1-2].
///
/// A filter that begins with `$share/` is held to these rules as a whole; whether it is a well-formed Shared
/// Subscription says [`shared`].
#[must_use]
pub fn filter_is_valid(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > LENGTH_MAX || filter.as_bytes().contains(&0) {
        return false;
    }
    let mut rest = levels(filter);
    while let Some(level) = rest.next() {
        let valid = match level {
            "+" => true,
            "#" => rest.next().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !valid {
            return false;
        }
    }
    true
}

/// Whether a message to the Topic Name `name` is for a subscription to the Topic Filter `filter`. Both are taken as
/// valid. A wildcard in the first level does not match a name that begins with `$` [MQTT-4.7.2-1].
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && begins_with_wildcard(filter) {
        return false;
    }
    let mut name = levels(name);
    for level in levels(filter) {
        if level == "#" {
            // Also the parent level itself, at which the name has just ended [MQTT 4.7.1.2].
            return true;
        }
        match name.next() {
            Some(named) if level == "+" || level == named => {}
            _ => return false,
        }
    }
    name.next().is_none()
}

/// Whether some Topic Name matches both Topic Filters. Both are taken as valid, and neither as shared.
#[must_use]
pub fn intersects(a: &str, b: &str) -> bool {
    if (a.starts_with('$') && begins_with_wildcard(b))
        || (b.starts_with('$') && begins_with_wildcard(a))
    {
        return false;
    }
    if matches!((a, b), ("+", "/#") | ("/#", "+")) {
        // What they have in common, the parent level of `/#`, would be an empty Topic Name.
        return false;
    }
    let (mut a, mut b) = (levels(a), levels(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(a), Some(b)) if a == "+" || b == "+" || a == b => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// The levels of a Topic Name or Topic Filter, as the separator `/` divides it; a level may be empty [MQTT 4.7.1.1].
#[inline]
pub fn levels(topic: &str) -> impl Iterator<Item = &str> {
    topic.split('/')
}

/// A Shared Subscription: `$share/{ShareName}/{filter}` [MQTT 4.8.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared<'a> {
    /// The ShareName: the group whose members share the messages.
    pub group: &'a str,
    /// The Topic Filter.
    pub filter: &'a str,
}

/// The parts of a Shared Subscription. `None` if `filter` is not one: it does not begin with `$share/`, its ShareName
/// is empty [MQTT-4.8.2-1] or has a wildcard, or no valid Topic Filter follows [MQTT-4.8.2-2].
#[must_use]
pub fn shared(filter: &str) -> Option<Shared<'_>> {
    let (group, filter) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
    let valid = !group.is_empty() && !group.contains(['+', '#']) && filter_is_valid(filter);
    valid.then_some(Shared { group, filter })
}

/// What every Shared Subscription begins with.
pub(crate) const SHARE_PREFIX: &str = "$share/";

/// The longest string that MQTT can carry, in bytes [MQTT-4.7.3-3].
const LENGTH_MAX: usize = 65_535;

fn begins_with_wildcard(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        let others: Vec<u8> = (1..=255).filter(|byte| !b"+#".contains(byte)).collect();
        for len in 0..40 {
            for start in [0, 100, 200] {
                let mut bytes: Vec<u8> = others
                    .iter()
                    .cycle()
                    .skip(start)
                    .take(len)
                    .copied()
                    .collect();
                assert!(!has_any_of(&bytes, *b"\0+#"), "{bytes:?}");
                for at in 0..len {
                    for wanted in *b"\0+#" {
                        let before = std::mem::replace(&mut bytes[at], wanted);
                        assert!(has_any_of(&bytes, *b"\0+#"), "{bytes:?}");
                        bytes[at] = before;
                    }
                }
            }
        }
    }

    #[test]
    fn names() {
        for name in [
            "a",
            "/",
            "a//b",
            "$SYS/x",
            " ",
            "Ä/ö",
            "sport/tennis/player1",
        ] {
            assert!(name_is_valid(name), "{name:?}");
        }
        for name in ["", "#", "+", "a/#", "a+b", "a\0b"] {
            assert!(!name_is_valid(name), "{name:?}");
        }
        assert!(name_is_valid(&"x".repeat(65_535)));
        assert!(!name_is_valid(&"x".repeat(65_536)));
    }

    #[test]
    fn filters() {
        // The valid and invalid examples of 4.7.1.2 and 4.7.1.3 come first.
        for filter in [
            "sport/tennis/player1/#",
            "sport/#",
            "#",
            "sport/tennis/#",
            "+",
            "+/tennis/#",
            "sport/+/player1",
            "/finance",
            "/+",
            "+/+",
            "$SYS/#",
            "a//b",
            "/",
            "$share/g/+",
        ] {
            assert!(filter_is_valid(filter), "{filter:?}");
        }
        for filter in [
            "sport/tennis#",
            "sport/tennis/#/ranking",
            "sport+",
            "",
            "a/#b",
            "##",
            "++",
            "#/",
            "+a/b",
            "a\0",
            "a/#/",
        ] {
            assert!(!filter_is_valid(filter), "{filter:?}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_4_7() {
        for (filter, name) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("#", "/"),
            ("+/#", "a"),
            ("a//b", "a//b"),
            ("a/$b", "a/$b"),
            ("a/+", "a/$b"),
        ] {
            assert!(matches(filter, name), "{filter:?} {name:?}");
            assert!(intersects(filter, name), "{filter:?} {name:?}");
            assert!(intersects(name, filter), "{filter:?} {name:?}");
        }
        for (filter, name) in [
            ("sport/+", "sport"),
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("+", "$x"),
            ("a", "A"),
            ("a/b", "a"),
            ("a", "a/"),
        ] {
            assert!(!matches(filter, name), "{filter:?} {name:?}");
            assert!(!intersects(filter, name), "{filter:?} {name:?}");
            assert!(!intersects(name, filter), "{filter:?} {name:?}");
        }
    }

    #[test]
    fn filters_intersect_exactly_when_a_name_matches_both() {
        let filters = [
            "#", "+", "+/+", "+/#", "a", "a/#", "a/+", "+/b", "a/b", "a/b/#", "/", "/#", "+/b/+",
            "$s", "$s/#", "$s/+", "a/+/c", "b/#", "//", "/+",
        ];
        let words = ["", "a", "b", "c", "$s"];
        let mut names: Vec<String> = words.map(String::from).to_vec();
        for one in words {
            for two in words {
                names.push(format!("{one}/{two}"));
                names.extend(words.map(|three| format!("{one}/{two}/{three}")));
            }
        }
        names.retain(|name| name_is_valid(name));
        for a in filters {
            for b in filters {
                let witness = names
                    .iter()
                    .find(|name| matches(a, name) && matches(b, name));
                assert_eq!(
                    intersects(a, b),
                    witness.is_some(),
                    "{a:?} {b:?} {witness:?}"
                );
            }
        }
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        assert_eq!(
            shared("$share/consumer1/sport/tennis/+"),
            Some(Shared {
                group: "consumer1",
                filter: "sport/tennis/+"
            })
        );
        assert_eq!(
            shared("$share/g//finance"),
            Some(Shared {
                group: "g",
                filter: "/finance"
            })
        );
        for filter in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g#/a",
            "share/g/a",
            "a",
        ] {
            assert_eq!(shared(filter), None, "{filter:?}");
        }
    }
}
