//! Byte ranges of a log (RFC 9110, section 14).

use std::ops::Range;

use http::{HeaderMap, header};

/// One range as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    /// `bytes=N-`.
    From(u64),
    /// `bytes=N-M`.
    Between(u64, u64),
    /// `bytes=-N`.
    Last(u64),
}

impl ByteRange {
    /// The range in a request's headers. What is malformed, names several ranges, or depends on a
    /// validator (of which we give none) is ignored, as the RFC has it.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(header::IF_RANGE) {
            return None;
        }
        let spec = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
        let (first, last) = spec.trim().split_once('-')?;
        let number = |digits: &str| {
            let digits = digits.trim();
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                digits.parse().ok()
            } else {
                None
            }
        };
        match (first.trim(), last.trim()) {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes of a log of `total` bytes that are meant; `None` when there are none.
    pub(crate) fn of(self, total: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => first..total,
            Self::Between(first, last) => first..last.saturating_add(1).min(total),
            Self::Last(count) => total.saturating_sub(count)..total,
        };
        (range.start < range.end).then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(value: &str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(value).expect("a header"));
        ByteRange::read(&headers)
    }

    #[test]
    fn one_range_is_read_and_anything_else_ignored() {
        for (value, expected) in [
            ("bytes=0-", Some(ByteRange::From(0))),
            ("bytes=5-9", Some(ByteRange::Between(5, 9))),
            ("bytes=-3", Some(ByteRange::Last(3))),
            ("bytes= 5 - 9 ", Some(ByteRange::Between(5, 9))),
            ("bytes=9-5", None),
            ("bytes=0-1,4-5", None),
            ("bytes=+1-2", None),
            ("bytes=-", None),
            ("bytes=x-", None),
            ("bytes=99999999999999999999-", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
        let mut conditional = HeaderMap::new();
        conditional.insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
        conditional.insert(header::IF_RANGE, HeaderValue::from_static("\"x\""));
        assert_eq!(ByteRange::read(&conditional), None);
    }

    #[test]
    fn a_range_is_cut_at_the_end_and_one_beyond_it_is_none() {
        for (range, total, expected) in [
            (ByteRange::From(3), 10, Some(3..10)),
            (ByteRange::From(10), 10, None),
            (ByteRange::Between(3, 4), 10, Some(3..5)),
            (ByteRange::Between(3, u64::MAX), 10, Some(3..10)),
            (ByteRange::Between(10, 12), 10, None),
            (ByteRange::Last(4), 10, Some(6..10)),
            (ByteRange::Last(40), 10, Some(0..10)),
            (ByteRange::Last(0), 10, None),
            (ByteRange::From(0), 0, None),
        ] {
            assert_eq!(range.of(total), expected, "{range:?}");
        }
    }
}
