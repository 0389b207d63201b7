//! Who may do what: credentials, the check of session tokens, and session policies.
//!
//! Signatures are verified by s3s, with the secret that [`Credentials`] gives it; everything that
//! comes after is here. Operations need the permissions that they need in AWS
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>).

use super::policy::{Policy, Question};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{CopyObjectInput, CopySource};
use s3s::path::S3Path;
use s3s::{S3Error, S3Request, S3Result, s3_error};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq as _;

/// How long an expired credential is remembered, so that its holder reads that it expired.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A secret that may be used until some time, for what a policy allows.
#[derive(Clone)]
pub struct TemporaryCredential {
    /// Names the credential.
    pub access_key: String,
    /// Signs its requests.
    pub secret_key: String,
    /// Must come with every request.
    pub session_token: String,
    /// From then on, requests and presigned URLs are refused.
    pub expires: SystemTime,
    /// What it may do; anything else is denied.
    pub policy: Policy,
}

impl fmt::Debug for TemporaryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemporaryCredential")
            .field("access_key", &self.access_key)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The credentials that the embedded S3 accepts. Shared, and changed while it runs.
#[derive(Default)]
pub struct Credentials {
    known: RwLock<HashMap<String, Known>>,
}

#[derive(Clone)]
enum Known {
    LongLived(String),
    Temporary(Arc<TemporaryCredential>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// None yet: every request is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a principal that may do everything, until the process ends.
    pub fn add(&self, access_key: impl Into<String>, secret_key: impl Into<String>) {
        self.insert(access_key.into(), Known::LongLived(secret_key.into()));
    }

    /// Adds a temporary credential. Those that expired more than a day ago are forgotten.
    pub fn add_temporary(&self, credential: TemporaryCredential) {
        let access_key = credential.access_key.clone();
        self.insert(access_key, Known::Temporary(Arc::new(credential)));
    }

    fn insert(&self, access_key: String, credential: Known) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| match known {
            Known::LongLived(_) => true,
            Known::Temporary(t) => t.expires.elapsed().unwrap_or_default() < REMEMBERED,
        });
        known.insert(access_key, credential);
    }

    fn get(&self, access_key: &str) -> S3Result<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(access_key) {
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
            Some(Known::Temporary(t)) if t.expires <= SystemTime::now() => {
                Err(s3_error!(ExpiredToken, "The provided token has expired."))
            }
            Some(known) => Ok(known.clone()),
        }
    }
}

/// Called with the name of each operation that a signed request asks for.
pub type CallHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Gives s3s the secrets that signatures are verified with.
pub(super) struct Auth(pub(super) Arc<Credentials>);

#[async_trait::async_trait]
impl S3Auth for Auth {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(match self.0.get(access_key)? {
            Known::LongLived(secret) => SecretKey::from(secret),
            Known::Temporary(temporary) => SecretKey::from(temporary.secret_key.as_str()),
        })
    }
}

/// What the caller of a request may do; the operations ask it what only they know to ask.
#[derive(Clone)]
pub(super) enum Caller {
    /// Everything.
    LongLived,
    /// What the credential's policy allows.
    Temporary(Arc<TemporaryCredential>),
    /// Nothing.
    Nobody,
}

impl Caller {
    pub(super) fn may(&self, action: &str, bucket: &str, key: Option<&str>) -> bool {
        self.may_with_prefix(action, bucket, key, None)
    }

    fn may_with_prefix(
        &self,
        action: &str,
        bucket: &str,
        key: Option<&str>,
        prefix: Option<&str>,
    ) -> bool {
        let credential = match self {
            Self::LongLived => return true,
            Self::Temporary(credential) => credential,
            Self::Nobody => return false,
        };
        let resource = match key {
            Some(key) => format!("arn:aws:s3:::{bucket}/{key}"),
            None => format!("arn:aws:s3:::{bucket}"),
        };
        credential.policy.allows(Question { action, resource: &resource, prefix })
    }

    /// The answer for an object that is not there: who may not list must not learn that.
    pub(super) fn missing(&self, bucket: &str) -> S3Error {
        if self.may("s3:ListBucket", bucket, None) {
            s3_error!(NoSuchKey, "The specified key does not exist.")
        } else {
            denied("s3:ListBucket")
        }
    }
}

/// The answer to who may not do something.
pub(super) fn denied(action: &str) -> S3Error {
    s3_error!(
        AccessDenied,
        "Access denied: the session policy does not allow {action} on this resource."
    )
}

