//! Engines in a sandbox. Where bubblewrap makes none, the tests that need it say so and do nothing.

use std::{fs, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{World, signal};

/// A world whose engine must be in a sandbox; `None` where there can be none.
async fn sandboxed(stub: &str) -> Option<World> {
    let trial = Command::new("bwrap")
        .args(["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"])
        .output();
    match trial {
        Ok(trial) if trial.status.success() => {}
        Ok(trial) => {
            eprintln!("skipped: bubblewrap makes no sandbox here: {trial:?}");
            return None;
        }
        Err(error) => {
            eprintln!("skipped: bubblewrap is missing (apt-get install bubblewrap): {error}");
            return None;
        }
    }
    let mut world = World::new(stub).await;
    world.set("STEPWES_SANDBOX", "bwrap");
    Some(world)
}

/// The processes whose command line holds a text.
fn processes(text: &str) -> usize {
    let commands = fs::read_dir("/proc").expect("processes").flatten();
    commands
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|command| String::from_utf8_lossy(command).contains(text))
        .count()
}

#[tokio::test]
async fn an_engine_writes_its_own_folder_and_temporary_folders_alone() {
    let stub = r#"
        try() { if { echo x > "$1"; } 2>/dev/null; then echo "wrote $2"; else echo "not $2"; fi; }
        here="$(dirname "$0")/.."
        cat "$here/input" && try "$here/outside" outside && try "$here/work/other" "another run"
        try "$HOME/h" home && try "$TMPDIR/t" TMPDIR && try "/tmp/stepwes-$$" /tmp && try /dev/shm/s shm
        try "$PWD/e" execution && try /usr/u /usr
        { [ "$(id -u)" != 0 ] || { touch o && chown 1:1 o; }; } && echo "root unpacks"
        kill -0 "$(cat "$here/pid")" 2>/dev/null || echo "no other process"
        while [ "$1" != --outdir ]; do shift; done; echo made > "$2/x"; exit 3
    "#;
    let Some(world) = sandboxed(stub).await else { return };
    fs::write(world.place("input"), "read\n").expect("written");
    fs::write(world.place("pid"), std::process::id().to_string()).expect("written");
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let said = world.work("logs/stdout").expect("a log");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "read",
            "not outside",
            "not another run",
            "wrote home",
            "wrote TMPDIR",
            "wrote /tmp",
            "wrote shm",
            "wrote execution",
            "not /usr",
            "root unpacks",
            "no other process",
        ],
    );
    assert!(!world.place("outside").exists());
    assert_eq!(world.result().expect("a result")["files"][0]["path"], "x");
}

#[tokio::test]
async fn the_service_s_own_files_and_other_tasks_are_not_seen() {
    let stub = r#"here="$(dirname "$0")/.."; cat "$here/key" 2>/dev/null
        { echo x > "$here/new"; } 2>/dev/null; ls "$here" "$here/work"; exit 3"#;
    let Some(mut world) = sandboxed(stub).await else { return };
    fs::write(world.place("key"), "to everything\n").expect("written");
    let all = world.place("").display().to_string();
    world.set("STEPWES_SANDBOX_HIDES", all.trim_end_matches('/'));
    fs::create_dir(world.place("elsewhere")).expect("made");
    let ended = world.run().await;
    let said = world.work("logs/stdout").unwrap_or_else(|| panic!("no log: {}", ended.log));
    let said: Vec<_> =
        said.lines().filter(|line| !line.ends_with(':') && !line.is_empty()).collect();
    assert_eq!(said[..3], ["bin", "elsewhere", "work"], "{said:?}");
    assert!(said.len() == 4 && said[3].starts_with("stepwes-"), "{said:?}");
}

