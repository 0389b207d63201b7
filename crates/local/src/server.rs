//! The server: everything put together, started and taken down.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials as AwsCredentials;
use axum::{Router, body::Body};
use chrono::{TimeDelta, Utc};
use http::{HeaderValue, Request, StatusCode};
use serde_json::json;
use stepwes_cloud::{Aws, aws::Endpoint, http::Caller};
use stepwes_core::{RunId, RunState, SystemClock, task::env};
use stepwes_store::RunStore;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use uuid::Uuid;

use crate::{
    arn,
    calls::{Calls, Service},
    capacity::Capacity,
    credentials::{self, Principals},
    dynamodb::{self, DynamoDb},
    ecs::{Definition, Ecs},
    engines::{self, FoundEngine, SearchPath},
    events,
    faults::Injector,
    folder::Folder,
    functions,
    gateway::Gateway,
    in_process::{InProcess, Later},
    lambda::{Functions, name},
    ledger::{self, Ledger},
    life::Life,
    listener::{HttpServer, Limits, client_of},
    options::{Auth, ServeError, ServeOptions},
    process_limits,
    public::{CANCELED, Guard, Public},
    retention::Retention,
    s3::{Credentials, Hooks, S3Endpoint},
    state_changes,
    states::{self, States},
    strays::Suspects,
    sts::Sts,
    tokens,
};

/// How long a client may do nothing in the middle of a request or an answer.
const CLIENTS_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may take to send a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// What clients may take of the public port.
const PUBLIC: Limits = Limits {
    connections: 512,
    of_one: 256,
    client: client_of,
    head: HEAD_PATIENCE,
    patience: CLIENTS_PATIENCE,
};
/// What the functions and the engine tasks may take of the internal port: a few connections for each
/// of many tasks.
const INTERNAL: Limits = Limits { connections: 4096, of_one: 4096, client: |_| None, ..PUBLIC };
/// How long the requests that are being answered have when the server goes down.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(10);
/// How long the tasks' requests have: they are repeated to the next server.
const TASKS_PATIENCE: Duration = Duration::from_millis(500);
/// How long an engine that has ended waits with its finished work for a server to take it: one may
/// well be started again only after a holiday.
const TASKS_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most runs that work at once, whatever was asked for: what one look at the slots holds.
const MOST_SLOTS: u32 = 10_000;
/// How often expired items are deleted.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// How often stopped tasks, ended executions and abandoned uploads are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// A running server.
pub struct Server {
    url: String,
    auth: Auth,
    internal_url: String,
    aws: Aws,
    calls: Arc<Calls>,
    faults: Option<Arc<Injector>>,
    public: Arc<Public>,
    public_http: HttpServer,
    internal_http: HttpServer,
    states: Arc<States>,
    ecs: Arc<Ecs>,
    life: Life,
    reconcile_now: Arc<Notify>,
    /// Last: the lock is let go of when nothing uses the folder any more.
    folder: Folder,
}

/// What goes on after a server has gone down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftRunning {
    /// The tasks whose processes live on. They report to the next server of the folder.
    pub tasks: Vec<LeftTask>,
    /// How many runs, and tasks of runs, wait for room; the next server starts them.
    pub waiting: usize,
}

/// A task whose process lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftTask {
    /// The run that it is for.
    pub run_id: Option<String>,
    /// The pid of its engine task, which leads a session of its own.
    pub pid: i32,
}

/// Starts a server.
///
/// # Errors
/// [`ServeError`], which says what is wrong and what to do.
pub async fn start(options: ServeOptions) -> Result<Server, ServeError> {
    let slots = slots(options.max_engines);
    start_with(options, slots).await
}

