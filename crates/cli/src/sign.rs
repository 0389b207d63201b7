//! Signs requests with AWS credentials, for API Gateway (Signature Version 4, `execute-api`).

use std::{fmt, time::SystemTime};

use anyhow::Context as _;
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http_body_util::BodyExt as _;
use reqwest::{
    Request,
    header::{HeaderName, HeaderValue},
};
use stepwes_cloud::Aws;
use tokio::sync::Mutex;

use crate::ui::hint;

/// The name of API Gateway's data plane in a signature's scope.
const SERVICE: &str = "execute-api";

/// How long before their end credentials are asked for anew.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// The headers that are signed beside `host` and AWS's own.
const SIGNED: [&str; 2] = ["content-type", "idempotency-key"];

/// Signs requests in one region.
pub(crate) struct Signer {
    provider: SharedCredentialsProvider,
    region: String,
    known: Mutex<Option<Credentials>>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// With the credentials of the environment, as every AWS tool finds them; the region is the
    /// one in API Gateway's own host names, else the environment's.
    pub(crate) async fn of_environment(base: &str) -> anyhow::Result<Self> {
        let aws = Aws::from_env().await?;
        let region =
            region_in(base).or_else(|| aws.region().map(str::to_owned)).ok_or_else(|| {
                hint(
                    "no AWS region is known to sign requests for",
                    "set AWS_REGION to the stack's region",
                )
            })?;
        let provider = aws.credentials().ok_or_else(|| no_credentials("nothing could have any"))?;
        Ok(Self { provider, region, known: Mutex::new(None) })
    }

    /// Adds a signature, for now. A body that is a stream is read into memory, as it is part of
    /// what is signed.
    pub(crate) async fn sign(&self, request: &mut Request) -> anyhow::Result<()> {
        // A blank as `+` is a form's way to write one: not everybody who verifies reads it so.
        if let Some(query) = request.url().query().filter(|query| query.contains('+')) {
            let query = query.replace('+', "%20");
            request.url_mut().set_query(Some(&query));
        }
        let body = match request.body_mut().take() {
            Some(body) => {
                body.collect().await.context("the request's body cannot be read")?.to_bytes()
            }
            None => Default::default(),
        };
        self.sign_at(request, &body, SystemTime::now()).await?;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        Ok(())
    }

    async fn sign_at(
        &self,
        request: &mut Request,
        body: &[u8],
        time: SystemTime,
    ) -> anyhow::Result<()> {
        let identity = self.credentials(time).await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = SIGNED
            .iter()
            .filter_map(|name| Some((*name, request.headers().get(*name)?.to_str().ok()?)));
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            headers,
            SignableBody::Bytes(body),
        )?;
        let (signature, _) = sign(signable, &params)?.into_parts();
        for (name, value) in signature.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        Ok(())
    }

    /// The credentials, asked for again when they are about to end.
    async fn credentials(&self, now: SystemTime) -> anyhow::Result<Credentials> {
        let mut known = self.known.lock().await;
        if let Some(credentials) = known.as_ref()
            && credentials.expiry().is_none_or(|end| end > now + MARGIN)
        {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.provide_credentials().await.map_err(|error| {
            let causes: Vec<_> =
                anyhow::Error::new(error).chain().map(ToString::to_string).collect();
            no_credentials(&causes.join(": "))
        })?;
        *known = Some(credentials.clone());
        Ok(credentials)
    }
}

fn no_credentials(why: &str) -> anyhow::Error {
    hint(
        format!("there are no AWS credentials to sign requests with: {why}"),
        "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a session of `aws sso login` is taken over by: eval \"$(aws configure export-credentials --format env)\"",
    )
}

