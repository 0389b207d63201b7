//! AWS clients. What changes between the cloud and one machine is the endpoint, and that comes
//! from the SDK's own environment variables or is given here.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
    retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    connector_metadata::ConnectorMetadata,
    http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector},
    runtime_components::RuntimeComponents,
};
use stepwes_core::{
    Clock, SystemClock,
    endpoint::{Endpoints, is_plain},
};
use stepwes_store::RunStore;

/// Where AWS is, when it is not where the SDK's environment says.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// One URL for every service.
    pub url: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The credentials that requests are signed with.
    pub credentials: Credentials,
}

impl Endpoint {
    fn config(self, http: impl HttpClient + 'static) -> SdkConfig {
        let credentials = SharedCredentialsProvider::new(self.credentials);
        config(http, self.region, Some(self.url), credentials)
    }
}

/// A client that is made when it is first used: each is a fourteenth of a cold start (it reads and
/// compiles the rules of its service's endpoints), and few requests need more than the table's.
pub struct OnUse<C>(Arc<LazyLock<C, Box<dyn FnOnce() -> C + Send>>>);

impl<C> OnUse<C> {
    fn new(make: impl FnOnce() -> C + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }

    /// Makes it at once: what every request needs is ready before the first.
    #[must_use]
    pub fn now(self) -> Self {
        LazyLock::force(&self.0);
        self
    }
}

impl<C: Send + 'static> From<C> for OnUse<C> {
    fn from(made: C) -> Self {
        Self::new(|| made)
    }
}

impl<C> Deref for OnUse<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> Clone for OnUse<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> fmt::Debug for OnUse<C> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("OnUse").finish_non_exhaustive()
    }
}

/// The clients of one process: one connection pool, one configuration.
#[derive(Clone, Debug)]
pub struct Aws {
    sdk: SdkConfig,
    s3_path_style: bool,
}

impl Aws {
    /// From the environment, as every AWS SDK reads it (region, credentials, `AWS_ENDPOINT_URL`).
    /// `STEPWES_S3_PATH_STYLE=true` addresses buckets by path.
    ///
    /// # Errors
    /// When `STEPWES_S3_PATH_STYLE` is set to something else than `true` or `false`.
    pub async fn from_env() -> Result<Self, crate::env::SettingError> {
        let s3_path_style = crate::env::parsed(stepwes_core::task::env::S3_PATH_STYLE, false)?;
        // A variable that is no UTF-8 is none of those that are looked at.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let http = http_client(Trust::by(&variables));
        let sdk = match Plain::by(variables) {
            Some(Plain { region, endpoint_url }) => {
                let credentials = EnvironmentVariableCredentialsProvider::new();
                config(http, region, endpoint_url, SharedCredentialsProvider::new(credentials))
            }
            None => {
                aws_config::defaults(BehaviorVersion::latest())
                    .http_client(http)
                    .retry_config(retries())
                    .timeout_config(timeouts())
                    .load()
                    .await
            }
        };
        Ok(Self { sdk, s3_path_style })
    }

    /// AWS at one endpoint, whatever the environment says.
    #[must_use]
    pub fn at(endpoint: Endpoint) -> Self {
        let trust = if is_plain(&endpoint.url) { Trust::Nobody } else { Trust::System };
        Self { sdk: endpoint.config(http_client(trust)), s3_path_style: true }
    }

    /// The same, through an HTTP client of the caller's that neither loses a request nor stalls:
    /// nothing watches the time.
    #[must_use]
    pub fn through(http: impl HttpClient + 'static, endpoint: Endpoint) -> Self {
        let sdk = endpoint
            .config(http)
            .into_builder()
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { sdk, s3_path_style: true }
    }

    /// What gives the credentials that requests are signed with; none when there is nothing that
    /// could.
    #[must_use]
    pub fn credentials(&self) -> Option<SharedCredentialsProvider> {
        self.sdk.credentials_provider()
    }

    /// What every client is made of, for those of other services.
    #[must_use]
    pub const fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// The region that requests are signed for.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.sdk.region().map(Region::as_ref)
    }

    /// The run table.
    #[must_use]
    pub fn store(&self, table: &str) -> RunStore {
        self.store_with_clock(table, Arc::new(SystemClock))
    }

    /// The run table, with a clock of the caller's.
    #[must_use]
    pub fn store_with_clock(&self, table: &str, clock: Arc<dyn Clock>) -> RunStore {
        RunStore::new(aws_sdk_dynamodb::Client::new(&self.sdk), table, clock)
    }

    /// S3.
    #[must_use]
    pub fn s3(&self) -> OnUse<aws_sdk_s3::Client> {
        self.s3_presigner(None)
    }

    /// S3 for presigned URLs: at the URL under which callers reach it, when that is another.
    #[must_use]
    pub fn s3_presigner(&self, public_url: Option<&str>) -> OnUse<aws_sdk_s3::Client> {
        let path_style = self.s3_path_style;
        let public_url = public_url.map(str::to_owned);
        self.on_use(move |sdk| {
            let mut config = aws_sdk_s3::config::Builder::from(sdk).force_path_style(path_style);
            if let Some(url) = public_url {
                config = config.endpoint_url(url);
            }
            aws_sdk_s3::Client::from_conf(config.build())
        })
    }

    /// Step Functions.
    #[must_use]
    pub fn sfn(&self) -> OnUse<aws_sdk_sfn::Client> {
        self.on_use(aws_sdk_sfn::Client::new)
    }

    /// ECS.
    #[must_use]
    pub fn ecs(&self) -> OnUse<aws_sdk_ecs::Client> {
        self.on_use(aws_sdk_ecs::Client::new)
    }

    /// STS.
    #[must_use]
    pub fn sts(&self) -> OnUse<aws_sdk_sts::Client> {
        self.on_use(aws_sdk_sts::Client::new)
    }

    fn on_use<C>(&self, make: impl FnOnce(&SdkConfig) -> C + Send + 'static) -> OnUse<C> {
        let sdk = self.sdk.clone();
        OnUse::new(move || make(&sdk))
    }
}

