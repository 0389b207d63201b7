//! A client of any WES 1.1 server: the API's calls, with errors a person can act on.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header, multipart};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use stepwes_core::{
    clock::{Clock as _, IdGenerator as _, RandomIds, SystemClock},
    wes::{
        AttachmentEntry, AttachmentListResponse, BASE_PATH, OutputEntry, OutputListResponse,
        RunIdResponse, TaskListResponse, TaskLog,
    },
};

use crate::{
    args::{ServerArgs, environment},
    sign::Signer,
    ui::hint,
    workflow::Submission,
};

/// How often a request is tried before it has failed.
const TRIES: u32 = 3;

/// How often it is tried while a run is watched, which outlives a server's restart.
const PATIENT_TRIES: u32 = 10;

/// The pause before a request is tried again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long [`Client::look`] waits for an answer: API Gateway gives up after 30 seconds.
const LOOK_PATIENCE: Duration = Duration::from_secs(35);

/// How many redirects are followed (as many as reqwest does).
const MOST_REDIRECTS: usize = 10;

/// A WES server and the credentials to use there.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    auth: Auth,
    /// Signs the requests to the server, when that is asked for.
    signer: Option<Arc<Signer>>,
    tries: u32,
}

#[derive(Clone, PartialEq, Eq)]
enum Auth {
    None,
    Bearer(String),
    Basic { name: String, password: String },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// A state as a server says it: other servers have states that stepwes has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct State(pub(crate) String);

impl State {
    /// Whether the run has ended.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(
            self.0.as_str(),
            "COMPLETE" | "EXECUTOR_ERROR" | "SYSTEM_ERROR" | "CANCELED" | "PREEMPTED"
        )
    }
}

/// A run in a list; what is not `run_id` and `state` may be missing (WES 1.1 `RunListResponse`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ListedRun {
    pub(crate) run_id: String,
    pub(crate) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end_time: Option<String>,
    #[serde(default)]
    pub(crate) tags: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct ListAnswer {
    #[serde(default)]
    runs: Vec<ListedRun>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StatusAnswer {
    state: State,
}

#[derive(Debug, Deserialize)]
struct TasksAnswer {
    #[serde(default)]
    task_logs: Option<Vec<TaskView>>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// What progress needs of a task.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TaskView {
    #[serde(default)]
    pub(crate) end_time: Option<String>,
    #[serde(default)]
    pub(crate) exit_code: Option<i32>,
}

/// A run as `GET /runs/{id}` tells of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunView {
    pub(crate) run_id: String,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) request: Value,
    #[serde(default)]
    pub(crate) run_log: LogView,
    #[serde(default)]
    pub(crate) task_logs_url: Option<String>,
    #[serde(default)]
    pub(crate) outputs: Value,
    /// The run that it goes on from, on servers that know of that (stepwes does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resumed_from: Option<String>,
}

/// A run's log as `GET /runs/{id}` tells of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogView {
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) start_time: Option<String>,
    pub(crate) end_time: Option<String>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) system_logs: Option<Vec<String>>,
}

/// A piece of a log.
#[derive(Debug)]
pub(crate) enum LogPiece {
    /// These bytes, from the offset that was asked for.
    Bytes(Response),
    /// The log from its beginning: the server does not know ranges.
    Whole(Response),
    /// There is nothing at that offset yet.
    Nothing,
    /// The log ends before that offset: it is another log.
    Shorter,
}

/// One try of a request that came to nothing.
#[derive(Debug)]
struct Failure {
    error: anyhow::Error,
    /// How long to wait at least before another try, when one may go better.
    again: Option<Duration>,
    /// Whether it may have had its effect all the same.
    unsure: bool,
}

impl Failure {
    fn for_good(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), again: None, unsure: false }
    }

    fn passing(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), again: Some(Duration::ZERO), unsure: false }
    }
}

