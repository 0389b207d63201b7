//! What the task says to the report function, and the credentials that it gets in return.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{SdkConfig, timeout::TimeoutConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_lambda::{Client, error::ProvideErrorMetadata as _, primitives::Blob};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use stepwes_core::{
    RunId, TraceParent,
    task::{RefusedReason, ReportAction, ReportRequest, ReportResponse, TaskCredentials},
    token::AttemptToken,
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    config::Config,
    error::{Failure, chain},
    http,
};

/// Credentials are renewed when they have less than this to live.
const RENEW_BEFORE: Duration = Duration::from_secs(600);

/// The engine's are renewed earlier: SDKs ask for others from a quarter of an hour before the end
/// on (botocore's `RefreshableCredentials`), and at every request for as long as they get the same.
const RENEW_ENGINES_BEFORE: Duration = Duration::from_secs(1200);

/// Credentials are not renewed more often than this, however short they live.
const RENEW_AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// The shortest pause before a renewal that nobody asked for.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// The pauses between tries: doubling, between these two.
pub(crate) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(5));

/// How long the report function may take to accept a connection, and to answer.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Repeats `attempt` with growing pauses until it succeeds, fails for good, or `patience` is over.
///
/// # Errors
/// The last error: `Ok(Err(…))` inside ends it at once, `Err(…)` is tried again.
pub(crate) async fn with_patience<T, E: std::fmt::Display, F>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<Result<T, E>, E>>,
{
    let end = Instant::now() + patience;
    let mut pause = PAUSES.0;
    loop {
        match attempt().await {
            Ok(settled) => return settled,
            Err(error) if Instant::now() + pause >= end => return Err(error),
            Err(error) => warn!("{what}: {error}; trying again in {pause:?}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The ECS task metadata endpoint's answer, as far as we read it.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-response.html>
#[derive(Deserialize)]
struct TaskMetadata {
    #[serde(rename = "TaskARN")]
    task_arn: String,
}

/// Asks the metadata endpoint for the task's own ARN.
///
/// # Errors
/// [`Failure::Passing`] when it does not answer for `patience`.
pub(crate) async fn task_arn(metadata_uri: &str, patience: Duration) -> Result<String, Failure> {
    let passing = |text: String| {
        Failure::Passing(format!(
            "the task metadata endpoint {metadata_uri} cannot be read: {text}"
        ))
    };
    // The endpoint is link-local and speaks no TLS: no proxy may be in between, and the system's
    // certificates, which take their time, are not needed.
    let client = http::builder()
        .no_proxy()
        .tls_certs_only([])
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| passing(chain(&error)))?;
    let url = format!("{metadata_uri}/task");
    with_patience(patience, "the task's ARN", || async {
        let answer = async {
            client.get(&url).send().await?.error_for_status()?.json::<TaskMetadata>().await
        };
        answer.await.map(|task| Ok(task.task_arn)).map_err(|error| passing(chain(&error)))
    })
    .await
}

/// Speaks for one attempt.
#[derive(Debug)]
pub(crate) struct Reporter {
    lambda: Client,
    function: String,
    run_id: RunId,
    attempt: u32,
    token: AttemptToken,
    task_arn: String,
    patience: Duration,
    refused: watch::Sender<Option<RefusedReason>>,
}

impl Reporter {
    /// A reporter for the attempt that `config` names.
    pub(crate) fn new(aws: &SdkConfig, config: &Config, task_arn: String) -> Self {
        Self {
            lambda: Client::from_conf(
                aws_sdk_lambda::config::Builder::from(aws)
                    .timeout_config(
                        TimeoutConfig::builder()
                            .connect_timeout(TIMEOUTS.0)
                            .operation_attempt_timeout(TIMEOUTS.1)
                            .build(),
                    )
                    .build(),
            ),
            function: config.report_function.clone(),
            run_id: config.run_id,
            attempt: config.attempt,
            token: config.token.clone(),
            task_arn,
            patience: config.limits.patience,
            refused: watch::Sender::new(None),
        }
    }

    /// Binds the attempt to this task, or renews its credentials. Gives the run's trace, too.
    ///
    /// # Errors
    /// [`Failure::Refused`]; [`Failure::Passing`] when the function does not answer.
    pub(crate) async fn claim(&self) -> Result<(TaskCredentials, Option<TraceParent>), Failure> {
        let (credentials, trace) = self.say(ReportAction::Claim).await?;
        let credentials = credentials.ok_or_else(|| {
            Failure::Passing("the report function gave no credentials for a claim".to_owned())
        })?;
        Ok((credentials, trace))
    }

    /// Asks for credentials for what this task runs.
    ///
    /// # Errors
    /// As [`Self::claim`].
    async fn lend(&self) -> Result<TaskCredentials, Failure> {
        let (credentials, _) = self.say(ReportAction::Credentials).await?;
        credentials.ok_or_else(|| {
            Failure::Passing("the report function gave no credentials for the engine".to_owned())
        })
    }

    /// Says that the engine starts.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub(crate) async fn run(
        &self,
        cmd: Vec<String>,
        start_time: DateTime<Utc>,
    ) -> Result<(), Failure> {
        self.say(ReportAction::Run { cmd, start_time }).await.map(drop)
    }

    /// Returns when the function has refused this task.
    pub(crate) async fn refused(&self) -> RefusedReason {
        match self.refused.subscribe().wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // The sender is ours, so that it cannot be gone.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whether the function has refused this task.
    fn has_refused(&self) -> bool {
        self.refused.borrow().is_some()
    }

    async fn say(
        &self,
        action: ReportAction,
    ) -> Result<(Option<TaskCredentials>, Option<TraceParent>), Failure> {
        let passing =
            |text: String| Failure::Passing(format!("the report function cannot be used: {text}"));
        let request = ReportRequest {
            run_id: self.run_id,
            attempt: self.attempt,
            token: self.token.clone(),
            task_arn: self.task_arn.clone(),
            action,
        };
        let payload =
            serde_json::to_vec(&request).map_err(|error| passing(format!("no JSON: {error}")))?;
        let response = with_patience(self.patience, "reporting", || async {
            self.invoke(&payload).await.map(Ok).map_err(&passing)
        })
        .await?;
        match response {
            ReportResponse::Accepted { credentials, trace } => Ok((credentials, trace)),
            ReportResponse::Refused { reason } => {
                self.refused.send_replace(Some(reason));
                Err(Failure::Refused(reason))
            }
        }
    }

    async fn invoke(&self, payload: &[u8]) -> Result<ReportResponse, String> {
        let answer = self
            .lambda
            .invoke()
            .function_name(&self.function)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(|error| {
                error.code().map_or_else(
                    || chain(&error),
                    |code| format!("{code}: {}", error.message().unwrap_or_default()),
                )
            })?;
        if let Some(kind) = answer.function_error() {
            // The payload is a Lambda error object: its message is meant for us, not for users.
            let body = answer.payload().map(Blob::as_ref).unwrap_or_default();
            return Err(format!("it failed ({kind}): {}", String::from_utf8_lossy(body)));
        }
        let body = answer.payload().map(Blob::as_ref).unwrap_or_default();
        // Not shown: an accepting answer holds credentials.
        serde_json::from_slice(body).map_err(|_| "its answer is not one of ours".to_owned())
    }
}

/// Scoped credentials, renewed when it is time.
#[derive(Clone, Debug)]
pub(crate) struct ScopedCredentials {
    reporter: Arc<Reporter>,
    holder: Holder,
    /// Locked while they are renewed, so that only one renewal is under way.
    held: Arc<Mutex<Option<Held>>>,
}

/// For whom credentials are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// This task, by claiming its attempt again.
    Task,
    /// What it runs.
    Engine,
}

#[derive(Debug)]
struct Held {
    credentials: TaskCredentials,
    renew_at: SystemTime,
}

impl Holder {
    fn holds(self, credentials: TaskCredentials) -> Held {
        let before = match self {
            Self::Task => RENEW_BEFORE,
            Self::Engine => RENEW_ENGINES_BEFORE,
        };
        let renew_at = use_until(credentials.expiration.into(), SystemTime::now(), before);
        Held { credentials, renew_at }
    }
}

impl ScopedCredentials {
    /// This task's own, beginning with those that the first claim gave.
    pub(crate) fn of_task(reporter: Arc<Reporter>, first: TaskCredentials) -> Self {
        let holder = Holder::Task;
        Self { reporter, holder, held: Arc::new(Mutex::new(Some(holder.holds(first)))) }
    }

    /// Those of the engine and its tools. Nobody is asked for them before they are asked for.
    pub(crate) fn of_engine(reporter: Arc<Reporter>) -> Self {
        Self { reporter, holder: Holder::Engine, held: Arc::default() }
    }

    /// Renews them when it is time, though nobody uses them, for as long as it is polled: a task
    /// that has nothing to upload learns that its attempt is over ([`Reporter::refused`]).
    pub(crate) async fn keep(&self) -> Infallible {
        while !self.reporter.has_refused() {
            let renew_at = self.held.lock().await.as_ref().map(|held| held.renew_at);
            let pause = renew_at
                .and_then(|renew_at| renew_at.duration_since(SystemTime::now()).ok())
                .unwrap_or_default();
            tokio::time::sleep(pause.max(RENEW_PAUSE)).await;
            if let Err(failure) = self.fresh().await {
                warn!("{failure}");
            }
        }
        std::future::pending().await
    }

    /// Credentials to use, and until when. When a renewal is refused, those before it serve to
    /// their end: a task that is being stopped has its last words to upload.
    ///
    /// # Errors
    /// As [`Reporter::claim`].
    pub(crate) async fn fresh(&self) -> Result<(TaskCredentials, SystemTime), Failure> {
        let mut held = self.held.lock().await;
        if let Some(held) = &*held
            && SystemTime::now() < held.renew_at
        {
            return Ok((held.credentials.clone(), held.renew_at));
        }
        let renewed = match self.holder {
            Holder::Task => self.reporter.claim().await.map(|(credentials, _)| credentials),
            Holder::Engine => self.reporter.lend().await,
        };
        match (renewed, &*held) {
            (Ok(renewed), _) => {
                let whose = if self.holder == Holder::Engine { "the engine's " } else { "" };
                info!("{whose}credentials renewed until {}", renewed.expiration);
                let renewed = held.insert(self.holder.holds(renewed));
                Ok((renewed.credentials.clone(), renewed.renew_at))
            }
            (Err(failure @ Failure::Refused(_)), Some(held)) => {
                let end = held.credentials.expiration.into();
                let serves = SystemTime::now() < end;
                if serves { Ok((held.credentials.clone(), end)) } else { Err(failure) }
            }
            (Err(failure), _) => Err(failure),
        }
    }
}

impl ProvideCredentials for ScopedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let (credentials, use_until) =
                self.fresh().await.map_err(CredentialsError::provider_error)?;
            Ok(Credentials::new(
                credentials.access_key_id,
                credentials.secret_access_key,
                Some(credentials.session_token),
                Some(use_until),
                "stepwes-report",
            ))
        })
    }
}

