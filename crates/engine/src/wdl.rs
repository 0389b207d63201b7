//! A WDL output object, its files changed from paths on the task's disk to the uploaded ones.

use std::path::Path;

use serde_json::{Map, Value};
use stepwes_core::task::{EngineOutputs, MAX_OUTPUT_DEPTH};

use crate::{cwl, outputs::Outputs};

/// Reads what a WDL engine prints: the outputs by their names, or, as miniwdl has it, an object with
/// those in `outputs` and its folder in `dir`. The object does not say which of its strings are
/// files: a file is a string that is the path of an uploaded file, in arrays, maps, pairs and
/// structs alike. It becomes what CWL has for one, with location, size and checksum, since WDL has
/// nothing for them.
///
/// # Errors
/// A sentence for whoever wrote the workflow.
pub(crate) fn outputs(
    engine: &str,
    stdout: &[u8],
    folder: &Path,
    uploaded: &Outputs,
) -> Result<EngineOutputs, String> {
    let printed: Value = serde_json::from_slice(stdout)
        .map_err(|error| format!("{engine}'s standard output is not an output object: {error}"))?;
    let Value::Object(mut printed) = printed else {
        return Err(format!("{engine}'s standard output is not an object"));
    };
    let is_wrapped = printed.len() == 2 && printed.contains_key("dir");
    let mut object = match printed.shift_remove("outputs") {
        Some(outputs @ Value::Object(_)) if is_wrapped => outputs,
        Some(other) => {
            printed.insert("outputs".to_owned(), other);
            Value::Object(printed)
        }
        None => Value::Object(printed),
    };
    Mapper { folder, uploaded }.value(&mut object, 0)?;
    Ok(EngineOutputs::Cwl { object })
}

struct Mapper<'a> {
    folder: &'a Path,
    uploaded: &'a Outputs,
}

impl Mapper<'_> {
    fn value(&self, value: &mut Value, depth: usize) -> Result<(), String> {
        if depth > MAX_OUTPUT_DEPTH {
            return Err(format!(
                "the output object is nested deeper than {MAX_OUTPUT_DEPTH} levels"
            ));
        }
        match value {
            Value::String(text) => {
                if let Some(file) = self.below(text).and_then(|path| self.object(path)) {
                    *value = file;
                }
                Ok(())
            }
            Value::Array(items) => {
                items.iter_mut().try_for_each(|item| self.value(item, depth + 1))
            }
            Value::Object(fields) => {
                if fields.keys().any(|name| self.below(name).is_some()) {
                    *fields = self.keyed_by_files(std::mem::take(fields));
                }
                fields.values_mut().try_for_each(|field| self.value(field, depth + 1))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    /// A map whose keys are files: their paths below the output directory, as a key is a string.
    fn keyed_by_files(&self, fields: Map<String, Value>) -> Map<String, Value> {
        let named = |name: String| self.below(&name).map(str::to_owned).unwrap_or(name);
        fields.into_iter().map(|(name, value)| (named(name), value)).collect()
    }

    /// The path below the results' folder of what is there.
    fn below<'t>(&self, text: &'t str) -> Option<&'t str> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        Path::new(path).strip_prefix(self.folder).ok()?.to_str().filter(|path| !path.is_empty())
    }

    fn object(&self, path: &str) -> Option<Value> {
        cwl::file(path, self.uploaded).or_else(|| cwl::directory(path, self.folder, self.uploaded))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bucket::Uploaded;

    fn mapped(printed: &Value) -> Result<Value, String> {
        let file = |size| Uploaded { size, sha1: format!("{size:040}") };
        let names = ["ups/0/up a b.txt", "m/x/o", "d/in/f", "ü.txt"];
        let uploaded = Outputs {
            files: names.into_iter().map(str::to_owned).zip((1..).map(file)).collect(),
            folders: ["", "ups", "ups/0", "m", "m/x", "d", "d/in"].map(str::to_owned).into(),
        };
        let folder = Path::new("/work/state/out");
        match outputs("miniwdl", printed.to_string().as_bytes(), folder, &uploaded)? {
            EngineOutputs::Cwl { object } => Ok(object),
            EngineOutputs::Listing => panic!("an object"),
        }
    }

    #[test]
    fn files_are_found_in_arrays_maps_pairs_and_structs() {
        let object = mapped(&json!({"dir": "/work/state", "outputs": {
            "w.ups": ["/work/state/out/ups/0/up a b.txt"],
            "w.m": {"x": "/work/state/out/m/x/o"},
            "w.p": {"left": "/work/state/out/ü.txt", "right": 3},
            "w.s": {"deep": [{"f": "/work/state/out/d/in/f"}]},
            "w.by_file": {"/work/state/out/m/x/o": 1},
            "w.none": null, "w.n": 4, "w.text": "/etc/passwd", "w.gone": "/work/state/out/gone",
        }}));
        let file = |path: &str, name: &str, size: u64| {
            json!({
                "class": "File", "basename": name, "location": format!("outdir:{path}"),
                "size": size, "checksum": format!("sha1${size:040}"),
            })
        };
        let expected = json!({
            "w.ups": [file("ups/0/up%20a%20b.txt", "up a b.txt", 1)],
            "w.m": {"x": file("m/x/o", "o", 2)},
            "w.p": {"left": file("%C3%BC.txt", "ü.txt", 4), "right": 3},
            "w.s": {"deep": [{"f": file("d/in/f", "f", 3)}]},
            "w.by_file": {"m/x/o": 1},
            "w.none": null, "w.n": 4, "w.text": "/etc/passwd", "w.gone": "/work/state/out/gone",
        });
        assert_eq!(object.expect("mapped"), expected);
    }

    #[test]
    fn a_directory_is_listed() {
        let object = mapped(&json!({"w.d": "/work/state/out/d"})).expect("mapped");
        assert_eq!(object["w.d"]["class"], "Directory");
        assert_eq!(object["w.d"]["listing"][0]["listing"][0]["location"], "outdir:d/in/f");
    }

    #[test]
    fn an_output_may_be_named_as_the_wrapping_is() {
        let object = mapped(&json!({"outputs": "text"})).expect("mapped");
        assert_eq!(object, json!({"outputs": "text"}));
        let object = mapped(&json!({"outputs": {"a": 1}, "x": 2})).expect("mapped");
        assert_eq!(object, json!({"outputs": {"a": 1}, "x": 2}));
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_refused() {
        assert!(mapped(&json!([1])).expect_err("a list").contains("not an object"));
        let mut deep = json!(1);
        for _ in 0..=MAX_OUTPUT_DEPTH {
            deep = json!([deep]);
        }
        assert!(mapped(&json!({"w.deep": deep})).expect_err("deep").contains("100 levels"));
    }
}