impl Client {
    /// A client of the server that the arguments name, or of `fallback`.
    pub(crate) async fn new(args: &ServerArgs, fallback: Option<&str>) -> anyhow::Result<Self> {
        let Some(url) = args.url().or_else(|| fallback.map(str::to_owned)) else {
            return Err(hint(
                "no WES server is named",
                "give --url or set STEPWES_URL; `stepwes serve` starts one on this machine at http://127.0.0.1:8080",
            ));
        };
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(hint(
                format!("the URL {url:?} is not http:// or https://"),
                "give --url as in http://127.0.0.1:8080",
            ));
        }
        let base =
            if url.ends_with(BASE_PATH) { url.to_owned() } else { format!("{url}{BASE_PATH}") };
        let mut http = reqwest::Client::builder();
        let (auth, signer) = if args.aws {
            // What signs a request has to see where it goes: see `Client::follow`.
            http = http.redirect(reqwest::redirect::Policy::none());
            (Auth::None, Some(Arc::new(Signer::of_environment(&base).await?)))
        } else {
            (Auth::choose(args, environment)?, None)
        };
        if is_loopback(url) {
            http = http.no_proxy();
        }
        let http = http
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(120))
            .user_agent(concat!("stepwes/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, base, auth, signer, tries: TRIES })
    }

    /// The same client for a run that goes on meanwhile: it bears a longer absence of the server.
    pub(crate) fn patient(self) -> Self {
        Self { tries: PATIENT_TRIES, ..self }
    }

    /// The server's base URL, with `/ga4gh/wes/v1`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A request with the credentials, when it goes to the server that they are for: the URLs that
    /// a server hands out may lead anywhere.
    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.auth {
            _ if !self.is_servers(url) => request,
            Auth::None => request,
            Auth::Bearer(token) => request.bearer_auth(token),
            Auth::Basic { name, password } => request.basic_auth(name, Some(password)),
        }
    }

    /// Whether a URL is of the server that the credentials are for.
    fn is_servers(&self, url: &str) -> bool {
        let origin = |url: &str| url::Url::parse(url).ok().map(|url| url.origin());
        origin(url) == origin(&self.base)
    }

    /// Sends a request and follows redirects. A signature is for one request: each that goes to
    /// the server gets its own, and what leads elsewhere, such as to S3, gets nothing of it.
    async fn follow(&self, request: RequestBuilder, signer: &Signer) -> Result<Response, Failure> {
        let mut request = request.build().map_err(Failure::for_good)?;
        for _ in 0..MOST_REDIRECTS {
            if self.is_servers(request.url().as_str()) {
                signer.sign(&mut request).await.map_err(Failure::for_good)?;
            }
            let may_follow = *request.method() == Method::GET;
            let range = request.headers().get(header::RANGE).cloned();
            let response = self.http.execute(request).await.map_err(|error| self.unsent(error))?;
            let next = response
                .headers()
                .get(header::LOCATION)
                .and_then(|location| response.url().join(location.to_str().ok()?).ok())
                .filter(|_| may_follow && response.status().is_redirection());
            let Some(next) = next else { return Ok(response) };
            request = reqwest::Request::new(Method::GET, next);
            if let Some(range) = range {
                request.headers_mut().insert(header::RANGE, range);
            }
        }
        Err(Failure::for_good(anyhow::anyhow!("{} redirects without end", self.base)))
    }

    /// What it means that no answer came.
    fn unsent(&self, error: reqwest::Error) -> Failure {
        if error.is_connect() {
            return Failure::passing(hint(
                format!("no server answers at {}: {}", self.base, innermost(&error)),
                "check --url (or STEPWES_URL), and that the server runs: `stepwes serve` starts one",
            ));
        }
        let settled = error.is_builder() || error.is_redirect() || error.is_body();
        let error = anyhow::Error::new(error.without_url())
            .context(format!("the request to {} failed", self.base));
        if settled {
            Failure::for_good(error)
        } else {
            Failure { unsure: true, ..Failure::passing(error) }
        }
    }

    /// Tries until it goes well, fails for good, or has been tried often enough.
    async fn repeat<T, F>(&self, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pause = FIRST_PAUSE;
        for _ in 1..self.tries {
            match attempt().await {
                Err(Failure { again: Some(after), .. }) => {
                    tokio::time::sleep(pause.max(after.min(LONGEST_RETRY_AFTER))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure.error),
                Ok(answer) => return Ok(answer),
            }
        }
        attempt().await.map_err(|failure| failure.error)
    }

    /// Sends a request once. Gives the answer, also when it is a refusal, unless another try may
    /// get another.
    async fn attempt(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = match &self.signer {
            Some(signer) => self.follow(request, signer).await?,
            None => request.send().await.map_err(|error| self.unsent(error))?,
        };
        let status = response.status().as_u16();
        if status == 500 {
            let body = response.text().await.unwrap_or_default();
            let again = gave_up(&body).then_some(Duration::ZERO);
            let error = refused(StatusCode::INTERNAL_SERVER_ERROR, &body);
            return Err(Failure { error, again, unsure: again.is_some() });
        }
        if !matches!(status, 429 | 502 | 503 | 504) {
            return Ok(response);
        }
        let after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map_or(Duration::ZERO, Duration::from_secs);
        // A gateway's words: what is behind it may have done it.
        let unsure = matches!(status, 502 | 504);
        Err(Failure { error: self.refusal(response).await, again: Some(after), unsure })
    }

    /// The answer if it is no refusal.
    async fn accepted(&self, response: Response) -> Result<Response, Failure> {
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Failure::for_good(self.refusal(response).await))
        }
    }

    /// Sends a request that may be repeated.
    async fn send(&self, method: Method, url: &str) -> anyhow::Result<Response> {
        self.repeat(|| async {
            let response = self.attempt(self.request(method.clone(), url)).await?;
            self.accepted(response).await
        })
        .await
    }

    /// The error that a server answered, in its own words.
    async fn refusal(&self, response: Response) -> anyhow::Error {
        let status = response.status();
        refused(status, &response.text().await.unwrap_or_default())
    }

    /// An answer as JSON, and as what it should be.
    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let mut url = url::Url::parse(&format!("{}{path}", self.base))
            .context("the server's URL cannot be read")?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let body = self
            .repeat(|| async {
                let response = self.attempt(self.request(Method::GET, url.as_str())).await?;
                body(self.accepted(response).await?).await
            })
            .await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("the answer of {path} is not what WES 1.1 says"))
    }

    /// Sends a GET once, and gives whatever is answered.
    pub(crate) async fn look(&self, path: &str) -> anyhow::Result<Response> {
        let request = self.request(Method::GET, &format!("{}{path}", self.base));
        let request = request.timeout(LOOK_PATIENCE);
        let sent = match &self.signer {
            Some(signer) => self.follow(request, signer).await,
            None => request.send().await.map_err(|error| self.unsent(error)),
        };
        sent.map_err(|failure| failure.error)
    }

    /// Whether requests say who sends them.
    pub(crate) fn has_credentials(&self) -> bool {
        self.signer.is_some() || self.auth != Auth::None
    }

    /// `GET /service-info`.
    pub(crate) async fn service_info(&self) -> anyhow::Result<Value> {
        self.get("/service-info", &[]).await
    }

    /// `GET /runs`: the newest `limit` runs, as many pages as that takes; `wanted` is whose and
    /// which, by extensions of stepwes.
    pub(crate) async fn list(
        &self,
        limit: usize,
        wanted: &[(&str, String)],
    ) -> anyhow::Result<Vec<ListedRun>> {
        let mut runs = Vec::new();
        let mut token = String::new();
        while runs.len() < limit {
            let size = (limit - runs.len()).min(1000).to_string();
            let mut query = vec![("page_size", size.as_str())];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            query.extend(wanted.iter().map(|(name, value)| (*name, value.as_str())));
            let page: ListAnswer = self.get("/runs", &query).await?;
            runs.extend(page.runs);
            token = page.next_page_token.unwrap_or_default();
            if token.is_empty() {
                break;
            }
        }
        runs.truncate(limit);
        Ok(runs)
    }

    /// `GET /runs/{id}`.
    pub(crate) async fn run(&self, run_id: &str) -> anyhow::Result<RunView> {
        self.get(&format!("/runs/{}", segment(run_id)), &[]).await
    }

    /// `GET /runs/{id}` as the server said it.
    pub(crate) async fn run_json(&self, run_id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/runs/{}", segment(run_id)), &[]).await
    }

    /// `GET /runs/{id}/status`.
    pub(crate) async fn state(&self, run_id: &str) -> anyhow::Result<State> {
        let answer: StatusAnswer =
            self.get(&format!("/runs/{}/status", segment(run_id)), &[]).await?;
        Ok(answer.state)
    }

    /// `GET /runs/{id}/tasks`, every page.
    pub(crate) async fn tasks(&self, run_id: &str) -> anyhow::Result<Vec<TaskView>> {
        let mut tasks = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("page_size", "1000")];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            let page: TasksAnswer =
                self.get(&format!("/runs/{}/tasks", segment(run_id)), &query).await?;
            tasks.extend(page.task_logs.unwrap_or_default());
            token = page.next_page_token.unwrap_or_default();
            if token.is_empty() {
                return Ok(tasks);
            }
        }
    }

    /// `POST /runs/{id}/cancel`.
    pub(crate) async fn cancel(&self, run_id: &str) -> anyhow::Result<()> {
        let url = format!("{}/runs/{}/cancel", self.base, segment(run_id));
        self.send(Method::POST, &url).await?;
        Ok(())
    }

    /// `DELETE /runs/{id}`.
    pub(crate) async fn delete(&self, run_id: &str) -> anyhow::Result<()> {
        let url = format!("{}/runs/{}", self.base, segment(run_id));
        self.send(Method::DELETE, &url).await?;
        Ok(())
    }

    /// `POST /runs/{id}/resume`; gives the new run's id. Servers that know the path know keys, so
    /// that it may be repeated.
    pub(crate) async fn resume(&self, run_id: &str) -> anyhow::Result<String> {
        let key = RandomIds.run_id(SystemClock.now()).to_string();
        let url = format!("{}/runs/{}/resume", self.base, segment(run_id));
        let body = self
            .repeat(|| async {
                let request = self.request(Method::POST, &url).header("Idempotency-Key", &key);
                body(self.accepted(self.attempt(request).await?).await?).await
            })
            .await?;
        let answer: RunIdResponse =
            serde_json::from_slice(&body).context("the answer is not a RunId")?;
        Ok(answer.run_id)
    }

    /// `POST /runs`; gives the run's id. A submission that may have arrived is only repeated under a
    /// key that the caller chose: not every server knows keys, and a second run would be another.
    pub(crate) async fn submit(&self, submission: &Submission) -> anyhow::Result<String> {
        let key = match &submission.idempotency_key {
            Some(key) => key.clone(),
            None => RandomIds.run_id(SystemClock.now()).to_string(),
        };
        let url = format!("{}/runs", self.base);
        let body = self
            .repeat(|| async {
                let form = form(submission).await.map_err(Failure::for_good)?;
                let request = self
                    .request(Method::POST, &url)
                    .header("Idempotency-Key", &key)
                    .multipart(form);
                let sent = async {
                    body(self.accepted(self.attempt(request).await?).await?).await
                };
                sent.await.map_err(|failure| match failure {
                    Failure { unsure: true, error, .. } if submission.idempotency_key.is_none() => {
                        Failure::for_good(hint(
                            format!("{error:#}; the run may have been submitted all the same"),
                            format!("look with `stepwes list`; --idempotency-key {key} submits it again as the same run, on servers that know keys (stepwes does)"),
                        ))
                    }
                    failure => failure,
                })
            })
            .await?;
        let answer: RunIdResponse =
            serde_json::from_slice(&body).context("the answer to the submission is not a RunId")?;
        Ok(answer.run_id)
    }

    /// A log from `offset` on.
    pub(crate) async fn log(&self, url: &str, offset: u64) -> anyhow::Result<LogPiece> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.ranged(url, range).await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = response
                    .headers()
                    .get(header::CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok()?.strip_prefix("bytes */")?.parse().ok());
                let shorter = total.is_some_and(|total: u64| total < offset);
                Ok(if shorter { LogPiece::Shorter } else { LogPiece::Nothing })
            }
            StatusCode::NO_CONTENT => Ok(LogPiece::Nothing),
            StatusCode::OK if offset > 0 => Ok(LogPiece::Whole(response)),
            status if status.is_success() => Ok(LogPiece::Bytes(response)),
            _ => Err(self.refusal(response).await),
        }
    }

    /// The last `count` bytes of a log, or all of it when the server does not know ranges; `None`
    /// when there are none.
    pub(crate) async fn log_end(&self, url: &str, count: u64) -> anyhow::Result<Option<Response>> {
        let response = self.ranged(url, Some(format!("bytes=-{count}"))).await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            _ => Err(self.refusal(response).await),
        }
    }

    /// What is at a URL, or a range of it; also a refusal.
    async fn ranged(&self, url: &str, range: Option<String>) -> anyhow::Result<Response> {
        self.repeat(|| {
            let mut request = self.request(Method::GET, url);
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            self.attempt(request)
        })
        .await
    }

    /// `GET /runs/{id}/outputs`, an extension of stepwes, every page; `None` where a server does
    /// not have it, or not the run.
    pub(crate) async fn outputs(&self, run_id: &str) -> anyhow::Result<Option<Vec<OutputEntry>>> {
        let mut files = Vec::new();
        let mut token = String::new();
        loop {
            let mut url =
                url::Url::parse(&format!("{}/runs/{}/outputs", self.base, segment(run_id)))
                    .context("the server's URL cannot be read")?;
            url.query_pairs_mut().append_pair("page_size", "1000");
            if !token.is_empty() {
                url.query_pairs_mut().append_pair("page_token", &token);
            }
            let body = self
                .repeat(|| async {
                    let response = self.attempt(self.request(Method::GET, url.as_str())).await?;
                    if matches!(response.status().as_u16(), 404 | 405) {
                        return Ok(None);
                    }
                    body(self.accepted(response).await?).await.map(Some)
                })
                .await?;
            let Some(body) = body else { return Ok(None) };
            let page: OutputListResponse =
                serde_json::from_slice(&body).context("the list of outputs cannot be read")?;
            files.extend(page.outputs);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(Some(files));
            }
        }
    }

    /// The JSON behind a URL that the server handed out.
    pub(crate) async fn json(&self, url: &str) -> anyhow::Result<Value> {
        let body = self
            .repeat(|| async {
                let response = self.attempt(self.request(Method::GET, url)).await?;
                body(self.accepted(response).await?).await
            })
            .await?;
        serde_json::from_slice(&body).context("what the server named is not JSON")
    }

    /// `GET /runs/{id}/ro-crate`, an extension of stepwes.
    pub(crate) async fn ro_crate(&self, run_id: &str) -> anyhow::Result<Value> {
        self.json(&format!("{}/runs/{}/ro-crate", self.base, segment(run_id))).await
    }

    /// `GET /runs/{id}/tasks`, every page, whole.
    pub(crate) async fn task_logs(&self, run_id: &str) -> anyhow::Result<Vec<TaskLog>> {
        self.pages(&format!("/runs/{}/tasks", segment(run_id)), |page: TaskListResponse| {
            (page.task_logs, page.next_page_token)
        })
        .await
    }

    /// `GET /runs/{id}/attachments`, an extension of stepwes, every page.
    pub(crate) async fn attachments(&self, run_id: &str) -> anyhow::Result<Vec<AttachmentEntry>> {
        let path = format!("/runs/{}/attachments", segment(run_id));
        self.pages(&path, |page: AttachmentListResponse| (page.attachments, page.next_page_token))
            .await
    }

    /// Every item of a list; `split` takes a page apart.
    async fn pages<P: DeserializeOwned, T>(
        &self,
        path: &str,
        split: impl Fn(P) -> (Vec<T>, String),
    ) -> anyhow::Result<Vec<T>> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("page_size", "1000")];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            let (items, next) = split(self.get(path, &query).await?);
            all.extend(items);
            token = next;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// The content behind a URL that the server handed out, from `offset` on. Gives 416 for an offset
    /// behind its end, and the whole of it from a server that knows no ranges.
    pub(crate) async fn download_from(&self, url: &str, offset: u64) -> anyhow::Result<Response> {
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.ranged(url, range).await?;
        match response.status() {
            status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            _ => Err(self.refusal(response).await),
        }
    }

    /// The content behind a URL that the server handed out.
    pub(crate) async fn download(&self, url: &str) -> anyhow::Result<Response> {
        self.send(Method::GET, url).await
    }
}

