//! Tasks that fail: each says whose fault it was and what to do.

use serde_json::{Value, json};

use crate::{
    aws::Verdict,
    world::{RUN, World},
};

/// Runs a task whose result is expected to be bad, and gives the result.
async fn fails(world: &World, outcome: &str) -> Value {
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], outcome, "{result}");
    result
}

fn reason(result: &Value) -> &str {
    result["reason"].as_str().expect("a reason")
}

#[tokio::test]
async fn a_refused_twin_ends_at_once_and_touches_nothing() {
    let world = World::new("echo {}").await;
    world.aws.answer(Verdict::Refused("twin"));
    let ended = world.run().await;
    assert_eq!(ended.code, Some(64));
    assert!(ended.log.contains("another task has claimed the attempt"), "{}", ended.log);
    assert_eq!(world.aws.s3_calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_run_that_is_cancelled_in_staging_does_not_start_its_engine() {
    let world = World::new("touch \"$(dirname \"$0\")/../started\"; echo {}").await;
    world.aws.answer(Verdict::RefusedAction("run", "canceling"));
    assert_eq!(world.run().await.code, Some(64));
    assert!(!world.place("started").exists());
    assert_eq!(world.result(), None);
}

#[tokio::test]
async fn a_refused_renewal_stops_an_engine_that_says_nothing() {
    let world = World::new("echo running; sleep 1000").await;
    world.aws.credentials_live(2);
    let task = world.start();
    world.aws.wait_until(|_| world.segments("stdout") == "running\n").await;
    world.aws.answer(Verdict::Refused("over"));
    assert_eq!(world.end(task).await.code, Some(64));
    assert_eq!(world.result(), None);
}

#[tokio::test]
async fn an_engine_that_fails_says_why_and_its_logs_and_files_are_there() {
    let world = World::new(
        r#"while [ "$1" != --outdir ]; do shift; done; echo half > "$2/half"
        echo '{"o": null}'; echo 'ERROR it is broken' >&2; exit 1"#,
    )
    .await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert_eq!(reason(&result), "cwltool exited with code 1: it is broken");
    assert_eq!(result["exit_code"], 1);
    assert_eq!(result["files"][0]["path"], "half");
    assert_eq!(result["outputs"], json!({"kind": "listing"}));
    assert_eq!(world.work("logs/stderr").as_deref(), Some("ERROR it is broken\n"));
}

#[tokio::test]
async fn a_log_that_a_tool_replaces_by_a_link_shows_nothing_of_the_task() {
    let world = World::new(
        "for log in stdout stderr; do ln -sf /proc/self/environ ../logs/$log; done; exit 1",
    )
    .await;
    world.run().await;
    let keys = world.aws.keys("");
    assert!(!keys.is_empty());
    for key in keys {
        let content = world.aws.object(&key).expect("an object");
        assert!(!String::from_utf8_lossy(&content).contains("the-token"), "{key}");
    }
}

#[tokio::test]
async fn an_unsupported_workflow_keeps_its_exit_code() {
    let world = World::new("exit 33").await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert_eq!(result["exit_code"], 33);
    let world = World::new("kill -9 $$").await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert_eq!(result["exit_code"], 137);
    assert!(reason(&result).contains("memory"), "{result}");
}

#[tokio::test]
async fn a_step_that_gets_no_container_says_so() {
    let told = "Workflow or tool uses unsupported feature:\n--no-container, but this CommandLineTool has DockerRequirement under 'requirements'.";
    let world = World::new(&format!("cat >&2 <<'END'\nERROR {told}\nEND\nexit 33")).await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(
        reason(&result).contains("(a step needs a container, and this service runs none: "),
        "{result}"
    );
    // A docker command without its daemon.
    let cannot = "ERROR Docker is required to run this tool: Command '['docker', 'pull', 'x']' returned non-zero exit status 1.";
    let mut world = World::new(&format!("cat >&2 <<'END'\n{cannot}\nEND\nexit 33")).await;
    world.program("docker", "#!/bin/sh\nexit 1\n");
    world.set("STEPWES_CONTAINER", "docker");
    let nowhere = format!("unix://{}", world.place("no.sock").display());
    world.set("DOCKER_HOST", &nowhere);
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).ends_with("whose daemon does not answer)"), "{result}");
}

#[tokio::test]
async fn a_reason_names_the_run_s_files_without_the_machine_s_folders() {
    let world =
        World::new("echo \"ERROR file://$PWD/a.cwl of $PWD/b.cwl is broken\" >&2; exit 1").await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert_eq!(reason(&result), "cwltool exited with code 1: a.cwl of b.cwl is broken");
}

#[tokio::test]
async fn an_engine_that_is_not_installed_is_our_fault_and_says_how_to_install_it() {
    let mut world = World::new("").await;
    world.set_path("/nowhere");
    let result = fails(&world, "SYSTEM_ERROR").await;
    assert!(reason(&result).contains("cwltool is not installed"), "{result}");
    assert!(reason(&result).contains("pip install cwltool"), "{result}");
    assert_eq!(world.aws.reports().len(), 1, "RUNNING is not said");
}

#[tokio::test]
async fn an_engine_whose_installation_is_broken_is_our_fault_and_says_how_to_mend_it() {
    let world = World::new("echo 'env: python3: No such file or directory' >&2; exit 127").await;
    let result = fails(&world, "SYSTEM_ERROR").await;
    assert!(reason(&result).contains("env: python3"), "{result}");
    assert!(reason(&result).contains("pip install cwltool"), "{result}");
    assert_eq!(result["exit_code"], 127);
    let world = World::new("").await;
    world.program("cwltool", "#!/nowhere/python\n");
    let result = fails(&world, "SYSTEM_ERROR").await;
    assert!(reason(&result).contains("cannot be started"), "{result}");
    assert!(reason(&result).contains("pip install cwltool"), "{result}");
}

