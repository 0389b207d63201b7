//! What must hold of pages and ranges, whatever a query or a header says.

use http::{HeaderMap, HeaderValue, header};

use crate::{
    Limits,
    paging::{PageRequest, next_offset},
    range::ByteRange,
};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[("range", range), ("page", page)];

/// The size of a log, in two bytes, and a `Range` header: what is answered lies in the log.
pub fn range(input: &[u8]) {
    let Some((size, value)) = input.split_at_checked(2) else { return };
    let total = u64::from(u16::from_be_bytes([size[0], size[1]]));
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, value);
    let Some(asked) = ByteRange::read(&headers) else { return };
    let Some(range) = asked.of(total) else { return };
    assert!(range.start < range.end && range.end <= total, "{asked:?} of {total}: {range:?}");
    match asked {
        ByteRange::From(first) => assert_eq!(range, first..total),
        ByteRange::Between(first, last) => {
            assert_eq!(range.start, first);
            assert_eq!(range.end, total.min(last.saturating_add(1)));
        }
        ByteRange::Last(count) => assert_eq!(range.end - range.start, count.min(total)),
    }
}

/// A query: pages have a size that there is, and following their tokens comes to the end, each
/// item seen once.
pub fn page(input: &[u8]) {
    let limits = Limits::default();
    let query = String::from_utf8_lossy(input);
    let page = match PageRequest::read(Some(&query), &limits) {
        Ok(page) => page,
        Err(error) => return assert_eq!(error.status(), 400),
    };
    assert!((1..=limits.max_page_size).contains(&page.size));
    let mut offset = match page.offset() {
        Ok(offset) => offset,
        Err(error) => return assert_eq!(error.status(), 400),
    };
    let (size, total) = (page.size as usize, 2500);
    let mut seen = total.min(offset);
    for _ in 0..=total {
        let count = total.saturating_sub(offset).min(size);
        seen += count;
        let token = next_offset(offset, count, total);
        if token.is_empty() {
            assert_eq!(seen, total);
            return;
        }
        let next = PageRequest { size: page.size, token: Some(token) };
        offset = next.offset().expect("a token that was given out");
    }
    panic!("the pages do not end");
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
