//! What a task brings from elsewhere before its engine starts.

use std::io::{Cursor, Write as _};

use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::world::{RUN, World};

/// A stub that says its arguments, its inputs, and the file that they name.
const SAY: &str = r#"
echo "$@" >&2
for last; do :; done
cat "$last" >&2
echo >&2
file=$(sed 's|.*"file://\([^"]*\)".*|\1|' "$last")
cat "$file" >&2
echo '{}'
"#;

fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).expect("begun");
        zip.write_all(content.as_bytes()).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

fn attach(world: &World, bundle: &[u8], change: &Value) {
    world.aws.put(&format!("requests/{RUN}/attachments/workflow.zip"), bundle);
    let mut request = json!({
        "workflow_url": "workflow.zip",
        "attachments": [{"name": "workflow.zip", "size": bundle.len()}],
    });
    for (name, value) in change.as_object().expect("an object") {
        request[name] = value.clone();
    }
    world.request(&request);
}

#[tokio::test]
async fn a_bundle_s_inputs_and_options_are_below_the_request_s_and_files_are_fetched() {
    let world = World::new(SAY).await;
    world.aws.put("data/a.txt", "from s3");
    let bundle = packed(&[
        (
            "MANIFEST.json",
            r#"{"mainWorkflowURL": "wf/m.cwl", "inputFileURLs": ["i.json"], "optionsFileURL": "o.json"}"#,
        ),
        ("wf/m.cwl", "cwlVersion: v1.2\n"),
        ("i.json", r#"{"n": 1, "f": {"class": "File", "location": "s3://elsewhere/data/a.txt"}}"#),
        ("o.json", r#"{"--parallel": null, "--target": "packed"}"#),
    ]);
    let change =
        json!({"workflow_params": {"n": 2}, "workflow_engine_parameters": {"--target": "mine"}});
    attach(&world, &bundle, &change);
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(world.result().expect("a result")["outcome"], "COMPLETE");
    let said = world.work("logs/stderr").expect("a log");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("--parallel --target=mine"), "{said}");
    assert!(lines[0].ends_with("wf/m.cwl wes_inputs.json"), "{said}");
    assert!(lines[1].starts_with(r#"{"n":2,"#) && lines[1].contains("/inputs/0/a.txt"), "{said}");
    assert_eq!(lines[2], "from s3");
}

#[tokio::test]
async fn a_bundle_that_must_not_be_used_ends_the_run_before_its_engine_starts() {
    let world = World::new("touch \"$(dirname \"$0\")/../started\"; echo {}").await;
    attach(&world, &packed(&[("a.cwl", ""), ("b.cwl", "")]), &json!({}));
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "EXECUTOR_ERROR");
    let reason = result["reason"].as_str().expect("a reason");
    assert!(reason.contains("MANIFEST.json") && reason.contains("main.cwl"), "{reason}");
    assert!(!world.place("started").exists());
}

#[tokio::test]
async fn an_input_inside_is_refused_and_one_that_the_operator_allows_is_not() {
    let mut world = World::new("echo {}").await;
    let url = format!("http://{}/metadata/gone", world.aws.address);
    let params = json!({"f": {"class": "File", "location": url}});
    world.request(&json!({"workflow_params": params}));
    let reason = |world: &World| world.result().expect("a result")["reason"].to_string();
    world.run().await;
    assert!(reason(&world).contains("404"), "{}", reason(&world));
    world.set("STEPWES_ALLOWED_HOSTS", "");
    world.run().await;
    assert!(reason(&world).contains("127.0.0.1 is a loopback address"), "{}", reason(&world));
}
