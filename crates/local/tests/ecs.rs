//! ECS: tasks as processes, driven by the SDK's client.

mod common;

use std::{fs, num::NonZeroUsize, time::Duration};

use aws_sdk_ecs::{
    Client,
    error::ProvideErrorMetadata as _,
    operation::run_task::builders::RunTaskFluentBuilder,
    types::{
        ContainerOverride, DesiredStatus, KeyValuePair, Tag, Task, TaskOverride, TaskStopCode,
    },
};
use stepwes_local::{Server, arn};

use common::{hold, release, serve, serve_with, until};

fn run_task(client: &Client, variables: &[(&str, &str)]) -> RunTaskFluentBuilder {
    let mut container = ContainerOverride::builder().name("engine");
    for (name, value) in variables {
        let variable = KeyValuePair::builder().name(*name).value(*value).build();
        container = container.environment(variable);
    }
    let overrides = TaskOverride::builder().container_overrides(container.build()).build();
    run_task_with(client, overrides)
}

fn run_task_with(client: &Client, overrides: TaskOverride) -> RunTaskFluentBuilder {
    client
        .run_task()
        .cluster(arn::CLUSTER)
        .task_definition(arn::TASK_DEFINITION)
        .overrides(overrides)
}

async fn started(request: RunTaskFluentBuilder) -> String {
    let answer = request.send().await.expect("accepted");
    assert!(answer.failures().is_empty());
    answer.tasks()[0].task_arn().expect("an ARN").to_owned()
}

async fn describe(client: &Client, task: &str) -> Task {
    let answer =
        client.describe_tasks().cluster(arn::CLUSTER).tasks(task).send().await.expect("described");
    answer.tasks()[0].clone()
}

async fn until_status(client: &Client, task: &str, status: &str) -> Task {
    until(&format!("{task} is {status}"), || async {
        describe(client, task).await.last_status() == Some(status)
    })
    .await;
    describe(client, task).await
}

fn folder_of(server: &Server, task: &str) -> std::path::PathBuf {
    server.dir().join("tasks").join(task.rsplit('/').next().expect("an id"))
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// How many files this process may have open: the soft limit and the hard one.
fn open_files() -> [String; 2] {
    let limits = fs::read_to_string("/proc/self/limits").expect("readable");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let words: Vec<_> = line.split_whitespace().collect();
    [words[3].to_owned(), words[4].to_owned()]
}

#[tokio::test]
async fn a_task_runs_with_its_environment_and_nothing_of_the_servers() {
    let [soft_before, _] = open_files();
    let rig = serve(
        "work=$STEPWES_WORK_DIR/stepwes-x; mkdir -p $work/inner; ln -s $work $STEPWES_WORK_LINK\n\
         env | sort > env.txt; ulimit -Sn > files; echo said; echo cried >&2; exit 3",
    )
    .await;
    let ecs = rig.server.aws().ecs();
    let tag = Tag::builder().key("stepwes:run_id").value("x").build();
    let task = started(
        run_task(&ecs, &[("STEPWES_RUN_ID", "a run"), ("STEPWES_CONTAINER", "none")])
            .tags(tag)
            .started_by("a test"),
    )
    .await;
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(3));
    assert_eq!(stopped.containers()[0].name(), Some("engine"));
    assert_eq!(stopped.stop_code().map(TaskStopCode::as_str), Some("EssentialContainerExited"));
    assert_eq!(stopped.started_by(), Some("a test"));
    assert!(stopped.started_at().is_some() && stopped.stopped_at().is_some());

    let folder = folder_of(&rig.server, &task);
    assert_eq!(fs::read_to_string(folder.join("log")).expect("a log"), "said\ncried\n");
    assert!(!folder.join("work").is_symlink(), "the link to the working folder is removed");
    let left = fs::read_dir(rig.server.dir().join("work")).expect("listed").count();
    assert_eq!(left, 0, "the working folder is removed");
    let files = fs::read_to_string(folder.join("files")).expect("written");
    assert_eq!(files.trim(), soft_before);
    assert_eq!(open_files()[0], open_files()[1]);
    let environment = fs::read_to_string(folder.join("env.txt")).expect("written");
    let has = |line: &str| environment.lines().any(|there| there.starts_with(line));
    assert!(has("STEPWES_RUN_ID=a run") && has("STEPWES_BUCKET=runs"), "{environment}");
    assert!(has("STEPWES_CONTAINER=none"), "an override wins: {environment}");
    assert!(has("STEPWES_PATIENCE_SECONDS=604800"), "{environment}");
    assert!(has(&format!("AWS_ENDPOINT_URL={}", rig.server.internal_url())), "{environment}");
    assert!(has("ECS_CONTAINER_METADATA_URI_V4=http://127.0.0.1:"), "{environment}");
    assert!(!environment.contains("CARGO"), "{environment}");
    let service = common::key(&rig.server, "service");
    assert!(!environment.contains(service.secret_access_key()), "{environment}");
}