/// What the SDK's own loader would find, where the environment says it all, as Lambda's does. The
/// loader also looks into files and prepares clients of STS and of the instance metadata service,
/// which costs a tenth of a cold start.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    region: String,
    endpoint_url: Option<String>,
}

impl Plain {
    /// `None` when a variable is set that the loader must interpret.
    fn by(mut variables: BTreeMap<String, String>) -> Option<Self> {
        variables.retain(|name, value| name.starts_with("AWS_") && !value.is_empty());
        let mut take = |name: &str| variables.remove(name);
        let endpoint_url = take("AWS_ENDPOINT_URL");
        let default_region = take("AWS_DEFAULT_REGION");
        let region = take("AWS_REGION").or(default_region)?;
        let key = take("AWS_ACCESS_KEY_ID").zip(take("AWS_SECRET_ACCESS_KEY"));
        take("AWS_SESSION_TOKEN");
        take("AWS_EXECUTION_ENV");
        let of_lambda =
            |name: &str| name.starts_with("AWS_LAMBDA_") || name.starts_with("AWS_XRAY_");
        (key.is_some() && variables.keys().all(|name| of_lambda(name)))
            .then_some(Self { region, endpoint_url })
    }
}

/// Whose word is taken for who an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nobody's: the endpoint has no TLS.
    Nobody,
    /// Amazon's own certificate authorities, which sign for every endpoint of AWS.
    Amazon,
    /// The authorities that the system trusts.
    System,
}

impl Trust {
    /// The system's where the operator names certificates or an endpoint, and in the partitions
    /// whose endpoints need not be signed by Amazon's authorities; elsewhere these suffice, and are
    /// ready where the system's hundreds would first have to be read and parsed.
    fn by(variables: &BTreeMap<String, String>) -> Self {
        match Endpoints::of(variables) {
            Endpoints::Plain => return Self::Nobody,
            Endpoints::Custom => return Self::System,
            Endpoints::Aws => {}
        }
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let elsewhere = |region: &String| {
            region.starts_with("cn-") || region.starts_with("eusc-") || region.contains("-iso")
        };
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
        let named = set("SSL_CERT_FILE").or_else(|| set("SSL_CERT_DIR"));
        if named.is_some() || region.is_none_or(elsewhere) { Self::System } else { Self::Amazon }
    }
}

/// Amazon Trust Services' root certificates, all that it asks custom trust stores to have:
/// <https://www.amazontrust.com/repository/>.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// HTTPS by rustls over ring: the SDK's default brings aws-lc, which needs a C toolchain.
fn http_client(trust: Trust) -> SharedHttpClient {
    let trusted = match trust {
        Trust::Nobody => return HttpClientBuilder::new().build_http(),
        Trust::Amazon => TrustStore::empty().with_pem_certificate(AMAZON_ROOTS),
        Trust::System => TrustStore::default(),
    };
    let builder = HttpClientBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    // Building a context cannot fail; should it ever, the default is the system's authorities.
    let client = match TlsContext::builder().with_trust_store(trusted).build() {
        Ok(context) => builder.tls_context(context).build_https(),
        Err(_) => builder.build_https(),
    };
    if trust == Trust::Amazon { SharedHttpClient::new(Untried(client)) } else { client }
}

/// An HTTP client that makes its first connector for the first request. The SDK's makes one for
/// each service's client, and drops it, so that the system's certificates are read by then; those
/// in the binary need not be.
#[derive(Debug)]
struct Untried(SharedHttpClient);

impl HttpClient for Untried {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

/// What every configuration has that is not loaded from the environment.
fn config(
    http: impl HttpClient + 'static,
    region: String,
    endpoint_url: Option<String>,
    credentials: SharedCredentialsProvider,
) -> SdkConfig {
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(retries())
        .timeout_config(timeouts())
        .region(Region::new(region))
        .credentials_provider(credentials);
    builder.set_endpoint_url(endpoint_url);
    builder.build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(4)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(20))
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_smithy_http_client::Connector;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