/// Decides on each request, once its signature is verified.
pub(super) struct Access {
    pub(super) credentials: Arc<Credentials>,
    pub(super) on_call: Option<CallHook>,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        if let Some(on_call) = &self.on_call {
            on_call(&operation);
        }
        let Some(signer) = cx.credentials() else {
            return Err(s3_error!(
                AccessDenied,
                "Anonymous requests are refused: sign the request."
            ));
        };
        let query = cx.uri().query().unwrap_or_default();
        check_parameters(query)?;
        let signature = Signature::read(cx.headers(), query)?;
        signature.check_headers(cx.headers())?;
        let caller = match self.credentials.get(&signer.access_key)? {
            Known::LongLived(_) if signature.token.is_some() => return Err(invalid_token()),
            Known::LongLived(_) => Caller::LongLived,
            Known::Temporary(temporary) => {
                let given = signature.token.unwrap_or_default();
                let same: bool = given.as_bytes().ct_eq(temporary.session_token.as_bytes()).into();
                if !same {
                    return Err(invalid_token());
                }
                Caller::Temporary(temporary)
            }
        };
        if let Some(action) = action_of(&operation) {
            let bucket = cx.s3_path().get_bucket_name().unwrap_or_default();
            let key = match cx.s3_path() {
                S3Path::Object { key, .. } => Some(key.as_ref()),
                S3Path::Root | S3Path::Bucket { .. } => None,
            };
            let prefix = parameter(query, "prefix").filter(|_| action == "s3:ListBucket");
            if !caller.may_with_prefix(action, bucket, key, prefix.as_deref()) {
                return Err(denied(action));
            }
        } else if !matches!(caller, Caller::LongLived) && operation != "DeleteObjects" {
            return Err(s3_error!(
                AccessDenied,
                "Access denied: temporary credentials cannot be allowed {operation} here."
            ));
        }
        cx.extensions_mut().insert(caller);
        Ok(())
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        let caller = caller(&request.extensions);
        match &request.input.copy_source {
            CopySource::Bucket { bucket, key, .. }
                if caller.may("s3:GetObject", bucket, Some(key)) =>
            {
                Ok(())
            }
            CopySource::Bucket { .. } => Err(denied("s3:GetObject")),
            // Refused by the operation itself, for everybody.
            CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => Ok(()),
        }
    }
}

/// The caller that [`Access`] let through.
pub(super) fn caller(extensions: &http::Extensions) -> Caller {
    extensions.get().cloned().unwrap_or(Caller::Nobody)
}

/// The permission that an operation needs on the bucket or key of its path. `DeleteObjects` needs
/// one for each key in its body.
fn action_of(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "GetObject" | "HeadObject" => "s3:GetObject",
        "PutObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "CompleteMultipartUpload" => "s3:PutObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "ListParts" => "s3:ListMultipartUploadParts",
        "DeleteObject" => "s3:DeleteObject",
        "ListObjects" | "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
        "ListBuckets" => "s3:ListAllMyBuckets",
        "GetBucketLocation" => "s3:GetBucketLocation",
        _ => return None,
    })
}

fn invalid_token() -> S3Error {
    s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid.")
}

/// The parts of a signature that s3s verifies but does not hand on.
#[derive(Debug)]
struct Signature {
    signed_headers: Vec<String>,
    token: Option<String>,
}

impl Signature {
    fn read(headers: &http::HeaderMap, query: &str) -> S3Result<Self> {
        if let Some(signed) = parameter(query, "X-Amz-SignedHeaders") {
            return Ok(Self {
                signed_headers: signed.split(';').map(str::to_ascii_lowercase).collect(),
                token: parameter(query, "X-Amz-Security-Token"),
            });
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = text("authorization").unwrap_or_default();
        if !authorization.starts_with("AWS4-HMAC-SHA256") {
            return Err(s3_error!(
                InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            ));
        }
        let signed = authorization
            .split("SignedHeaders=")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .unwrap_or_default();
        Ok(Self {
            signed_headers: signed.trim().split(';').map(str::to_ascii_lowercase).collect(),
            token: text("x-amz-security-token").map(str::to_owned),
        })
    }

    /// Every `x-amz-` header must be signed, or the holder of a presigned URL could turn it into
    /// another request: `x-amz-copy-source` makes a PUT a copy of any object.
    fn check_headers(&self, headers: &http::HeaderMap) -> S3Result<()> {
        let unsigned = headers.keys().map(http::HeaderName::as_str).find(|name| {
            name.starts_with("x-amz-")
                // The body is compared with the first; the second says nothing.
                && !matches!(*name, "x-amz-content-sha256" | "x-amz-user-agent")
                && !self.signed_headers.iter().any(|signed| signed == name)
        });
        match unsigned {
            None => Ok(()),
            Some(name) => Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed: {name}"
            )),
        }
    }
}

