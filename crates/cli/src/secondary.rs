//! Which secondary files a CWL process declares for its inputs (CWL v1.2, `SecondaryFileSchema`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use stepwes_core::secondary_files::{self, last_part, literal, named};

/// How deep types and imports are followed: a type may name itself.
const MAX_DEPTH: usize = 32;

/// The patterns of secondary files of an input, and of the fields of records in it. Those that only
/// an engine can evaluate are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patterns {
    own: Vec<String>,
    fields: BTreeMap<String, Patterns>,
}

impl Patterns {
    /// Calls `visit` for each File and Directory of a value with the patterns that hold for it.
    pub(crate) fn visit<'a>(
        &self,
        value: &'a Value,
        visit: &mut impl FnMut(&'a Map<String, Value>, &[String]),
    ) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.visit(item, visit)),
            Value::Object(object) if object.contains_key("class") => visit(object, &self.own),
            Value::Object(object) => {
                for (name, member) in object {
                    if let Some(patterns) = self.fields.get(name) {
                        patterns.visit(member, visit);
                    }
                }
            }
            _ => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.own.extend(other.own);
        for (name, patterns) in other.fields {
            self.fields.entry(name).or_default().merge(patterns);
        }
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.fields.is_empty()
    }
}

/// The documents that have been read, by path.
#[derive(Debug, Default)]
pub(crate) struct Documents(BTreeMap<PathBuf, Value>);

impl Documents {
    pub(crate) fn insert(&mut self, path: PathBuf, document: Value) {
        self.0.insert(path, document);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &Value)> {
        self.0.iter().map(|(path, document)| (path.as_path(), document))
    }

    /// The patterns of each input of a process in the document `path`, which its fragment names in a
    /// `$graph`; `place` resolves a reference against a folder.
    pub(crate) fn patterns(
        &self,
        path: &Path,
        fragment: Option<&str>,
        place: &Place<'_>,
    ) -> BTreeMap<String, Patterns> {
        let Some(document) = self.0.get(path) else { return BTreeMap::new() };
        let document = self.with_imports(document, folder_of(path), place, 0);
        secondary_files::process(&document, fragment).map(of_inputs).unwrap_or_default()
    }

    /// Every default of the document `path` with the patterns that hold for it: of inputs, and of
    /// what steps give to them.
    pub(crate) fn defaults(&self, path: &Path, place: &Place<'_>) -> Vec<(Value, Patterns)> {
        let Some(document) = self.0.get(path) else { return Vec::new() };
        let mut found = Vec::new();
        self.collect_defaults(document, folder_of(path), place, &mut found);
        found
    }

    fn collect_defaults(
        &self,
        value: &Value,
        folder: &Path,
        place: &Place<'_>,
        found: &mut Vec<(Value, Patterns)>,
    ) {
        let Value::Object(object) = value else {
            if let Value::Array(items) = value {
                items.iter().for_each(|item| self.collect_defaults(item, folder, place, found));
            }
            return;
        };
        let mut add = |given: &Value, patterns: &BTreeMap<String, Patterns>| {
            for (name, input) in named(given) {
                if let (Some(default), Some(patterns)) = (input.get("default"), patterns.get(name))
                {
                    found.push((default.clone(), patterns.clone()));
                }
            }
        };
        if let Some(inputs) = object.get("inputs") {
            add(inputs, &of_inputs(&self.with_imports(value, folder, place, 0)));
        }
        if let (Some(given), Some(run)) = (object.get("in"), object.get("run")) {
            match run {
                Value::String(uri) => {
                    let (file, fragment) = match uri.split_once('#') {
                        Some((file, fragment)) => (file, Some(fragment)),
                        None => (uri.as_str(), None),
                    };
                    if let Some(path) = place(folder, file) {
                        add(given, &self.patterns(&path, fragment, place));
                    }
                }
                process => add(given, &of_inputs(&self.with_imports(process, folder, place, 0))),
            }
        }
        object.values().for_each(|member| self.collect_defaults(member, folder, place, found));
    }

