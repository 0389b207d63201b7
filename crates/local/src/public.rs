//! The public port: the WES API, and the presigned S3 URLs that it hands out. Whoever reaches the
//! one reaches the other.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{Router, body::Body};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header, uri::Authority};
use stepwes_authorize::Identity;
use stepwes_cloud::http::{Callers, HttpError, frame, routes};
use stepwes_core::ApiError;
use stepwes_store::StoreError;
use tower::ServiceExt as _;

use crate::{
    ecs::Ecs,
    faults::{Injector, s3_operation},
    gateway::{as_signed, is_presigned},
    life::Life,
    s3::S3Endpoint,
};

/// Why a waiting task is stopped.
pub(crate) const CANCELED: &str = "the run is being cancelled";

/// What answers on the public port.
pub(crate) struct Public {
    /// The routes of the API functions. Replaced when an engine's version becomes known late.
    pub(crate) router: RwLock<Router>,
    pub(crate) s3: S3Endpoint,
    pub(crate) ecs: Arc<Ecs>,
    pub(crate) life: Life,
    /// Who lets calls go wrong, where that is asked for.
    pub(crate) faults: Option<Arc<Injector>>,
    pub(crate) guard: Guard,
    /// What checks callers' tokens, where they need one.
    pub(crate) authorizer: Option<stepwes_authorize::State>,
    pub(crate) callers: Callers,
    /// The URL that presigned URLs are signed for, whichever the caller used.
    pub(crate) presign_url: String,
    /// Its host and port.
    pub(crate) presign_host: HeaderValue,
}

impl Public {
    /// Answers one request.
    pub(crate) async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        if let Err(refusal) = self.guard.check(request.method(), request.headers()) {
            return refused(request, refusal).await;
        }
        if is_presigned(request.uri().query()) {
            as_signed(request.headers_mut(), &self.presign_host);
            let s3 = self.s3.clone();
            let carry_out = move |request| {
                let s3 = s3.clone();
                async move { s3.call(request).await }
            };
            let mut response = match &self.faults {
                None => carry_out(request).await,
                Some(faults) => {
                    faults.around("s3", s3_operation(&request), request, carry_out).await
                }
            };
            make_harmless(response.headers_mut());
            return response;
        }
        if let Some(authorizer) = &self.authorizer {
            match identify(authorizer, request.headers()).await {
                Ok(Some(Identity { owner, groups })) => {
                    request.extensions_mut().insert(self.callers.caller(owner, &groups));
                }
                // The functions refuse it themselves, where they ask for a caller.
                Ok(None) => {}
                Err(error) => return refused(request, error).await,
            }
        }
        let base = self.guard.base_url(request.headers());
        let mut response = self.api(request).await;
        if let Some(base) = base {
            self.point_at(&base, response.headers_mut());
        }
        response
    }

    /// Answers one request to the API.
    pub(crate) async fn api(&self, request: Request<Body>) -> Response<Body> {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner).clone();
        let faults = self.faults.clone();
        if !matches!(*request.method(), Method::POST | Method::DELETE) {
            return answer(router, request, faults).await;
        }
        let canceled = canceled_run(request.uri().path());
        let ecs = Arc::clone(&self.ecs);
        // Not cut short by a caller who hangs up, as a Lambda function is not: half a submission
        // or deletion would be left behind, and a run that is being cancelled must not start.
        let request = request.map(|body| self.life.while_lasts(body));
        let whole = async move {
            let response = answer(router, request, faults).await;
            if let Some(run) = canceled
                && response.status().is_success()
                && let Err(error) = ecs.stop_waiting(&run, CANCELED).await
            {
                // reconcile stops it later.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    run,
                    "a waiting task was not stopped"
                );
            }
            response
        };
        self.life.whole(whole).await
    }

    /// A redirect to a presigned URL goes to where the caller found us. The signature is for
    /// [`Public::presign_host`], which is put back when the caller comes with it.
    fn point_at(&self, base: &str, headers: &mut HeaderMap) {
        let presigned = headers
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| location.strip_prefix(&self.presign_url))
            .filter(|path| path.starts_with('/'))
            .map(|path| format!("{base}{path}"));
        if let Some(location) = presigned.and_then(|url| HeaderValue::from_str(&url).ok()) {
            headers.insert(header::LOCATION, location);
        }
    }
}

/// Keeps a browser from taking a run's file for a page of this server: it comes from the origin of
/// the API, where a script could start workflows. In AWS files have an origin of their own.
fn make_harmless(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
}

/// Whose token a request came with. Two headers are none, as API Gateway makes one value of them.
async fn identify(
    authorizer: &stepwes_authorize::State,
    headers: &HeaderMap,
) -> Result<Option<Identity>, StoreError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let header = values.next().and_then(|value| value.to_str().ok());
    stepwes_authorize::identify(authorizer, header.filter(|_| values.next().is_none())).await
}

/// A refusal in the frame of every answer, which logs it.
async fn refused(request: Request<Body>, error: impl Into<HttpError>) -> Response<Body> {
    let error = error.into();
    let refuse = move || std::future::ready(error.clone());
    routed(frame(Router::new().fallback(refuse)), request).await
}

async fn answer(
    router: Router,
    request: Request<Body>,
    faults: Option<Arc<Injector>>,
) -> Response<Body> {
    match faults {
        None => routed(router, request).await,
        Some(faults) => faults.api(request, move |request| routed(router.clone(), request)).await,
    }
}