/// Refuses parameters that would be ignored: s3s takes the request for a plain GET or PUT when it
/// does not know what they ask for.
fn check_parameters(query: &str) -> S3Result<()> {
    const KNOWN: [&str; 22] = [
        "bucket-region",
        "continuation-token",
        "delete",
        "delimiter",
        "encoding-type",
        "fetch-owner",
        "list-type",
        "location",
        "marker",
        "max-buckets",
        "max-keys",
        "max-parts",
        "part-number-marker",
        "partNumber",
        "prefix",
        "start-after",
        "uploadId",
        "uploads",
        "versionId",
        "x-id",
        // What a GET of the SDK has always; it changes headers of the answer only.
        "x-amz-checksum-mode",
        "x-amz-user-agent",
    ];
    const SIGNATURE: [&str; 8] = [
        "X-Amz-Algorithm",
        "X-Amz-Content-Sha256",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
    ];
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        let name = name.as_ref();
        if !KNOWN.contains(&name) && !SIGNATURE.contains(&name) && !name.starts_with("response-") {
            return Err(s3_error!(
                NotImplemented,
                "The embedded S3 does not support the query parameter {name}."
            ));
        }
    }
    Ok(())
}

/// The first value of a query parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_headers_of_a_request_must_be_signed() {
        let authorization = "AWS4-HMAC-SHA256 Credential=A/20260101/r/s3/aws4_request, SignedHeaders=host;x-amz-date;x-amz-meta-a, Signature=0";
        let signed = headers(&[
            ("authorization", authorization),
            ("x-amz-date", "20260101T000000Z"),
            ("x-amz-meta-a", "1"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("content-type", "text/plain"),
        ]);
        let signature = Signature::read(&signed, "").expect("version 4");
        assert!(signature.check_headers(&signed).is_ok());
        let mut added = signed.clone();
        added.insert("x-amz-copy-source", HeaderValue::from_static("b/k"));
        assert!(signature.check_headers(&added).is_err());
        let presigned = Signature::read(&added, "X-Amz-SignedHeaders=host%3Bx-amz-copy-source%3BX-Amz-Date%3Bx-amz-meta-a&X-Amz-Security-Token=t%2B")
            .expect("version 4");
        assert!(presigned.check_headers(&added).is_ok());
        assert_eq!(presigned.token.as_deref(), Some("t+"));
    }

    #[test]
    fn signatures_of_version_2_are_refused() {
        for (authorization, query) in
            [("AWS A:c2ln", ""), ("", "AWSAccessKeyId=A&Signature=c2ln&Expires=1")]
        {
            let headers = headers(&[("authorization", authorization)]);
            let error = Signature::read(&headers, query).expect_err("refused");
            assert!(error.message().is_some_and(|m| m.contains("AWS4-HMAC-SHA256")));
        }
    }

    #[test]
    fn parameters_that_nobody_reads_are_refused_by_name() {
        for query in ["", "list-type=2&prefix=a", "response-content-type=x", "X-Amz-Date=1"] {
            assert!(check_parameters(query).is_ok(), "{query}");
        }
        for name in ["renameObject", "acl", "x-amz-acl", "x-amz-tagging"] {
            let error = check_parameters(&format!("prefix=a&{name}=1")).expect_err("refused");
            assert!(error.message().is_some_and(|m| m.contains(name)), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credential = TemporaryCredential {
            access_key: "ASIA".to_owned(),
            secret_key: "hidden-secret".to_owned(),
            session_token: "hidden-token".to_owned(),
            expires: SystemTime::UNIX_EPOCH,
            policy: Policy::parse(r#"{"Version": "2012-10-17", "Statement": []}"#)
                .expect("a policy"),
        };
        let credentials = Credentials::new();
        credentials.add("AKIA", "hidden-too");
        let shown = format!("{credential:?} {credentials:?}");
        assert!(shown.contains("ASIA") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn long_expired_credentials_are_forgotten() {
        let credentials = Credentials::new();
        let mut credential = TemporaryCredential {
            access_key: "ASIAOLD".to_owned(),
            secret_key: "s".to_owned(),
            session_token: "t".to_owned(),
            expires: SystemTime::now() - 2 * REMEMBERED,
            policy: Policy::parse(r#"{"Version": "2012-10-17", "Statement": []}"#)
                .expect("a policy"),
        };
        credentials.add_temporary(credential.clone());
        credential.access_key = "ASIANEW".to_owned();
        credential.expires = SystemTime::now() - Duration::from_secs(1);
        credentials.add_temporary(credential);
        let code = |key: &str| {
            credentials.get(key).map(drop).expect_err("refused").code().as_str().to_owned()
        };
        assert_eq!(code("ASIAOLD"), "InvalidAccessKeyId");
        assert_eq!(code("ASIANEW"), "ExpiredToken");
    }
}
