//! The real cwltool.

use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::{RUN, World, is_alive, signal};

const WORKFLOW: &str = r#"
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {words: "string[]"}
steps:
  upper: {run: tools/upper.cwl, scatter: text, in: {text: words}, out: [out]}
  join: {run: tools/join.cwl, in: {files: upper/out}, out: [out]}
outputs:
  all: {type: File, outputSource: join/out}
  parts: {type: "File[]", outputSource: upper/out}
"#;

const UPPER: &str = r#"
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo "$0" | tr a-z A-Z']
inputs: {text: {type: string, inputBinding: {position: 1}}}
stdout: up.txt
outputs: {out: {type: stdout}}
"#;

const JOIN: &str = r#"
cwlVersion: v1.2
class: CommandLineTool
baseCommand: cat
inputs: {files: {type: "File[]", inputBinding: {position: 1}}}
stdout: all of it.txt
outputs: {out: {type: stdout}}
"#;

/// A world with cwltool from the PATH of whoever runs the tests, and these attachments, of which
/// `main.cwl` is run.
async fn world(files: &[(&str, &str)], params: &Value) -> World {
    let path = std::env::var("PATH").expect("a PATH");
    let found = std::env::split_paths(&path).any(|folder| folder.join("cwltool").is_file());
    assert!(found, "cwltool is not on PATH: `pip install cwltool`, then put it on PATH");
    let mut world = World::new("").await;
    world.set_path(&path);
    let attachments: Vec<_> =
        files.iter().map(|(name, content)| json!({"name": name, "size": content.len()})).collect();
    for (name, content) in files {
        world.attach(name, content);
    }
    world.request(&json!({"workflow_params": params, "attachments": attachments}));
    world
}

/// A world with one tool.
async fn tool(document: &str) -> World {
    world(&[("main.cwl", document)], &json!({})).await
}

/// A world with the workflow of two steps.
async fn workflow(words: &Value) -> World {
    let files = [("main.cwl", WORKFLOW), ("tools/upper.cwl", UPPER), ("tools/join.cwl", JOIN)];
    world(&files, &json!({ "words": words })).await
}

/// Runs the world's task to its end, and gives its result.
async fn ended(world: &World, outcome: &str) -> Value {
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    let stderr = world.work("logs/stderr").expect("a log");
    assert_eq!(result["outcome"], outcome, "{result}\n{stderr}");
    result
}

