//! The payloads of SUBSCRIBE and UNSUBSCRIBE: Topic Filters as they stand in the packet, checked once.

use crate::decode::Malformed;
use crate::read::Reader;
use crate::write::Sink;
use crate::{Qos, Version, topic};
use core::fmt;

/// Subscription Options [MQTT 3.8.3.1]. In 3.1.1 there is only the QoS; the others have their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: Qos,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling: send retained messages at each subscribe (0), only for a new subscription (1), never (2).
    pub retain_handling: u8,
}

impl SubscriptionOptions {
    fn from_u8(version: Version, byte: u8) -> Result<Self, Malformed> {
        let reserved = match version {
            Version::V311 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if byte & reserved != 0 {
            return Err(Malformed::packet(
                "MQTT-3.8.3-5",
                "reserved bits of the Subscription Options are set",
            ));
        }
        let qos = Qos::from_u8(byte & 3).ok_or(Malformed::protocol(
            "MQTT 3.8.3.1",
            "the Subscription Options ask for QoS 3",
        ))?;
        let retain_handling = byte >> 4;
        if retain_handling > 2 {
            return Err(Malformed::protocol("MQTT 3.8.3.1", "Retain Handling is 3"));
        }
        Ok(SubscriptionOptions {
            qos,
            no_local: byte & 4 != 0,
            retain_as_published: byte & 8 != 0,
            retain_handling,
        })
    }

    fn to_u8(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | self.retain_handling << 4
    }
}

/// The Topic Filters of a SUBSCRIBE, each with its options: at least one, all checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Filters<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Filters<'a> {
    /// Appends a Topic Filter and its options, as SUBSCRIBE has them, to the bytes of a later
    /// [`Filters::from_encoded`].
    pub fn encode(filter: &str, options: SubscriptionOptions, out: &mut Vec<u8>) {
        out.string(filter);
        out.push(options.to_u8());
    }

    /// Checks the payload of a SUBSCRIBE.
    ///
    /// # Errors
    /// Malformed Packet if there is none, or one is cut short or not a valid Topic Filter; in 5.0 also if a Shared
    /// Subscription has no ShareName or filter. Protocol Error for QoS 3, Retain Handling 3, and No Local on a Shared
    /// Subscription [MQTT-3.8.3-4].
    pub fn from_encoded(version: Version, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut len = 0;
        while !reader.is_empty() {
            let filter = topic_filter(version, &mut reader)?;
            let options = SubscriptionOptions::from_u8(version, reader.u8()?)?;
            if options.no_local && topic::shared(filter).is_some() {
                return Err(Malformed::protocol(
                    "MQTT-3.8.3-4",
                    "No Local is set on a Shared Subscription",
                ));
            }
            len += 1;
        }
        if len == 0 {
            return Err(Malformed::protocol(
                "MQTT-3.8.3-2",
                "a SUBSCRIBE has no Topic Filter",
            ));
        }
        Ok(Filters { bytes, len })
    }

    /// The Topic Filters in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> {
        let mut reader = Reader::new(self.bytes);
        // What was checked is read without error, so that only the end ends this.
        core::iter::from_fn(move || {
            let filter = reader.string().ok()?;
            Some((
                filter,
                SubscriptionOptions::from_u8(Version::V5, reader.u8().ok()?).ok()?,
            ))
        })
    }

    /// How many there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(self) -> usize {
        self.len
    }

    pub(crate) fn write(self, version: Version, sink: &mut impl Sink) {
        match version {
            Version::V5 => sink.put(self.bytes),
            Version::V311 => {
                for (filter, options) in self.iter() {
                    sink.string(filter);
                    sink.u8(options.qos as u8);
                }
            }
        }
    }
}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The Topic Filters of an UNSUBSCRIBE: at least one, all checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> UnsubscribeFilters<'a> {
    /// Appends a Topic Filter, as UNSUBSCRIBE has it, to the bytes of a later [`UnsubscribeFilters::from_encoded`].
    pub fn encode(filter: &str, out: &mut Vec<u8>) {
        out.string(filter);
    }

    /// Checks the payload of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// As [`Filters::from_encoded`].
    pub fn from_encoded(version: Version, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut len = 0;
        while !reader.is_empty() {
            topic_filter(version, &mut reader)?;
            len += 1;
        }
        if len == 0 {
            return Err(Malformed::protocol(
                "MQTT-3.10.3-2",
                "an UNSUBSCRIBE has no Topic Filter",
            ));
        }
        Ok(UnsubscribeFilters { bytes, len })
    }

    /// The Topic Filters in their order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut reader = Reader::new(self.bytes);
        core::iter::from_fn(move || reader.string().ok())
    }

    /// How many there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(self) -> usize {
        self.len
    }

    pub(crate) const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Shared Subscriptions came with 5.0; in 3.1.1 what is not one is a filter like any other.