impl Auth {
    /// The credentials to send: a flag's, else the environment's.
    fn choose(
        args: &ServerArgs,
        environment: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let (token, user) = match (&args.token, &args.user) {
            (None, None) => (environment("STEPWES_TOKEN"), environment("STEPWES_USER")),
            flags => (flags.0.clone(), flags.1.clone()),
        };
        match (token, user) {
            (None, None) => Ok(Self::None),
            (Some(token), None) => Ok(Self::Bearer(token)),
            (None, Some(user)) => match user.split_once(':') {
                Some((name, password)) => {
                    Ok(Self::Basic { name: name.to_owned(), password: password.to_owned() })
                }
                None => Err(hint("--user has no password", "give it as NAME:PASSWORD")),
            },
            (Some(_), Some(_)) => Err(hint(
                "STEPWES_TOKEN and STEPWES_USER are both set",
                "unset one, or give --token or --user",
            )),
        }
    }
}

/// A submission as a form.
async fn form(submission: &Submission) -> anyhow::Result<multipart::Form> {
    let mut form = multipart::Form::new();
    for (name, value) in &submission.fields {
        form = form.text(name.clone(), value.clone());
    }
    for attachment in &submission.attachments {
        let part = multipart::Part::file(&attachment.path)
            .await
            .with_context(|| format!("{} cannot be read", attachment.path.display()))?
            .file_name(attachment.name.clone())
            .mime_str("application/octet-stream")?;
        form = form.part("workflow_attachment", part);
    }
    Ok(form)
}