/// Name and exit code of every task.
fn tasks(world: &World) -> Vec<(String, Option<i64>)> {
    let tasks: Value =
        serde_json::from_str(&world.work("tasks.json").expect("tasks")).expect("JSON");
    tasks["tasks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| (task["name"].as_str().expect("a name").to_owned(), task["exit_code"].as_i64()))
        .collect()
}

#[tokio::test]
async fn a_scattered_workflow_of_two_steps_is_complete() {
    let world = workflow(&json!(["a b", "c"])).await;
    let result = ended(&world, "COMPLETE").await;
    let object = &result["outputs"]["object"];
    assert_eq!(object["all"]["location"], "outdir:all%20of%20it.txt");
    assert_eq!(object["all"]["basename"], "all of it.txt");
    assert_eq!(object["parts"].as_array().map(Vec::len), Some(2));
    let content = world.aws.object(&format!("outputs/{RUN}/1/all of it.txt")).expect("uploaded");
    assert_eq!(content, b"A B\nC\n");
    let expected = [("upper", Some(0)), ("upper_2", Some(0)), ("join", Some(0))];
    assert_eq!(tasks(&world), expected.map(|(name, code)| (name.to_owned(), code)));
    let stderr = world.work("logs/stderr").expect("a log");
    assert!(!stderr.contains('\u{1b}'), "no colours in a log");
}

#[tokio::test]
async fn inputs_of_the_wrong_type_are_the_request_s_fault() {
    let world = workflow(&json!("not a list")).await;
    let result = ended(&world, "EXECUTOR_ERROR").await;
    assert_eq!(result["exit_code"], 1);
    let reason = result["reason"].as_str().expect("a reason");
    assert!(reason.contains("words"), "{reason}");
}

#[tokio::test]
async fn documents_of_older_versions_run_and_a_container_that_is_only_a_hint_is_not_needed() {
    for version in ["v1.0", "v1.1"] {
        let world = tool(&format!(
            r#"
cwlVersion: {version}
class: CommandLineTool
hints: {{DockerRequirement: {{dockerPull: "debian:12"}}}}
baseCommand: [sh, -c, 'printf hello']
inputs: []
stdout: out.txt
outputs: {{out: stdout}}
"#
        ))
        .await;
        let result = ended(&world, "COMPLETE").await;
        assert_eq!(result["outputs"]["object"]["out"]["location"], "outdir:out.txt");
        let content = world.aws.object(&format!("outputs/{RUN}/1/out.txt")).expect("uploaded");
        assert_eq!(content, b"hello");
        assert_eq!(tasks(&world), [("main.cwl".to_owned(), Some(0))]);
    }
}

#[tokio::test]
async fn directories_and_secondary_files_are_outputs() {
    let world = tool(
        r#"
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'mkdir -p "d e/empty"; echo x > "d e/x#1"; echo a > a.bam; echo b > a.bam.bai']
inputs: []
outputs:
  dir: {type: Directory, outputBinding: {glob: "d e"}}
  bam: {type: File, secondaryFiles: [.bai], outputBinding: {glob: a.bam}}
"#,
    )
    .await;
    let result = ended(&world, "COMPLETE").await;
    let object = &result["outputs"]["object"];
    assert_eq!(object["dir"]["location"], "outdir:d%20e");
    let mut listed: Vec<_> = object["dir"]["listing"]
        .as_array()
        .expect("a listing")
        .iter()
        .map(|entry| entry["location"].as_str().expect("a location"))
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, ["outdir:d%20e/empty", "outdir:d%20e/x%231"]);
    assert_eq!(object["bam"]["location"], "outdir:a.bam");
    assert_eq!(object["bam"]["secondaryFiles"][0]["location"], "outdir:a.bam.bai");
    for (name, content) in [("d e/x#1", "x\n"), ("a.bam.bai", "b\n")] {
        let uploaded = world.aws.object(&format!("outputs/{RUN}/1/{name}")).expect("uploaded");
        assert_eq!(uploaded, content.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn a_literal_becomes_a_file() {
    const PASS: &str = r#"
cwlVersion: v1.2
class: Workflow
inputs: {given: File}
steps: []
outputs: {out: {type: File, outputSource: given}}
"#;
    let literal = json!({"class": "File", "basename": "l.txt", "contents": "lit"});
    let world = world(&[("main.cwl", PASS)], &json!({"given": literal})).await;
    let result = ended(&world, "COMPLETE").await;
    let file = &result["outputs"]["object"]["out"];
    assert_eq!(file["location"], "outdir:l.txt", "{file}");
    let uploaded = world.aws.object(&format!("outputs/{RUN}/1/l.txt")).expect("uploaded");
    assert_eq!(uploaded, b"lit");
}

#[tokio::test]
async fn a_tool_that_fails_in_the_middle_of_a_line_is_the_reason() {
    let world = tool(
        r#"
cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'printf "at 50%%" >/dev/stderr; exit 3']
inputs: []
outputs: []
"#,
    )
    .await;
    let result = ended(&world, "EXECUTOR_ERROR").await;
    assert_eq!(
        result["reason"],
        "cwltool exited with code 1: [job main.cwl] exited with status: 3"
    );
    assert_eq!(tasks(&world), [("main.cwl".to_owned(), Some(3))]);
    let stderr = world.work("logs/stderr").expect("a log");
    assert!(stderr.starts_with("INFO ") && stderr.contains("at 50%WARNING"), "{stderr}");
}

/// A tool that is a script.
const WATCHER: &str = r#"
cwlVersion: v1.2
class: CommandLineTool
baseCommand: sh
arguments: [$(inputs.script.path)]
inputs: {script: File}
outputs: []
"#;

/// Tells the pids of the tool and its ancestors up to the engine task and whose environment holds a
/// secret, and then works for long.
const WALK: &str = r#"
pid=$$
while [ "$pid" -gt 1 ]; do
    echo "pid $pid" >&2
    if tr '\0' '\n' < /proc/$pid/environ 2>/dev/null | grep -q -e the-token -e task-role-secret; then
        echo "secret in $pid $(cat /proc/$pid/comm)" >&2
    fi
    [ "$(cat /proc/$pid/comm)" = stepwes-engine ] && break
    pid=$(sed 's/.*) //' /proc/$pid/stat | cut -d' ' -f2)
done
echo walked >&2
exec sleep 1000
"#;

#[tokio::test]
async fn a_tool_of_a_stopped_task_is_gone_and_saw_no_secret_above_it() {
    let mut world = world(
        &[("main.cwl", WATCHER), ("script.sh", WALK)],
        &json!({"script": {"class": "File", "location": "script.sh"}}),
    )
    .await;
    world.set("STEPWES_STOP_GRACE_SECONDS", "5");
    let task = world.start();
    let engine_task = task.id().expect("it runs").to_string();
    world.aws.wait_until(|_| world.segments("stderr").contains("walked")).await;
    signal(&task, Signal::SIGTERM);
    let ended = world.end(task).await;
    assert_eq!(ended.code, Some(75), "{}", ended.log);
    assert_eq!(world.result().expect("a result")["outcome"], "STOPPED");
    let stderr = world.work("logs/stderr").expect("a log");
    let pids: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("pid ")).collect();
    assert!(pids.len() > 2, "{stderr}");
    assert_eq!(pids.last(), Some(&engine_task.as_str()), "{stderr}");
    for pid in pids {
        assert!(!is_alive(pid), "{pid} lives on");
    }
    // Root may read everything; whoever is not root is refused by the kernel.
    let of_task = format!("secret in {engine_task} ");
    let is_root = std::fs::metadata("/proc/self").expect("a process").uid() == 0;
    let told: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("secret in "))
        .filter(|line| !(is_root && line.starts_with(&of_task)))
        .collect();
    assert_eq!(told, Vec::<&str>::new());
}

