//! One attempt from its claim to its result.

use std::{
    ffi::OsString,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use chrono::Utc;
use nix::errno::Errno;
use stepwes_core::{
    TraceParent,
    destination::OutputsPlace,
    endpoint::Endpoints,
    keys::{self, LogStream},
    request::StoredRequest,
    task::{EngineOutputs, MAX_RESULT_BYTES, TaskOutcome, TaskResult, exit},
    trace,
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tracing::{Span, error, info, warn};

use crate::{
    bucket::Bucket,
    config::Config,
    container::{Container, find_program},
    engines::{self, Engine, Order, Results},
    error::Failure,
    lend::Lender,
    logs::Shipper,
    outputs::{self, Outputs},
    process::{self, Ended, Job},
    reachable,
    report::{Reporter, ScopedCredentials, task_arn},
    sandbox::{self, Sandbox},
    stage,
    state::{self, Before, Keeper, Staged},
    stop::Stop,
    tree::{self, Snapshot, Tree},
    workdir::{self, WorkDir, disk_is_full},
};

/// The largest output object that is read, in bytes.
const MAX_OUTPUT_OBJECT: u64 = 16 * 1024 * 1024;

/// How much of the end of an engine's log is searched for the reason of a failure, in bytes.
const LOG_TAIL: u64 = 64 * 1024;

/// The words of EROFS.
const READ_ONLY: &str = "Read-only file system";

/// How long a stopped task may take to remove its files.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// How long S3 or Lambda may take to accept a connection, and to answer. Of the latter, sending a
/// part of a file is a part.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The variables of ours that an engine gets, beside those that start with `LC_`.
const PASSED_ON: [&str; 15] = [
    "PATH",
    "LANG",
    "TZ",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "DOCKER_HOST",
    "XDG_RUNTIME_DIR",
];

/// Executes the attempt and gives the code to exit with.
pub(crate) async fn run(config: &Config, stop: &Stop) -> i32 {
    info!("the task begins");
    let claimed = unless_stopped(stop, claim(config)).await;
    let Claimed { bucket, reporter, credentials, trace } = match claimed {
        Ok(claimed) => claimed,
        Err(failure) => return exit_code(&failure),
    };
    let mut result = TaskResult {
        run_id: config.run_id,
        attempt: config.attempt,
        outcome: TaskOutcome::SystemError,
        reason: None,
        exit_code: None,
        cmd: Vec::new(),
        start_time: None,
        end_time: None,
        outputs: EngineOutputs::default(),
        files: Vec::new(),
    };
    let (work, ended) = match unless_stopped(stop, begin(config, &bucket)).await {
        Ok(Begun { request, before, work }) => {
            let attempt = Attempt {
                config,
                bucket: &bucket,
                reporter: &reporter,
                credentials: &credentials,
                trace,
                stop,
                work: &work,
            };
            let ended = attempt.execute(request, before, &mut result).await;
            (Some(work), ended)
        }
        Err(failure) => (None, Err(failure)),
    };
    let code = conclude(config, stop, &bucket, &reporter, result, ended).await;
    if let Some(work) = work {
        // Whoever stops a task is about to kill it.
        let too_long = async {
            stop.requested().await;
            tokio::time::sleep(REMOVE_PATIENCE).await;
        };
        tokio::select! {
            () = work.remove() => {}
            () = too_long => warn!("there was no time to remove the work folder"),
        }
    }
    code
}

/// What an attempt begins with.
struct Begun {
    request: StoredRequest,
    /// What it goes on from.
    before: Option<Before>,
    work: WorkDir,
}

/// Reads what was asked for, and makes the folder to do it in: the one that saved state belongs to,
/// where there is some.
async fn begin(config: &Config, bucket: &Bucket) -> Result<Begun, Failure> {
    let request = stage::read_request(bucket, config.run_id).await?;
    let before = state::find(bucket, config, &request).await?;
    let of_before = before.as_ref().and_then(|before| Path::new(&before.manifest.root).file_name());
    let own = workdir::name_of(config.run_id);
    let name = of_before.and_then(|name| name.to_str()).unwrap_or(&own);
    let work = WorkDir::create(&config.work_dir, name, config.work_link.as_deref());
    match work {
        Ok(work) => Ok(Begun { request, before, work }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(match before {
            Some(before) if before.is_asked_for => Failure::Request(format!(
                "another run on this machine goes on from run {} at present; resume it when that one has ended",
                before.manifest.run_id
            )),
            _ => Failure::Passing("another task of the run is still at work here".to_owned()),
        }),
        Err(error) => Err(Failure::local(
            "making the work folder; STEPWES_WORK_DIR must name a folder that the task can write",
            &error,
        )),
    }
}

/// What a task has that its attempt is bound to.
struct Claimed {
    bucket: Bucket,
    reporter: Arc<Reporter>,
    credentials: ScopedCredentials,
    trace: Option<TraceParent>,
}

/// Binds the attempt to this task.
async fn claim(config: &Config) -> Result<Claimed, Failure> {
    // The configuration is loaded while the endpoint answers.
    let (arn, aws) = tokio::join!(task_arn(&config.metadata_uri, config.limits.patience), aws());
    let reporter = Arc::new(Reporter::new(&aws, config, arn?));
    let (credentials, trace) = reporter.claim().await?;
    if let Some(trace) = trace {
        Span::current().record("trace_id", trace.trace_id());
    }
    let credentials = ScopedCredentials::of_task(reporter.clone(), credentials);
    let bucket = Bucket::new(&aws, config, credentials.clone());
    Ok(Claimed { bucket, reporter, credentials, trace })
}

async fn aws() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new();
    // Reading the system's certificates takes longer than all else that a task does before it claims
    // its attempt.
    let http = match Endpoints::of(std::env::vars_os()) {
        Endpoints::Plain => http.build_http(),
        Endpoints::Aws | Endpoints::Custom => {
            http.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
        }
    };
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard())
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(TIMEOUTS.0).read_timeout(TIMEOUTS.1).build(),
        )
        .load()
        .await
}

