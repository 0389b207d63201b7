//! What must hold of what engines print, what requests ask of them, and what bundles are.

use std::{path::Path, path::PathBuf};

use chrono::DateTime;
use serde_json::{Map, Value};
use stepwes_core::task::{EngineOutputs, OUTDIR_SCHEME};
use url::Url;

use crate::{bucket::Uploaded, bundle, cwl, engines, fetch, outputs::Outputs, wdl};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[
    ("cwl_outputs", cwl_outputs),
    ("wdl_outputs", wdl_outputs),
    ("engine_options", engine_options),
    ("engine_log", engine_log),
    ("fetched_name", fetched_name),
    ("bundle", bundle::fuzz::archive),
    ("bundle_files", bundle::fuzz::entries),
];

/// Where the files of [`uploaded`] were in the task.
const OUTDIR: &str = "/work/outputs";

fn uploaded() -> Outputs {
    let file = |size| Uploaded { size, sha1: format!("{size:040}") };
    let names = ["a.bam", "a.bam.bai", "d e/sub/x%y#z.txt", "ü.txt", "d e.txt", "d e/\u{7f}"];
    Outputs {
        files: names.into_iter().map(str::to_owned).zip((1..).map(file)).collect(),
        folders: ["", "d e", "d e/empty", "d e/sub", "void"].map(str::to_owned).into(),
    }
}

/// What a CWL runner prints.
fn cwl_outputs(input: &[u8]) {
    check_outputs(cwl::outputs("a runner", input, Path::new(OUTDIR), &uploaded()));
}

/// What a WDL engine prints.
fn wdl_outputs(input: &[u8]) {
    check_outputs(wdl::outputs("an engine", input, Path::new(OUTDIR), &uploaded()));
}

/// Every location of ours names something that was uploaded, none names a file of this machine, and
/// it can be read again.
fn check_outputs(outputs: Result<EngineOutputs, String>) {
    let Ok(EngineOutputs::Cwl { object }) = outputs else { return };
    assert_names_what_is_there(&object, &uploaded());
    let text = serde_json::to_vec(&object).expect("plain data");
    serde_json::from_slice::<Value>(&text).expect("collect can read it");
}

fn assert_names_what_is_there(value: &Value, there: &Outputs) {
    match value {
        Value::Array(items) => {
            items.iter().for_each(|item| assert_names_what_is_there(item, there));
        }
        Value::Object(fields) => {
            let is = |class| fields.get("class").and_then(Value::as_str) == Some(class);
            if is("File") || is("Directory") {
                let location = fields.get("location").and_then(Value::as_str).unwrap_or_default();
                assert!(!fields.contains_key("path") && !fields.contains_key("dirname"));
                assert!(!location.starts_with("file:"), "{location:?}");
                if let Some(encoded) = location.strip_prefix(OUTDIR_SCHEME) {
                    let path = percent_encoding::percent_decode_str(encoded).decode_utf8();
                    let path = path.expect("a path that was made of text");
                    let known = if is("File") {
                        there.files.contains_key(&*path)
                    } else {
                        there.folders.contains(&*path)
                    };
                    assert!(known, "{location:?}");
                }
            }
            fields.values().for_each(|field| assert_names_what_is_there(field, there));
        }
        _ => {}
    }
}

/// `workflow_engine_parameters` as JSON, for every engine.
fn engine_options(input: &[u8]) {
    let parameters: Map<String, Value> = match serde_json::from_slice(input) {
        Ok(Value::Object(object)) => object,
        _ => return,
    };
    // Requests with others are not accepted.
    if parameters.values().any(|value| value.is_array() || value.is_object()) {
        return;
    }
    engines::fuzz::options(&parameters);
}

/// A byte that chooses the engine, and its log: the tasks in it stay the tasks that they were, and
/// all of them have ended at the end.
fn engine_log(input: &[u8]) {
    let Some((engine, log)) = input.split_first() else { return };
    engines::fuzz::log(usize::from(*engine), &String::from_utf8_lossy(log), at());
}

fn at() -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(1_735_689_600, 0).expect("a time")
}

/// A URL of a workflow: what it is fetched into is a file in its folder.
fn fetched_name(input: &[u8]) {
    let Ok(url) = Url::parse(&String::from_utf8_lossy(input)) else { return };
    let name = fetch::file_name(&url);
    let mut expected = PathBuf::from("/work");
    expected.push(&name);
    assert!(!matches!(name.as_str(), "" | "." | ".."), "{name:?}");
    assert!(!name.contains(['/', '\0']) && name.len() <= 255, "{name:?}");
    assert_eq!(expected.parent(), Some(Path::new("/work")));
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