/// Reads an object until its SDK uses another key than at first.
const OUTLIVE: &str = r#"
import boto3, sys
session = boto3.Session()
s3, keys = session.client("s3"), set()
while len(keys) < 2:
    try:
        body = s3.get_object(Bucket="runs", Key=sys.argv[1])["Body"].read()
        keys.add(session.get_credentials().get_frozen_credentials().access_key)
    except RuntimeError:
        # The SDK looks at the clock once more after it has been given credentials that live a second.
        continue
print(body.decode())
"#;

#[tokio::test]
async fn a_tool_that_outlives_its_credentials_goes_on_with_new_ones() {
    // Toil's environment has AWS's SDK; cwltool's cannot.
    let toil = std::env::var_os("STEPWES_TOIL").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv-toil"),
        std::path::PathBuf::from,
    );
    let python = toil.join("bin/python");
    assert!(python.exists(), "{} is missing: `make .venv-toil` makes it", python.display());
    let tool = json!({
        "cwlVersion": "v1.2", "class": "CommandLineTool", "inputs": {},
        "requirements": {"InitialWorkDirRequirement": {"listing": [
            // No expression of CWL's.
            {"entryname": "outlive.py", "entry": OUTLIVE.replace('$', "\\$")},
        ]}},
        "baseCommand": [python, "outlive.py", "data/in"],
        "stdout": "said", "outputs": {"said": {"type": "stdout"}},
    });
    let world = self::tool(&tool.to_string()).await;
    world.aws.put("data/in", "what was to be read");
    world.aws.credentials_live(2);
    let result = ended(&world, "COMPLETE").await;
    let said = world.aws.object(&format!("outputs/{RUN}/1/said")).expect("uploaded");
    assert_eq!(said, b"what was to be read\n");
    let asked = world.aws.reports().iter().filter(|said| said["action"] == "credentials").count();
    assert!(asked >= 2, "{result}");
}