/// The region in a host such as `abc123.execute-api.eu-central-1.amazonaws.com`.
fn region_in(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let (_, rest) = url.host_str()?.split_once(".execute-api.")?;
    let (region, domain) = rest.split_once('.')?;
    domain.starts_with("amazonaws.com").then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use chrono::{DateTime, Utc};
    use stepwes_local::sigv4::{Presented, SignatureError};

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const URL: &str = "https://abc123.execute-api.eu-central-1.amazonaws.com/ga4gh/wes/v1";

    fn signer(credentials: Credentials) -> Signer {
        Signer {
            provider: SharedCredentialsProvider::new(credentials),
            region: region_in(URL).expect("a region"),
            known: Mutex::new(None),
        }
    }

    fn credentials(session: Option<&str>) -> Credentials {
        Credentials::new("AKIDEXAMPLE", SECRET, session.map(str::to_owned), None, "test")
    }

    /// What a server verifies, with the `Host` that is sent.
    fn received(request: &Request) -> http::request::Parts {
        let url = request.url();
        let path = &url[url::Position::BeforePath..];
        let mut parts = http::Request::builder()
            .method(request.method())
            .uri(path)
            .header("host", &url[url::Position::BeforeHost..url::Position::AfterPort])
            .body(())
            .expect("a request")
            .into_parts()
            .0;
        parts.headers.extend(request.headers().clone());
        parts
    }

    fn verified(request: &Request, secret: &str, now: DateTime<Utc>) -> Result<(), SignatureError> {
        let parts = received(request);
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        Presented::read(&parts.headers)?.verify(&parts, body, "execute-api", secret, now)
    }

    #[tokio::test]
    async fn an_independent_verifier_accepts_what_is_signed_and_nothing_that_was_changed() {
        // A second call finds the first one's provider in place.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::new();
        for session in [None, Some("session/token==")] {
            let form = reqwest::multipart::Form::new().text("workflow_url", "ä.cwl");
            for request in [
                http.get(format!("{URL}/runs?page_size=10&owner=a+b%26c%2B&page_token=")),
                http.get(format!("{URL}/runs/x/outputs/a%20b/50%25%20%C3%A4~.txt")),
                http.post(format!("{URL}/runs/x/cancel")),
                http.post(format!("{URL}/runs")).header("idempotency-key", "k").multipart(form),
            ] {
                let mut request = request.build().expect("a request");
                let signer = signer(credentials(session));
                signer.sign(&mut request).await.expect("signed");
                let now = Utc::now();
                assert_eq!(verified(&request, SECRET, now), Ok(()), "{request:?}");
                assert_eq!(verified(&request, "other", now), Err(SignatureError::Mismatch));
                let token = request.headers().get("x-amz-security-token");
                assert_eq!(token.map(HeaderValue::as_bytes), session.map(str::as_bytes));
                let shown = format!("{request:?} {signer:?}");
                assert!(!shown.contains("session/token") && !shown.contains(SECRET), "{shown}");
                *request.body_mut() = Some("another body".into());
                assert_eq!(verified(&request, SECRET, now), Err(SignatureError::Mismatch));
            }
        }
    }

    #[tokio::test]
    async fn credentials_are_asked_for_again_before_they_end() {
        let end = UNIX_EPOCH + Duration::from_secs(1000);
        let ending = Credentials::new("A", "S", None, Some(end), "test");
        let signer = signer(ending);
        *signer.known.lock().await =
            Some(Credentials::new("earlier", "S", None, Some(end), "test"));
        let key = async |seconds| {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            signer.credentials(now).await.expect("known").access_key_id().to_owned()
        };
        assert_eq!(key(900).await, "earlier");
        assert_eq!(key(950).await, "A");
    }

    #[test]
    fn a_region_is_in_api_gateways_own_names_alone() {
        assert_eq!(region_in(URL).as_deref(), Some("eu-central-1"));
        let china = "https://a.execute-api.cn-north-1.amazonaws.com.cn/x";
        assert_eq!(region_in(china).as_deref(), Some("cn-north-1"));
        for other in ["https://wes.example.org", "https://a.execute-api.x.example.org", "x"] {
            assert_eq!(region_in(other), None, "{other}");
        }
    }
}
