//! How the engine's outputs are mapped.

use proptest::prelude::*;
use serde_json::{Value, json};
use stepwes_collect::outputs::{OutputsError, collected};
use stepwes_core::{
    RunId, keys,
    task::{EngineOutputs, OutputFile, TaskOutcome, TaskResult},
};

const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const PREFIX: &str = "s3://b/outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/";

fn run_id() -> RunId {
    RUN.parse().expect("a run id")
}

fn mapped(object: Value, files: &[&str]) -> Result<Value, OutputsError> {
    show(EngineOutputs::Cwl { object }, files)
}

fn show(outputs: EngineOutputs, files: &[&str]) -> Result<Value, OutputsError> {
    let files = files
        .iter()
        .map(|path| OutputFile { path: (*path).to_owned(), size: 7, sha1: "5".repeat(40) })
        .collect();
    let result = TaskResult {
        run_id: run_id(),
        attempt: 2,
        outcome: TaskOutcome::Complete,
        reason: None,
        exit_code: Some(0),
        cmd: Vec::new(),
        start_time: None,
        end_time: None,
        outputs,
        files,
    };
    collected(&keys::outputs_prefix(run_id(), 2), &result, |key| format!("s3://b/{key}"))
}

#[test]
fn files_are_found_however_deep_they_are() {
    let file = |path: &str| json!({"class": "File", "location": format!("outdir:{path}"), "basename": "x"});
    let object = json!({
        "plain": 7,
        "record": {"a": [file("a"), {"b": file("d/b")}], "n": null},
        "with": {"class": "File", "location": "outdir:c", "secondaryFiles": [file("c.idx")]},
        "dir": {"class": "Directory", "location": "outdir:d/", "listing": [file("d/b")]},
        "all": {"class": "Directory", "location": "outdir:"},
    });
    let out = mapped(object, &["a", "d/b", "c", "c.idx"]).expect("mapped");
    let at = |pointer: &str| out.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/plain"), 7);
    assert_eq!(at("/record/a/0/location"), format!("{PREFIX}a"));
    assert_eq!(at("/record/a/0/basename"), "x");
    assert_eq!(at("/record/a/1/b/location"), format!("{PREFIX}d/b"));
    assert_eq!(at("/with/secondaryFiles/0/location"), format!("{PREFIX}c.idx"));
    assert_eq!(at("/dir/location"), format!("{PREFIX}d"));
    assert_eq!(at("/dir/listing/0/location"), format!("{PREFIX}d/b"));
    assert_eq!(at("/all/location"), PREFIX.trim_end_matches('/'));
    assert_eq!(at("/with/size"), 7);
    assert_eq!(at("/with/checksum"), format!("sha1${}", "5".repeat(40)));
}

#[test]
fn names_are_decoded_once_and_shown_as_they_are() {
    let object = json!({"class": "File", "location": "outdir:a%20b/%C3%A9%2520%23.txt", "path": "/tmp/x", "size": 1});
    let out = mapped(object, &["a b/é%20#.txt"]).expect("mapped");
    assert_eq!(out["location"], format!("{PREFIX}a b/é%20#.txt"));
    assert_eq!(out["size"], 7, "what was uploaded counts");
    assert!(out.get("path").is_none(), "a path in the task leads nowhere");
}

#[test]
fn literals_and_what_lies_elsewhere_stay_as_they_are() {
    for value in [
        json!({"class": "File", "basename": "l", "contents": "text"}),
        json!({"class": "File", "location": "_:0b4f"}),
        json!({"class": "File", "location": "s3://inputs/ref.fa", "path": "x"}),
        json!({"class": "Directory", "listing": []}),
        json!({"location": "outdir:../no/file/at/all"}),
        json!("outdir:x"),
    ] {
        assert_eq!(mapped(value.clone(), &["a"]), Ok(value));
    }
}

#[test]
fn no_location_leads_out_of_the_output_directory() {
    for path in [
        "..",
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a/%2E%2E/x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "a%00b",
        "%FF",
        "a/..",
    ] {
        for class in ["File", "Directory"] {
            let object = json!({"class": class, "location": format!("outdir:{path}")});
            let out = mapped(object, &["a", "x"]);
            assert!(matches!(out, Err(OutputsError::Path(_))), "{class} {path}: {out:?}");
        }
    }
    assert!(mapped(json!({"class": "File", "location": "outdir:"}), &["a"]).is_err());
}

#[test]
fn a_file_that_was_not_uploaded_is_named() {
    let object = json!([{"class": "File", "location": "outdir:ghost"}]);
    assert_eq!(mapped(object, &["a"]), Err(OutputsError::NotUploaded("ghost".to_owned())));
}

#[test]
fn an_uploaded_path_that_is_no_plain_path_is_refused() {
    let long = "n".repeat(1024);
    for path in ["../x", "", "a//b", "a/", long.as_str()] {
        assert!(
            matches!(show(EngineOutputs::Listing, &[path]), Err(OutputsError::Path(_))),
            "{path}"
        );
    }
}

#[test]
fn an_engine_that_says_nothing_gets_a_listing() {
    let out = show(EngineOutputs::Listing, &["d/a b"]).expect("a listing");
    assert_eq!(
        out,
        json!({"files": [{
            "class": "File",
            "location": format!("{PREFIX}d/a b"),
            "path": "d/a b",
            "size": 7,
            "checksum": format!("sha1${}", "5".repeat(40)),
        }]})
    );
}

/// Any JSON with Files and Directories strewn in, their locations plain, crooked or foreign.
fn outputs() -> impl Strategy<Value = Value> {
    let location = prop_oneof![
        proptest::collection::vec(
            prop_oneof![
                Just("a"),
                Just("d"),
                Just(".."),
                Just("."),
                Just(""),
                Just("%2e%2e"),
                Just("/"),
                Just("%2F"),
                Just("b c"),
                Just("b%20c"),
                Just("%00"),
                Just("é")
            ],
            0..5
        )
        .prop_map(|parts| format!("outdir:{}", parts.join("/"))),
        Just("outdir:a".to_owned()),
        Just("s3://elsewhere/x".to_owned()),
        Just("_:literal".to_owned()),
    ];
    let leaf = prop_oneof![
        any::<i32>().prop_map(Value::from),
        Just(Value::Null),
        location.clone().prop_map(|location| json!({"class": "File", "location": location})),
        location.clone().prop_map(|location| json!({"class": "Directory", "location": location})),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,4}", inner.clone(), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            (location.clone(), proptest::collection::vec(inner, 0..3)).prop_map(
                |(location, more)| {
                    json!({"class": "File", "location": location, "secondaryFiles": more})
                }
            ),
        ]
    })
}

fn locations(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| locations(item, found)),
        Value::Object(fields) => {
            if fields.contains_key("class")
                && let Some(location) = fields.get("location").and_then(Value::as_str)
            {
                found.push(location.to_owned());
            }
            fields.values().for_each(|field| locations(field, found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_location_is_below_the_attempts_outputs_or_what_the_engine_said(object in outputs()) {
        let mut before = Vec::new();
        locations(&object, &mut before);
        if let Ok(out) = mapped(object, &["a", "d/a", "b c", "é"]) {
            let mut after = Vec::new();
            locations(&out, &mut after);
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                if before.starts_with("outdir:") {
                    let below = format!("{after}/");
                    let path = below.strip_prefix(PREFIX);
                    prop_assert!(path.is_some(), "{} became {}", before, after);
                    prop_assert!(path.is_some_and(|path| path.split('/').all(|part| part != "..")));
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }
}