async fn start_with(options: ServeOptions, slots: usize) -> Result<Server, ServeError> {
    process_limits::set();
    check(&options)?;
    let others = reaches_others(&options.host).await;
    let by_default = if others { Auth::Token } else { Auth::None };
    let options = ServeOptions { auth: Some(options.auth.unwrap_or(by_default)), ..options };
    let engine = engine_path(&options)?;
    let mut folder = Folder::open(&options.dir).await?;
    let dir = folder.path.clone();
    // The public port first: it is what most often cannot be had.
    let public_listener = listen(&options).await?;
    let public_address = public_listener.local_addr().map_err(internal)?;
    let internal_listener = folder.listen().await?;
    let internal_address = internal_listener.local_addr().map_err(internal)?;
    let internal_url = format!("http://{internal_address}");
    let url = url_of(&options.host, public_address);

    let principals =
        Principals::load(&dir).map_err(|error| unusable(dir.join(credentials::FILE), error))?;
    let later = Later::default();
    let aws = Aws::through(InProcess(later.clone()), endpoint(&internal_url, &principals));
    let calls = Arc::new(Calls::default());
    let faults = options.faults.clone().map(Injector::new);
    let ledger = Ledger::open(&dir).map_err(|error| unusable(dir.join(ledger::FILE), error))?;
    let ledger = Arc::new(ledger);
    let dynamodb =
        DynamoDb::open(&dir).map_err(|error| unusable(dir.join(dynamodb::FILE), error))?;
    let table = tokens::store(dynamodb.clone());
    table.create_table().await.map_err(|error| ServeError::Internal(error.into()))?;
    let authorizer = match options.auth {
        Some(Auth::Token) => Some(authorizer(table, others, &options).await?),
        Some(Auth::None) | None => None,
    };
    let life = Life::default();
    let dynamodb = match &options.on_state_change {
        None => dynamodb,
        Some(receiver) => {
            let store = tokens::store(dynamodb.clone());
            let environment = host_environment(std::env::var_os("PATH").unwrap_or_default());
            let (receiver, delivery) = (receiver.clone(), options.delivery);
            let outbox =
                state_changes::start(receiver, delivery, environment, &dir, store, &life).await;
            let unusable = |error| unusable(dir.join(state_changes::FILE), error);
            dynamodb.with_outbox(outbox.map_err(unusable)?)
        }
    };
    let keys = Arc::new(Credentials::new());
    keys.add(&principals.service.access_key_id, &principals.service.secret_access_key);
    let counted = Arc::clone(&calls);
    let (landed, landing) = mpsc::unbounded_channel();
    let hooks = Hooks {
        on_call: Some(Arc::new(move |operation| counted.enter(Service::S3, operation))),
        on_created: Some(events::hook(landed)),
    };
    let inputs = options.input_buckets.iter().map(String::as_str);
    let outputs = options.destinations.buckets.iter().map(String::as_str);
    let buckets: Vec<_> = std::iter::once(arn::BUCKET).chain(inputs).chain(outputs).collect();
    let s3 = S3Endpoint::open(&dir.join("s3"), &buckets, Arc::clone(&keys), hooks)
        .map_err(|error| unusable(dir.join("s3"), error))?;
    let in_ledger = |error| unusable(dir.join(ledger::FILE), error);
    let sts = Sts::load(Arc::clone(&ledger), keys).await.map_err(in_ledger)?;

    let mut first = vec![dir.join("engines/bin")];
    first.extend(options.engines_path_dirs.iter().cloned());
    let search = SearchPath::new(first, std::env::var_os("PATH").as_deref());
    let found = engines::find(&search);
    let known = engines::engines(&found, &options)?;

    let capacity = Capacity::of(&dir).map_err(internal)?;
    let resources = functions::bounds(&options, capacity);
    let max_runs = u32::try_from(slots).unwrap_or(u32::MAX).min(MOST_SLOTS);
    let submit = functions::submit(&aws, &options, resources, known, max_runs);
    let submit = Arc::new(RwLock::new(submit));
    let functions =
        functions::invoked(&aws, &options, resources, &submit, faults.as_ref(), max_runs)?;
    let functions = Arc::new(functions);
    let definition = Definition {
        environment: task_environment(&options, &internal_url, &principals, &search),
        dir: dir.clone(),
        engine,
        internal_url: internal_url.clone(),
        slots,
        capacity,
        stop_timeout: options.stop_timeout,
    };
    let ecs = Ecs::load(Arc::clone(&ledger), definition, life.clone()).await.map_err(in_ledger)?;
    let events_ledger = Arc::clone(&ledger);
    let definition = states::run_machine().map_err(|error| ServeError::Internal(error.into()))?;
    let states = States::load(
        definition,
        ledger,
        Arc::clone(&ecs),
        Arc::clone(&functions),
        Arc::clone(&calls),
        life.clone(),
        on_end(&functions, &calls, &life),
    )
    .await
    .map_err(in_ledger)?;
    let gateway = Arc::new(Gateway {
        principals,
        calls: Arc::clone(&calls),
        dynamodb: dynamodb.clone(),
        s3: s3.clone(),
        sts,
        ecs: Arc::clone(&ecs),
        states: Arc::clone(&states),
        functions: Arc::clone(&functions),
        faults: faults.clone(),
    });
    later.connect(&gateway);
    let internal_http = HttpServer::start(internal_listener, INTERNAL, move |request| {
        let gateway = Arc::clone(&gateway);
        gateway.call(request)
    });
    let presign_host = url.strip_prefix("http://").unwrap_or_default();
    let public = Arc::new(Public {
        router: RwLock::new(functions::api(&aws, &options, resources, &submit, &url)),
        s3,
        ecs: Arc::clone(&ecs),
        faults: faults.clone(),
        authorizer,
        callers: options.callers(),
        life: life.clone(),
        guard: Guard::new(&options.host, options.public_url.as_deref()),
        presign_host: HeaderValue::from_str(presign_host)
            .map_err(|error| ServeError::Internal(error.into()))?,
        presign_url: url.clone(),
    });
    let suspects = Suspects::list(&dir, Utc::now());
    life.spawn(suspects.remove(dir.clone(), aws.clone()));
    let answering = Arc::clone(&public);
    let public_http = HttpServer::start(public_listener, PUBLIC, move |request| {
        let public = Arc::clone(&answering);
        async move { public.call(request).await }
    });
    let reconcile_now = Arc::new(Notify::new());
    let retention = (options.retention_days > 0)
        .then(|| Arc::new(Retention::new(options.retention_days, &dir, &aws)));
    spawn_timer(&life, FORGET_EVERY, {
        let (ecs, states, s3) = (Arc::clone(&ecs), Arc::clone(&states), public.s3.clone());
        move || {
            let (ecs, states, s3) = (Arc::clone(&ecs), Arc::clone(&states), s3.clone());
            let retention = retention.clone();
            async move {
                ecs.forget_old(Utc::now()).await;
                states.forget_old(Utc::now()).await;
                let rules = retention.as_ref().map(|retention| retention.rules());
                s3.sweep(&rules.unwrap_or_default(), SystemTime::now()).await;
                if let Some(retention) = retention {
                    retention.remove_leftovers(Utc::now()).await;
                }
            }
        }
    });
    spawn_timers(&life, &functions, &calls, dynamodb, &options, &reconcile_now);
    // Nothing is started while everything is being stopped.
    if slots > 0 {
        let told = events_ledger.told_objects().await.map_err(in_ledger)?;
        let watch = events::Watch::new(
            events_ledger,
            told,
            public.s3.clone(),
            functions,
            Arc::clone(&calls),
        );
        life.spawn(watch.run(landing));
    }
    if found.iter().any(engines::is_askable) {
        let (aws, options) = (aws.clone(), options.clone());
        ask_for_versions(found, search, &life, &public, move |found, url| {
            // The options were good when the server started.
            let known = engines::engines(found, &options).ok()?;
            let known = functions::submit(&aws, &options, resources, known, max_runs);
            *submit.write().unwrap_or_else(PoisonError::into_inner) = known;
            Some(functions::api(&aws, &options, resources, &submit, url))
        });
    }
    folder.announce(&url).map_err(internal)?;
    Ok(Server {
        url,
        auth: options.auth.unwrap_or(by_default),
        internal_url,
        aws,
        calls,
        faults,
        public,
        public_http,
        internal_http,
        states,
        ecs,
        life,
        reconcile_now,
        folder,
    })
}