#[tokio::test]
async fn a_stopped_task_ends_its_engine_in_its_own_way_and_leaves_nothing() {
    let marker = format!("sandboxed-{}", std::process::id());
    let stub = format!(
        r#"setsid sh -c 'trap "" TERM INT HUP; echo there; while :; do sleep 0.1; done' {marker} &
        trap 'echo bye; exit 15' TERM; while :; do sleep 0.1; done"#
    );
    let Some(world) = sandboxed(&stub).await else { return };
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout").contains("there")).await;
    assert!(processes(&marker) > 0);
    signal(&task, Signal::SIGTERM);
    assert_eq!(world.end(task).await.code, Some(75));
    assert_eq!(processes(&marker), 0);
    assert_eq!(world.result().expect("a result")["exit_code"], 15);
    assert_eq!(world.work("logs/stdout").as_deref(), Some("there\nbye\n"));
}

#[tokio::test]
async fn an_engine_that_will_not_stop_is_killed_with_all_that_forked_away() {
    let marker = format!("stubborn-{}", std::process::id());
    let stub = format!(
        r#"(setsid sh -c '(setsid sh -c "trap : TERM; echo away; while :; do sleep 0.1; done" {marker} &)' &)
        trap '' TERM; while :; do sleep 0.1; done"#
    );
    let Some(mut world) = sandboxed(&stub).await else { return };
    world.set("STEPWES_STOP_GRACE_SECONDS", "1");
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout").contains("away")).await;
    signal(&task, Signal::SIGTERM);
    let ended = tokio::time::timeout(Duration::from_secs(60), world.end(task)).await;
    assert_eq!(ended.expect("it ends").code, Some(75));
    assert_eq!(processes(&marker), 0);
    assert_eq!(world.result().expect("a result")["exit_code"], 137);
}

#[tokio::test]
async fn an_engine_that_wants_to_write_elsewhere_is_told_why_it_cannot() {
    let stub = "echo x > \"$(dirname \"$0\")/x\" || exit 1";
    let Some(world) = sandboxed(stub).await else { return };
    world.run().await;
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "EXECUTOR_ERROR");
    let reason = result["reason"].as_str().expect("a reason");
    assert!(reason.ends_with("it can write nothing but its own folder)"), "{reason}");
}

#[tokio::test]
async fn an_engine_that_a_signal_ends_says_so() {
    let Some(world) = sandboxed("kill -9 $$").await else { return };
    world.run().await;
    let result = world.result().expect("a result");
    assert_eq!(result["exit_code"], 137);
    assert!(result["reason"].as_str().is_some_and(|reason| reason.contains("memory")), "{result}");
}

#[tokio::test]
async fn without_a_bubblewrap_that_works_the_setting_decides() {
    for (setting, outcome) in [("auto", "COMPLETE"), ("bwrap", "SYSTEM_ERROR")] {
        let mut world = World::new("echo {}").await;
        world.program("bwrap", "#!/bin/sh\necho 'bwrap: No permissions' >&2; exit 1\n");
        world.set("STEPWES_SANDBOX", setting);
        let ended = world.run().await;
        let result = world.result().expect("a result");
        assert_eq!(result["outcome"], outcome, "{result}");
        assert!(
            ended.log.contains("makes no sandbox here: bwrap: No permissions"),
            "{}",
            ended.log
        );
        assert_eq!(result["reason"] == Value::Null, setting == "auto");
    }
}

#[tokio::test]
async fn a_sandbox_that_fails_once_it_is_needed_is_the_service_s_fault() {
    let mut world = World::new("echo {}").await;
    // It passes the trial.
    world.program(
        "bwrap",
        "#!/bin/sh\n[ \"$#\" -lt 20 ] && exit 0; echo 'bwrap: no room' >&2; exit 1\n",
    );
    world.set("STEPWES_SANDBOX", "bwrap");
    world.run().await;
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "SYSTEM_ERROR", "{result}");
    assert!(
        result["reason"].as_str().is_some_and(|reason| reason.ends_with("bwrap: no room")),
        "{result}"
    );
}
