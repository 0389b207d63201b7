//! The server is killed, and the next one goes on: no run is lost, nothing is done twice.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stepwes_local::{ServeOptions, start};

use common::{
    hold, http, options, release, stub_engine as stub, submit, this_binary, try_submit, until,
    until_state,
};

/// Not a test: the engine task of the others.
#[tokio::test]
#[ignore = "is run by the server"]
async fn stub_engine() {
    common::stub::run().await;
}

/// Not a test: the server of the others, below the folder `TEST_FOLDER`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run by the other tests"]
async fn server_process() {
    let folder = std::path::PathBuf::from(std::env::var_os("TEST_FOLDER").expect("set"));
    let server = start(ServeOptions {
        dir: folder.join("stepwes"),
        port: 0,
        engine_path: Some(folder.join("engine")),
        reconcile_interval: Duration::from_secs(1),
        reconcile_grace: Duration::from_secs(1),
        ..ServeOptions::default()
    })
    .await
    .expect("started");
    let temporary = folder.join("url.tmp");
    fs::write(&temporary, server.url()).expect("written");
    fs::rename(temporary, folder.join("url")).expect("renamed");
    std::future::pending::<()>().await;
}

/// A server in a process of its own; killed when it is dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let url = folder.join("url");
        if url.exists() {
            fs::remove_file(&url).expect("removed");
        }
        let (program, arguments) = this_binary("server_process");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("server.log"))
            .expect("a log");
        let child = Command::new(program)
            .args(arguments)
            .env("TEST_FOLDER", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("started");
        let mut process = Self { child, url: String::new() };
        until("the server starts", || async { url.exists() }).await;
        process.url = fs::read_to_string(url).expect("readable");
        process
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// The lines of the stub's log: run, attempt, pid.
fn started(folder: &Path) -> Vec<(String, u32, i32)> {
    let text = fs::read_to_string(folder.join("starts")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            (
                words[0].to_owned(),
                words[1].parse().expect("a number"),
                words[2].parse().expect("a pid"),
            )
        })
        .collect()
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A folder with an engine that logs its starts and waits at the pipes of that name.
fn prepare(holds: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut exports = vec![("STUB_LOG", path("starts"))];
    for name in ["STUB_HOLD_RUNNING", "STUB_HOLD_DONE"] {
        if holds.contains(&name) {
            hold(folder.path(), name);
            exports.push((name, path(name)));
        }
    }
    let exports: Vec<_> = exports.iter().map(|(name, value)| (*name, value.as_str())).collect();
    common::engine(folder.path(), &stub(&exports));
    folder
}

#[tokio::test]
async fn an_engine_that_lives_on_is_found_again_and_finishes_its_run() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let server = Process::start(folder.path()).await;
    let run = submit(&server.url).await;
    until_state(&server.url, &run, "RUNNING").await;
    server.kill();
    let server = Process::start(folder.path()).await;
    until_state(&server.url, &run, "RUNNING").await;
    release(folder.path(), "STUB_HOLD_RUNNING").await;
    until_state(&server.url, &run, "COMPLETE").await;
    assert_eq!(started(folder.path()).len(), 1);
}

#[tokio::test]
async fn an_engine_that_finished_while_no_server_was_there_has_finished_its_run() {
    let folder = prepare(&["STUB_HOLD_DONE"]);
    let server = Process::start(folder.path()).await;
    let run = submit(&server.url).await;
    // It can be opened so only when somebody waits at its other end; closed, it lets them go.
    let pipe = folder.path().join("STUB_HOLD_DONE");
    let mut opened = None;
    until("the engine has written its result and waits", || {
        let flags = nix::libc::O_NONBLOCK;
        opened = fs::OpenOptions::new().write(true).custom_flags(flags).open(&pipe).ok();
        let done = opened.is_some();
        async move { done }
    })
    .await;
    server.kill();
    drop(opened);
    let pid = started(folder.path())[0].2;
    until("the engine ends", || async { !is_alive(pid) }).await;
    let server = Process::start(folder.path()).await;
    until_state(&server.url, &run, "COMPLETE").await;
    assert_eq!(started(folder.path()).len(), 1);
}

#[tokio::test]
async fn an_engine_that_died_with_the_server_is_a_lost_attempt_and_tried_again() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let server = Process::start(folder.path()).await;
    let run = submit(&server.url).await;
    until_state(&server.url, &run, "RUNNING").await;
    server.kill();
    let pid = started(folder.path())[0].2;
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    until("the engine ends", || async { !is_alive(pid) }).await;
    let server = Process::start(folder.path()).await;
    until_state(&server.url, &run, "COMPLETE").await;
    let attempts: Vec<_> = started(folder.path()).into_iter().map(|start| start.1).collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test]