impl Server {
    /// Where the API is, for somebody on this machine.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// By what callers are known.
    #[must_use]
    pub const fn auth(&self) -> Auth {
        self.auth
    }

    /// Where the embedded AWS is.
    #[must_use]
    pub fn internal_url(&self) -> &str {
        &self.internal_url
    }

    /// The folder that everything is kept in, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.folder.path
    }

    /// The AWS calls since the server started, as `<service>:<operation>`.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.snapshot()
    }

    /// The faults that were injected since the server started, as `<service>: <kind>`.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.faults.as_ref().map(|faults| faults.counts()).unwrap_or_default()
    }

    /// The embedded AWS with all rights, for tests.
    #[must_use]
    pub const fn aws(&self) -> &Aws {
        &self.aws
    }

    /// Looks after runs that something went wrong with now, and not only when the timer says so.
    pub fn reconcile(&self) {
        self.reconcile_now.notify_one();
    }

    /// Goes down: accepts nothing more, answers what has been asked, and leaves the engines
    /// running. They repeat their reports until the next server of the folder takes them.
    pub async fn shutdown(self) -> LeftRunning {
        self.public_http.stop(REQUESTS_PATIENCE).await;
        let waiting =
            self.aws.store(arn::TABLE).waiting(MOST_SLOTS as usize).await.unwrap_or_default();
        self.ecs.close();
        self.life.end().await;
        self.internal_http.stop(TASKS_PATIENCE).await;
        let live = self.ecs.live();
        let tasks: Vec<_> = live
            .iter()
            .filter_map(|task| {
                Some(LeftTask { run_id: task.run_id().map(str::to_owned), pid: task.process?.pid })
            })
            .collect();
        LeftRunning { waiting: waiting.len() + live.len() - tasks.len(), tasks }
    }

    /// Cancels every run that has not ended, and waits until all have. `progress` is told how many
    /// there still are, each time that changes.
    ///
    /// # Errors
    /// When the run table cannot be read.
    pub async fn stop_runs(&self, mut progress: impl FnMut(usize)) -> Result<usize, ServeError> {
        let store = self.aws.store(arn::TABLE);
        let mut asked = BTreeSet::new();
        let mut told = None;
        loop {
            let mut left = BTreeSet::new();
            for state in RunState::ALL.into_iter().filter(|state| !state.is_terminal()) {
                let until = Utc::now() + TimeDelta::seconds(1);
                let runs = store
                    .unfinished(state, until, STOPPED_AT_ONCE)
                    .await
                    .map_err(|error| ServeError::Internal(error.into()))?;
                left.extend(runs);
            }
            let waiting = store.waiting(STOPPED_AT_ONCE as usize).await;
            left.extend(waiting.map_err(|error| ServeError::Internal(error.into()))?);
            if told != Some(left.len()) {
                progress(left.len());
                told = Some(left.len());
            }
            if left.is_empty() && self.states.running().is_empty() && self.ecs.live().is_empty() {
                return Ok(asked.len());
            }
            for run in left {
                if asked.contains(&run) {
                    // Its execution may have asked for a task just before it was cancelled.
                    self.stop_waiting(run).await;
                } else if self.cancel(run).await {
                    asked.insert(run);
                }
            }
            self.reconcile();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks for a run to be cancelled; whether that need not be asked again.
    async fn cancel(&self, run: RunId) -> bool {
        let path = format!("{}/runs/{run}/cancel", stepwes_core::wes::BASE_PATH);
        // Whoever may start the server on this folder may do so for every owner.
        let operator = Caller { owner: "operator".to_owned(), sees_all: true };
        let request = Request::post(path).extension(operator).body(Body::empty());
        let Ok(request) = request else { return false };
        let answer = self.public.api(request).await;
        // A run that failed meanwhile is 403, and has ended as well.
        let is_done = answer.status().is_success() || answer.status() == StatusCode::FORBIDDEN;
        if !is_done {
            tracing::warn!(%run, status = %answer.status(), "a run was not cancelled; trying again");
        }
        is_done
    }

    async fn stop_waiting(&self, run: RunId) {
        if let Err(error) = self.ecs.stop_waiting(&run.to_string(), CANCELED).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                %run,
                "a waiting task was not stopped; trying again"
            );
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How many runs [`Server::stop_runs`] reads of each state at once.
const STOPPED_AT_ONCE: u32 = 1000;
/// How often [`Server::stop_runs`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `stepwes serve --stop-runs`: takes up what an earlier server left in the folder, cancels every
/// run, waits until all have ended, and goes down. Gives how many there were.
///
/// # Errors
/// As [`start`]; another server that uses the folder has to be stopped before.
pub async fn stop_runs(
    options: ServeOptions,
    progress: impl FnMut(usize),
) -> Result<usize, ServeError> {
    // Without slots: no engine is started only to be stopped.
    let server = start_with(ServeOptions { port: 0, ..options }, 0).await?;
    let stopped = server.stop_runs(progress).await;
    server.shutdown().await;
    stopped
}

fn internal(error: std::io::Error) -> ServeError {
    ServeError::Internal(error.into())
}

fn unusable(
    file: PathBuf,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ServeError {
    ServeError::File { file, source: error.into() }
}

fn check(options: &ServeOptions) -> Result<(), ServeError> {
    if let Some(url) = &options.public_url {
        let usable = url::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !usable {
            return Err(ServeError::PublicUrl { url: url.clone() });
        }
    }
    Ok(())
}

/// Whether a host is one that others than this machine reach.
async fn reaches_others(host: &str) -> bool {
    // A name that cannot be resolved fails when it is listened on, with its own message.
    let Ok(mut addresses) = tokio::net::lookup_host((bare(host), 0)).await else { return true };
    !addresses.all(|address| address.ip().is_loopback())
}

/// What checks callers' tokens. Where others reach the server, there has to be one that counts:
/// else nobody could use it, and nobody would be told why.
async fn authorizer(
    store: RunStore,
    others: bool,
    options: &ServeOptions,
) -> Result<stepwes_authorize::State, ServeError> {
    let tokens = store.tokens().await.map_err(|error| ServeError::Internal(error.into()))?;
    let now = Utc::now();
    if others && tokens.iter().all(|token| token.has_expired(now)) {
        return Err(ServeError::NoToken { host: options.host.clone(), dir: options.dir.clone() });
    }
    Ok(stepwes_authorize::State { store, clock: Arc::new(SystemClock) })
}

/// The host without an IPv6 address' brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn listen(options: &ServeOptions) -> Result<TcpListener, ServeError> {
    TcpListener::bind((bare(&options.host), options.port)).await.map_err(|source| {
        ServeError::Port { host: options.host.clone(), port: options.port, source }
    })
}

fn url_of(host: &str, address: SocketAddr) -> String {
    let port = address.port();
    match bare(host).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("http://127.0.0.1:{port}"),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("http://[::1]:{port}"),
        Ok(IpAddr::V6(ip)) => format!("http://[{ip}]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

fn engine_path(options: &ServeOptions) -> Result<PathBuf, ServeError> {
    let path = match &options.engine_path {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(internal)?.with_file_name("stepwes-engine"),
    };
    // Absolute, as tasks start in folders of their own.
    std::path::absolute(&path)
        .ok()
        .filter(|path| path.is_file())
        .ok_or(ServeError::NoEngine { path })
}

fn slots(asked: Option<NonZeroUsize>) -> usize {
    asked.map_or_else(
        || std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)),
        NonZeroUsize::get,
    )
}

/// The embedded AWS at its port, for another process.
pub(crate) fn aws_at(url: &str, principals: &Principals) -> Aws {
    Aws::at(endpoint(url, principals))
}

fn endpoint(url: &str, principals: &Principals) -> Endpoint {
    let key = &principals.service;
    Endpoint {
        url: url.to_owned(),
        region: arn::REGION.to_owned(),
        credentials: AwsCredentials::new(
            &key.access_key_id,
            &key.secret_access_key,
            None,
            None,
            "stepwes-local",
        ),
    }
}

/// What a program needs of the server's own environment.
fn host_environment(path: OsString) -> Vec<(String, OsString)> {
    let names = [
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ];
    names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)))
        .chain([("PATH".to_owned(), path)])
        .collect()
}

