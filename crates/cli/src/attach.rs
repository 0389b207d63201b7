//! Which local files a workflow and its inputs need, and what they are called as attachments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::{ui::hint, workflow::read_document};

/// A local file and its name among the attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its name: a relative path.
    pub(crate) name: String,
}

/// The files of one submission, by absolute path.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    workflow: Option<PathBuf>,
    /// What refers to each other by relative path, so that its layout must be kept.
    documents: BTreeSet<PathBuf>,
    /// Input files that lie anywhere.
    inputs: BTreeSet<PathBuf>,
}

impl Bundle {
    /// Adds the workflow and, for CWL, every file that it refers to; gives the document.
    pub(crate) fn add_workflow(
        &mut self,
        path: &Path,
        workflow_type: &str,
    ) -> anyhow::Result<Value> {
        let path = absolute(path)?;
        self.workflow = Some(path.clone());
        if workflow_type.trim().eq_ignore_ascii_case("CWL") {
            self.add_cwl(&path)
        } else {
            self.documents.insert(path);
            Ok(Value::Null)
        }
    }

    fn add_cwl(&mut self, path: &Path) -> anyhow::Result<Value> {
        if !self.documents.insert(path.to_owned()) {
            return Ok(Value::Null);
        }
        let document = read_document(path)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut references = Vec::new();
        cwl_references(&document, &mut references);
        for reference in references {
            let target = reference.target();
            if target.is_empty() || url::Url::parse(target).is_ok() {
                continue;
            }
            let target =
                percent_encoding::percent_decode_str(target).decode_utf8_lossy().into_owned();
            let file = normal(&folder.join(&target));
            match reference {
                Reference::Document(_) if file.is_file() => {
                    self.add_cwl(&file)?;
                }
                Reference::Include(_) | Reference::Default(_) if file.is_file() => {
                    self.documents.insert(file);
                }
                Reference::Default(_) if file.is_dir() => {
                    for file in files_below(&file)? {
                        self.documents.insert(file);
                    }
                }
                _ => {
                    return Err(hint(
                        format!("{} refers to {target:?}, which does not exist", path.display()),
                        "mend the reference, or the file's place",
                    ));
                }
            }
        }
        Ok(document)
    }

    /// Adds the files that the inputs name; gives the inputs with absolute paths in their place,
    /// which [`Bundle::finish`] turns into names.
    pub(crate) fn add_inputs(
        &mut self,
        params: Map<String, Value>,
        file: &Path,
    ) -> anyhow::Result<Map<String, Value>> {
        let folder = absolute(file)?.parent().unwrap_or(Path::new("/")).to_owned();
        let mut value = Value::Object(params);
        visit_files(&mut value, &mut |object, key, location| {
            let target = normal(&folder.join(location));
            if target.is_dir() {
                self.inputs.extend(files_below(&target)?);
            } else if target.is_file() {
                self.inputs.insert(target.clone());
            } else {
                return Err(hint(
                    format!(
                        "{} names the input {location:?}, which does not exist",
                        file.display()
                    ),
                    "paths in an inputs file are relative to that file",
                ));
            }
            let Some(text) = target.to_str() else {
                return Err(hint(
                    format!("the name of {} is not UTF-8", target.display()),
                    "rename it",
                ));
            };
            object.remove(key);
            object.insert("location".to_owned(), Value::String(encoded(text)));
            Ok(())
        })?;
        match value {
            Value::Object(params) => Ok(params),
            _ => Ok(Map::new()),
        }
    }

    /// Adds a file, or all files of a folder.
    pub(crate) fn add_path(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = absolute(path)?;
        if path.is_dir() {
            self.documents.extend(files_below(&path)?);
        } else {
            self.documents.insert(path);
        }
        Ok(())
    }