#[tokio::test]
async fn a_command_line_that_is_too_long_is_the_request_s_fault() {
    let world = World::new("echo {}").await;
    let long = "x".repeat(200_000);
    world.request(&json!({"workflow_engine_parameters": {"--target": long}}));
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("shorten workflow_engine_parameters"), "{result}");
}

#[tokio::test]
async fn a_disk_that_was_full_for_a_tool_is_told() {
    for words in ["No space left on device", "Disk quota exceeded"] {
        let world = World::new(&format!(
            "echo 'cat: write error: {words}' >&2; echo 'ERROR [job a] failed' >&2; exit 1"
        ))
        .await;
        let result = fails(&world, "EXECUTOR_ERROR").await;
        assert_eq!(
            reason(&result),
            "cwltool exited with code 1: [job a] failed (the task's disk was full)"
        );
    }
}

#[tokio::test]
async fn a_workflow_that_is_not_there_is_named() {
    let world = World::new("echo {}").await;
    let url = format!("http://{}/metadata/gone.cwl", world.aws.address);
    world.request(&json!({"workflow_url": url, "attachments": []}));
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains(&url) && reason(&result).contains("404"), "{result}");
    world.request(&json!({"workflow_url": "s3://elsewhere/gone.cwl", "attachments": []}));
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("s3://elsewhere/gone.cwl"), "{result}");
    assert!(reason(&result).contains("NoSuchKey"), "{result}");
}

#[tokio::test]
async fn an_option_that_leads_out_of_the_run_is_refused_by_name() {
    let world = World::new("echo {}").await;
    world.request(&json!({"workflow_engine_parameters": {"--cachedir": "/tmp/x"}}));
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("--cachedir"), "{result}");
    assert_eq!(result["exit_code"], Value::Null);
}

#[tokio::test]
async fn an_output_that_was_never_made_is_named() {
    let stub = r#"while [ "$1" != --outdir ]; do shift; done
        echo '{"o": {"class": "File", "location": "file://'"$2"'/gone.txt"}}'"#;
    let world = World::new(stub).await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("\"gone.txt\", which does not exist"), "{result}");
    assert_eq!(result["exit_code"], 0);
}

#[tokio::test]
async fn outputs_that_nobody_could_read_are_refused_before_they_are_uploaded() {
    // A listing is two levels a folder.
    let stub = r#"while [ "$1" != --outdir ]; do shift; done; cd "$2"; echo x > "$2/x"
        n=0; while [ $n -lt 60 ]; do mkdir d && cd d; n=$((n + 1)); done
        echo '{"o": {"class": "Directory", "location": "file://'"$2"'/d"}}'"#;
    let world = World::new(stub).await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("nested deeper than 100 levels"), "{result}");
    assert_eq!(world.aws.keys(&format!("outputs/{RUN}/")), Vec::<String>::new());
}

#[tokio::test]
async fn an_output_that_leads_out_of_the_run_is_not_uploaded() {
    let stub = r#"while [ "$1" != --outdir ]; do shift; done; ln -s /etc/passwd "$2/p"; echo {}"#;
    let world = World::new(stub).await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("out of the run's folder"), "{result}");
    assert_eq!(world.aws.keys(&format!("outputs/{RUN}/")), Vec::<String>::new());
}

#[tokio::test]
async fn an_engine_that_says_no_object_is_told() {
    let world = World::new("echo 'all done'").await;
    let result = fails(&world, "EXECUTOR_ERROR").await;
    assert!(reason(&result).contains("not an output object"), "{result}");
}

#[tokio::test]
async fn an_unknown_runtime_or_work_folder_is_the_operator_s_to_mend() {
    let mut world = World::new("echo {}").await;
    world.set("STEPWES_CONTAINER", "lxc");
    let result = fails(&world, "SYSTEM_ERROR").await;
    assert!(reason(&result).contains("STEPWES_CONTAINER"), "{result}");
    let mut world = World::new("echo {}").await;
    world.set("STEPWES_WORK_DIR", "/proc/nothing");
    let result = fails(&world, "SYSTEM_ERROR").await;
    assert!(reason(&result).contains("STEPWES_WORK_DIR"), "{result}");
}

#[tokio::test]
async fn a_task_without_its_variables_says_which_and_writes_its_exit_file() {
    let mut world = World::new("echo {}").await;
    world.set("STEPWES_TOKEN", "");
    let ended = world.run().await;
    assert_eq!(ended.code, Some(70));
    assert!(ended.log.contains("STEPWES_TOKEN"), "{}", ended.log);
}

#[tokio::test]
async fn a_file_that_finds_no_room_while_staging_is_told() {
    // A full disk needs a mount, which not every machine allows; a limit on file sizes is the same
    // error to a writer but for its number. It comes with a signal unless that is ignored.
    const LIMITED: &str = "trap '' XFSZ; ulimit -f 1000; exec \"$@\"";
    let world = World::new("echo {}").await;
    let large = "x".repeat(3 << 20);
    world.attach("large", &large);
    world.request(&json!({"attachments": [
        {"name": "main.cwl", "size": 17}, {"name": "large", "size": large.len()},
    ]}));
    let mut command = world.command_under(&["sh", "-c", LIMITED, "sh"]);
    let task = command.spawn().expect("started");
    assert_eq!(world.end(task).await.code, Some(0));
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "SYSTEM_ERROR");
    assert!(reason(&result).contains("limit on file sizes"), "{result}");
    assert!(reason(&result).contains("\"large\""), "{result}");
}
