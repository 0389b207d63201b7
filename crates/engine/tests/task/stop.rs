//! Tasks that are told to stop: nothing is left running, and what there is to say is said.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    aws::Verdict,
    world::{RUN, World, is_alive, signal},
};

/// A stub with a grandchild in a session of its own that ignores every polite signal. It has
/// written the pids of both when it says "ready".
const TREE: &str = r#"
setsid sh -c 'trap "" TERM INT HUP; echo $$ > "$0"; while :; do sleep 0.1; done' "$(dirname "$0")/../grandchild" &
while [ ! -s "$(dirname "$0")/../grandchild" ]; do sleep 0.01; done
echo $$ > "$(dirname "$0")/../child"
echo ready
"#;

async fn ready(world: &World) -> [String; 2] {
    world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
    ["child", "grandchild"].map(|name| fs::read_to_string(world.place(name)).expect("a pid"))
}

#[tokio::test]
async fn a_stopped_task_ends_its_engine_and_all_that_it_started() {
    let world =
        World::new(&format!("trap 'echo bye; exit 15' TERM\n{TREE}\nwhile :; do sleep 0.1; done"))
            .await;
    let task = world.start();
    let pids = ready(&world).await;
    signal(&task, Signal::SIGTERM);
    signal(&task, Signal::SIGINT);
    let ended = world.end(task).await;
    assert_eq!(ended.code, Some(75), "{}", ended.log);
    for pid in pids {
        assert!(!is_alive(&pid), "{pid} lives on");
    }
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "STOPPED");
    assert_eq!(result["exit_code"], 15);
    assert_eq!(world.work("logs/stdout").as_deref(), Some("ready\nbye\n"));
    let calls = world.aws.s3_calls();
    assert_eq!(calls.last(), Some(&format!("PUT work/{RUN}/1/result.json")));
}

#[tokio::test]
async fn an_engine_that_will_not_stop_is_killed() {
    let mut world = World::new(&format!("trap '' TERM\n{TREE}\nwhile :; do sleep 0.1; done")).await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "1");
    let task = world.start();
    let pids = ready(&world).await;
    signal(&task, Signal::SIGTERM);
    assert_eq!(world.end(task).await.code, Some(75));
    for pid in pids {
        assert!(!is_alive(&pid), "{pid} lives on");
    }
    assert_eq!(world.result().expect("a result")["exit_code"], 137);
}

#[tokio::test]
async fn what_an_engine_leaves_behind_ends_with_it() {
    let world = World::new(&format!("{TREE}\necho {{}} | tail -1; exit 3")).await;
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let pid = fs::read_to_string(world.place("grandchild")).expect("a pid");
    assert!(!is_alive(&pid), "{pid} lives on");
    assert_eq!(world.result().expect("a result")["exit_code"], 3);
}

/// A stub that makes a daemon: in a session of its own, its parent gone, deaf to polite signals.
const DAEMON: &str = r#"
setsid sh -c 'setsid sh -c "$1" "$0" &' "$(dirname "$0")/../grandchild" \
    'trap "" TERM INT HUP; echo $$ > "$0"; while :; do sleep 0.1; done'
while [ ! -s "$(dirname "$0")/../grandchild" ]; do sleep 0.01; done
echo ready
"#;

#[tokio::test]
async fn a_daemon_that_an_engine_forks_away_ends_with_it() {
    for (first, then, stopped, code) in
        [("", "exit 3", false, 3), ("trap 'exit 15' TERM", "while :; do sleep 0.1; done", true, 15)]
    {
        let world = World::new(&format!("{first}\n{DAEMON}\n{then}")).await;
        let task = world.start();
        if stopped {
            world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
            signal(&task, Signal::SIGTERM);
        }
        let ended = world.end(task).await;
        assert_eq!(ended.code, Some(if stopped { 75 } else { 0 }), "{}", ended.log);
        let pid = fs::read_to_string(world.place("grandchild")).expect("a pid");
        assert!(!is_alive(&pid), "{pid} lives on");
        assert_eq!(world.result().expect("a result")["exit_code"], code);
    }
}

#[tokio::test]
async fn containers_that_a_killed_engine_left_behind_are_ended() {
    let id = "0123456789abcdef".repeat(4);
    for runtime in ["docker", "podman"] {
        let mut world = World::new(&format!(
            r#"mkdir "$TMPDIR/a" "$TMPDIR/b"; printf {id} > "$TMPDIR/a/1.cid"
            echo somebody-elses > "$TMPDIR/b/2.cid"; : > "$TMPDIR/b/3.cid"; kill -9 $$"#
        ))
        .await;
        world.set("STEPWES_CONTAINER", runtime);
        let record = r#"#!/bin/sh
            { echo "$@"; env; } > "$(dirname "$0")/../called"
        "#;
        world.program(runtime, record);
        let ended = world.run().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let called = fs::read_to_string(world.place("called")).expect("it was called");
        assert_eq!(called.lines().next(), Some(&*format!("kill {id}")));
        assert!(!called.contains("the-token"), "{called}");
    }
}

#[tokio::test]
async fn whoever_holds_the_engine_s_output_open_does_not_keep_the_task_from_its_end() {
    let world = World::new(
        r#"echo $$ > "$(dirname "$0")/../child"; echo ready
        while [ ! -e "$(dirname "$0")/../go" ]; do sleep 0.05; done; echo last; exit 3"#,
    )
    .await;
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
    let pid = fs::read_to_string(world.place("child")).expect("a pid");
    let held = fs::File::options()
        .write(true)
        .open(format!("/proc/{}/fd/1", pid.trim()))
        .expect("the pipe is ours too");
    fs::write(world.place("go"), "").expect("written");
    let ended = world.end(task).await;
    drop(held);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(world.result().expect("a result")["exit_code"], 3);
    assert_eq!(world.work("logs/stdout").as_deref(), Some("ready\nlast\n"));
}

