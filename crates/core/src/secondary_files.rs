//! The secondary files that a CWL process declares for its inputs (CWL v1.2, `SecondaryFileSchema`).

use std::collections::BTreeMap;

use serde_json::Value;

/// The process of a document that is run. `fragment` names it in a `$graph`; without one it is
/// `main`.
#[must_use]
pub fn process<'a>(document: &'a Value, fragment: Option<&str>) -> Option<&'a Value> {
    match document.get("$graph").and_then(Value::as_array) {
        Some(graph) => graph.iter().find(|process| {
            let id = process.get("id").and_then(Value::as_str).unwrap_or_default();
            id.trim_start_matches('#') == fragment.unwrap_or("main")
        }),
        None => Some(document),
    }
}

/// What CWL takes as a map or as a list of objects with an `id` or a `name`.
#[must_use]
pub fn named(members: &Value) -> Vec<(&str, &Value)> {
    match members {
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.as_str(), member)).collect()
        }
        Value::Array(members) => members
            .iter()
            .filter_map(|member| {
                let name = member.get("id").or_else(|| member.get("name"))?.as_str()?;
                Some((last_part(name), member))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The last part of a name that may be an identifier with a path.
#[must_use]
pub fn last_part(name: &str) -> &str {
    name.rsplit(['#', '/']).next().unwrap_or(name)
}

/// The patterns of an object's `secondaryFiles` that need no engine.
#[must_use]
pub fn literal(declared: &Value) -> Vec<String> {
    let Some(declared) = declared.get("secondaryFiles") else { return Vec::new() };
    let several = match declared {
        Value::Array(several) => several.iter().collect(),
        one => vec![one],
    };
    several
        .into_iter()
        .filter_map(|one| one.get("pattern").unwrap_or(one).as_str())
        .filter(|pattern| !is_expression(pattern))
        .map(|pattern| pattern.trim_end_matches('?').to_owned())
        .collect()
}

/// Whether only an engine can tell what a text means.
#[must_use]
pub fn is_expression(text: &str) -> bool {
    text.contains("$(") || text.contains("${")
}

/// The patterns of a process, by input, without those that only an engine can evaluate; those of
/// [`process`] in a document.
#[must_use]
pub fn patterns(document: &Value, fragment: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let inputs = process(document, fragment).and_then(|process| process.get("inputs"));
    let inputs = inputs.map(named).unwrap_or_default();
    let declaring = inputs.into_iter().filter(|(_, input)| input.get("secondaryFiles").is_some());
    declaring.map(|(name, input)| (name.to_owned(), literal(input))).collect()
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
