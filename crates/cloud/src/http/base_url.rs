//! Absolute URLs: where the caller reaches this API.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::{header, request::Parts, uri::Authority};
use lambda_http::request::RequestContext;

/// A function's state that may know the API's public URL.
pub trait HasPublicUrl {
    /// Scheme, authority and perhaps a path, as the operator set it; none to go by the request.
    fn public_url(&self) -> Option<&str>;
}

/// What absolute URLs of this API begin with, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// The part of the path that API Gateway puts before ours: `/` and the stage, unless that is
/// `$default`. A request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePrefix(pub String);

impl BaseUrl {
    /// The absolute URL of `path`, which begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    fn of(parts: &Parts, public_url: Option<&str>) -> Self {
        if let Some(url) = public_url {
            return Self(url.trim_end_matches('/').to_owned());
        }
        let forwarded =
            parts.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let scheme = match forwarded {
            Some("https") => "https",
            Some("http") => "http",
            // API Gateway speaks nothing but TLS.
            _ if parts.extensions.get::<RequestContext>().is_some() => "https",
            _ => "http",
        };
        let host = parts
            .headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<Authority>().ok())
            .or_else(|| parts.uri.authority().cloned());
        let host = host.as_ref().map_or("localhost", Authority::as_str);
        let stage = parts.extensions.get::<StagePrefix>().map_or("", |prefix| prefix.0.as_str());
        Self(format!("{scheme}://{host}{stage}"))
    }
}

impl<S: HasPublicUrl + Sync> FromRequestParts<S> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts, state.public_url()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn url(headers: &[(&str, &str)], public_url: Option<&str>) -> String {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        BaseUrl::of(&parts, public_url).join("/y")
    }

    #[test]
    fn the_setting_wins_over_the_request_and_the_request_over_nothing() {
        let host = ("host", "wes.example.org:8080");
        for (headers, public_url, expected) in [
            (vec![host], None, "http://wes.example.org:8080/y"),
            (vec![host, ("x-forwarded-proto", "https")], None, "https://wes.example.org:8080/y"),
            (vec![host, ("x-forwarded-proto", "evil")], None, "http://wes.example.org:8080/y"),
            (vec![host], Some("https://lab.example/wes/"), "https://lab.example/wes/y"),
            (vec![("host", "not a host")], None, "http://localhost/y"),
            (vec![], None, "http://localhost/y"),
        ] {
            assert_eq!(url(&headers, public_url), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_request_through_api_gateway_is_https_and_keeps_its_stage() {
        let (mut parts, ()) = Request::builder()
            .header("host", "abc.execute-api.eu-west-1.amazonaws.com")
            .body(())
            .expect("a request")
            .into_parts();
        let context: RequestContext =
            serde_json::from_value(serde_json::json!({"http": {"method": "GET"}, "timeEpoch": 0}))
                .expect("a request context");
        parts.extensions.insert(context);
        parts.extensions.insert(StagePrefix("/prod".to_owned()));
        assert_eq!(
            BaseUrl::of(&parts, None).join("/y"),
            "https://abc.execute-api.eu-west-1.amazonaws.com/prod/y"
        );
    }
}