#[tokio::test]
async fn a_task_that_is_killed_says_so_in_its_exit_code() {
    let rig = serve("kill -9 $$").await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(137));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_task_that_failed_to_start() {
    let rig = serve("exit 0").await;
    fs::write(rig.folder.path().join("engine"), "#!/nonexistent\n").expect("written");
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.stop_code().map(TaskStopCode::as_str), Some("TaskFailedToStart"));
    let reason = stopped.stopped_reason().expect("a reason");
    assert!(reason.starts_with("ResourceInitializationError"), "{reason}");
    assert_eq!(stopped.containers()[0].exit_code(), None);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_yet_is_started_later() {
    let rig = serve("exit 0").await;
    let ecs = rig.server.aws().ecs();
    // Nothing that is open for writing can be executed: as when it is being replaced.
    let program = fs::OpenOptions::new().append(true).open(rig.folder.path().join("engine"));
    let program = program.expect("opened");
    let task = started(run_task(&ecs, &[])).await;
    let alive = folder_of(&rig.server, &task).join("alive");
    let tried_at = || fs::metadata(&alive).and_then(|found| found.modified()).ok();
    until("it is tried", || async { tried_at().is_some() }).await;
    let first = tried_at();
    until("it is tried again", || async { tried_at() != first }).await;
    assert_eq!(describe(&ecs, &task).await.last_status(), Some("PENDING"));
    drop(program);
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(0));
}

#[tokio::test]
async fn what_a_task_leaves_behind_is_killed_before_it_has_stopped() {
    let rig = serve("(trap '' TERM HUP; exec sleep 600) & echo $! > left; exit 0").await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    until_status(&ecs, &task, "STOPPED").await;
    let left = fs::read_to_string(folder_of(&rig.server, &task).join("left")).expect("written");
    assert!(!is_alive(&left));
}

#[tokio::test]
async fn a_stopped_task_is_asked_first() {
    let rig = serve("trap 'exit 75' TERM; : > ready; while :; do sleep 0.01; done").await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    let ready = folder_of(&rig.server, &task).join("ready");
    until("the task is ready", || async { ready.exists() }).await;
    let stopping = ecs.stop_task().cluster(arn::CLUSTER).task(&task).reason("enough");
    let told = stopping.send().await.expect("accepted");
    assert_eq!(told.task().and_then(Task::desired_status), Some("STOPPED"));
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(75));
    assert_eq!(stopped.stop_code().map(TaskStopCode::as_str), Some("UserInitiated"));
    assert_eq!(stopped.stopped_reason(), Some("enough"));
}

/// Makes the ledger refuse to record that `condition` holds of a task, as a full disk would.
const REFUSE: &str = "CREATE TRIGGER refuse BEFORE UPDATE ON tasks WHEN condition
    BEGIN SELECT RAISE(FAIL, 'refused by the test'); END";
const ACCEPT: &str = "DROP TRIGGER refuse";

