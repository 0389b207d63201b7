//! Which local files a workflow and its inputs need, and what they are called as attachments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Map, Value};
use stepwes_core::secondary_files::is_expression;

use crate::{
    secondary::{Documents, Patterns, files_beside},
    ui::hint,
    workflow::read_document,
};

/// A local file and its name among the attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its name: a relative path.
    pub(crate) name: String,
}

/// A submission's files under their names.
#[derive(Debug)]
pub(crate) struct Named {
    /// The local workflow's name.
    pub(crate) workflow: Option<String>,
    /// The inputs, with names for paths.
    pub(crate) params: Map<String, Value>,
    /// The files.
    pub(crate) attachments: Vec<Attachment>,
}

/// The files of one submission, by absolute path.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    workflow: Option<PathBuf>,
    /// What refers to each other by relative path, so that its layout must be kept.
    documents: BTreeSet<PathBuf>,
    /// Input files that lie anywhere.
    inputs: BTreeSet<PathBuf>,
    /// Input folders that lie anywhere, each with all files below it.
    folders: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// The CWL documents among them.
    read: Documents,
    /// The secondary files that the workflow declares, by input.
    secondary: BTreeMap<String, Patterns>,
}

impl Bundle {
    /// Adds the workflow and, for CWL and WDL, the files that it refers to; gives the document of a
    /// CWL workflow. `fragment` names the process in a `$graph`.
    pub(crate) fn add_workflow(
        &mut self,
        path: &Path,
        fragment: Option<&str>,
        workflow_type: &str,
    ) -> anyhow::Result<Value> {
        let path = absolute(path)?;
        self.workflow = Some(path.clone());
        if workflow_type.trim().eq_ignore_ascii_case("CWL") {
            let document = self.add_cwl(&path)?;
            self.secondary = self.read.patterns(&path, fragment, &place);
            self.add_secondary_of_defaults()?;
            Ok(document)
        } else if workflow_type.trim().eq_ignore_ascii_case("WDL") {
            self.add_wdl(&path)?;
            Ok(Value::Null)
        } else {
            self.documents.insert(path);
            Ok(Value::Null)
        }
    }