async fn routed(router: Router, request: Request<Body>) -> Response<Body> {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The run of a path of [`routes::RUN_CANCEL`].
fn canceled_run(path: &str) -> Option<String> {
    let (before, after) = routes::RUN_CANCEL.split_once("{run_id}")?;
    let run = path.strip_prefix(before)?.strip_suffix(after)?;
    Some(run.to_owned())
}

/// Keeps web pages of others out: a server that asks for no password on a loopback port can be
/// reached by every page in the user's browser.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// The host that the server listens on, as it was given.
    listens_on: String,
    /// The URL that the operator gave, without a slash at the end.
    public_url: Option<String>,
    /// The names under which this machine is known, when it listens for others.
    names: Vec<String>,
    /// Whether it listens on every address.
    everywhere: bool,
}

impl Guard {
    pub(crate) fn new(listens_on: &str, public_url: Option<&str>) -> Self {
        let bare = listens_on.trim_start_matches('[').trim_end_matches(']');
        let everywhere = bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let names = if everywhere { vec![hostname.trim().to_ascii_lowercase()] } else { vec![] };
        Self {
            listens_on: bare.to_ascii_lowercase(),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            names,
            everywhere,
        }
    }

    /// Whether the request may go on.
    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        if let Some(host) = headers.get(header::HOST)
            && !host.to_str().is_ok_and(|host| self.knows(host))
        {
            // A name that somebody else has pointed at this machine (DNS rebinding).
            let shown: String =
                String::from_utf8_lossy(host.as_bytes()).chars().take(100).collect();
            return Err(ApiError::Forbidden(format!(
                "this server does not answer for the host {shown:?}; use localhost, or start it \
                 with --public-url"
            )));
        }
        let only_reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if !only_reads && self.is_cross_site(headers) {
            return Err(ApiError::Forbidden(
                "requests from other sites' pages are refused; use this server's own address"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether it answers for the host of these headers.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn answers(&self, headers: &HeaderMap) -> bool {
        self.check(&Method::GET, headers).is_ok()
    }

    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = name.parse::<IpAddr>() {
            // Nobody can point an address elsewhere.
            return self.everywhere || ip.is_loopback() || name == self.listens_on;
        }
        let name = name.to_ascii_lowercase();
        name == "localhost"
            || name.ends_with(".localhost")
            || name == self.listens_on
            || self.names.contains(&name)
            || self.public_host() == Some(name)
    }

    fn public_host(&self) -> Option<String> {
        let uri: http::Uri = self.public_url.as_deref()?.parse().ok()?;
        Some(uri.host()?.to_ascii_lowercase())
    }

    fn is_cross_site(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match headers.get(header::ORIGIN) {
            Some(origin) => !origin.to_str().is_ok_and(|origin| self.is_own(origin, headers)),
            None => matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")),
        }
    }

    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        let own = |url: &str| {
            url.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| own(&format!("http://{host}")) || own(&format!("https://{host}")))
            || self.public_url.as_deref().is_some_and(own)
    }

    /// What absolute URLs for this caller begin with.
    fn base_url(&self, headers: &HeaderMap) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.clone());
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        Some(format!("{scheme}://{}", text("host")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::from_static(name), value.parse().expect("a value"))
            })
            .collect()
    }

    fn passes(guard: &Guard, method: &Method, pairs: &[(&'static str, &str)]) -> bool {
        guard.check(method, &headers(pairs)).is_ok()
    }

    #[test]
    fn only_names_that_are_ours_are_answered_for() {
        let local = Guard::new("127.0.0.1", None);
        let everywhere = Guard::new("0.0.0.0", None);
        let named = Guard::new("192.0.2.7", Some("https://wes.example.org/x/"));
        for (host, expected) in [
            ("localhost:8080", [true, true, true]),
            ("LOCALHOST", [true, true, true]),
            ("wes.localhost:1", [true, true, true]),
            ("127.0.0.1:8080", [true, true, true]),
            ("[::1]:8080", [true, true, true]),
            ("192.0.2.7", [false, true, true]),
            ("wes.example.org", [false, false, true]),
            ("evil.example.com:8080", [false, false, false]),
            ("localhost.evil.example", [false, false, false]),
            ("not a host", [false, false, false]),
        ] {
            let passed = [&local, &everywhere, &named]
                .map(|guard| passes(guard, &Method::GET, &[("host", host)]));
            assert_eq!(passed, expected, "{host}");
        }
        assert!(passes(&local, &Method::GET, &[]));
    }

    #[test]
    fn other_sites_pages_can_change_nothing() {
        let guard = Guard::new("127.0.0.1", Some("https://wes.example.org"));
        let host = ("host", "localhost:8080");
        for (other, expected) in [
            (("origin", "http://localhost:8080"), true),
            (("origin", "https://wes.example.org"), true),
            (("origin", "http://localhost:3000"), false),
            (("origin", "http://localhost"), false),
            (("origin", "https://evil.example"), false),
            (("origin", "null"), false),
            (("sec-fetch-site", "cross-site"), false),
            (("sec-fetch-site", "same-site"), false),
            (("sec-fetch-site", "same-origin"), true),
            (("sec-fetch-site", "none"), true),
            (("accept", "*/*"), true),
        ] {
            assert_eq!(passes(&guard, &Method::POST, &[host, other]), expected, "{other:?}");
            assert!(passes(&guard, &Method::GET, &[host, other]), "{other:?}");
        }
    }
}