#[tokio::test]
async fn a_task_that_is_stopped_in_staging_says_so_without_an_exit_code() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/a.cwl", listener.local_addr().expect("an address"));
    let world = World::new("echo {}").await;
    world.request(&serde_json::json!({"workflow_url": url, "attachments": []}));
    let task = world.start();
    // It has asked for the workflow, and nobody answers.
    let asked = listener.accept().await.expect("a connection");
    signal(&task, Signal::SIGTERM);
    assert_eq!(world.end(task).await.code, Some(75));
    drop(asked);
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "STOPPED");
    assert_eq!(result["exit_code"], serde_json::Value::Null);
    assert_eq!(world.aws.reports().len(), 1, "RUNNING is not said");
}

#[tokio::test]
async fn a_task_that_is_stopped_before_its_claim_writes_nothing() {
    let mut world = World::new("echo {}").await;
    // Nobody answers the metadata request, so that there is no claim.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}", listener.local_addr().expect("an address"));
    world.set("ECS_CONTAINER_METADATA_URI_V4", &uri);
    world.aws.answer(Verdict::Refused("unknown"));
    let task = world.start();
    let asked = listener.accept().await.expect("a connection");
    signal(&task, Signal::SIGINT);
    assert_eq!(world.end(task).await.code, Some(75));
    drop(asked);
    assert_eq!(world.aws.reports(), Vec::<serde_json::Value>::new());
    assert_eq!(world.aws.s3_calls(), Vec::<String>::new());
}

/// A stub that has made an output.
const FINISHED: &str = r#"while [ "$1" != --outdir ]; do shift; done; echo x > "$2/x"; echo '{}'"#;

/// Starts a task whose engine has ended, and stops it while its `key` is uploaded.
async fn stopped_at(world: &World, key: &str) -> tokio::process::Child {
    world.aws.go_silent(key);
    let mut task = world.start();
    world.aws.wait_until(|aws| aws.s3_calls().contains(&format!("PUT {key}"))).await;
    signal(&task, Signal::SIGTERM);
    let mut log = tokio::io::BufReader::new(task.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("told to stop") {
        line.clear();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut log, &mut line).await;
        assert!(read.expect("a log") > 0, "it ended");
    }
    tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
    task
}

#[tokio::test]
async fn work_that_is_finished_when_the_signal_comes_is_kept() {
    for key in ["outputs/{}/1/x", "work/{}/1/result.json"] {
        let world = World::new(FINISHED).await;
        let task = stopped_at(&world, &key.replace("{}", RUN)).await;
        world.aws.speak();
        assert_eq!(world.end(task).await.code, Some(0));
        let result = world.result().expect("a result");
        assert_eq!(result["outcome"], "COMPLETE");
        assert_eq!(result["files"][0]["path"], "x");
    }
}

#[tokio::test]
async fn finished_work_that_finds_no_store_in_time_says_that_it_was_stopped() {
    let mut world = World::new(FINISHED).await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "1");
    let task = stopped_at(&world, &format!("outputs/{RUN}/1/x")).await;
    assert_eq!(world.end(task).await.code, Some(75));
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "STOPPED");
    assert_eq!(result["exit_code"], 0);
    assert_eq!(world.work("logs/stdout").as_deref(), Some("{}\n"));
}

#[tokio::test]
async fn a_patient_task_that_cannot_write_its_result_ends_when_it_is_stopped() {
    let mut world = World::new(FINISHED).await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "1");
    world.set("STEPWES_PATIENCE_SECONDS", "604800");
    let task = stopped_at(&world, &format!("work/{RUN}/1/result.json")).await;
    assert_eq!(world.end(task).await.code, Some(75));
    assert_eq!(world.result(), None);
}

#[tokio::test]
async fn a_signal_counts_more_than_a_refusal() {
    let wait = r#"while [ ! -e "$(dirname "$0")/../go" ]; do sleep 0.05; done"#;
    let mut world = World::new(&format!(
        "trap 'echo bye; {wait}; exit 1' TERM; echo ready; while :; do sleep 0.1; done"
    ))
    .await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "5");
    world.aws.credentials_live(3);
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
    world.aws.answer(Verdict::Refused("canceling"));
    // The engine is told to stop only because of the refusal.
    world.aws.wait_until(|aws| aws.reports().len() > 2).await;
    signal(&task, Signal::SIGTERM);
    fs::write(world.place("go"), "").expect("written");
    assert_eq!(world.end(task).await.code, Some(75));
}

#[tokio::test]
async fn a_store_that_is_away_does_not_keep_a_stopped_task_from_its_end() {
    let mut world =
        World::new("trap 'echo bye; exit 1' TERM; echo ready; while :; do sleep 0.1; done").await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "3");
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
    for name in ["logs/stdout", "logs/stderr", "result.json"] {
        world.aws.go_silent(&format!("work/{RUN}/1/{name}"));
    }
    signal(&task, Signal::SIGTERM);
    let ended = tokio::time::timeout(Duration::from_secs(60), world.end(task)).await;
    assert_eq!(ended.expect("it ends").code, Some(75));
    assert_eq!(world.result(), None);
    assert_eq!(world.segments("stdout"), "ready\nbye\n", "what is left comes before the whole");
}