    /// A part of a document with what it imports in the place of `$import`.
    fn with_imports(&self, value: &Value, folder: &Path, place: &Place<'_>, depth: usize) -> Value {
        match value {
            Value::Object(object) => {
                let imported = object
                    .get("$import")
                    .and_then(Value::as_str)
                    .filter(|_| depth < MAX_DEPTH)
                    .and_then(|uri| place(folder, uri.split('#').next().unwrap_or(uri)))
                    .and_then(|path| Some((self.0.get(&path)?, path)));
                match imported {
                    Some((document, path)) => {
                        self.with_imports(document, folder_of(&path), place, depth + 1)
                    }
                    None => object
                        .iter()
                        .map(|(name, member)| {
                            (name.clone(), self.with_imports(member, folder, place, depth))
                        })
                        .collect::<Map<_, _>>()
                        .into(),
                }
            }
            Value::Array(items) => items
                .iter()
                .map(|item| self.with_imports(item, folder, place, depth))
                .collect::<Vec<_>>()
                .into(),
            other => other.clone(),
        }
    }
}

/// Resolves a reference of a document in a folder to a path; `None` when it is not local.
pub(crate) type Place<'a> = dyn Fn(&Path, &str) -> Option<PathBuf> + 'a;

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The patterns of each input of a process that has any.
fn of_inputs(process: &Value) -> BTreeMap<String, Patterns> {
    let types = process.get("requirements").map(schema_types).unwrap_or_default();
    let inputs = process.get("inputs").map(named).unwrap_or_default();
    inputs
        .into_iter()
        .map(|(name, input)| (name.to_owned(), of_declared(input, &types, 0)))
        .filter(|(_, patterns)| !patterns.is_empty())
        .collect()
}

/// The patterns of an input or a record's field.
fn of_declared(declared: &Value, types: &BTreeMap<String, &Value>, depth: usize) -> Patterns {
    let mut patterns = match declared.get("type") {
        Some(kind) => of_type(kind, types, depth + 1),
        // An input may be written as its type alone.
        None => of_type(declared, types, depth + 1),
    };
    patterns.own.extend(literal(declared));
    patterns
}

fn of_type(kind: &Value, types: &BTreeMap<String, &Value>, depth: usize) -> Patterns {
    let mut patterns = Patterns::default();
    if depth > MAX_DEPTH {
        return patterns;
    }
    match kind {
        Value::String(name) => {
            let name = name.trim_end_matches('?').trim_end_matches("[]");
            if let Some(known) = types.get(last_part(name)) {
                patterns.merge(of_type(known, types, depth + 1));
            }
        }
        Value::Array(union) => {
            union.iter().for_each(|kind| patterns.merge(of_type(kind, types, depth + 1)));
        }
        Value::Object(object) => {
            if let Some(items) = object.get("items") {
                patterns.merge(of_type(items, types, depth + 1));
            }
            for (name, field) in object.get("fields").map(named).unwrap_or_default() {
                let of_field = of_declared(field, types, depth);
                if !of_field.is_empty() {
                    patterns.fields.entry(name.to_owned()).or_default().merge(of_field);
                }
            }
            // `{type: {type: record, …}}`
            if let Some(inner @ (Value::Object(_) | Value::Array(_))) = object.get("type") {
                patterns.merge(of_type(inner, types, depth + 1));
            }
        }
        _ => {}
    }
    patterns
}

/// The types that a SchemaDefRequirement defines, by the last part of their names.
fn schema_types(requirements: &Value) -> BTreeMap<String, &Value> {
    let listed = match requirements {
        Value::Object(by_class) => by_class.get("SchemaDefRequirement"),
        Value::Array(list) => list.iter().find(|requirement| {
            requirement.get("class").and_then(Value::as_str) == Some("SchemaDefRequirement")
        }),
        _ => None,
    };
    // An imported document may define several.
    fn add<'a>(kinds: &'a Value, types: &mut BTreeMap<String, &'a Value>) {
        match kinds {
            Value::Array(kinds) => kinds.iter().for_each(|kind| add(kind, types)),
            kind => {
                if let Some(name) = kind.get("name").and_then(Value::as_str) {
                    types.insert(last_part(name).to_owned(), kind);
                }
            }
        }
    }
    let mut types = BTreeMap::new();
    if let Some(kinds) = listed.and_then(|requirement| requirement.get("types")) {
        add(kinds, &mut types);
    }
    types
}