/// Waits for `work`, but not beyond a signal to stop.
async fn unless_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = stop.requested() => Err(Failure::Stopped),
        done = work => done,
    }
}

/// The exit code of an attempt that ended without a result.
fn exit_code(failure: &Failure) -> i32 {
    match failure {
        Failure::Refused(_) => {
            info!("{failure}");
            exit::REFUSED
        }
        Failure::Stopped => {
            info!("{failure}");
            exit::STOPPED
        }
        Failure::Request(_) | Failure::Service(_) | Failure::Passing(_) => {
            error!("{failure}");
            exit::FAILED
        }
    }
}

/// Writes the result where there is one, and gives the exit code.
async fn conclude(
    config: &Config,
    stop: &Stop,
    bucket: &Bucket,
    reporter: &Reporter,
    mut result: TaskResult,
    ended: Result<(), Failure>,
) -> i32 {
    let stopped = matches!(ended, Err(Failure::Stopped));
    if let Err(failure) = ended {
        result.outcome = match &failure {
            Failure::Request(_) => TaskOutcome::ExecutorError,
            Failure::Service(_) => TaskOutcome::SystemError,
            Failure::Stopped => TaskOutcome::Stopped,
            Failure::Passing(_) | Failure::Refused(_) => return exit_code(&failure),
        };
        result.reason = Some(failure.to_string());
    }
    info!(
        "{:?}{}",
        result.outcome,
        result.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default()
    );
    let written = write_result(config, bucket, &result);
    let written = if stopped {
        // A refusal is no news: whoever stopped the task has ended its attempt.
        tokio::time::timeout(config.limits.stop_upload, written)
            .await
            .unwrap_or_else(|_| Err(Failure::Passing("no answer from S3".to_owned())))
    } else {
        tokio::select! {
            written = written => written,
            reason = reporter.refused() => Err(Failure::Refused(reason)),
            () = stop.requested_for(config.limits.finish()) => Err(Failure::Stopped),
        }
    };
    match written {
        Ok(()) if stopped => exit::STOPPED,
        Ok(()) => exit::DONE,
        Err(failure) if stopped => {
            error!("{failure}");
            exit::STOPPED
        }
        Err(failure) => exit_code(&failure),
    }
}