#[tokio::test]
async fn tasks_that_ask_for_more_than_the_machine_has_together_run_one_after_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = common::options(folder.path(), &hold(folder.path(), "pipe"));
    let server = stepwes_local::start(options.clone()).await.expect("started");
    let ecs = server.aws().ecs();
    let large = || TaskOverride::builder().memory(i32::MAX.to_string()).cpu("1024").build();
    let first = started(run_task_with(&ecs, large())).await;
    let described = until_status(&ecs, &first, "RUNNING").await;
    assert_eq!((described.cpu(), described.memory()), (Some("1024"), Some("2147483647")));
    server.shutdown().await;

    let server = stepwes_local::start(options).await.expect("started again");
    let ecs = server.aws().ecs();
    let second = started(run_task_with(&ecs, large())).await;
    // It asks for nothing, and does not overtake.
    let third = started(run_task(&ecs, &[])).await;
    assert_eq!(describe(&ecs, &first).await.last_status(), Some("RUNNING"));
    for waiting in [&second, &third] {
        assert_eq!(describe(&ecs, waiting).await.last_status(), Some("PROVISIONING"));
    }
    release(folder.path(), "pipe").await;
    until_status(&ecs, &first, "STOPPED").await;
    for task in [&second, &third] {
        until_status(&ecs, task, "RUNNING").await;
    }
    for task in [&second, &third] {
        ecs.stop_task().cluster(arn::CLUSTER).task(task).send().await.expect("accepted");
        until_status(&ecs, task, "STOPPED").await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_size_that_is_no_number_or_a_disk_of_a_tasks_own_is_refused() {
    let rig = serve("exit 0").await;
    let ecs = rig.server.aws().ecs();
    let disk = aws_sdk_ecs::types::EphemeralStorage::builder().size_in_gib(21).build();
    for (overrides, code) in [
        (TaskOverride::builder().memory("16 GB").build(), "InvalidParameterException"),
        (TaskOverride::builder().ephemeral_storage(disk).build(), "InvalidParameterException"),
    ] {
        let refused = run_task_with(&ecs, overrides).send().await.expect_err("refused");
        assert_eq!(refused.code(), Some(code));
    }
}

#[tokio::test]
async fn a_stop_that_was_not_recorded_is_done_when_it_is_asked_for_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = serve_with(&hold(folder.path(), "pipe"), |options| {
        options.max_engines = NonZeroUsize::new(1);
    })
    .await;
    let ecs = rig.server.aws().ecs();
    let running = started(run_task(&ecs, &[])).await;
    until_status(&ecs, &running, "RUNNING").await;
    let waiting = started(run_task(&ecs, &[])).await;
    let ledger = common::ledger(rig.server.dir());
    ledger.execute_batch(&REFUSE.replace("condition", "1")).expect("made");
    for task in [&waiting, &running] {
        let key = common::key(&rig.server, "service");
        let once = Client::new(&common::sdk(&rig.server, key));
        let stop = once.stop_task().cluster(arn::CLUSTER).task(task);
        assert_eq!(stop.send().await.expect_err("refused").code(), Some("ServerException"));
    }
    ledger.execute_batch(ACCEPT).expect("removed");
    for task in [&waiting, &running] {
        ecs.stop_task().cluster(arn::CLUSTER).task(task).send().await.expect("accepted");
        until_status(&ecs, task, "STOPPED").await;
    }
}

#[tokio::test]
async fn a_stop_is_done_though_the_one_who_asked_hung_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = serve(&hold(folder.path(), "pipe")).await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    until_status(&ecs, &task, "RUNNING").await;
    let ledger = common::ledger(rig.server.dir());
    ledger.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let stop = ecs.stop_task().cluster(arn::CLUSTER).task(&task);
    let asking = tokio::spawn(stop.send());
    until("the server is about to record it", || async {
        describe(&ecs, &task).await.desired_status() == Some("STOPPED")
    })
    .await;
    asking.abort();
    assert!(asking.await.expect_err("aborted").is_cancelled());
    ledger.execute_batch("COMMIT").expect("unlocked");
    until_status(&ecs, &task, "STOPPED").await;
}

#[tokio::test]
async fn a_server_goes_down_though_a_tasks_end_cannot_be_recorded() {
    let rig = serve("exit 0").await;
    fs::write(rig.folder.path().join("engine"), "#!/nonexistent\n").expect("written");
    let ecs = rig.server.aws().ecs();
    let ledger = common::ledger(rig.server.dir());
    let refuse = REFUSE.replace("condition", "NEW.stopped_at IS NOT NULL");
    ledger.execute_batch(&refuse).expect("made");
    let task = started(run_task(&ecs, &[])).await;
    until("its start fails", || async { describe(&ecs, &task).await.stop_code().is_some() }).await;
    let down = tokio::time::timeout(Duration::from_secs(60), rig.server.shutdown()).await;
    assert_eq!(down.expect("in time").waiting, 1);
}

