use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::wes::Log;

const RUN_URL: &str =
    "https://wes.example.org/ga4gh/wes/v1/runs/01890000-0000-7000-8000-000000000000";

struct Told {
    log: RunLog,
    tasks: Vec<TaskLog>,
    outputs: Vec<OutputEntry>,
    attachments: Vec<AttachmentEntry>,
}

impl Told {
    fn new(kind: &str, state: &str, params: &Value, outputs: &Value) -> Self {
        let log = json!({
            "run_id": "01890000-0000-7000-8000-000000000000",
            "state": state,
            "request": {
                "workflow_params": params, "workflow_type": kind, "workflow_type_version": "v1.2",
                "tags": {"project": "p"}, "workflow_engine_parameters": {},
                "workflow_engine": "cwltool", "workflow_url": "tools/main%20one.cwl#main",
            },
            "run_log": {
                "name": "main one.cwl", "cmd": ["cwltool", "main one.cwl"], "exit_code": 0,
                "start_time": "2026-01-02T03:04:05Z", "end_time": "2026-01-02T03:05:05Z",
                "stdout": format!("{RUN_URL}/logs/stdout"),
                "stderr": format!("{RUN_URL}/logs/stderr"),
            },
            "task_logs_url": format!("{RUN_URL}/tasks"), "task_logs": null, "outputs": outputs,
        });
        let file = |path: &str| OutputEntry {
            path: path.to_owned(),
            location: format!("s3://b/o/{path}"),
            url: format!("{RUN_URL}/outputs/{}", path.replace(' ', "%20")),
            size: 3,
            checksum: format!("sha1${}", "ab".repeat(20)),
        };
        let attachment = |name: &str| AttachmentEntry {
            name: name.to_owned(),
            url: format!("{RUN_URL}/attachments/{}", name.replace(' ', "%20")),
            size: 7,
        };
        Self {
            log: serde_json::from_value(log).expect("a run log"),
            tasks: vec![
                task("1", "count", Some(0)),
                task("2", "count", Some(3)),
                task("3", "still running", None),
            ],
            outputs: ["a b.txt", "d/e/f", "d/g"].map(file).to_vec(),
            attachments: ["tools/main one.cwl", "in/x.txt"].map(attachment).to_vec(),
        }
    }

    fn metadata(&self, files: Files, detail: Detail) -> Value {
        let run = Provenance {
            log: &self.log,
            tasks: &self.tasks,
            outputs: &self.outputs,
            attachments: &self.attachments,
        };
        let metadata = metadata(run, files, detail);
        is_whole(&metadata);
        metadata
    }
}

fn task(id: &str, name: &str, exit_code: Option<i32>) -> TaskLog {
    TaskLog {
        id: id.to_owned(),
        name: name.to_owned(),
        cmd: Some(vec!["wc".to_owned(), "-l".to_owned()]),
        start_time: Some("2026-01-02T03:04:06Z".to_owned()),
        exit_code,
        ..TaskLog::default()
    }
}

/// Every entity is there once, and what is linked to within the crate is there.
fn is_whole(metadata: &Value) {
    let entities = metadata["@graph"].as_array().expect("a graph");
    let ids: Vec<_> =
        entities.iter().map(|entity| entity["@id"].as_str().expect("an id")).collect();
    let known: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(ids.len(), known.len(), "an entity is there twice");
    for entity in entities {
        let values =
            entity.as_object().expect("an entity").iter().filter(|(name, _)| *name != "@id");
        for value in values.flat_map(|(_, value)| match value {
            Value::Array(items) => items.clone(),
            other => vec![other.clone()],
        }) {
            let Some(to) = value["@id"].as_str() else { continue };
            let elsewhere = [RO_CRATE, WORKFLOW_PROFILE, PARAMETER_PROFILE].contains(&to)
                || to.starts_with("http://schema.org/");
            assert!(known.contains(to) || elsewhere, "{to} is linked to, and is not there");
        }
    }
}