async fn write_result(
    config: &Config,
    bucket: &Bucket,
    result: &TaskResult,
) -> Result<(), Failure> {
    let body = serde_json::to_vec(result)
        .map_err(|error| Failure::Service(format!("the result cannot be written: {error}")))?;
    let key = keys::result(config.run_id, config.attempt);
    bucket
        .put(&key, Bytes::from(body), "application/json")
        .await
        .map_err(|fault| fault.of_service("writing the result"))
}

/// What the steps of an attempt have in common.
struct Attempt<'a> {
    config: &'a Config,
    bucket: &'a Bucket,
    reporter: &'a Arc<Reporter>,
    credentials: &'a ScopedCredentials,
    /// What the engine's own spans hang below.
    trace: Option<TraceParent>,
    stop: &'a Stop,
    work: &'a WorkDir,
}

/// Standard output and error of the engine.
struct Logs {
    stdout: PathBuf,
    stderr: PathBuf,
}

/// Where the results are.
struct Place {
    folder: PathBuf,
    /// What is none, by its path below the folder.
    left_out: fn(&str) -> bool,
    /// Files that are none, unless they are others by now.
    before: Snapshot,
    /// Whether the engine prints an output object: what others print is a log of any length.
    with_object: bool,
}

/// What an engine has around it.
#[derive(Clone, Copy, Debug)]
struct Around {
    container: Container,
    sandboxed: bool,
}