    /// Names everything: what refers to each other keeps its layout below the folder that all of
    /// it has in common, and an input elsewhere goes to `inputs/<n>/`. Gives the workflow's name,
    /// the inputs with names for paths, and the attachments.
    pub(crate) fn finish(
        self,
        params: Map<String, Value>,
    ) -> anyhow::Result<(Option<String>, Map<String, Value>, Vec<Attachment>)> {
        let base = common_folder(&self.documents);
        let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
        for path in &self.documents {
            names.insert(path.clone(), relative(path, &base)?);
        }
        let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for path in &self.inputs {
            if names.contains_key(path) {
                continue;
            }
            let name = if path.starts_with(&base) && self.workflow.is_some() {
                relative(path, &base)?
            } else {
                let root = self.input_root(path);
                let next = folders.len() + 1;
                let number = *folders.entry(root.clone()).or_insert(next);
                format!("inputs/{number}/{}", relative(path, &root)?)
            };
            names.insert(path.clone(), name);
        }
        let mut value = Value::Object(params);
        visit_files(&mut value, &mut |object, key, location| {
            let path = Path::new(location);
            let name = match names.get(path) {
                Some(name) => Some(name.clone()),
                // A folder has the name of its files' common beginning.
                None => names.iter().find_map(|(file, name)| {
                    let below = file.strip_prefix(path).ok()?.to_str()?;
                    name.strip_suffix(below).map(|folder| folder.trim_end_matches('/').to_owned())
                }),
            };
            if let Some(name) = name {
                object.insert(key.to_owned(), Value::String(encoded(&name)));
            }
            Ok(())
        })?;
        let params = match value {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let workflow = self.workflow.as_ref().and_then(|path| names.get(path).cloned());
        let attachments = names.into_iter().map(|(path, name)| Attachment { path, name }).collect();
        Ok((workflow, params, attachments))
    }

    /// The folder of an input, whose files stay together, such as a BAM and its index.
    fn input_root(&self, path: &Path) -> PathBuf {
        let mut root = path.parent().unwrap_or(Path::new("/")).to_owned();
        while let Some(parent) = root.parent() {
            if self.inputs.iter().any(|other| other.parent() == Some(parent)) {
                root = parent.to_owned();
            } else {
                break;
            }
        }
        root
    }
}

/// What must be escaped in a relative URL's path.
const PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b':');

/// What a CWL document refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reference {
    /// Another CWL document: `run`, `$import`, `$mixin`, `$graph` members elsewhere.
    Document(String),
    /// A text: `$include`, `$schemas`.
    Include(String),
    /// A File or Directory in a default.
    Default(String),
}

impl Reference {
    /// The reference without its fragment.
    fn target(&self) -> &str {
        let (Self::Document(text) | Self::Include(text) | Self::Default(text)) = self;
        text.split('#').next().unwrap_or(text)
    }
}

