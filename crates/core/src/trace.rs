//! Which distributed trace a run belongs to: W3C's trace context, and X-Ray's way of writing the
//! same.
//!
//! stepwes makes no spans of its own. It hands on what its caller gave it, unchanged, so that what
//! an engine or its tools report hangs below the caller's span.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use uuid::Uuid;

/// The variable by which programs are given it
/// (<https://opentelemetry.io/docs/specs/otel/context/env-carriers/>).
pub const VARIABLE: &str = "TRACEPARENT";

/// W3C's flag that says that the caller may have recorded its span.
const SAMPLED: u8 = 1;

/// How long version 00 is.
const LENGTH: usize = 55;

/// How long it is in bytes.
const BYTES: usize = 25;

/// A trace, and the span in it that caused what is being done: W3C's `traceparent`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>). Its text is of fixed length and of
/// hexadecimal digits and hyphens alone, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// The text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is no traceparent of W3C's trace context")]
pub struct NotATraceParent;

impl TraceParent {
    /// A trace that begins here, recorded by nobody.
    #[must_use]
    pub fn generate() -> Self {
        // Bits of a version 4 UUID that are not random keep both from being zero.
        let parent_id = Uuid::new_v4().as_u64_pair().1;
        Self { trace_id: Uuid::new_v4().as_u128(), parent_id, flags: 0 }
    }

    /// Reads X-Ray's header, such as
    /// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`: the same ids
    /// in another notation. Whoever began the trace may have named no parent; one is made up then.
    /// `None` for anything else.
    /// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>
    #[must_use]
    pub fn from_xray(header: &str) -> Option<Self> {
        let field = |name: &str| {
            header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (time, rest) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
        let trace_id = u128::from(u32::from_str_radix(lower_hex(time, 8)?, 16).ok()?) << 96
            | u128::from_str_radix(lower_hex(rest, 24)?, 16).ok()?;
        let parent_id = match field("Parent") {
            Some(parent) => u64::from_str_radix(lower_hex(parent, 16)?, 16).ok()?,
            None => Self::generate().parent_id,
        };
        let flags = if field("Sampled") == Some("1") { SAMPLED } else { 0 };
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, flags })
    }

    /// All of it in 25 bytes: the trace's id, the span's, the flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.parent_id.to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// What [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// For anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotATraceParent> {
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| NotATraceParent)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
        let trace_id = number(&bytes[..16]);
        let parent_id = u64::try_from(number(&bytes[16..24])).map_err(|_| NotATraceParent)?;
        if trace_id == 0 || parent_id == 0 {
            return Err(NotATraceParent);
        }
        Ok(Self { trace_id, parent_id, flags: bytes[24] & SAMPLED })
    }

    /// The trace's id: 32 hexadecimal digits, as OpenTelemetry's log records have it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    /// Reads any version but the one that W3C forbids; what later ones add is left out.
    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        read(text).ok_or(NotATraceParent)
    }
}

fn read(text: &str) -> Option<TraceParent> {
    let (known, further) = (text.get(..LENGTH)?, text.get(LENGTH..)?);
    let mut parts = known.split('-');
    let mut part = |digits| lower_hex(parts.next()?, digits);
    let (version, trace_id, parent_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let ends = if version == "00" {
        further.is_empty()
    } else {
        further.is_empty() || further.starts_with('-')
    };
    if version == "ff" || !ends {
        return None;
    }
    let trace_id = u128::from_str_radix(trace_id, 16).ok()?;
    let parent_id = u64::from_str_radix(parent_id, 16).ok()?;
    // The one flag of version 00; what others mean is not known.
    let flags = u8::from_str_radix(flags, 16).ok()? & SAMPLED;
    (trace_id != 0 && parent_id != 0).then_some(TraceParent { trace_id, parent_id, flags })
}

/// The text, if it is that many lower-case hexadecimal digits.
fn lower_hex(text: &str, digits: usize) -> Option<&str> {
    let good = text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    good.then_some(text)
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of W3C's recommendation.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_handed_on_as_it_came() {
        let read: TraceParent = EXAMPLE.parse().expect("a traceparent");
        assert_eq!(read.to_string(), EXAMPLE);
        assert_eq!(read.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = EXAMPLE.replace("00-4bf", "cc-4bf") + "-what-will-be";
        assert_eq!(later.parse(), Ok(read), "a later version is read as far as it is known");
    }

    #[test]
    fn nothing_else_is_one() {
        let zero = |of: &str| EXAMPLE.replace(of, &"0".repeat(of.len()));
        for bad in [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE[..54].to_owned(),
            format!("{EXAMPLE}-x"),
            format!("{EXAMPLE}\n"),
            EXAMPLE.replace("00-4bf", "ff-4bf"),
            EXAMPLE.replace("00-4bf", "cc-4bf") + "x",
            EXAMPLE.replace('-', "_"),
            EXAMPLE.replace("4bf", "+bf"),
            zero("4bf92f3577b34da6a3ce929d0e0e4736"),
            zero("00f067aa0ba902b7"),
            "\u{fc}".repeat(40),
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(NotATraceParent), "{bad:?}");
        }
    }

    #[test]
    fn x_rays_header_is_the_same_in_another_notation() {
        let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let read = |header: &str| TraceParent::from_xray(header).map(|read| read.to_string());
        for (header, expected) in [
            (format!("{root};Parent=53995c3f42cd8ad8;Sampled=1"), "-53995c3f42cd8ad8-01"),
            (
                format!("Sampled=0; Parent=53995c3f42cd8ad8; {root};Lineage=a:0"),
                "-53995c3f42cd8ad8-00",
            ),
        ] {
            let expected = format!("00-5759e988bd862e3fe1be46a994272793{expected}");
            assert_eq!(read(&header), Some(expected), "{header}");
        }
        let parentless = TraceParent::from_xray(root).expect("a trace");
        assert_eq!(parentless.trace_id(), "5759e988bd862e3fe1be46a994272793");
        assert_eq!(parentless.to_string().parse(), Ok(parentless), "its parent is none of zeros");
        for bad in [
            "",
            "Root=1-2",
            "Self=1-5759e988-bd862e3fe1be46a994272793",
            "Root=2-5759e988-bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000",
            "Root=1-00000000-000000000000000000000000",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn in_bytes_it_is_the_same() {
        let read: TraceParent = EXAMPLE.parse().expect("a traceparent");
        assert_eq!(TraceParent::from_bytes(&read.to_bytes()), Ok(read));
        assert_eq!(hex::encode(read.to_bytes()), EXAMPLE[3..].replace('-', ""));
        for bad in [&[][..], &[1; 24], &[0; 25], &[1; 26]] {
            assert_eq!(TraceParent::from_bytes(bad), Err(NotATraceParent), "{bad:?}");
        }
    }

    #[test]
    fn a_new_trace_is_a_good_one_and_another_each_time() {
        let new = TraceParent::generate();
        assert_eq!(new.to_string().parse(), Ok(new));
        assert_ne!(new, TraceParent::generate());
    }

    #[test]
    fn in_json_it_is_its_text() {
        let read: TraceParent = EXAMPLE.parse().expect("a traceparent");
        let json = serde_json::to_string(&read).expect("JSON");
        assert_eq!(json, format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<TraceParent>(&json).expect("read again"), read);
        assert!(serde_json::from_str::<TraceParent>("\"x\"").is_err());
    }
}
