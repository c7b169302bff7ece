//! Reason Codes [MQTT 2.4].

use crate::Version;
use core::fmt;

macro_rules! reason_codes {
    ($($name:ident = $code:literal, $wording:literal;)*) => {
        /// Why something succeeded or failed: all codes of MQTT 5.0, table 2-6.
        ///
        /// Granted QoS 0 and Normal disconnection share 0x00 with [`ReasonCode::Success`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            /// Success, Normal disconnection or Granted QoS 0 (`0x00`).
            #[default]
            Success = 0x00,
            $(#[doc = concat!($wording, " (`", stringify!($code), "`).")] $name = $code,)*
        }

        impl ReasonCode {
            /// The reason with this code; `None` if the standard has none.
            #[must_use]
            pub const fn from_u8(code: u8) -> Option<ReasonCode> {
                match code {
                    0x00 => Some(ReasonCode::Success),
                    $($code => Some(ReasonCode::$name),)*
                    _ => None,
                }
            }

            /// The standard's wording, for example "Quota exceeded".
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    ReasonCode::Success => "Success",
                    $(ReasonCode::$name => $wording,)*
                }
            }
        }
    };
}

reason_codes! {
    GrantedQos1 = 0x01, "Granted QoS 1";
    GrantedQos2 = 0x02, "Granted QoS 2";
    DisconnectWithWillMessage = 0x04, "Disconnect with Will Message";
    NoMatchingSubscribers = 0x10, "No matching subscribers";
    NoSubscriptionExisted = 0x11, "No subscription existed";
    ContinueAuthentication = 0x18, "Continue authentication";
    ReAuthenticate = 0x19, "Re-authenticate";
    UnspecifiedError = 0x80, "Unspecified error";
    MalformedPacket = 0x81, "Malformed Packet";
    ProtocolError = 0x82, "Protocol Error";
    ImplementationSpecificError = 0x83, "Implementation specific error";
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version";
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid";
    BadUserNameOrPassword = 0x86, "Bad User Name or Password";
    NotAuthorized = 0x87, "Not authorized";
    ServerUnavailable = 0x88, "Server unavailable";
    ServerBusy = 0x89, "Server busy";
    Banned = 0x8A, "Banned";
    ServerShuttingDown = 0x8B, "Server shutting down";
    BadAuthenticationMethod = 0x8C, "Bad authentication method";
    KeepAliveTimeout = 0x8D, "Keep Alive timeout";
    SessionTakenOver = 0x8E, "Session taken over";
    TopicFilterInvalid = 0x8F, "Topic Filter invalid";
    TopicNameInvalid = 0x90, "Topic Name invalid";
    PacketIdentifierInUse = 0x91, "Packet Identifier in use";
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found";
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded";
    TopicAliasInvalid = 0x94, "Topic Alias invalid";
    PacketTooLarge = 0x95, "Packet too large";
    MessageRateTooHigh = 0x96, "Message rate too high";
    QuotaExceeded = 0x97, "Quota exceeded";
    AdministrativeAction = 0x98, "Administrative action";
    PayloadFormatInvalid = 0x99, "Payload format invalid";
    RetainNotSupported = 0x9A, "Retain not supported";
    QosNotSupported = 0x9B, "QoS not supported";
    UseAnotherServer = 0x9C, "Use another server";
    ServerMoved = 0x9D, "Server moved";
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported";
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded";
    MaximumConnectTime = 0xA0, "Maximum connect time";
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported";
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// Whether the operation failed: 0x80 and above.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The MQTT 3.1.1 Connect Return code that says this best [MQTT 3.1.1, 3.2.2.3]; 3 (Server unavailable) where
    /// 3.1.1 has no word for the reason.
    #[must_use]
    pub const fn v311_return_code(self) -> u8 {
        match self {
            ReasonCode::UnsupportedProtocolVersion => 1,
            ReasonCode::ClientIdentifierNotValid => 2,
            ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => 4,
            ReasonCode::NotAuthorized | ReasonCode::Banned => 5,
            reason if !reason.is_error() => 0,
            _ => 3,
        }
    }

    /// The reason that an MQTT 3.1.1 Connect Return code stands for; `None` above 5.
    #[must_use]
    pub const fn from_v311_return_code(code: u8) -> Option<ReasonCode> {
        match code {
            0 => Some(ReasonCode::Success),
            1 => Some(ReasonCode::UnsupportedProtocolVersion),
            2 => Some(ReasonCode::ClientIdentifierNotValid),
            3 => Some(ReasonCode::ServerUnavailable),
            4 => Some(ReasonCode::BadUserNameOrPassword),
            5 => Some(ReasonCode::NotAuthorized),
            _ => None,
        }
    }
}

