//! The secondary files that a CWL process declares for its inputs (CWL v1.2, `SecondaryFileSchema`).

use std::collections::BTreeMap;

use serde_json::Value;

/// The patterns of a process, by input, without those that only an engine can evaluate. `fragment`
/// names the process in a `$graph`; without one it is `main`.
#[must_use]
pub fn patterns(document: &Value, fragment: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let process = match document.get("$graph").and_then(Value::as_array) {
        Some(graph) => graph.iter().find(|process| {
            let id = process.get("id").and_then(Value::as_str).unwrap_or_default();
            id.trim_start_matches('#') == fragment.unwrap_or("main")
        }),
        None => Some(document),
    };
    let mut patterns = BTreeMap::new();
    let mut add = |name: &str, input: &Value| {
        let Some(declared) = input.get("secondaryFiles") else { return };
        let declared = match declared {
            Value::Array(several) => several.iter().collect(),
            one => vec![one],
        };
        let literal = declared
            .into_iter()
            .filter_map(|one| one.get("pattern").unwrap_or(one).as_str())
            .filter(|pattern| !pattern.contains("$(") && !pattern.contains("${"))
            .map(|pattern| pattern.trim_end_matches('?').to_owned())
            .collect();
        patterns.insert(name.to_owned(), literal);
    };
    match process.and_then(|process| process.get("inputs")) {
        Some(Value::Object(inputs)) => inputs.iter().for_each(|(name, input)| add(name, input)),
        Some(Value::Array(inputs)) => {
            for input in inputs {
                if let Some(id) = input.get("id").and_then(Value::as_str) {
                    add(id.rsplit(['#', '/']).next().unwrap_or(id), input);
                }
            }
        }
        _ => {}
    }
    patterns
}

/// The name that a pattern makes of a file's: each `^` takes one extension away, and the rest is
/// appended.
#[must_use]
pub fn name(file: &str, pattern: &str) -> String {
    let suffix = pattern.trim_start_matches('^');
    let mut stem = file;
    for _ in suffix.len()..pattern.len() {
        stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    }
    format!("{stem}{suffix}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_are_those_of_the_process_that_is_run() {
        let graph = json!({"$graph": [
            {"id": "#other", "inputs": [{"id": "#other/x", "secondaryFiles": ".o"}]},
            {"id": "main", "inputs": [{"id": "#main/x", "secondaryFiles": [
                ".m?", {"pattern": "^.n", "required": false}, "$(self.nameroot).none",
            ]}]},
        ]});
        assert_eq!(patterns(&graph, None)["x"], [".m", "^.n"]);
        assert_eq!(patterns(&graph, Some("other"))["x"], [".o"]);
        assert!(patterns(&json!([1]), None).is_empty());
    }

    #[test]
    fn a_caret_takes_an_extension_away() {
        for (pattern, expected) in
            [(".bai", "a.b.bam.bai"), ("^.bai", "a.b.bai"), ("^^^.x", "a.x"), ("/x", "a.b.bam/x")]
        {
            assert_eq!(name("a.b.bam", pattern), expected, "{pattern}");
        }
    }
}