/// Collects the references of a CWL document (CWL v1.2, "Document preprocessing" and `run`).
fn cwl_references(value: &Value, found: &mut Vec<Reference>) {
    match value {
        Value::Object(object) => {
            for (key, member) in object {
                match (key.as_str(), member) {
                    ("run" | "$import" | "$mixin", Value::String(target)) => {
                        found.push(Reference::Document(target.clone()))
                    }
                    ("$include", Value::String(target)) => {
                        found.push(Reference::Include(target.clone()))
                    }
                    ("$schemas", Value::Array(targets)) => {
                        found.extend(
                            targets
                                .iter()
                                .filter_map(Value::as_str)
                                .map(|target| Reference::Include(target.to_owned())),
                        );
                    }
                    ("default", member) => {
                        let mut member = member.clone();
                        // Only collects: nothing is changed, so nothing can fail.
                        let _ = visit_files(&mut member, &mut |_, _, location| {
                            found.push(Reference::Default(location.to_owned()));
                            Ok(())
                        });
                    }
                    (_, member) => cwl_references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| cwl_references(item, found)),
        _ => {}
    }
}

/// Calls `visit` for the location (or path) of every File and Directory that is a local path, with
/// the object, the key and the path.
fn visit_files(
    value: &mut Value,
    visit: &mut impl FnMut(&mut Map<String, Value>, &str, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match value {
        Value::Object(object) => {
            let class = object.get("class").and_then(Value::as_str);
            if matches!(class, Some("File" | "Directory")) {
                let named = ["location", "path"].into_iter().find_map(|key| {
                    object.get(key).and_then(Value::as_str).map(|text| (key, text.to_owned()))
                });
                if let Some((key, text)) = named {
                    let local = match text.strip_prefix("file://") {
                        Some(path) => Some(decoded(path)),
                        None if url::Url::parse(&text).is_ok() => None,
                        None if key == "location" => Some(decoded(&text)),
                        None => Some(text),
                    };
                    if let Some(local) = local {
                        visit(object, key, &local)?;
                    }
                }
            }
            for member in object.values_mut() {
                visit_files(member, visit)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| visit_files(item, visit)),
        _ => Ok(()),
    }
}

fn encoded(path: &str) -> String {
    percent_encoding::utf8_percent_encode(path, PATH).to_string()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Every file below a folder, links followed.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// The deepest folder that holds all of `paths`.
fn common_folder(paths: &BTreeSet<PathBuf>) -> PathBuf {
    let mut folders = paths.iter().filter_map(|path| path.parent());
    let Some(first) = folders.next() else { return PathBuf::from("/") };
    folders.fold(first.to_owned(), |common, folder| {
        common
            .components()
            .zip(folder.components())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a)
            .collect()
    })
}

fn relative(path: &Path, base: &Path) -> anyhow::Result<String> {
    let below = path
        .strip_prefix(base)
        .with_context(|| format!("{} is not below {}", path.display(), base.display()))?;
    let name = below
        .to_str()
        .with_context(|| format!("the name of {} is not UTF-8; rename it", path.display()))?;
    Ok(name.to_owned())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let whole =
        std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))?;
    let whole = normal(&whole);
    if whole.exists() {
        Ok(whole)
    } else {
        Err(hint(
            format!("{} does not exist", path.display()),
            "check the path; URLs begin with http://, https:// or s3://",
        ))
    }
}

/// A path without `.` and `..`, links not looked at: as a URL resolves.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(root: &Path, name: &str, text: &str) -> PathBuf {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn names(attachments: &[Attachment]) -> Vec<&str> {
        let mut names: Vec<_> =
            attachments.iter().map(|attachment| attachment.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_workflow_brings_what_it_refers_to_in_its_layout() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let main = write(
            root,
            "wf/main.cwl",
            "cwlVersion: v1.2\nclass: Workflow\n$import: types.yml\ninputs:\n  x:\n    type: File\n    default: {class: File, location: ../data/d%20e.txt}\nsteps:\n  a: {run: ../tools/a.cwl}\n  b: {run: '#inner'}\n  c: {run: 'https://example.org/c.cwl'}\n",
        );
        write(root, "wf/types.yml", "[]");
        write(
            root,
            "tools/a.cwl",
            "class: CommandLineTool\nrequirements: [{class: InlineJavascriptRequirement, expressionLib: [{$include: lib.js}]}]\n",
        );
        write(root, "tools/lib.js", "x");
        write(root, "data/d e.txt", "x");
        let mut bundle = Bundle::default();
        let document = bundle.add_workflow(&main, "CWL").expect("a workflow");
        assert_eq!(document["cwlVersion"], "v1.2");
        let (workflow, _, attachments) = bundle.finish(Map::new()).expect("names");
        assert_eq!(workflow.as_deref(), Some("wf/main.cwl"));
        assert_eq!(
            names(&attachments),
            ["data/d e.txt", "tools/a.cwl", "tools/lib.js", "wf/main.cwl", "wf/types.yml"]
        );
    }

    #[test]
    fn inputs_become_attachments_and_are_named_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let main = write(root, "wf/main.cwl", "class: CommandLineTool\n");
        let inputs = write(root, "wf/in/inputs.json", "{}");
        write(root, "wf/in/near.txt", "x");
        write(root, "far/a b.bam", "x");
        write(root, "far/a b.bam.bai", "x");
        write(root, "other/dir/one/1", "x");
        write(root, "other/dir/2", "x");
        let mut bundle = Bundle::default();
        bundle.add_workflow(&main, "CWL").expect("a workflow");
        let params = json!({
            "near": {"class": "File", "path": "near.txt"},
            "far": {"class": "File", "location": "../../far/a%20b.bam",
                "secondaryFiles": [{"class": "File", "path": "../../far/a b.bam.bai"}]},
            "dir": [{"class": "Directory", "location": "../../other/dir"}],
            "remote": {"class": "File", "location": "s3://bucket/key"},
            "n": 1,
        });
        let Value::Object(params) = params else { unreachable!("an object") };
        let params = bundle.add_inputs(params, &inputs).expect("inputs");
        let (_, params, attachments) = bundle.finish(params).expect("names");
        assert_eq!(
            names(&attachments),
            [
                "in/near.txt",
                "inputs/1/a b.bam",
                "inputs/1/a b.bam.bai",
                "inputs/2/2",
                "inputs/2/one/1",
                "main.cwl"
            ]
        );
        assert_eq!(
            Value::Object(params),
            json!({
                "near": {"class": "File", "location": "in/near.txt"},
                "far": {"class": "File", "location": "inputs/1/a%20b.bam",
                    "secondaryFiles": [{"class": "File", "location": "inputs/1/a%20b.bam.bai"}]},
                "dir": [{"class": "Directory", "location": "inputs/2"}],
                "remote": {"class": "File", "location": "s3://bucket/key"},
                "n": 1,
            })
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = write(folder.path(), "main.cwl", "steps: {a: {run: gone.cwl}}\n");
        let error = Bundle::default().add_workflow(&main, "CWL").expect_err("a missing tool");
        assert!(error.to_string().contains("gone.cwl"), "{error}");
        let error = Bundle::default()
            .add_workflow(&folder.path().join("no.cwl"), "CWL")
            .expect_err("no workflow");
        assert!(error.to_string().contains("no.cwl"), "{error}");
    }
}
