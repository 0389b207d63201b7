//! What must hold of the outputs of a run, whatever its task says of them.

use serde_json::Value;
use stepwes_core::{
    keys,
    task::{OUTDIR_SCHEME, TaskResult},
};

use crate::outputs::collected;

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[("collect_outputs", outputs)];

/// A `result.json`: every key that is made of it lies in the attempt's own folder, of a file that
/// was uploaded or of a folder, and no location is left unmapped.
pub fn outputs(input: &[u8]) {
    let Ok(result) = serde_json::from_slice::<TaskResult>(input) else { return };
    let prefix = keys::outputs_prefix(result.run_id, result.attempt);
    let object = collected(&prefix, &result, |key| {
        let path = match key.strip_prefix(&prefix) {
            Some(path) => path,
            None => {
                assert_eq!(format!("{key}/"), prefix, "the output directory itself");
                ""
            }
        };
        assert!(path.split('/').all(|part| !matches!(part, "." | "..")), "{key:?}");
        assert!(!path.contains('\0') && !path.contains("//"), "{key:?}");
        format!("s3://bucket/{key}")
    });
    if let Ok(object) = object {
        assert_is_mapped(&object);
        let text = serde_json::to_vec(&object).expect("plain data");
        serde_json::from_slice::<Value>(&text).expect("clients can read what is stored");
    }
}

fn assert_is_mapped(value: &Value) {
    match value {
        Value::Array(items) => items.iter().for_each(assert_is_mapped),
        Value::Object(fields) => {
            let is = |class| fields.get("class").and_then(Value::as_str) == Some(class);
            if is("File") || is("Directory") {
                let location = fields.get("location").and_then(Value::as_str).unwrap_or_default();
                assert!(!location.starts_with(OUTDIR_SCHEME), "{location:?}");
            }
            fields.values().for_each(assert_is_mapped);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