#[tokio::test]
async fn a_task_whose_stop_an_earlier_server_asked_for_has_its_time_from_when_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "trap 'sleep 0.1; printf \"{\\\"exit_code\\\":75}\" > \"$STEPWES_EXIT_FILE\"; exit 75' TERM\n\
                  : > ready; while :; do sleep 0.01; done";
    let options = || common::options(folder.path(), script);
    let server = stepwes_local::start(options()).await.expect("started");
    let task = started(run_task(&server.aws().ecs(), &[])).await;
    let ready = folder_of(&server, &task).join("ready");
    until("the task is ready", || async { ready.exists() }).await;
    assert_eq!(server.shutdown().await.tasks.len(), 1);
    // As an earlier server leaves it that was killed before it could tell the task.
    let stop = r#"{"stopping_at": "2020-01-01T00:00:00Z", "stop": {"code": "UserInitiated", "reason": "enough"}}"#;
    common::ledger(&options().dir)
        .execute("UPDATE tasks SET task = json_patch(task, ?1)", [stop])
        .expect("changed");
    let server = stepwes_local::start(options()).await.expect("started");
    let stopped = until_status(&server.aws().ecs(), &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(75));
    server.shutdown().await;
}

#[tokio::test]
async fn a_tree_that_ignores_sigterm_is_killed_whole() {
    // The inner shell leaves the process group, not the session.
    let script = "trap '' TERM\nset -m\n(trap '' TERM; sleep 600 & echo $! > inner; wait) &\n\
                  echo $$ > outer\nwhile :; do sleep 1; done";
    let rig = serve_with(script, |options| {
        options.stop_timeout = Duration::from_millis(100);
    })
    .await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    let folder = folder_of(&rig.server, &task);
    let pid =
        |name: &str| fs::read_to_string(folder.join(name)).ok().filter(|text| text.ends_with('\n'));
    until("the tree is there", || async { pid("inner").is_some() && pid("outer").is_some() }).await;
    ecs.stop_task().cluster(arn::CLUSTER).task(&task).send().await.expect("accepted");
    let stopped = until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(137));
    assert!(!is_alive(&pid("inner").expect("a pid")));
    assert!(!is_alive(&pid("outer").expect("a pid")));
}

#[tokio::test]
async fn tasks_wait_for_a_slot_in_their_order_and_a_waiting_one_stops_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let script = format!("echo $NAME >> '{}'\n{}", log.display(), hold(folder.path(), "pipe"));
    let rig = serve_with(&script, |options| {
        options.max_engines = NonZeroUsize::new(1);
    })
    .await;
    let ecs = rig.server.aws().ecs();
    let mut tasks = Vec::new();
    for name in ["a", "b", "c", "d"] {
        tasks.push(started(run_task(&ecs, &[("NAME", name)])).await);
    }
    until_status(&ecs, &tasks[0], "RUNNING").await;
    for waiting in &tasks[1..] {
        assert_eq!(describe(&ecs, waiting).await.last_status(), Some("PROVISIONING"));
    }
    ecs.stop_task().cluster(arn::CLUSTER).task(&tasks[1]).send().await.expect("accepted");
    let stopped = describe(&ecs, &tasks[1]).await;
    assert_eq!(stopped.last_status(), Some("STOPPED"));
    assert_eq!(stopped.containers()[0].exit_code(), None);
    for task in [&tasks[0], &tasks[2], &tasks[3]] {
        until_status(&ecs, task, "RUNNING").await;
        release(folder.path(), "pipe").await;
        until_status(&ecs, task, "STOPPED").await;
    }
    assert_eq!(fs::read_to_string(&log).expect("a log"), "a\nc\nd\n");
}

#[tokio::test]
async fn one_client_token_is_one_task() {
    let rig = serve("echo x >> ../../../starts").await;
    let ecs = rig.server.aws().ecs();
    let ask = || run_task(&ecs, &[("A", "1")]).client_token("token");
    let first = started(ask()).await;
    assert_eq!(started(ask()).await, first);
    until_status(&ecs, &first, "STOPPED").await;
    assert_eq!(started(ask()).await, first);
    let other = run_task(&ecs, &[("A", "2")]).client_token("token").send().await;
    assert_eq!(other.expect_err("refused").code(), Some("ConflictException"));
    let starts = fs::read_to_string(rig.folder.path().join("starts")).expect("a log");
    assert_eq!(starts, "x\n");
}

