//! AWS clients. What changes between the cloud and one machine is the endpoint, and that comes
//! from the SDK's own environment variables or is given here.

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use stepwes_core::{Clock, SystemClock};
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
        let sdk = loader().load().await;
        Ok(Self { sdk, s3_path_style })
    }

    /// AWS at one endpoint, whatever the environment says.
    #[must_use]
    pub fn at(endpoint: Endpoint) -> Self {
        // An endpoint without TLS needs none of the system's certificates.
        let http = if endpoint.url.starts_with("http://") {
            HttpClientBuilder::new().build_http()
        } else {
            http_client()
        };
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(retries())
            .timeout_config(timeouts())
            .region(Region::new(endpoint.region))
            .endpoint_url(endpoint.url)
            .credentials_provider(SharedCredentialsProvider::new(endpoint.credentials))
            .build();
        Self { sdk, s3_path_style: true }
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
    pub fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(self.s3_config().build())
    }

    /// S3 for presigned URLs: at the URL under which callers reach it, when that is another.
    #[must_use]
    pub fn s3_presigner(&self, public_url: Option<&str>) -> aws_sdk_s3::Client {
        let mut config = self.s3_config();
        if let Some(url) = public_url {
            config = config.endpoint_url(url);
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }

    fn s3_config(&self) -> aws_sdk_s3::config::Builder {
        aws_sdk_s3::config::Builder::from(&self.sdk).force_path_style(self.s3_path_style)
    }

    /// Step Functions.
    #[must_use]
    pub fn sfn(&self) -> aws_sdk_sfn::Client {
        aws_sdk_sfn::Client::new(&self.sdk)
    }

    /// ECS.
    #[must_use]
    pub fn ecs(&self) -> aws_sdk_ecs::Client {
        aws_sdk_ecs::Client::new(&self.sdk)
    }

    /// STS.
    #[must_use]
    pub fn sts(&self) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&self.sdk)
    }
}

fn loader() -> aws_config::ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .retry_config(retries())
        .timeout_config(timeouts())
}

/// HTTPS by rustls over ring: the SDK's default brings aws-lc, which needs a C toolchain.
fn http_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    HttpClientBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
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