impl Attempt<'_> {
    /// Does everything but writing the result, which it fills.
    async fn execute(
        &self,
        request: StoredRequest,
        before: Option<Before>,
        result: &mut TaskResult,
    ) -> Result<(), Failure> {
        let staged = self.stage(request).await?;
        let kind = &staged.request.request.workflow_type;
        let engine = engines::find(&staged.request.engine, kind).ok_or_else(|| {
            Failure::Service(format!(
                "this task has no engine {:?} for {kind}; it has: {}",
                staged.request.engine,
                engines::names()
            ))
        })?;
        let logs = Logs {
            stdout: self.work.logs().join("stdout"),
            stderr: self.work.logs().join("stderr"),
        };
        let container = Container::detect(&self.config.container).map_err(Failure::Service)?;
        let sandbox = async {
            let found = Sandbox::detect(&self.config.sandbox, container).await;
            found.map_err(Failure::Service)
        };
        let sandbox = self.unless_over(sandbox).await?;
        let lender = Lender::listen(self.reporter.clone())
            .await
            .map_err(|error| Failure::local("listening for the engine", &error))?;
        let aws = lender.environment();
        let aws_names = names_of(&aws);
        let (execution, outdir, state) =
            (self.work.execution(), self.work.outputs(), self.work.state());
        let mut order = Order {
            defaults: &staged.request.default_parameters,
            parameters: &staged.parameters,
            workflow: &staged.workflow,
            fragment: staged.fragment.as_deref(),
            execution: &execution,
            outdir: &outdir,
            state: &state,
            resumed: false,
            container,
            aws: &aws_names,
        };
        // Before anything is brought back, which was made by the workflow.
        let mut given = self.given(engine, &order, before.as_ref()).await?;
        let mut results = self.results(engine, &order).await?;
        if let Some(before) = before {
            order.resumed = self.unless_over(self.bring_back(engine, &order, &before)).await?;
            if !order.resumed {
                // Files that the workflow had changed have taken the place of those that it was given.
                self.work.clear().map_err(|error| Failure::local("beginning anew", &error))?;
                self.stage(staged.request.clone()).await?;
                given = self.given(engine, &order, None).await?;
                results = self.results(engine, &order).await?;
            }
        }
        let results = Place { folder: self.folder_of_results(engine, &order), ..results };
        let mut job = self.prepare(engine, &order, &logs, aws)?;
        if let Some(sandbox) = sandbox {
            let (hides, link) = (&self.config.sandbox_hides, &self.config.work_link);
            let wrapper = sandbox.wrapper(self.work, hides.as_deref(), link.as_deref());
            job.sandbox =
                Some(wrapper.map_err(|error| Failure::local("making the sandbox", &error))?);
        }
        let (run, attempt) = (self.config.run_id, self.config.attempt);
        let place = OutputsPlace::new(run, attempt, staged.request.destination.as_ref());
        let start_time = Utc::now();
        self.unless_over(self.reporter.run(job.argv.clone(), start_time)).await?;
        result.cmd.clone_from(&job.argv);
        result.start_time = Some(start_time);
        let mut shipper = Shipper::new(
            self.bucket.clone(),
            self.config.run_id,
            self.config.attempt,
            (logs.stdout.clone(), logs.stderr.clone()),
            engine.tasks(&order),
        );
        let within = if job.sandbox.is_some() { " in a sandbox" } else { "" };
        info!("starting {}{within}", engine.name());
        let mut keeper = self.keeper(engine, &order, given);
        let mut ended = tokio::select! {
            ended = self.run_engine(&job, engine) => ended?,
            never = shipper.follow() => match never {},
            never = keeper.follow() => match never {},
            never = self.credentials.keep() => match never {},
            never = lender.serve() => match never {},
        };
        container.end_all(&self.work.temporary(), &job.environment).await;
        ended.disk_full |= shipper.saw_full_disk();
        result.end_time = Some(Utc::now());
        result.exit_code = Some(ended.exit.code);
        info!("{} ended with {}", engine.name(), ended.exit.code);
        let succeeded = engine.succeeded(ended.exit);
        let ended = if ended.stopped {
            Err(self.over().await)
        } else {
            let finished = async {
                shipper.finish().await?;
                let around = Around { container, sandboxed: job.sandbox.is_some() };
                self.collect(engine, ended, &logs, (results, &place), around, result).await
            };
            self.unless_late(finished).await
        };
        match &ended {
            Err(Failure::Stopped) => {
                tokio::join!(self.last_words(&mut shipper), self.last_state(&mut keeper));
            }
            // For the run that resumes this one.
            Err(Failure::Request(_) | Failure::Service(_)) if !succeeded => {
                self.last_state(&mut keeper).await;
            }
            _ => {}
        }
        ended
    }

    /// Stages the request's files, with credentials for as long as that takes.
    async fn stage(&self, request: StoredRequest) -> Result<stage::Staged, Failure> {
        let (execution, inputs) = (self.work.execution(), self.work.inputs());
        let stage = stage::stage(self.bucket, self.config, request, &execution, &inputs);
        tokio::select! {
            staged = self.unless_over(stage) => staged,
            never = self.credentials.keep() => match never {},
        }
    }

    /// What the run was given, for an engine whose state is saved.
    async fn given(
        &self,
        engine: &dyn Engine,
        order: &Order<'_>,
        before: Option<&Before>,
    ) -> Result<Staged, Failure> {
        // Files may be many and large, and are read for this.
        let is_of_use = self.config.limits.state_bytes > 0 || before.is_some();
        if engine.saved(order).is_none() || !is_of_use {
            return Ok(Staged::default());
        }
        let root = self.work.root().to_owned();
        let folders = [order.execution.to_owned(), self.work.inputs()];
        let before = before.map(|before| before.manifest.staged.clone()).unwrap_or_default();
        tokio::task::spawn_blocking(move || Staged::of(&root, &folders, &before))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| Failure::local("remembering what was staged", &error))
    }

    /// Brings back what was saved. Gives whether the engine goes on from it: where it cannot be had,
    /// an attempt that was not made for it does without.
    async fn bring_back(
        &self,
        engine: &dyn Engine,
        order: &Order<'_>,
        before: &Before,
    ) -> Result<bool, Failure> {
        match state::restore(self.bucket, &before.manifest, self.work.root()).await {
            Ok(()) if engine.can_go_on(order) => return Ok(true),
            Ok(()) => info!("nothing had been done yet: the engine begins anew"),
            Err(failure @ Failure::Service(_)) if !before.is_asked_for => {
                warn!("the engine begins anew: {failure}");
            }
            Err(Failure::Service(why)) => {
                return Err(Failure::Request(format!(
                    "what run {} had saved is not whole any more ({why}); submit the run again",
                    before.manifest.run_id
                )));
            }
            Err(failure) => return Err(failure),
        }
        Ok(false)
    }

    fn keeper(&self, engine: &dyn Engine, order: &Order<'_>, given: Staged) -> Keeper {
        let of = (self.config.run_id, self.config.attempt);
        let root = self.work.root().to_owned();
        let limit = self.config.limits.state_bytes;
        Keeper::new(self.bucket.clone(), of, engine.name(), root, engine.saved(order), given, limit)
    }

    /// Saves what an engine leaves that did not succeed, for as long as there is time: whoever was
    /// told to stop still has to say so.
    async fn last_state(&self, keeper: &mut Keeper) {
        tokio::select! {
            biased;
            () = keeper.finish() => {}
            () = self.stop.requested_for(self.config.limits.finish()) => {
                warn!("there was no time to save all of the engine's state");
            }
            reason = self.reporter.refused() => info!("no state is saved: {}", reason.as_str()),
        }
    }

    /// Waits for what makes finished work last. A signal to stop leaves it some time, since hours
    /// of computing are worth more than an early end.
    async fn unless_late<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.stop.requested_for(self.config.limits.finish()) => Err(Failure::Stopped),
            reason = self.reporter.refused() => {
                Err(if self.stop.is_requested() { Failure::Stopped } else { Failure::Refused(reason) })
            }
        }
    }

    /// Waits for `work`, but not beyond a signal to stop or a refusal of the report function.
    async fn unless_over<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            over = self.over() => Err(over),
            done = work => done,
        }
    }

    /// Returns when the attempt is to end. A cancel shows as both: a stopped task has more to do
    /// than a refused one.
    async fn over(&self) -> Failure {
        tokio::select! {
            biased;
            () = self.stop.requested() => Failure::Stopped,
            reason = self.reporter.refused() => Failure::Refused(reason),
        }
    }

    /// Makes the engine's command.
    fn prepare(
        &self,
        engine: &dyn Engine,
        order: &Order<'_>,
        logs: &Logs,
        aws: Vec<(OsString, OsString)>,
    ) -> Result<Job, Failure> {
        let argv = engine.command(order).map_err(Failure::Request)?;
        let program = find_program(engine.program()).ok_or_else(|| {
            Failure::Service(format!(
                "{} is not installed: {}",
                engine.name(),
                engine.installation()
            ))
        })?;
        let program = engine.executable(&program).map_err(|what| broken(engine, &what))?;
        let mut environment = self.environment(order.container, aws);
        for (name, value) in engine.environment(order, &program) {
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        }
        Ok(Job {
            program,
            argv,
            environment,
            folder: order.execution.to_owned(),
            stdout: logs.stdout.clone(),
            stderr: logs.stderr.clone(),
            sandbox: None,
        })
    }

    fn folder_of_results(&self, engine: &dyn Engine, order: &Order<'_>) -> PathBuf {
        match engine.results(order) {
            Results::Folder(folder) => folder,
            Results::Execution { .. } => order.execution.to_owned(),
        }
    }

    /// Where the results will be; where they are among what was staged, that is remembered.
    async fn results(&self, engine: &dyn Engine, order: &Order<'_>) -> Result<Place, Failure> {
        match engine.results(order) {
            Results::Folder(folder) => {
                let before = Snapshot::new();
                Ok(Place { folder, left_out: |_| false, before, with_object: true })
            }
            Results::Execution { own } => {
                let folder = order.execution.to_owned();
                let before = Snapshot::new();
                let mut place = Place { folder, left_out: own, before, with_object: false };
                let staged = self.list(&place).await?.snapshot();
                place.before = staged
                    .map_err(|error| Failure::local("remembering what was staged", &error))?;
                Ok(place)
            }
        }
    }

    /// What the engine and its tools see of our environment, none of our credentials and not our
    /// token; and the way to their own and the run's trace, `aws`.
    fn environment(
        &self,
        container: Container,
        aws: Vec<(OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| {
                name.to_str()
                    .is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_"))
            })
            .collect();
        // A container runtime keeps its images and the registries' logins in the real one.
        let home = match container {
            Container::None => Some(self.work.home().into_os_string()),
            _ => std::env::var_os("HOME"),
        };
        variables.extend(home.map(|home| ("HOME".into(), home)));
        variables.push(("TMPDIR".into(), self.work.temporary().into_os_string()));
        variables.extend(aws);
        let trace = self.trace.map(|trace| trace.to_string());
        variables.extend(trace.map(|trace| (trace::VARIABLE.into(), trace.into())));
        variables
    }

    async fn run_engine(&self, job: &Job, engine: &dyn Engine) -> Result<Ended, Failure> {
        let stop = async { drop(self.over().await) };
        let ended = process::run(job, stop, self.config.limits.stop_grace).await;
        ended.map_err(|error| match error {
            process::Error::Start(error) => not_started(engine, &error),
            process::Error::Local(error) => {
                Failure::local(&format!("running {}", engine.name()), &error)
            }
        })
    }

    /// Uploads the logs of a stopped engine, for as long as there is time.
    async fn last_words(&self, shipper: &mut Shipper) {
        let said = async {
            shipper.send_rest().await;
            shipper.finish().await
        };
        match tokio::time::timeout(self.config.limits.stop_upload, said).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => warn!("{failure}"),
            Err(_) => warn!("there was no time to upload all logs"),
        }
    }

    /// Uploads the outputs of an engine that has ended by itself, and says what came out.
    async fn collect(
        &self,
        engine: &dyn Engine,
        Ended { exit, disk_full, .. }: Ended,
        logs: &Logs,
        (results, place): (Place, &OutputsPlace),
        around: Around,
        result: &mut TaskResult,
    ) -> Result<(), Failure> {
        let tree = self.list(&results).await.map(|tree| tree.since(&results.before));
        if engine.succeeded(exit) {
            let tree = tree?;
            let stdout = if results.with_object {
                read_object(engine, &logs.stdout).await?
            } else {
                Vec::new()
            };
            let object = |outputs: &Outputs| {
                engine.outputs(&stdout, &results.folder, outputs).map_err(Failure::Request)
            };
            // What nobody could read is refused before hours of uploading.
            let foreseen = outputs::foresee(&tree);
            let mut large = TaskResult { files: foreseen.list(), ..result.clone() };
            large.outputs = object(&foreseen)?;
            is_readable(&large)?;
            drop((foreseen, large));
            let uploaded = self.upload(place, tree).await?;
            result.files = uploaded.list();
            result.outputs = object(&uploaded)?;
            result.outcome = TaskOutcome::Complete;
            return Ok(());
        }
        // The engine's own reason comes before that of outputs which it left behind.
        let uploaded = match tree {
            Ok(tree) if place.bucket.is_none() => self.upload(place, tree).await,
            // Whoever looks into a destination finds results, not what a failed run left behind.
            Ok(_) => Ok(Outputs::default()),
            Err(failure) => Err(failure),
        };
        match uploaded {
            Ok(uploaded) => result.files = uploaded.list(),
            Err(failure @ (Failure::Passing(_) | Failure::Refused(_))) => return Err(failure),
            Err(failure) => info!("the outputs are not kept: {failure}"),
        }
        let log = match engine.log() {
            LogStream::Stdout => &logs.stdout,
            LogStream::Stderr => &logs.stderr,
        };
        let end = read_end(log, LOG_TAIL).await.unwrap_or_default();
        let end = String::from_utf8_lossy(&end);
        if around.sandboxed
            && let Some(why) = sandbox::said_nothing_but(&end)
        {
            return Err(Failure::Service(format!(
                "{} was not started in its sandbox: {why}",
                engine.name()
            )));
        }
        // Whoever reads the reason knows the run's files by their names.
        let folder = format!("{}/", self.work.execution().display());
        let end = end.replace(&format!("file://{folder}"), "").replace(&folder, "");
        let mut reason = engine.failure(exit, &end);
        if let Some(why) = around.container.is_lacking(&end) {
            reason.push_str(&format!(" ({why})"));
        }
        if around.sandboxed && end.contains(READ_ONLY) {
            reason.push_str(
                " (the engine runs in a sandbox, in which it can write nothing but its own folder)",
            );
        }
        if disk_full || disk_is_full(self.work.root()) || tells_full_disk(&end) {
            reason.push_str(" (the task's disk was full)");
        }
        if engine.is_broken(exit, &end) {
            return Err(broken(engine, &reason));
        }
        Err(Failure::Request(reason))
    }

    async fn list(&self, place: &Place) -> Result<Tree, Failure> {
        let (folder, root, left_out) =
            (place.folder.clone(), self.work.root().to_owned(), place.left_out);
        tokio::task::spawn_blocking(move || tree::walk(&folder, &root, left_out))
            .await
            .map_err(|error| Failure::Passing(format!("listing the outputs: {error}")))?
            .map_err(Failure::Request)
    }

    async fn upload(&self, place: &OutputsPlace, tree: Tree) -> Result<Outputs, Failure> {
        outputs::upload(self.bucket, place, tree).await
    }
}