/// The task definition's environment. Nothing of the server's own gets through but what a program
/// needs: neither the operator's AWS credentials nor proxies.
fn task_environment(
    options: &ServeOptions,
    internal_url: &str,
    principals: &Principals,
    search: &SearchPath,
) -> Vec<(String, OsString)> {
    let mut environment = host_environment(search.variable());
    let mut set = |name: &str, value: OsString| environment.push((name.to_owned(), value));
    set("AWS_ENDPOINT_URL", internal_url.into());
    set("AWS_REGION", arn::REGION.into());
    set("AWS_ACCESS_KEY_ID", principals.task.access_key_id.clone().into());
    set("AWS_SECRET_ACCESS_KEY", principals.task.secret_access_key.clone().into());
    set("AWS_EC2_METADATA_DISABLED", "true".into());
    set(env::BUCKET, arn::BUCKET.into());
    set(env::REPORT_FUNCTION, name::REPORT.into());
    set(env::S3_PATH_STYLE, "true".into());
    set(env::CONTAINER, options.container.clone().into());
    set(env::SANDBOX, options.sandbox.clone().into());
    set(env::ALLOWED_HOSTS, options.hosts().into());
    // The folders have been found to be there, and none has a colon in it.
    set(env::FILE_ROOTS, std::env::join_paths(&options.workflow_dirs).unwrap_or_default());
    set(env::MAX_INPUT_MIB, options.max_input_mib.to_string().into());
    if !options.drs_tokens.is_empty() {
        set(env::DRS_TOKENS, options.drs_tokens.reveal().into());
    }
    set(env::STOP_GRACE, options.stop_grace.as_secs().to_string().into());
    set(env::PATIENCE, TASKS_WAIT.as_secs().to_string().into());
    environment
}