    const KEYS: [(&str, &str); 3] = [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];

    fn variables(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        KEYS.iter()
            .chain(of)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_loader_is_left_out_only_where_it_would_find_nothing_else() {
        let plain = |region: &str, endpoint_url: Option<&str>| {
            let endpoint_url = endpoint_url.map(str::to_owned);
            Some(Plain { region: region.to_owned(), endpoint_url })
        };
        for (more, expected) in [
            (&[][..], plain("eu-central-1", None)),
            (&[("AWS_DEFAULT_REGION", "us-east-1")], plain("eu-central-1", None)),
            (&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "a-1")], plain("a-1", None)),
            (
                &[
                    ("AWS_SESSION_TOKEN", "t"),
                    ("AWS_LAMBDA_FUNCTION_NAME", "status"),
                    ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
                    ("AWS_XRAY_DAEMON_ADDRESS", "169.254.79.129:2000"),
                    ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
                    ("AWS_PROFILE", ""),
                    ("HOME", "/root"),
                ],
                plain("eu-central-1", None),
            ),
            (&[("AWS_ENDPOINT_URL", "http://h:1")], plain("eu-central-1", Some("http://h:1"))),
            (&[("AWS_REGION", "")], None),
            (&[("AWS_SECRET_ACCESS_KEY", "")], None),
            (&[("AWS_PROFILE", "lab")], None),
            (&[("AWS_ENDPOINT_URL_S3", "http://h:1")], None),
            (&[("AWS_USE_FIPS_ENDPOINT", "true")], None),
            (&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")], None),
        ] {
            assert_eq!(Plain::by(variables(more)), expected, "{more:?}");
        }
    }

    #[test]
    fn amazons_authorities_suffice_for_aws_itself_unless_the_operator_names_others() {
        for (more, expected) in [
            (&[][..], Trust::Amazon),
            (&[("AWS_REGION", "us-gov-west-1")], Trust::Amazon),
            (&[("AWS_REGION", "cn-north-1")], Trust::System),
            (&[("AWS_REGION", "us-iso-east-1")], Trust::System),
            (&[("AWS_REGION", "eusc-de-east-1")], Trust::System),
            (&[("AWS_REGION", "")], Trust::System),
            (&[("SSL_CERT_FILE", "/etc/ours.pem")], Trust::System),
            (&[("SSL_CERT_DIR", "/etc/ours")], Trust::System),
            (&[("AWS_ENDPOINT_URL", "https://example.org")], Trust::System),
            (&[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")], Trust::System),
            (&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], Trust::Nobody),
        ] {
            assert_eq!(Trust::by(&variables(more)), expected, "{more:?}");
        }
    }

    #[test]
    fn a_client_is_made_once_when_it_is_first_used_or_asked_for() {
        let made = Arc::new(AtomicUsize::new(0));
        let client = |now: bool| {
            let made = Arc::clone(&made);
            let client = OnUse::new(move || made.fetch_add(1, Ordering::Relaxed));
            if now { client.now() } else { client }
        };
        let lazy = client(false);
        let same = lazy.clone();
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!((*lazy, *same), (0, 0));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let eager = client(true);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        assert_eq!(*eager, 1);
    }

    #[test]
    fn no_connector_is_made_to_be_dropped_and_user_agents_stay_the_same() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let probed = HttpClientBuilder::new().build_with_connector_fn(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Connector::builder().build_http()
        });
        let told = |client: &SharedHttpClient| {
            client.connector_metadata().map(|metadata| metadata.to_string())
        };
        let untried = SharedHttpClient::new(Untried(probed.clone()));
        assert_eq!(told(&untried), told(&probed));
        assert!(told(&untried).is_some());
        for (trust, expected) in [(Trust::Amazon, true), (Trust::System, false)] {
            assert_eq!(format!("{:?}", http_client(trust)).contains("Untried"), expected);
        }
        for (http, expected) in [(untried, 0), (probed, 1)] {
            let credentials = Credentials::new("key", "secret", None, None, "test");
            let region = "eu-central-1".to_owned();
            let sdk = config(http, region, None, SharedCredentialsProvider::new(credentials));
            let _client = aws_sdk_sts::Client::new(&sdk);
            assert_eq!(made.load(Ordering::Relaxed), expected);
        }
    }

    /// The hashes that <https://www.amazontrust.com/repository/> publishes.
    #[test]
    fn the_certificates_are_those_of_amazon_trust_services() {
        let text = std::str::from_utf8(AMAZON_ROOTS).expect("text");
        let hashes: Vec<_> = text
            .split("-----BEGIN CERTIFICATE-----")
            .skip(1)
            .map(|rest| {
                let body = rest.split("-----END").next().expect("an end").replace('\n', "");
                hex::encode(Sha256::digest(STANDARD.decode(body).expect("Base64")))
            })
            .collect();
        assert_eq!(
            hashes,
            [
                "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
                "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
                "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
                "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
                "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
            ]
        );
    }
}