/// When credentials that end at `expiration` should be renewed, if that is `before` their end.
fn use_until(expiration: SystemTime, now: SystemTime, before: Duration) -> SystemTime {
    let early = expiration.checked_sub(before).unwrap_or(now);
    early.max(now + RENEW_AT_MOST_EVERY).min(expiration)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_renewed_ten_minutes_before_they_end() {
        let now = SystemTime::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let use_until = |expiration| use_until(expiration, now, RENEW_BEFORE);
        assert_eq!(use_until(at(3600)), at(3000));
        assert_eq!(use_until(at(300)), at(60), "short-lived ones are not renewed all the time");
        assert_eq!(use_until(at(5)), at(5), "but never used beyond their end");
    }

    /// A reporter whose function refuses everything.
    async fn refused_reporter() -> Arc<Reporter> {
        let answer = || async { axum::Json(json!({"verdict": "refused", "reason": "canceling"})) };
        let router = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let aws = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_config::Region::new("us-east-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
                Credentials::new("TASKROLE", "secret", None, None, "test"),
            ))
            .endpoint_url(endpoint)
            .build();
        let config = Config {
            run_id: "01890000-0000-7000-8000-000000000000".parse().expect("a run id"),
            attempt: 1,
            token: AttemptToken::from_secret("secret".to_owned()),
            bucket: "runs".to_owned(),
            report_function: "report".to_owned(),
            work_dir: "/nowhere".into(),
            work_link: None,
            container: "none".to_owned(),
            sandbox: "none".to_owned(),
            sandbox_hides: None,
            s3_path_style: true,
            metadata_uri: "http://127.0.0.1:9".to_owned(),
            limits: crate::config::Limits::default(),
            sources: crate::config::Sources::default(),
        };
        Arc::new(Reporter::new(&aws, &config, "arn:task/1".to_owned()))
    }

    #[tokio::test]
    async fn after_a_refused_renewal_the_old_credentials_serve_to_their_end_and_no_longer() {
        let reporter = refused_reporter().await;
        for (lives, serves) in [(300, true), (-1, false)] {
            let end = Utc::now() + chrono::TimeDelta::seconds(lives);
            let credentials = TaskCredentials {
                access_key_id: "OLD".to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: "session".to_owned(),
                expiration: end,
            };
            let held = Held { credentials, renew_at: SystemTime::now() };
            let scoped = ScopedCredentials {
                reporter: reporter.clone(),
                holder: Holder::Task,
                held: Arc::new(Mutex::new(Some(held))),
            };
            let given = scoped.provide_credentials().await;
            assert_eq!(given.is_ok(), serves, "{given:?}");
            if let Ok(given) = given {
                assert_eq!(given.access_key_id(), "OLD");
                assert_eq!(given.expiry(), Some(end.into()));
            }
            assert_eq!(reporter.refused().await, RefusedReason::Canceling);
        }
    }

    #[tokio::test]
    async fn patience_ends_and_keeps_the_last_error() {
        let tries = std::cell::Cell::new(0);
        let result: Result<(), String> =
            with_patience(Duration::from_millis(300), "a test", || async {
                tries.set(tries.get() + 1);
                Err(format!("failure {}", tries.get()))
            })
            .await;
        assert_eq!(result, Err(format!("failure {}", tries.get())));
        assert!(tries.get() > 1);
    }

    #[tokio::test]
    async fn what_is_settled_is_not_tried_again() {
        let result: Result<(), &str> =
            with_patience(Duration::from_secs(10), "a test", || async { Ok(Err("settled")) }).await;
        assert_eq!(result, Err("settled"));
    }
}