/// The files and folders beside `file` that `patterns` name and that are there: each `^` takes one
/// extension away, and the rest is appended.
pub(crate) fn files_beside(file: &Path, patterns: &[String]) -> Vec<PathBuf> {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    patterns
        .iter()
        .map(|pattern| file.with_file_name(secondary_files::name(name, pattern)))
        .filter(|path| path.exists())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(folder: &Path, uri: &str) -> Option<PathBuf> {
        (!uri.contains(':')).then(|| folder.join(uri))
    }

    fn patterns(document: Value, fragment: Option<&str>) -> BTreeMap<String, Patterns> {
        let mut documents = Documents::default();
        documents.insert("/w/main.cwl".into(), document);
        let types = json!([{"name": "Pair", "type": "record", "fields": {"reads": {"type": "File[]", "secondaryFiles": ".i"}}}]);
        documents.insert("/w/lib/types.yml".into(), types);
        documents.patterns(Path::new("/w/main.cwl"), fragment, &place)
    }

    /// The name and patterns of each file of a value.
    fn visited(patterns: &Patterns, value: &Value) -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        patterns.visit(value, &mut |object, own| {
            found.push((object["path"].as_str().unwrap_or_default().to_owned(), own.to_vec()));
        });
        found
    }

    fn file(path: &str) -> Value {
        json!({"class": "File", "path": path})
    }

    #[test]
    fn the_process_that_is_meant_declares_them() {
        let graph = json!({"$graph": [
            {"id": "#other", "inputs": [{"id": "#other/x", "secondaryFiles": ".o"}]},
            {"id": "main", "inputs": [{"id": "#main/x", "secondaryFiles": ".m"}]},
        ]});
        assert_eq!(patterns(graph.clone(), None)["x"].own, [".m"]);
        assert_eq!(patterns(graph, Some("other"))["x"].own, [".o"]);
    }

    #[test]
    fn fields_of_records_have_their_own_in_place_by_name_and_imported() {
        let fields = json!({"a": {"type": "File", "secondaryFiles": [".a", "$(self.basename)"]}, "b": "File"});
        for document in [
            json!({"inputs": {"x": {"type": {"type": "record", "fields": fields}}}}),
            json!({"inputs": {"x": {"type": ["null", {"type": "array", "items": {"type": "record", "fields": fields}}]}}}),
            json!({
                "requirements": [{"class": "SchemaDefRequirement", "types": [{"name": "#R", "type": "record", "fields": fields}]}],
                "inputs": [{"id": "x", "type": "R[]"}],
            }),
        ] {
            let declared = &patterns(document, None)["x"];
            let found = visited(declared, &json!([{"a": [file("1")], "b": file("2")}]));
            assert_eq!(found, [("1".to_owned(), vec![".a".to_owned()])]);
        }
        let imported = json!({
            "requirements": {"SchemaDefRequirement": {"types": [{"$import": "lib/types.yml"}]}},
            "inputs": {"x": "lib/types.yml#Pair?", "y": {"type": "File", "secondaryFiles": "^.y?"}},
        });
        let found = patterns(imported, None);
        assert_eq!(
            visited(&found["x"], &json!({"reads": [file("1")]})),
            [("1".to_owned(), vec![".i".to_owned()])]
        );
        assert_eq!(visited(&found["y"], &file("2")), [("2".to_owned(), vec!["^.y".to_owned()])]);
    }

    #[test]
    fn a_type_that_names_itself_has_an_end() {
        let document = json!({
            "requirements": {"SchemaDefRequirement": {"types": [
                {"name": "Tree", "type": "record", "fields": {"leaf": {"type": "File", "secondaryFiles": ".l"}, "below": "Tree?"}}
            ]}},
            "inputs": {"x": "Tree"},
        });
        let found = visited(&patterns(document, None)["x"], &json!({"below": {"leaf": file("1")}}));
        assert_eq!(found, [("1".to_owned(), vec![".l".to_owned()])]);
    }

    #[test]
    fn defaults_have_those_of_their_input_also_in_steps() {
        let mut documents = Documents::default();
        let declared = json!({"type": "File", "secondaryFiles": ".i", "default": file("own")});
        documents.insert("/w/tool.cwl".into(), json!({"inputs": {"x": declared}}));
        documents.insert(
            "/w/main.cwl".into(),
            json!({"steps": {
                "a": {"run": "tool.cwl", "in": {"x": {"default": file("a")}, "y": {"default": file("no")}}},
                "b": {"run": {"inputs": [{"id": "x", "secondaryFiles": ".j"}]}, "in": [{"id": "x", "default": file("b")}]},
            }}),
        );
        let found = |path: &str| {
            let defaults = documents.defaults(Path::new(path), &place);
            defaults
                .iter()
                .flat_map(|(value, patterns)| visited(patterns, value))
                .collect::<Vec<_>>()
        };
        let told = |name: &str, pattern: &str| (name.to_owned(), vec![pattern.to_owned()]);
        assert_eq!(found("/w/tool.cwl"), [told("own", ".i")]);
        assert_eq!(found("/w/main.cwl"), [told("a", ".i"), told("b", ".j")]);
    }
}