/// An answer's whole body.
async fn body(response: Response) -> Result<Vec<u8>, Failure> {
    let body = response.bytes().await.map_err(|error| {
        let error = anyhow::Error::new(error.without_url());
        Failure { unsure: true, ..Failure::passing(error.context("the server's answer broke off")) }
    })?;
    Ok(body.into())
}

/// Whether a URL names this machine, which no proxy reaches.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A run id as one segment of a path.
fn segment(run_id: &str) -> String {
    percent_encoding::utf8_percent_encode(run_id, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
}

/// The last cause: what the operating system said.
/// What an answer that is a refusal says, and what to do about it.
fn refused(status: StatusCode, body: &str) -> anyhow::Error {
    let message = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|body| {
            ["msg", "message", "detail"]
                .iter()
                .find_map(|key| body[*key].as_str().map(str::to_owned))
        })
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("an error").to_owned());
    match status {
        StatusCode::UNAUTHORIZED => hint(
            format!("the server wants credentials: {message}"),
            "give --token (or STEPWES_TOKEN), --user NAME:PASSWORD (or STEPWES_USER), or --aws",
        ),
        // API Gateway's own words for credentials that its authorizer does not accept.
        StatusCode::FORBIDDEN if message == "Forbidden" => hint(
            "the server does not accept these credentials",
            "check --token, --user or the AWS credentials: they may be wrong, revoked or expired",
        ),
        StatusCode::FORBIDDEN => hint(
            format!("the server does not allow it: {message}"),
            "check with whom the run, or the service, belongs",
        ),
        StatusCode::NOT_FOUND => {
            hint(message, "`stepwes list` shows your runs; check --url as well")
        }
        _ => anyhow::anyhow!("{message} (HTTP {})", status.as_u16()),
    }
}