/// Tells reconcile of each execution that ended: others may wait for that.
fn on_end(functions: &Arc<Functions>, calls: &Arc<Calls>, life: &Life) -> states::EndedHook {
    let (functions, calls, life) = (Arc::clone(functions), Arc::clone(calls), life.clone());
    Arc::new(move |event| {
        let (functions, calls) = (Arc::clone(&functions), Arc::clone(&calls));
        life.spawn(async move { reconcile(&functions, &calls, event).await });
    })
}

/// Delivers an event to reconcile. A failure has been logged, and the timer comes again.
async fn reconcile(functions: &Functions, calls: &Calls, event: serde_json::Value) {
    let times = functions.faults().map_or(1, |faults| faults.deliveries(name::RECONCILE, &event));
    let deliveries = (0..times).map(|_| {
        calls.enter(Service::Lambda, "Invoke");
        functions.invoke(name::RECONCILE, event.clone())
    });
    futures::future::join_all(deliveries).await;
}

fn spawn_timers(
    life: &Life,
    functions: &Arc<Functions>,
    calls: &Arc<Calls>,
    dynamodb: DynamoDb,
    options: &ServeOptions,
    reconcile_now: &Arc<Notify>,
) {
    let (functions, calls) = (Arc::clone(functions), Arc::clone(calls));
    let (interval, now) = (options.reconcile_interval, Arc::clone(reconcile_now));
    life.spawn(async move {
        loop {
            reconcile(&functions, &calls, schedule_event()).await;
            // Early, when somebody asks; late is what the timer is for.
            let _ = tokio::time::timeout(interval, now.notified()).await;
        }
    });
    life.spawn(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            if dynamodb.sweep().await.is_err() {
                return;
            }
        }
    });
}

/// Does `work` now and again and again.
fn spawn_timer<W>(life: &Life, every: Duration, work: impl Fn() -> W + Send + 'static)
where
    W: Future<Output = ()> + Send + 'static,
{
    life.spawn(async move {
        loop {
            work().await;
            tokio::time::sleep(every).await;
        }
    });
}

/// What EventBridge Scheduler sends.
fn schedule_event() -> serde_json::Value {
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": arn::ACCOUNT,
        "time": stepwes_core::clock::wes_time(Utc::now()),
        "region": arn::REGION,
        "resources": [],
        "detail": {},
    })
}

/// Asks engines for their versions in the background, as that takes seconds, and then says them in
/// service-info.
fn ask_for_versions(
    mut found: Vec<FoundEngine>,
    search: SearchPath,
    life: &Life,
    public: &Arc<Public>,
    api: impl FnOnce(&[FoundEngine], &str) -> Option<Router> + Send + 'static,
) {
    let public = Arc::clone(public);
    life.spawn(async move {
        engines::ask(&mut found, &search).await;
        if let Some(router) = api(&found, &public.presign_url) {
            *public.router.write().unwrap_or_else(PoisonError::into_inner) = router;
        }
    });
}