/// Which packets may have which reasons: the tables of chapter 3.
impl ReasonCode {
    /// Table 3-1.
    pub(crate) fn is_conn_ack(self) -> bool {
        use ReasonCode as R;
        matches!(self as u8, 0x80..=0x8A)
            || matches!(
                self,
                R::Success
                    | R::BadAuthenticationMethod
                    | R::TopicNameInvalid
                    | R::PacketTooLarge
                    | R::QuotaExceeded
                    | R::PayloadFormatInvalid
                    | R::RetainNotSupported
                    | R::QosNotSupported
                    | R::UseAnotherServer
                    | R::ServerMoved
                    | R::ConnectionRateExceeded
            )
    }

    /// PUBACK and PUBREC: tables 3-4 and 3-5.
    pub(crate) fn is_received(self) -> bool {
        use ReasonCode as R;
        matches!(
            self,
            R::Success
                | R::NoMatchingSubscribers
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicNameInvalid
                | R::PacketIdentifierInUse
                | R::QuotaExceeded
                | R::PayloadFormatInvalid
        )
    }

    /// PUBREL and PUBCOMP: tables 3-6 and 3-7.
    pub(crate) fn is_released(self) -> bool {
        matches!(
            self,
            ReasonCode::Success | ReasonCode::PacketIdentifierNotFound
        )
    }

    /// Table 3-8; 3.1.1 has four return codes.
    pub(crate) fn is_sub_ack(self, version: Version) -> bool {
        use ReasonCode as R;
        match self {
            R::Success | R::GrantedQos1 | R::GrantedQos2 | R::UnspecifiedError => true,
            R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
            | R::QuotaExceeded
            | R::SharedSubscriptionsNotSupported
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported => version == Version::V5,
            _ => false,
        }
    }

    /// Table 3-9.
    pub(crate) fn is_unsub_ack(self) -> bool {
        use ReasonCode as R;
        matches!(
            self,
            R::Success
                | R::NoSubscriptionExisted
                | R::UnspecifiedError
                | R::ImplementationSpecificError
                | R::NotAuthorized
                | R::TopicFilterInvalid
                | R::PacketIdentifierInUse
        )
    }

    /// Table 3-10, and 0x8C which only table 2-6 gives to DISCONNECT.
    pub(crate) fn is_disconnect(self) -> bool {
        use ReasonCode as R;
        match self {
            R::Success | R::DisconnectWithWillMessage => true,
            R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::ServerUnavailable
            | R::Banned
            | R::PacketIdentifierInUse
            | R::PacketIdentifierNotFound => false,
            reason => reason.is_error(),
        }
    }

    /// Table 3-11.
    pub(crate) fn is_auth(self) -> bool {
        use ReasonCode as R;
        matches!(
            self,
            R::Success | R::ContinueAuthentication | R::ReAuthenticate
        )
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.name(), *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        let known = (0..=255).filter_map(ReasonCode::from_u8).count();
        assert_eq!(known, 43);
        for code in 0..=255 {
            if let Some(reason) = ReasonCode::from_u8(code) {
                assert_eq!(reason as u8, code);
                assert_eq!(reason.is_error(), code >= 0x80);
            }
        }
    }

    #[test]
    fn connect_return_codes_of_3_1_1_translate_both_ways() {
        for code in 0..=5 {
            let reason = ReasonCode::from_v311_return_code(code).expect("0 to 5 are known");
            assert_eq!(reason.v311_return_code(), code);
        }
        assert_eq!(ReasonCode::from_v311_return_code(6), None);
        assert_eq!(ReasonCode::QuotaExceeded.v311_return_code(), 3);
    }

    #[test]
    fn displays_the_standards_wording_and_the_code() {
        assert_eq!(
            ReasonCode::QuotaExceeded.to_string(),
            "Quota exceeded (0x97)"
        );
    }
}
