//! A client of any WES 1.1 server: the API's calls, with errors a person can act on.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header, multipart};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use stepwes_core::wes::{BASE_PATH, OutputListResponse, RunIdResponse};

use crate::{args::ServerArgs, ui::hint, workflow::Submission};

/// A WES server and the credentials to use there.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    auth: Auth,
}

#[derive(Clone)]
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
    /// There is nothing at that offset yet.
    Nothing,
}

impl Client {
    /// A client of the server that the arguments name, or of `fallback`.
    pub(crate) fn new(args: &ServerArgs, fallback: Option<&str>) -> anyhow::Result<Self> {
        let Some(url) = args.url.as_deref().or(fallback) else {
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
        let auth = match (&args.token, &args.user) {
            (Some(token), _) => Auth::Bearer(token.clone()),
            (None, Some(user)) => match user.split_once(':') {
                Some((name, password)) => {
                    Auth::Basic { name: name.to_owned(), password: password.to_owned() }
                }
                None => return Err(hint("--user has no password", "give it as NAME:PASSWORD")),
            },
            (None, None) => Auth::None,
        };
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(120))
            .user_agent(concat!("stepwes/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, base, auth })
    }

    /// The server's base URL, with `/ga4gh/wes/v1`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.auth {
            Auth::None => request,
            Auth::Bearer(token) => request.bearer_auth(token),
            Auth::Basic { name, password } => request.basic_auth(name, Some(password)),
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                hint(
                    format!("no server answers at {}: {}", self.base, innermost(&error)),
                    "check --url (or STEPWES_URL), and that the server runs: `stepwes serve` starts one",
                )
            } else {
                anyhow::Error::new(error.without_url()).context(format!("the request to {} failed", self.base))
            }
        })?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// The error that a server answered, in its own words.
    async fn refusal(&self, response: Response) -> anyhow::Error {
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        let message = serde_json::from_str::<Value>(&body)
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
                "give --token (or STEPWES_TOKEN), or --user NAME:PASSWORD (or STEPWES_USER)",
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
        let response = self.send(self.request(Method::GET, url.as_str())).await?;
        let body = response.bytes().await.context("the server's answer broke off")?;
        serde_json::from_slice(&body)
            .with_context(|| format!("the answer of {path} is not what WES 1.1 says"))
    }

    /// `GET /service-info`.
    pub(crate) async fn service_info(&self) -> anyhow::Result<Value> {
        self.get("/service-info", &[]).await
    }

    /// `GET /runs`: the newest `limit` runs, as many pages as that takes.
    pub(crate) async fn list(&self, limit: usize) -> anyhow::Result<Vec<ListedRun>> {
        let mut runs = Vec::new();
        let mut token = String::new();
        while runs.len() < limit {
            let size = (limit - runs.len()).min(1000).to_string();
            let mut query = vec![("page_size", size.as_str())];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
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
        self.send(self.request(Method::POST, &url)).await?;
        Ok(())
    }

    /// `POST /runs`; gives the run's id.
    pub(crate) async fn submit(&self, submission: &Submission) -> anyhow::Result<String> {
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
        let mut request =
            self.request(Method::POST, &format!("{}/runs", self.base)).multipart(form);
        if let Some(key) = &submission.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let answer: RunIdResponse = self
            .send(request)
            .await?
            .json()
            .await
            .context("the answer to the submission is not a RunId")?;
        Ok(answer.run_id)
    }

    /// A log from `offset` on.
    pub(crate) async fn log(&self, url: &str, offset: u64) -> anyhow::Result<LogPiece> {
        let mut request = self.request(Method::GET, url);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = request
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .context("the log cannot be read")?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NO_CONTENT => Ok(LogPiece::Nothing),
            // A server that does not know ranges sends the whole log again: nothing to go on from.
            StatusCode::OK if offset > 0 => Ok(LogPiece::Nothing),
            status if status.is_success() => Ok(LogPiece::Bytes(response)),
            _ => Err(self.refusal(response).await),
        }
    }

    /// `GET /runs/{id}/outputs`, an extension of stepwes, every page.
    pub(crate) async fn outputs(
        &self,
        run_id: &str,
    ) -> anyhow::Result<Vec<stepwes_core::wes::OutputEntry>> {
        let mut files = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("page_size", "1000")];
            if !token.is_empty() {
                query.push(("page_token", &token));
            }
            let page: OutputListResponse =
                self.get(&format!("/runs/{}/outputs", segment(run_id)), &query).await?;
            files.extend(page.outputs);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(files);
            }
        }
    }

    /// The content behind a URL that the server handed out.
    pub(crate) async fn download(&self, url: &str) -> anyhow::Result<Response> {
        self.send(self.request(Method::GET, url)).await
    }
}

/// A run id as one segment of a path.
fn segment(run_id: &str) -> String {
    percent_encoding::utf8_percent_encode(run_id, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
}

/// The last cause: what the operating system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