async fn a_run_that_was_being_cancelled_is_cancelled_by_the_next_server() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let server = Process::start(folder.path()).await;
    let run = submit(&server.url).await;
    until_state(&server.url, &run, "RUNNING").await;
    let pid = started(folder.path())[0].2;
    // The engine cannot die while it is stopped, and the server dies first.
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stopped");
    let cancel = format!("{}/ga4gh/wes/v1/runs/{run}/cancel", server.url);
    let answer = http().post(cancel).send().await.expect("answered");
    assert_eq!(answer.status(), 200);
    server.kill();
    assert!(is_alive(pid));
    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("continued");
    let server = Process::start(folder.path()).await;
    until_state(&server.url, &run, "CANCELED").await;
    assert!(!is_alive(pid));
    assert_eq!(started(folder.path()).len(), 1);
}

#[tokio::test]
async fn killed_again_and_again_at_any_moment_every_run_ends_and_none_is_run_twice() {
    let folder = prepare(&[]);
    let mut runs = BTreeSet::new();
    // Moments from before the first request is answered until most of the work is done.
    for milliseconds in [3, 11, 23, 40, 70, 110, 170] {
        let server = Process::start(folder.path()).await;
        let url = server.url.clone();
        let submitting = tokio::spawn(async move {
            let http = http();
            let submitted =
                futures::future::join_all((0..3).map(|_| try_submit(&http, &url))).await;
            submitted.into_iter().flatten().collect::<Vec<_>>()
        });
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        server.kill();
        runs.extend(submitting.await.expect("done"));
    }
    let server = Process::start(folder.path()).await;
    runs.insert(submit(&server.url).await);
    for run in &runs {
        until_state(&server.url, run, "COMPLETE").await;
    }
    let starts = started(folder.path());
    let distinct: BTreeSet<_> = starts.iter().map(|(run, attempt, _)| (run, attempt)).collect();
    assert_eq!(distinct.len(), starts.len(), "{starts:?}");
    assert!(starts.iter().all(|(_, attempt, _)| *attempt == 1), "{starts:?}");
}

#[tokio::test]
async fn a_task_that_cannot_be_read_has_ended_and_holds_nothing_up() {
    for damage in ["row", "alive"] {
        let folder = prepare(&["STUB_HOLD_RUNNING"]);
        let pipe = folder.path().join("STUB_HOLD_RUNNING").display().to_string();
        let script = stub(&[("STUB_HOLD_RUNNING", &pipe)]);
        let options = || options(folder.path(), &script);
        let server = start(options()).await.expect("started");
        let run = submit(server.url()).await;
        until_state(server.url(), &run, "RUNNING").await;
        let left = server.shutdown().await;
        let pid = left.tasks[0].pid;
        let ledger = common::ledger(&options().dir);
        match damage {
            "row" => {
                ledger.execute_batch("UPDATE tasks SET task = '{}'").expect("changed");
            }
            _ => {
                let query = "SELECT id FROM tasks";
                let id: String = ledger.query_row(query, [], |row| row.get(0)).expect("a task");
                let alive = options().dir.join("tasks").join(id).join("alive");
                fs::write(alive, [0xff]).expect("written");
            }
        }
        let server = start(options()).await.expect("started");
        until("the engine is killed", || async { !is_alive(pid) }).await;
        until_state(server.url(), &run, "COMPLETE").await;
        server.shutdown().await;
    }
}

#[tokio::test]
async fn what_nobody_needs_any_more_goes_away() {
    let folder = prepare(&[]);
    let script = stub(&[("A", "b")]);
    let options = || options(folder.path(), &script);
    let server = start(options()).await.expect("started");
    let runs = [submit(server.url()).await, submit(server.url()).await];
    for run in &runs {
        until_state(server.url(), run, "COMPLETE").await;
    }
    let ledger = common::ledger(&options().dir);
    let names = || -> BTreeSet<String> {
        let mut query = ledger.prepare("SELECT name FROM executions").expect("valid");
        let rows = query.query_map([], |row| row.get(0)).expect("read");
        rows.collect::<Result<_, _>>().expect("read")
    };
    until("the executions end", || async {
        let running = "SELECT count(*) FROM executions WHERE status = 'RUNNING'";
        ledger.query_row(running, [], |row| row.get::<_, i64>(0)).expect("read") == 0
    })
    .await;
    let with_token = "SELECT count(*) FROM executions WHERE output LIKE '%STEPWES_TOKEN%'";
    let with_token: i64 = ledger.query_row(with_token, [], |row| row.get(0)).expect("read");
    assert_eq!(with_token, 0);
    server.shutdown().await;

    let stray = options().dir.join("tasks").join("0".repeat(32));
    fs::create_dir_all(stray.join("work")).expect("made");
    let ninety_one_days_ago = chrono::Utc::now() - chrono::TimeDelta::days(91);
    ledger
        .execute(
            "UPDATE executions SET stopped_at = ?1 WHERE name = ?2",
            rusqlite::params![ninety_one_days_ago.timestamp_millis(), runs[0]],
        )
        .expect("changed");
    let server = start(options()).await.expect("started");
    until("the old execution is forgotten", || async { names().len() == 1 }).await;
    assert!(names().contains(&runs[1]));
    until("the stray folder is removed", || async { !stray.exists() }).await;
    // The folders of known tasks stay for as long as the tasks do.
    assert_eq!(fs::read_dir(options().dir.join("tasks")).expect("there").count(), 2);
    server.shutdown().await;
}