fn names_of(variables: &[(OsString, OsString)]) -> Vec<String> {
    variables.iter().filter_map(|(name, _)| name.to_str().map(str::to_owned)).collect()
}

/// What an engine that succeeded wrote to its standard output.
async fn read_object(engine: &dyn Engine, stdout: &Path) -> Result<Vec<u8>, Failure> {
    let read = async {
        let file = tokio::fs::File::from_std(reachable::open(stdout)?);
        let mut object = Vec::new();
        file.take(MAX_OUTPUT_OBJECT + 1).read_to_end(&mut object).await?;
        Ok(object)
    };
    let object = read
        .await
        .map_err(|error: io::Error| Failure::local("reading the engine's output", &error))?;
    if object.len() as u64 > MAX_OUTPUT_OBJECT {
        return Err(Failure::Request(format!(
            "{}'s output object is larger than {MAX_OUTPUT_OBJECT} bytes",
            engine.name()
        )));
    }
    Ok(object)
}

/// Refuses a result that is larger than those who read it take.
fn is_readable(result: &TaskResult) -> Result<(), Failure> {
    let size = serde_json::to_vec(result).map_or(usize::MAX, |body| body.len());
    if size <= MAX_RESULT_BYTES {
        return Ok(());
    }
    Err(Failure::Request(format!(
        "the list of outputs would be larger than {MAX_RESULT_BYTES} bytes; make fewer outputs, or pack them into archives"
    )))
}