    /// Adds a WDL document with what it imports (WDL 1.1, "Import Statements").
    fn add_wdl(&mut self, path: &Path) -> anyhow::Result<()> {
        if !self.documents.insert(path.to_owned()) {
            return Ok(());
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        for target in text.lines().filter_map(wdl_import).filter(|target| !target.contains("://")) {
            let file = normal(&folder.join(target));
            if target.starts_with('/') || !file.is_file() {
                return Err(hint(
                    format!("{} imports {target:?}, which cannot be attached", path.display()),
                    "import an existing file by a path relative to the document, or a URL",
                ));
            }
            self.add_wdl(&file)?;
        }
        Ok(())
    }

    fn add_cwl(&mut self, path: &Path) -> anyhow::Result<Value> {
        if !self.documents.insert(path.to_owned()) {
            return Ok(Value::Null);
        }
        let document = read_document(path)?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut references = Vec::new();
        cwl_references(&document, &mut references);
        for Reference { kind, target } in references {
            if target.starts_with('/') {
                if kind == Kind::Default {
                    continue;
                }
                return Err(hint(
                    format!("{} refers to the absolute path {target:?}", path.display()),
                    "the server has another file system: refer to it by a path relative to the document",
                ));
            }
            let file = normal(&folder.join(&target));
            match kind {
                Kind::Document if file.is_file() => {
                    self.add_cwl(&file)?;
                }
                Kind::Include | Kind::Data | Kind::Default if file.is_file() => {
                    self.documents.insert(file);
                }
                Kind::Data | Kind::Default if file.is_dir() => {
                    self.documents.extend(files_below(&file)?);
                }
                // The inputs may give another.
                Kind::Default => {}
                _ => {
                    return Err(hint(
                        format!("{} refers to {target:?}, which does not exist", path.display()),
                        "mend the reference, or the file's place",
                    ));
                }
            }
        }
        self.read.insert(path.to_owned(), document.clone());
        Ok(document)
    }

    /// Adds the secondary files beside the files that the documents name as defaults.
    fn add_secondary_of_defaults(&mut self) -> anyhow::Result<()> {
        let mut beside = Vec::new();
        for (path, _) in self.read.iter() {
            let folder = path.parent().unwrap_or(Path::new("/"));
            for (default, patterns) in self.read.defaults(path, &place) {
                patterns.visit(&default, &mut |object, own| {
                    if let Some(target) = local_file(object).filter(|file| !file.starts_with('/')) {
                        beside.extend(files_beside(&normal(&folder.join(target)), own));
                    }
                });
            }
        }
        self.documents.extend(with_files_below(beside)?);
        Ok(())
    }

    /// Adds the files that the inputs name, and the secondary files beside them that the workflow
    /// declares; gives the inputs with absolute paths in their place, which [`Bundle::finish`]
    /// turns into names.
    pub(crate) fn add_inputs(
        &mut self,
        mut params: Map<String, Value>,
        file: &Path,
    ) -> anyhow::Result<Map<String, Value>> {
        let folder = absolute(file)?.parent().unwrap_or(Path::new("/")).to_owned();
        for (input, value) in &mut params {
            if let Some(patterns) = self.secondary.get(input) {
                let mut beside = Vec::new();
                patterns.visit(value, &mut |object, own| {
                    if let Some(target) = local_file(object) {
                        beside.extend(files_beside(&normal(&folder.join(target)), own));
                    }
                });
                self.inputs.extend(with_files_below(beside)?);
            }
            visit_files(value, &mut |object, location| {
                let target = normal(&folder.join(location));
                if target.is_dir() {
                    self.folders.insert(target.clone(), files_below(&target)?);
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
                object.remove("path");
                object.insert("location".to_owned(), Value::String(encoded(text)));
                Ok(())
            })?;
        }
        Ok(params)
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
    /// it has in common, and an input elsewhere goes to `inputs/<n>/`.
    pub(crate) fn finish(self, params: Map<String, Value>) -> anyhow::Result<Named> {
        let base = common_folder(&self.documents);
        let in_layout = |path: &Path| {
            self.workflow.is_some() && path.starts_with(&base) && path != base.as_path()
        };
        let mut attached: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
        for path in &self.documents {
            names.insert(path.clone(), relative(path, &base)?);
        }
        for path in self.inputs.iter().filter(|path| in_layout(path)) {
            names.insert(path.clone(), relative(path, &base)?);
        }
        attached.extend(names.iter().map(|(path, name)| (name.clone(), path.clone())));
        let mut folders: BTreeMap<&Path, String> = BTreeMap::new();
        for (folder, files) in self.folders.iter().filter(|(folder, _)| in_layout(folder)) {
            folders.insert(folder, relative(folder, &base)?);
            for file in files {
                attached.insert(relative(file, &base)?, file.clone());
            }
        }

        let taken: BTreeSet<String> = attached
            .keys()
            .filter_map(|name| Some(name.strip_prefix("inputs/")?.split('/').next()?.to_owned()))
            .collect();
        let mut numbers = (1..).filter(|number: &usize| !taken.contains(&number.to_string()));
        let mut next = || format!("inputs/{}", numbers.next().unwrap_or_default());
        let mut roots: BTreeMap<PathBuf, String> = BTreeMap::new();
        for path in &self.inputs {
            if names.contains_key(path) {
                continue;
            }
            let root = self.input_root(path);
            let place = roots.entry(root.clone()).or_insert_with(&mut next);
            let name = format!("{place}/{}", relative(path, &root)?);
            attached.insert(name.clone(), path.clone());
            names.insert(path.clone(), name);
        }
        for (folder, files) in &self.folders {
            if folders.contains_key(folder.as_path()) {
                continue;
            }
            // With its own name, which tools see.
            let name = match folder.file_name().and_then(|name| name.to_str()) {
                Some(name) => format!("{}/{name}", next()),
                None => next(),
            };
            for file in files {
                attached.insert(format!("{name}/{}", relative(file, folder)?), file.clone());
            }
            folders.insert(folder, name);
        }

        let mut value = Value::Object(params);
        visit_files(&mut value, &mut |object, location| {
            let path = Path::new(location);
            if self.folders.get(path).is_some_and(Vec::is_empty) {
                // Attachments are files, so that an empty folder can only be written down.
                object.remove("location");
                if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                    object.entry("basename").or_insert_with(|| name.into());
                }
                object.entry("listing").or_insert_with(|| Value::Array(Vec::new()));
            } else if let Some(name) = folders.get(path).or_else(|| names.get(path)) {
                object.insert("location".to_owned(), Value::String(encoded(name)));
            }
            Ok(())
        })?;
        let params = match value {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let workflow = self.workflow.as_ref().and_then(|path| names.get(path).cloned());
        let attachments =
            attached.into_iter().map(|(name, path)| Attachment { path, name }).collect();
        Ok(Named { workflow, params, attachments })
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
struct Reference {
    kind: Kind,
    /// The path, without a fragment and unescaped.
    target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Another CWL document: a step's `run`, `$import`, `$mixin`.
    Document,
    /// A text: `$include`, `$schemas`.
    Include,
    /// A File or Directory that the document needs, such as one of an InitialWorkDirRequirement.
    Data,
    /// A File or Directory in a default, in whose stead the inputs may give another.
    Default,
}

/// Collects the local references of a CWL document (CWL v1.2, "Document preprocessing" and `run`).
fn cwl_references(value: &Value, found: &mut Vec<Reference>) {
    match value {
        Value::Object(object) => {
            if let Some(target) = local_file(object) {
                found.extend(reference(Kind::Data, target));
            }
            for (key, member) in object {
                match (key.as_str(), member) {
                    ("$import" | "$mixin", Value::String(uri)) => {
                        found.extend(reference_to(Kind::Document, uri));
                    }
                    ("$include", Value::String(uri)) => {
                        found.extend(reference_to(Kind::Include, uri));
                    }
                    ("$schemas", Value::Array(uris)) => {
                        let uris = uris.iter().filter_map(Value::as_str);
                        found.extend(uris.filter_map(|uri| reference_to(Kind::Include, uri)));
                    }
                    ("default", member) => {
                        let mut member = member.clone();
                        // Only collects: nothing is changed, so nothing can fail.
                        let _ = visit_files(&mut member, &mut |_, target| {
                            found.extend(reference(Kind::Default, target.to_owned()));
                            Ok(())
                        });
                    }
                    ("steps", steps) => {
                        for step in members(steps) {
                            if let Some(uri) = step.get("run").and_then(Value::as_str) {
                                found.extend(reference_to(Kind::Document, uri));
                            }
                            cwl_references(step, found);
                        }
                    }
                    // Their keys are names that somebody chose, such as `default`, save that
                    // all of them may be imported.
                    ("inputs" | "outputs" | "in", Value::Object(named)) => {
                        for (name, member) in named {
                            match (name.as_str(), member) {
                                ("$import" | "$mixin", Value::String(uri)) => {
                                    found.extend(reference_to(Kind::Document, uri));
                                }
                                (_, member) => cwl_references(member, found),
                            }
                        }
                    }
                    (_, member) => cwl_references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| cwl_references(item, found)),
        _ => {}
    }
}

/// The members of what CWL takes as a map or as an array.
fn members(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(object) => Box::new(object.values()),
        Value::Array(items) => Box::new(items.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A reference by URI; `None` when nothing local is meant.
fn reference_to(kind: Kind, uri: &str) -> Option<Reference> {
    let uri = uri.split('#').next().unwrap_or(uri);
    reference(kind, local(uri)?)
}

/// A reference by path; `None` for what an expression will say, and for the document itself.
fn reference(kind: Kind, target: String) -> Option<Reference> {
    (!target.is_empty() && !is_expression(&target)).then_some(Reference { kind, target })
}

/// Where a reference of a document in a folder leads; `None` when that is not local, or the document
/// itself.
fn place(folder: &Path, uri: &str) -> Option<PathBuf> {
    let target = local(uri).filter(|target| !target.is_empty())?;
    Some(normal(&folder.join(target)))
}

/// Calls `visit` for every File and Directory that is a local path, with the object and the path.
fn visit_files(
    value: &mut Value,
    visit: &mut impl FnMut(&mut Map<String, Value>, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match value {
        Value::Object(object) => {
            if let Some(path) = local_file(object) {
                visit(object, &path)?;
            }
            object.values_mut().try_for_each(|member| visit_files(member, visit))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| visit_files(item, visit)),
        _ => Ok(()),
    }
}

/// The path of a File or Directory; `None` when it is something else, or not local.
fn local_file(object: &Map<String, Value>) -> Option<String> {
    let text = |key| object.get(key).and_then(Value::as_str);
    if !matches!(text("class"), Some("File" | "Directory")) {
        return None;
    }
    match (text("location"), text("path")) {
        (Some(location), _) => local(location),
        (None, Some(path)) if path.starts_with("file://") => local(path),
        (None, Some(path)) => url::Url::parse(path).is_err().then(|| path.to_owned()),
        (None, None) => None,
    }
}

/// The path that a URI reference names; `None` when it has a scheme other than `file`.
fn local(uri: &str) -> Option<String> {
    match uri.strip_prefix("file://") {
        Some(path) => Some(decoded(path)),
        None => url::Url::parse(uri).is_err().then(|| decoded(uri)),
    }
}

/// A path as a relative URL.
pub(crate) fn encoded(path: &str) -> String {
    percent_encoding::utf8_percent_encode(path, PATH).to_string()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Every file below a folder, links followed, though not to a folder that holds the link: its files
/// would have no end.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fn collect(
        folder: &Path,
        above: &mut Vec<PathBuf>,
        files: &mut Vec<PathBuf>,
    ) -> anyhow::Result<()> {
        let unreadable = || format!("{} cannot be read", folder.display());
        let real = folder.canonicalize().with_context(unreadable)?;
        if above.contains(&real) {
            return Ok(());
        }
        above.push(real);
        for entry in std::fs::read_dir(folder).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.is_dir() {
                collect(&path, above, files)?;
            } else {
                files.push(path);
            }
        }
        above.pop();
        Ok(())
    }
    let mut files = Vec::new();
    collect(folder, &mut Vec::new(), &mut files)?;
    Ok(files)
}

/// The files among `paths`, and those in the folders among them.
fn with_files_below(paths: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
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

/// What a line of WDL imports.
fn wdl_import(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("import")?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    rest[1..].split_once(quote).map(|(target, _)| target)
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
    fn the_imports_of_a_wdl_document_are_attached() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write(
            "main.wdl",
            "version 1.0\nimport \"lib/a.wdl\" as a\n  import 'https://x.org/b.wdl'\n# import \"no\"\n",
        );
        write("lib/a.wdl", "import \"../tasks.wdl\"\nimport \"a.wdl\"\n");
        write("tasks.wdl", "important_task\n");
        let names = |name: &str| {
            let mut bundle = Bundle::default();
            bundle.add_workflow(&folder.path().join(name), None, "wdl")?;
            let named = bundle.finish(Map::new())?;
            anyhow::Ok(named.attachments.into_iter().map(|file| file.name).collect::<Vec<_>>())
        };
        assert_eq!(names("main.wdl").expect("named"), ["lib/a.wdl", "main.wdl", "tasks.wdl"]);
        for import in ["/etc/passwd", "missing.wdl"] {
            write("bad.wdl", &format!("import \"{import}\"\n"));
            assert!(names("bad.wdl").expect_err(import).to_string().contains(import));
        }
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
        let document = bundle.add_workflow(&main, None, "CWL").expect("a workflow");
        assert_eq!(document["cwlVersion"], "v1.2");
        let Named { workflow, attachments, .. } = bundle.finish(Map::new()).expect("names");
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
        bundle.add_workflow(&main, None, "CWL").expect("a workflow");
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
        let Named { params, attachments, .. } = bundle.finish(params).expect("names");
        assert_eq!(
            names(&attachments),
            [
                "in/near.txt",
                "inputs/1/a b.bam",
                "inputs/1/a b.bam.bai",
                "inputs/2/dir/2",
                "inputs/2/dir/one/1",
                "main.cwl"
            ]
        );
        assert_eq!(
            Value::Object(params),
            json!({
                "near": {"class": "File", "location": "in/near.txt"},
                "far": {"class": "File", "location": "inputs/1/a%20b.bam",
                    "secondaryFiles": [{"class": "File", "location": "inputs/1/a%20b.bam.bai"}]},
                "dir": [{"class": "Directory", "location": "inputs/2/dir"}],
                "remote": {"class": "File", "location": "s3://bucket/key"},
                "n": 1,
            })
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = write(folder.path(), "main.cwl", "steps: {a: {run: gone.cwl}}\n");
        let error = Bundle::default().add_workflow(&main, None, "CWL").expect_err("a missing tool");
        assert!(error.to_string().contains("gone.cwl"), "{error}");
        let error = Bundle::default()
            .add_workflow(&folder.path().join("no.cwl"), None, "CWL")
            .expect_err("no workflow");
        assert!(error.to_string().contains("no.cwl"), "{error}");
    }

    /// Attachments and inputs of a workflow in `wf/main.cwl`, submitted with `wf/in.json`.
    fn submitted(root: &Path, document: &str, params: Value) -> (Vec<Attachment>, Value) {
        let main = write(root, "wf/main.cwl", document);
        let inputs = write(root, "wf/in.json", "{}");
        let Value::Object(params) = params else { unreachable!("an object") };
        let mut bundle = Bundle::default();
        bundle.add_workflow(&main, None, "CWL").expect("a workflow");
        let params = bundle.add_inputs(params, &inputs).expect("inputs");
        let Named { params, attachments, .. } = bundle.finish(params).expect("names");
        (attachments, Value::Object(params))
    }

    #[test]
    fn run_is_a_reference_of_steps_only_and_a_name_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(root, "wf/a.cwl", "class: CommandLineTool\n");
        write(root, "wf/b.cwl", "class: CommandLineTool\n");
        write(root, "wf/types.yml", "[]");
        let document = "inputs: {run: string, default: {type: {$import: types.yml}}}
outputs: {run: File}
steps:
  default: {run: a.cwl, in: {run: x}}
  inner: {run: {class: Workflow, steps: [{id: c, run: b.cwl, in: {run: run}}]}}
";
        let (attachments, _) = submitted(root, document, json!({"run": "x"}));
        assert_eq!(names(&attachments), ["a.cwl", "b.cwl", "main.cwl", "types.yml"]);
    }

    #[test]
    fn files_that_a_document_needs_are_attached_wherever_it_names_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(root, "wf/a%20b.txt", "x");
        write(root, "wf/dir/c", "x");
        let document = "class: CommandLineTool
requirements:
  InitialWorkDirRequirement:
    listing:
      - {class: File, location: a%2520b.txt}
      - {class: Directory, path: dir}
      - {class: File, location: $(inputs.x)}
      - {class: File, location: 'https://example.org/x'}
inputs:
  x: {type: File, default: {class: File, location: only/on/the/server.txt}}
  y: {type: File, default: {class: File, location: /only/on/the/server.txt}}
";
        let (attachments, _) = submitted(root, document, json!({}));
        assert_eq!(names(&attachments), ["a%20b.txt", "dir/c", "main.cwl"]);
    }

    #[test]
    fn secondary_files_of_defaults_and_in_records_are_attached() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for name in ["wf/d.txt", "wf/d.txt.2/part", "far/a", "far/a.s", "far/b", "far/b.s"] {
            write(root, name, "x");
        }
        write(root, "wf/outputs.yml", "[]");
        let document = "class: CommandLineTool
inputs:
  d: {type: File, secondaryFiles: '.2', default: {class: File, location: d.txt}}
  r: {type: {type: record, fields: {a: {type: 'File[]', secondaryFiles: .s}, b: File}}}
outputs: {$import: outputs.yml}
";
        let file = |path: &str| json!({"class": "File", "path": path});
        let params = json!({"r": {"a": [file("../far/a")], "b": file("../far/b")}});
        let (attachments, _) = submitted(root, document, params);
        assert_eq!(
            names(&attachments),
            [
                "d.txt",
                "d.txt.2/part",
                "inputs/1/a",
                "inputs/1/a.s",
                "inputs/1/b",
                "main.cwl",
                "outputs.yml"
            ]
        );
    }

    #[test]
    fn an_absolute_reference_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = write(folder.path(), "tool.cwl", "class: CommandLineTool\n");
        for reference in [tool.display().to_string(), format!("file://{}", tool.display())] {
            for document in [
                format!("steps: {{a: {{run: '{reference}'}}}}\n"),
                format!("listing: [{{class: File, location: '{reference}'}}]\n"),
            ] {
                let main = write(folder.path(), "main.cwl", &document);
                let error =
                    Bundle::default().add_workflow(&main, None, "CWL").expect_err(&document);
                assert!(error.to_string().contains("absolute path"), "{error}");
            }
        }
    }

    #[test]
    fn a_folder_keeps_its_name_and_what_is_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(root, "wf/inputs/1/taken", "x");
        write(root, "wf/near/1", "x");
        write(root, "far/a b/deep/er/1", "x");
        write(root, "far/a b/deep/too/2", "x");
        std::fs::create_dir_all(root.join("far/empty")).expect("a folder");
        std::os::unix::fs::symlink(".", root.join("far/a b/deep/again")).expect("a link");
        let directory = |path: &str| json!({"class": "Directory", "path": path});
        let (attachments, params) = submitted(
            root,
            "class: CommandLineTool\n",
            json!({
                "taken": directory("inputs"),
                "near": directory("near/"),
                "far": directory("../far/a b"),
                "empty": directory("../far/empty"),
                "all": directory("."),
            }),
        );
        assert_eq!(
            params,
            json!({
                "taken": {"class": "Directory", "location": "inputs"},
                "near": {"class": "Directory", "location": "near"},
                "far": {"class": "Directory", "location": "inputs/2/a%20b"},
                "empty": {"class": "Directory", "basename": "empty", "listing": []},
                "all": {"class": "Directory", "location": "inputs/4/wf"},
            })
        );
        assert_eq!(
            names(&attachments),
            [
                "inputs/1/taken",
                "inputs/2/a b/deep/er/1",
                "inputs/2/a b/deep/too/2",
                "inputs/4/wf/in.json",
                "inputs/4/wf/inputs/1/taken",
                "inputs/4/wf/main.cwl",
                "inputs/4/wf/near/1",
                "main.cwl",
                "near/1",
            ]
        );
    }

    #[test]
    fn secondary_files_that_the_workflow_declares_are_attached_when_they_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for name in
            ["a.bam", "a.bam.bai", "a.bai", "a.json", "b.bam", "b.bam.bai", "g.fa", "g.fa.fai"]
        {
            write(root, &format!("far/{name}"), "x");
        }
        let document = "inputs:
  reads:
    type: File[]
    secondaryFiles: [.bai, ^.bai?, {pattern: ^.json, required: false}, $(self.nameroot).none]
  genome: {type: File, secondaryFiles: .fai}
  plain: File
";
        let file = |path: &str| json!({"class": "File", "path": path});
        let params = json!({
            "reads": [file("../far/a.bam")],
            "genome": file("../far/g.fa"),
            "plain": file("../far/b.bam"),
        });
        let (attachments, _) = submitted(root, document, params);
        assert_eq!(
            names(&attachments),
            ["a.bai", "a.bam", "a.bam.bai", "a.json", "b.bam", "g.fa", "g.fa.fai"]
                .map(|name| format!("inputs/1/{name}"))
                .iter()
                .map(String::as_str)
                .chain(["main.cwl"])
                .collect::<Vec<_>>()
        );
    }
}
