//! The real cwltool.

use serde_json::{Value, json};

use crate::world::{RUN, World};

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

/// A world with cwltool from the PATH of whoever runs the tests.
async fn world(words: &Value) -> World {
    let path = std::env::var("PATH").expect("a PATH");
    let found = std::env::split_paths(&path).any(|folder| folder.join("cwltool").is_file());
    assert!(found, "cwltool is not on PATH: `pip install cwltool`, then put it on PATH");
    let mut world = World::new("").await;
    world.set_path(&path);
    let files = [("main.cwl", WORKFLOW), ("tools/upper.cwl", UPPER), ("tools/join.cwl", JOIN)];
    let attachments: Vec<_> =
        files.iter().map(|(name, content)| json!({"name": name, "size": content.len()})).collect();
    for (name, content) in files {
        world.attach(name, content);
    }
    world.request(&json!({"workflow_params": {"words": words}, "attachments": attachments}));
    world
}

#[tokio::test]
async fn a_scattered_workflow_of_two_steps_is_complete() {
    let world = world(&json!(["a b", "c"])).await;
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    let stderr = world.work("logs/stderr").expect("a log");
    assert_eq!(result["outcome"], "COMPLETE", "{result}\n{stderr}");
    let object = &result["outputs"]["object"];
    assert_eq!(object["all"]["location"], "outdir:all%20of%20it.txt");
    assert_eq!(object["all"]["basename"], "all of it.txt");
    assert_eq!(object["parts"].as_array().map(Vec::len), Some(2));
    let content = world.aws.object(&format!("outputs/{RUN}/1/all of it.txt")).expect("uploaded");
    assert_eq!(content, b"A B\nC\n");
    let tasks: Value =
        serde_json::from_str(&world.work("tasks.json").expect("tasks")).expect("JSON");
    let names: Vec<_> = tasks["tasks"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| (task["name"].as_str().expect("a name"), task["exit_code"].as_i64()))
        .collect();
    assert_eq!(names, [("upper", Some(0)), ("upper_2", Some(0)), ("join", Some(0))]);
    assert!(!stderr.contains('\u{1b}'), "no colours in a log");
}

#[tokio::test]
async fn inputs_of_the_wrong_type_are_the_request_s_fault() {
    let world = world(&json!("not a list")).await;
    assert_eq!(world.run().await.code, Some(0));
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "EXECUTOR_ERROR");
    assert_eq!(result["exit_code"], 1);
    let reason = result["reason"].as_str().expect("a reason");
    assert!(reason.contains("words"), "{reason}");
}