#[tokio::test]
async fn tasks_are_listed_page_by_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = serve_with(&hold(folder.path(), "pipe"), |options| {
        options.max_engines = NonZeroUsize::new(1);
    })
    .await;
    let ecs = rig.server.aws().ecs();
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(started(run_task(&ecs, &[])).await);
    }
    tasks.sort();
    let mut listed = Vec::new();
    let mut next = None;
    loop {
        let page = ecs
            .list_tasks()
            .cluster(arn::CLUSTER)
            .max_results(2)
            .set_next_token(next)
            .send()
            .await
            .expect("listed");
        assert!(page.task_arns().len() <= 2);
        listed.extend(page.task_arns().to_vec());
        next = page.next_token().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(listed, tasks);
    for task in &tasks {
        ecs.stop_task().cluster(arn::CLUSTER).task(task).send().await.expect("accepted");
    }
    for task in &tasks {
        until_status(&ecs, task, "STOPPED").await;
    }
    let list = |status| ecs.list_tasks().cluster("stepwes").desired_status(status).send();
    assert!(list(DesiredStatus::Running).await.expect("listed").task_arns().is_empty());
    assert_eq!(list(DesiredStatus::Stopped).await.expect("listed").task_arns(), tasks);
}

#[tokio::test]
async fn what_is_not_embedded_or_wrong_is_refused_by_name() {
    let rig = serve("exit 0").await;
    let ecs = rig.server.aws().ecs();
    let code_and_message = |error: &aws_sdk_ecs::error::ErrorMetadata| {
        format!("{} {}", error.code().unwrap_or_default(), error.message().unwrap_or_default())
    };
    let refusals = [
        (run_task(&ecs, &[]).cluster("other"), "ClusterNotFoundException"),
        (run_task(&ecs, &[]).task_definition("other"), "ClientException"),
        (run_task(&ecs, &[]).count(2), "InvalidParameterException count"),
        (run_task(&ecs, &[]).group("g"), "InvalidParameterException ecs:RunTask"),
        (run_task(&ecs, &[("A=B", "x")]), "InvalidParameterException environment"),
    ];
    for (request, expected) in refusals {
        let error = request.send().await.expect_err(expected);
        let told = code_and_message(error.meta());
        assert!(told.starts_with(expected), "{told}");
    }
    let error = run_task(&ecs, &[]).group("g").send().await.expect_err("refused");
    assert!(error.message().is_some_and(|told| told.contains("`group`")), "{error:?}");
    let error = ecs.list_clusters().send().await.expect_err("refused");
    let told = code_and_message(error.meta());
    assert!(
        told.starts_with("UnknownOperationException") && told.contains("ListClusters"),
        "{told}"
    );

    let missing = format!("{}{}", arn::TASK_PREFIX, "0".repeat(32));
    let answer =
        ecs.describe_tasks().cluster(arn::CLUSTER).tasks(&missing).send().await.expect("answered");
    assert_eq!(answer.failures()[0].arn(), Some(missing.as_str()));
    assert_eq!(answer.failures()[0].reason(), Some("MISSING"));
    let error =
        ecs.stop_task().cluster(arn::CLUSTER).task(&missing).send().await.expect_err("refused");
    assert_eq!(error.message(), Some("The referenced task was not found."));
}

#[tokio::test]
async fn a_task_learns_its_arn_from_its_metadata_endpoint_and_nobody_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!(
        "printf %s \"$ECS_CONTAINER_METADATA_URI_V4\" > uri.tmp; mv uri.tmp uri\n{}",
        hold(folder.path(), "pipe")
    );
    let rig = serve(&script).await;
    let ecs = rig.server.aws().ecs();
    let task = started(run_task(&ecs, &[])).await;
    let uri = folder_of(&rig.server, &task).join("uri");
    until("the task says its address", || async { uri.exists() }).await;
    let uri = fs::read_to_string(uri).expect("readable");
    let told = common::get_json(&format!("{uri}/task")).await;
    assert_eq!(told["TaskARN"], task.as_str());
    assert_eq!(common::get_json(&uri).await["Name"], "engine");
    let id = task.rsplit('/').next().expect("an id");
    let guessed = format!("{}/task/{id}/task", rig.server.internal_url());
    assert_eq!(common::http().get(guessed).send().await.expect("answered").status(), 404);
    release(folder.path(), "pipe").await;
    until_status(&ecs, &task, "STOPPED").await;
    assert_eq!(
        common::http().get(format!("{uri}/task")).send().await.expect("answered").status(),
        404
    );
}