fn entity<'a>(metadata: &'a Value, id: &str) -> &'a Value {
    let entities = metadata["@graph"].as_array().expect("a graph");
    entities.iter().find(|entity| entity["@id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

fn links(entity: &Value, property: &str) -> Vec<String> {
    let items = entity[property].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["@id"].as_str().expect("a link").to_owned()).collect()
}

fn cwl() -> Told {
    let params = json!({
        "n": 3, "ratio": 0.5, "none": null,
        "reads": {"class": "File", "path": "in/x.txt", "secondaryFiles": [
            {"class": "File", "location": "https://data.example.org/x.bai?v=1"}]},
        "many": [{"class": "File", "location": "s3://lab/a b"}, {"class": "File", "location": "s3://lab/c"}],
        "record": {"note": "in/x.txt", "deep": [{"class": "File", "location": "in/x.txt"}]},
        "literal": {"class": "File", "contents": "x"},
        "text": "https://example.org/page",
    });
    let outputs = json!({
        "upper": {"class": "File", "location": "s3://b/o/a b.txt"},
        "folder": {"class": "Directory", "location": "s3://b/o/d"},
        "count": 2,
        "nothing": null,
    });
    Told::new("cwl", "COMPLETE", &params, &outputs)
}

#[test]
fn a_complete_run_is_told_whole() {
    insta::assert_json_snapshot!(cwl().metadata(Files::Remote, Detail::Full));
}

#[test]
fn the_same_run_gives_the_same_crate() {
    let first = cwl().metadata(Files::Remote, Detail::Full).to_string();
    assert_eq!(cwl().metadata(Files::Remote, Detail::Full).to_string(), first);
}

#[test]
fn files_of_a_crate_are_named_by_their_paths_in_it() {
    let metadata = cwl().metadata(Files::Attached, Detail::Full);
    let parts = links(entity(&metadata, ROOT), "hasPart");
    assert_eq!(
        parts,
        [
            "attachments/tools/main%20one.cwl",
            "attachments/in/x.txt",
            "https://data.example.org/x.bai?v=1",
            "s3://lab/a%20b",
            "s3://lab/c",
            "outputs/a%20b.txt",
            "outputs/d/e/f",
            "outputs/d/g",
            "logs/stdout",
            "logs/stderr",
        ]
    );
    assert_eq!(entity(&metadata, ROOT)["mainEntity"]["@id"], parts[0]);
}

#[test]
fn a_value_is_a_file_only_when_it_is_nothing_else() {
    let metadata = cwl().metadata(Files::Attached, Detail::Full);
    let kind = |id: &str| {
        let parameter = entity(&metadata, id);
        (
            parameter["additionalType"].as_str().expect("a type"),
            links(parameter, "workExample").len(),
        )
    };
    assert_eq!(kind("#input/reads"), ("File", 2));
    assert_eq!(kind("#input/many"), ("File", 2));
    assert_eq!(kind("#input/record"), ("PropertyValue", 1));
    assert_eq!(kind("#input/literal"), ("PropertyValue", 1));
    assert_eq!(kind("#input/text"), ("Text", 1));
    assert_eq!(kind("#input/n"), ("Integer", 1));
    assert_eq!(kind("#input/ratio"), ("Float", 1));
    assert_eq!(kind("#output/folder"), ("File", 2));
    assert_eq!(kind("#output/count"), ("Integer", 1));
    let objects = links(entity(&metadata, RUN), "object");
    assert!(objects.contains(&"attachments/in/x.txt".to_owned()), "{objects:?}");
}

#[test]
fn where_files_are_strings_those_that_name_one_are_files() {
    let params =
        json!({"w.reads": "in/x.txt", "w.ref": "s3://lab/ref.fa", "w.name": "x", "w.n": 1});
    let outputs = json!({"w.out": {"class": "File", "location": "s3://b/o/d/g"}});
    let metadata =
        Told::new("WDL", "COMPLETE", &params, &outputs).metadata(Files::Attached, Detail::Full);
    for (name, kind) in [
        ("#input/w.reads", "File"),
        ("#input/w.ref", "File"),
        ("#input/w.name", "Text"),
        ("#output/w.out", "File"),
    ] {
        assert_eq!(entity(&metadata, name)["additionalType"], kind, "{name}");
    }
}

#[test]
fn what_an_engine_without_an_output_object_made_are_results_without_names() {
    let files = json!({"files": [{"class": "File", "location": "s3://b/o/d/g"}]});
    let metadata =
        Told::new("SMK", "COMPLETE", &json!({}), &files).metadata(Files::Attached, Detail::Full);
    let workflow = entity(&metadata, "attachments/tools/main%20one.cwl");
    assert_eq!(workflow["output"], Value::Null);
    assert_eq!(links(entity(&metadata, RUN), "result").len(), 3);
}

#[test]
fn a_failed_run_says_why_and_one_that_never_started_when_it_was_made() {
    let mut told = Told::new("CWL", "EXECUTOR_ERROR", &json!({}), &json!({}));
    told.log.run_log.system_logs = vec!["it is broken".to_owned()];
    told.outputs.clear();
    let metadata = told.metadata(Files::Remote, Detail::Full);
    let run = entity(&metadata, RUN);
    assert_eq!(run["actionStatus"]["@id"], "http://schema.org/FailedActionStatus");
    assert_eq!(run["error"], "it is broken");
    assert_eq!(run["result"], Value::Null);
    let tasks: Vec<_> = ["#task/1", "#task/2", "#task/3"].map(|id| entity(&metadata, id)).to_vec();
    assert_eq!(tasks[1]["error"], "exit code 3");
    assert_eq!((&tasks[0]["error"], &tasks[2]["actionStatus"]), (&Value::Null, &Value::Null));

    let mut told = Told::new("CWL", "CANCELED", &json!({}), &json!({}));
    told.log.run_log = Log::default();
    told.tasks.clear();
    let metadata = told.metadata(Files::Remote, Detail::Full);
    assert_eq!(entity(&metadata, ROOT)["datePublished"], "2023-06-28T03:15:47Z");
    assert_eq!(entity(&metadata, RUN)["error"], "CANCELED");
    assert!(!metadata.to_string().contains("/logs/"), "there was no engine that said anything");
}

#[test]
fn a_workflow_at_a_url_and_a_licence_in_the_tags_are_told() {
    let mut told = cwl();
    told.log.request.workflow_url = "https://example.org/a b.cwl#main".to_owned();
    told.log.request.tags.insert("license".to_owned(), "CC-BY-4.0".to_owned());
    let metadata = told.metadata(Files::Attached, Detail::Full);
    let root = entity(&metadata, ROOT);
    assert_eq!(root["mainEntity"]["@id"], "https://example.org/a%20b.cwl");
    assert_eq!(root["license"], "CC-BY-4.0");
}

#[test]
fn a_short_crate_names_the_list_of_its_files() {
    let metadata = cwl().metadata(Files::Remote, Detail::Short);
    let results = links(entity(&metadata, RUN), "result");
    assert_eq!(results, [format!("{RUN_URL}/outputs")]);
    assert!(!metadata.to_string().contains("#task/"));
}