/// Whether a 500 is API Gateway's own, for a function that ended without an answer: at its time
/// limit, or of memory. It may have done its work all the same, and another one may answer.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-troubleshooting-lambda.html>
fn gave_up(body: &str) -> bool {
    let body = serde_json::from_str::<Value>(body).unwrap_or_default();
    body["msg"].is_null()
        && body["message"]
            .as_str()
            .is_some_and(|message| message.eq_ignore_ascii_case("Internal Server Error"))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flags: [Option<&str>; 2], variables: &[(&str, &str)]) -> anyhow::Result<Auth> {
        let [token, user] = flags.map(|flag| flag.map(str::to_owned));
        Auth::choose(&ServerArgs { url: None, token, user, aws: false, json: false }, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_flag_beats_the_environment() {
        let bearer = |token: &str| Auth::Bearer(token.to_owned());
        let both = [("STEPWES_TOKEN", "t"), ("STEPWES_USER", "n:p")];
        assert_eq!(chosen([Some("x"), None], &both).expect("a token"), bearer("x"));
        assert_eq!(chosen([None, None], &both[..1]).expect("a token"), bearer("t"));
        let basic = Auth::Basic { name: "a".to_owned(), password: "b:c".to_owned() };
        assert_eq!(chosen([None, Some("a:b:c")], &both).expect("a user"), basic);
        assert_eq!(chosen([None, None], &[]).expect("nobody"), Auth::None);
        assert!(chosen([None, None], &both).is_err());
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["http://localhost:1/x", "http://127.0.0.9", "http://[::1]:8080"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["https://example.org", "http://10.0.0.1", "http://localhost.example.org"]
        {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