fn topic_filter<'a>(version: Version, reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let filter = reader.string()?;
    if filter.is_empty() {
        return Err(Malformed::packet("MQTT-4.7.3-1", "a Topic Filter is empty"));
    }
    if !topic::filter_is_valid(filter) {
        let hash_misplaced = filter.strip_suffix('#').unwrap_or(filter).contains('#')
            || (filter.len() > 1 && filter.ends_with('#') && !filter.ends_with("/#"));
        let clause = if hash_misplaced {
            "MQTT-4.7.1-1"
        } else {
            "MQTT-4.7.1-2"
        };
        return Err(Malformed::packet(
            clause,
            "a Topic Filter has a misplaced wildcard",
        ));
    }
    if version == Version::V5
        && filter.starts_with(topic::SHARE_PREFIX)
        && topic::shared(filter).is_none()
    {
        return Err(Malformed::packet(
            "MQTT-4.8.2-2",
            "a Shared Subscription is not $share/{ShareName}/{filter}",
        ));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ReasonCode;

    #[test]
    fn options_take_one_byte_and_come_back() {
        for byte in 0..=255 {
            let options = SubscriptionOptions::from_u8(Version::V5, byte);
            let valid = byte & 0xC0 == 0 && byte & 3 != 3 && byte >> 4 & 3 != 3;
            assert_eq!(options.is_ok(), valid, "{byte:#010b}");
            assert!(options.is_err() || options.unwrap().to_u8() == byte);
            assert_eq!(
                SubscriptionOptions::from_u8(Version::V311, byte).is_ok(),
                byte < 3
            );
        }
    }

    #[test]
    fn filters_are_built_and_read_in_order() {
        let no_local = SubscriptionOptions {
            no_local: true,
            ..SubscriptionOptions::default()
        };
        let mut bytes = Vec::new();
        Filters::encode("a/+", no_local, &mut bytes);
        Filters::encode("#", SubscriptionOptions::default(), &mut bytes);
        let filters = Filters::from_encoded(Version::V5, &bytes).unwrap();
        assert_eq!(filters.len(), 2);
        let all: Vec<_> = filters.iter().collect();
        assert_eq!(
            all,
            [("a/+", no_local), ("#", SubscriptionOptions::default())]
        );
        let mut v311 = Vec::new();
        filters.write(Version::V311, &mut v311);
        assert_eq!(v311, b"\0\x03a/+\0\0\x01#\0");
    }

    #[test]
    fn a_wrong_filter_is_refused_with_its_clause() {
        for (filter, clause) in [
            ("", "MQTT-4.7.3-1"),
            ("a/#/b", "MQTT-4.7.1-1"),
            ("a#", "MQTT-4.7.1-1"),
            ("a+", "MQTT-4.7.1-2"),
            ("+a/#", "MQTT-4.7.1-2"),
            ("a\0", "MQTT-1.5.4-2"),
            ("$share/g", "MQTT-4.8.2-2"),
            ("$share//a", "MQTT-4.8.2-2"),
        ] {
            let mut bytes = Vec::new();
            UnsubscribeFilters::encode(filter, &mut bytes);
            let malformed = UnsubscribeFilters::from_encoded(Version::V5, &bytes).unwrap_err();
            assert_eq!(malformed.clause, clause, "{filter:?}");
            assert_eq!(malformed.reason, ReasonCode::MalformedPacket);
        }
        let mut bytes = Vec::new();
        UnsubscribeFilters::encode("$share/g", &mut bytes);
        assert!(UnsubscribeFilters::from_encoded(Version::V311, &bytes).is_ok());
    }
}