/// Whose fault it is that an engine that was found cannot be started.
fn not_started(engine: &dyn Engine, error: &io::Error) -> Failure {
    let name = engine.name();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::E2BIG) => Failure::Request(format!(
            "the command line of {name} is longer than the system allows; shorten workflow_engine_parameters"
        )),
        // It, or the interpreter that its first line names.
        Some(Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC) => {
            broken(engine, &format!("{name} cannot be started: {error}"))
        }
        _ => Failure::local(&format!("starting {name}"), error),
    }
}

/// The failure of an engine that is not installed as it should be.
fn broken(engine: &dyn Engine, what: &str) -> Failure {
    Failure::Service(format!("{what}; its installation is broken: {}", engine.installation()))
}

/// The last `most` bytes of a file.
async fn read_end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::from_std(reachable::open(path)?);
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).await?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end).await?;
    Ok(end)
}

/// Whether a log tells that somebody's disk had no more room.
fn tells_full_disk(log: &str) -> bool {
    // The words of ENOSPC and EDQUOT.
    ["No space left on device", "Disk quota exceeded"].iter().any(|words| log.contains(words))
}

#[cfg(test)]
mod tests {
    use stepwes_core::task::OutputFile;

    use super::*;

    #[test]
    fn a_result_that_nobody_would_read_is_refused_with_its_limit() {
        let result = |path_bytes: usize| TaskResult {
            run_id: "01890000-0000-7000-8000-000000000000".parse().expect("a run id"),
            attempt: 1,
            outcome: TaskOutcome::Complete,
            reason: None,
            exit_code: Some(0),
            cmd: Vec::new(),
            start_time: None,
            end_time: None,
            outputs: EngineOutputs::default(),
            files: vec![OutputFile { path: "x".repeat(path_bytes), size: 1, sha1: String::new() }],
        };
        assert_eq!(is_readable(&result(1)), Ok(()));
        let Err(Failure::Request(reason)) = is_readable(&result(MAX_RESULT_BYTES)) else {
            panic!("too large");
        };
        assert!(reason.contains("67108864 bytes"), "{reason}");
    }
}
