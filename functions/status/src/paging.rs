//! Pages: how many, from where, and where the next one begins.

use serde::Serialize;
use stepwes_core::ApiError;
use url::form_urlencoded;

use crate::Limits;

/// The `page_size` and `page_token` of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// How many items at most.
    pub(crate) size: u32,
    /// Where to begin; `None` at the beginning.
    pub(crate) token: Option<String>,
}

impl PageRequest {
    /// Reads a query string. An empty token is the first page's, as clients that pass on the last
    /// answer's token have it; other parameters are not ours.
    pub(crate) fn read(query: Option<&str>, limits: &Limits) -> Result<Self, ApiError> {
        let mut page = Self { size: limits.default_page_size, token: None };
        let (mut sizes, mut tokens) = (0, 0);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "page_size" => {
                    sizes += 1;
                    let allowed = 1..=limits.max_page_size;
                    page.size =
                        value.parse().ok().filter(|size| allowed.contains(size)).ok_or_else(
                            || {
                                ApiError::BadRequest(format!(
                                    "page_size must be a number from 1 to {}",
                                    limits.max_page_size
                                ))
                            },
                        )?;
                }
                "page_token" => {
                    tokens += 1;
                    page.token = Some(value.into_owned()).filter(|token| !token.is_empty());
                }
                _ => {}
            }
        }
        if sizes > 1 || tokens > 1 {
            return Err(ApiError::BadRequest(
                "page_size and page_token may be given once each".to_owned(),
            ));
        }
        Ok(page)
    }

    /// The token read as the number of items before the page.
    pub(crate) fn offset(&self) -> Result<usize, ApiError> {
        self.token.as_deref().map_or(Ok(0), |token| token.parse().map_err(|_| bad_token()))
    }
}

/// The error for a token that we have not given out.
pub(crate) fn bad_token() -> ApiError {
    ApiError::BadRequest(
        "page_token is not one that this service gave out; begin without it".to_owned(),
    )
}

/// The token of the page that begins after `offset` and `count` items of `total`; `""` at the end.
pub(crate) fn next_offset(offset: usize, count: usize, total: usize) -> String {
    let next = offset.saturating_add(count);
    if count > 0 && next < total { next.to_string() } else { String::new() }
}

/// Cuts off the items that would make the page larger than `max` bytes of JSON; one always stays.
/// Gives whether any was cut off.
pub(crate) fn fit<T: Serialize>(items: &mut Vec<T>, max: usize) -> bool {
    let mut size = 0;
    let fitting = items
        .iter()
        .take_while(|item| {
            size += serde_json::to_vec(item).map_or(0, |text| text.len() + 1);
            size <= max
        })
        .count()
        .max(1);
    let cut = fitting < items.len();
    items.truncate(fitting);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<PageRequest, ApiError> {
        PageRequest::read(Some(query), &Limits::default())
    }

    #[test]
    fn sizes_outside_the_limits_and_repetitions_are_refused() {
        assert_eq!(read("").map(|page| page.size), Ok(100));
        assert_eq!(read("page_size=1000&x=y").map(|page| page.size), Ok(1000));
        for bad in [
            "page_size=0",
            "page_size=1001",
            "page_size=-1",
            "page_size=",
            "page_size=ten",
            "page_size=1.0",
            "page_size=99999999999999999999",
            "page_size=1&page_size=2",
            "page_token=1&page_token=1",
        ] {
            assert_eq!(read(bad).expect_err(bad).status(), 400);
        }
    }

    #[test]
    fn an_empty_token_begins_at_the_beginning() {
        assert_eq!(read("page_token=").map(|page| page.token), Ok(None));
        assert_eq!(read("page_token=12").expect("good").offset(), Ok(12));
        assert_eq!(read("page_token=x").expect("good").offset(), Err(bad_token()));
    }

    #[test]
    fn the_token_after_the_last_item_is_empty() {
        assert_eq!(next_offset(0, 2, 3), "2");
        assert_eq!(next_offset(2, 1, 3), "");
        assert_eq!(next_offset(5, 0, 3), "");
        assert_eq!(next_offset(usize::MAX, 1, 3), "");
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_but_is_never_empty() {
        let mut items = vec!["x".repeat(10); 5];
        assert!(fit(&mut items, 30));
        assert_eq!(items.len(), 2);
        assert!(!fit(&mut items, 30));
        assert!(fit(&mut items, 1));
        assert_eq!(items.len(), 1);
        assert!(!fit(&mut Vec::<u8>::new(), 0));
    }
}