#[tokio::test]
async fn no_engine_is_started_only_to_be_stopped() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let script =
        stub(&[("STUB_LOG", &path("starts")), ("STUB_HOLD_RUNNING", &path("STUB_HOLD_RUNNING"))]);
    let one = || ServeOptions {
        max_engines: std::num::NonZeroUsize::new(1),
        ..options(folder.path(), &script)
    };
    let server = start(one()).await.expect("started");
    let runs = [submit(server.url()).await, submit(server.url()).await];
    until("one runs and one waits", || async {
        let mut states = Vec::new();
        for run in &runs {
            states.push(common::state(server.url(), run).await);
        }
        states.sort();
        states == ["QUEUED", "RUNNING"]
    })
    .await;
    server.shutdown().await;
    // More slots than before: the one that waits would be started.
    let stopped = stepwes_local::stop_runs(options(folder.path(), &script), |_| {}).await;
    assert_eq!(stopped.expect("stopped"), 2);
    assert_eq!(started(folder.path()).len(), 1);
}

#[tokio::test]
async fn an_execution_keeps_the_definition_that_it_was_started_with() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let pipe = folder.path().join("STUB_HOLD_RUNNING").display().to_string();
    let script = stub(&[("STUB_HOLD_RUNNING", &pipe)]);
    let server = start(options(folder.path(), &script)).await.expect("started");
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "RUNNING").await;
    server.shutdown().await;
    // As a server leaves it whose definition named that state otherwise.
    common::ledger(&options(folder.path(), &script).dir)
        .execute_batch(
            "UPDATE definitions SET text = replace(text, 'INITIALIZING, RUNNING', 'Engine');
             UPDATE executions SET state = replace(state, 'INITIALIZING, RUNNING', 'Engine');",
        )
        .expect("changed");
    let server = start(options(folder.path(), &script)).await.expect("started");
    release(folder.path(), "STUB_HOLD_RUNNING").await;
    until_state(server.url(), &run, "COMPLETE").await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_asked_to_leaves_its_engines_running_and_says_which() {
    let folder = prepare(&["STUB_HOLD_RUNNING"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let script =
        stub(&[("STUB_LOG", &path("starts")), ("STUB_HOLD_RUNNING", &path("STUB_HOLD_RUNNING"))]);
    let server = start(options(folder.path(), &script)).await.expect("started");
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "RUNNING").await;
    let left = server.shutdown().await;
    let pid = started(folder.path())[0].2;
    assert_eq!(left.waiting, 0);
    assert_eq!(left.tasks.len(), 1);
    assert_eq!((left.tasks[0].run_id.as_deref(), left.tasks[0].pid), (Some(run.as_str()), pid));
    assert!(is_alive(pid));

    let mut told = Vec::new();
    let stopped = stepwes_local::stop_runs(options(folder.path(), &script), |left| told.push(left))
        .await
        .expect("stopped");
    assert_eq!((stopped, told.as_slice()), (1, [1, 0].as_slice()));
    assert!(!is_alive(pid));
    assert_eq!(started(folder.path()).len(), 1);
    let server = start(options(folder.path(), &script)).await.expect("started");
    assert_eq!(common::state(server.url(), &run).await, "CANCELED");
    server.shutdown().await;
}

#[tokio::test]
async fn a_request_that_was_staged_for_no_run_goes_away() {
    let folder = prepare(&[]);
    let script = stub(&[("A", "b")]);
    let options = || options(folder.path(), &script);
    let server = start(options()).await.expect("started");
    let run = submit(server.url()).await;
    until_state(server.url(), &run, "COMPLETE").await;
    server.shutdown().await;
    // As a server leaves it that is killed before it has made the run.
    let requests = options().dir.join("s3/runs/requests");
    let stage = |at: chrono::DateTime<chrono::Utc>| {
        let time = uuid::Timestamp::from_unix(
            uuid::NoContext,
            u64::try_from(at.timestamp()).expect("after 1970"),
            0,
        );
        let staged = requests.join(uuid::Uuid::new_v7(time).to_string());
        fs::create_dir_all(staged.join("attachments")).expect("made");
        fs::write(staged.join("request.json"), "{}").expect("written");
        fs::write(staged.join("attachments/a"), "a").expect("written");
        staged
    };
    let now = chrono::Utc::now();
    let stray = stage(now);
    // Those of long ago have been looked for by an earlier server.
    let looked_at = stage(now - chrono::TimeDelta::days(2));
    let server = start(options()).await.expect("started");
    until("the stray request is removed", || async { !stray.exists() }).await;
    assert!(requests.join(&run).join("request.json").exists());
    assert!(looked_at.exists());
    server.shutdown().await;
}
