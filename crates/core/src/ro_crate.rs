//! A finished run as an RO-Crate: the metadata that says which workflow turned what into what.
//!
//! The crate is one of the profile Workflow Run Crate 0.5, and so of Process Run Crate 0.5 and
//! Workflow RO-Crate 1.0. It is made of what the API tells of a run, and of nothing else, so whoever
//! can read a run can make the same crate.
//! <https://www.researchobject.org/workflow-run-crate/profiles/workflow_run_crate/>

mod graph;

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use url::Url;

use crate::{
    clock::wes_time,
    run::RunId,
    run_state::RunState,
    wes::{AttachmentEntry, OutputEntry, RunLog, TaskLog},
};
use graph::Graph;

/// The name of the metadata's file in a crate (RO-Crate 1.1, "RO-Crate Metadata File Descriptor").
pub const METADATA: &str = "ro-crate-metadata.json";

/// The media type of the metadata.
pub const MEDIA_TYPE: &str = "application/ld+json";

const ROOT: &str = "./";
const RUN: &str = "#run";
const ENGINE: &str = "#engine";

/// The profiles that a crate conforms to: id, name, version.
const PROFILES: [(&str, &str, &str); 3] = [
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    (WORKFLOW_RO_CRATE, "Workflow RO-Crate", "1.0"),
];
const WORKFLOW_RO_CRATE: &str = "https://w3id.org/workflowhub/workflow-ro-crate/1.0";
const RO_CRATE: &str = "https://w3id.org/ro/crate/1.1";
const WORKFLOW_PROFILE: &str = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE";
const PARAMETER_PROFILE: &str = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE";

/// The languages of workflows: the type, the language's id, its name, its page.
const LANGUAGES: [(&str, &str, &str, &str); 5] = [
    (
        "CWL",
        "https://w3id.org/workflowhub/workflow-ro-crate#cwl",
        "Common Workflow Language",
        "https://www.commonwl.org/",
    ),
    ("WDL", "https://openwdl.org/", "Workflow Description Language", "https://openwdl.org/"),
    ("PY", "https://www.python.org/", "Python", "https://www.python.org/"),
    (
        "SMK",
        "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
        "Snakemake",
        "https://snakemake.readthedocs.io/",
    ),
    (
        "NFL",
        "https://w3id.org/workflowhub/workflow-ro-crate#nextflow",
        "Nextflow",
        "https://www.nextflow.io/",
    ),
];

/// The schemes by which an input that is only a string names a file.
const FILE_SCHEMES: [&str; 7] = ["http", "https", "ftp", "s3", "gs", "az", "drs"];

/// What is escaped in a relative path, or behind a `#`.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What is told of a run.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// The run, its whole output object included. Its `task_logs_url` is that of this API.
    pub log: &'a RunLog,
    /// Its tasks.
    pub tasks: &'a [TaskLog],
    /// Its output files.
    pub outputs: &'a [OutputEntry],
    /// What came with its request.
    pub attachments: &'a [AttachmentEntry],
}

/// Where the files of a crate are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// On the service: each is named by its URL there.
    Remote,
    /// In the crate's folder: see [`attachment_path`], [`output_path`] and [`log_path`].
    Attached,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every file and every task.
    Full,
    /// The output files as one dataset, whose URL lists them; no tasks.
    Short,
}

/// Where an attachment is in a crate's folder.
#[must_use]
pub fn attachment_path(name: &str) -> String {
    format!("attachments/{name}")
}

/// Where an output file is in a crate's folder.
#[must_use]
pub fn output_path(path: &str) -> String {
    format!("outputs/{path}")
}

/// Where one of the engine's two logs, `stdout` or `stderr`, is in a crate's folder.
#[must_use]
pub fn log_path(stream: &str) -> String {
    format!("logs/{stream}")
}

/// The metadata of a run's crate, JSON-LD. The same run gives the same metadata.
#[must_use]
pub fn metadata(run: Provenance<'_>, files: Files, detail: Detail) -> Value {
    let mut crate_ = Crate { run, files, graph: Graph::default() };
    crate_.add_root();
    let workflow = crate_.add_workflow();
    crate_.add_attachments(&workflow);
    crate_.add_run(&workflow);
    crate_.add_inputs(&workflow);
    match detail {
        Detail::Full => {
            crate_.add_outputs(&workflow);
            crate_.add_tasks();
        }
        Detail::Short => crate_.summarize_outputs(),
    }
    crate_.add_logs();
    json!({
        "@context": [
            format!("{RO_CRATE}/context"),
            // Of <https://w3id.org/ro/terms/workflow-run>; RO-Crate's own terms have no hash.
            {"sha1": "https://w3id.org/ro/terms/workflow-run#sha1"},
        ],
        "@graph": crate_.graph.into_entities(),
    })
}

struct Crate<'a> {
    run: Provenance<'a>,
    files: Files,
    graph: Graph,
}

impl Crate<'_> {
    fn add_root(&mut self) {
        let log = self.run.log;
        let profile = |id: &str| json!({"@id": id});
        let descriptor = [profile(RO_CRATE), profile(WORKFLOW_RO_CRATE)];
        self.graph.add(
            METADATA,
            json!({"@type": "CreativeWork", "about": {"@id": ROOT}, "conformsTo": descriptor}),
        );
        let workflow = self.workflow_name();
        self.graph.add(
            ROOT,
            json!({
                "@type": "Dataset",
                "name": format!("Run of {workflow}"),
                "description": format!(
                    "A {} run of the workflow {workflow} through the GA4GH Workflow Execution Service: {}",
                    log.request.workflow_type, log.state
                ),
                "identifier": log.run_id,
                "url": self.run_url(),
                "datePublished": self.time(),
                "license": log.request.tags.get("license").cloned().unwrap_or_else(|| {
                    "None is stated: ask whoever submitted the run".to_owned()
                }),
                "conformsTo": PROFILES.map(|(id, ..)| profile(id)),
            }),
        );
        self.graph.link(ROOT, "mentions", RUN);
        let tags: Vec<_> = log.request.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if !tags.is_empty() {
            self.graph.set(ROOT, "keywords", json!(tags.join(", ")));
        }
        for (id, name, version) in PROFILES {
            self.graph.add(id, json!({"@type": "CreativeWork", "name": name, "version": version}));
        }
    }

    /// Gives the workflow's id.
    fn add_workflow(&mut self) -> String {
        let request = &self.run.log.request;
        let (url, fragment) = request
            .workflow_url
            .split_once('#')
            .map_or((request.workflow_url.as_str(), None), |(url, part)| (url, Some(part)));
        let id = self.attachment_id(url).or_else(|| iri(url)).unwrap_or_else(|| {
            // The attachments may have expired before the run has.
            let path = attachment_path(&percent_decode_str(url).decode_utf8_lossy());
            let escaped = utf8_percent_encode(&path, ESCAPED);
            self.id(&format!("{}/{escaped}", self.run_url()), &path)
        });
        let known =
            LANGUAGES.iter().find(|(kind, ..)| *kind == request.workflow_type.to_uppercase());
        let (language, name, page) = known.map_or_else(
            || ("#language".to_owned(), request.workflow_type.as_str(), None),
            |(_, id, name, page)| ((*id).to_owned(), *name, Some(*page)),
        );
        self.graph.add(
            &id,
            json!({
                "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
                "name": self.workflow_name(),
                "programmingLanguage": {"@id": language},
                "conformsTo": {"@id": WORKFLOW_PROFILE},
            }),
        );
        if let Some(fragment) = fragment {
            self.graph.set(&id, "description", json!(format!("Run from its part #{fragment}")));
        }
        self.graph.add(
            &language,
            json!({
                "@type": "ComputerLanguage",
                "name": name,
                "alternateName": request.workflow_type.to_uppercase(),
                "version": request.workflow_type_version,
            }),
        );
        if let Some(page) = page {
            self.graph.set(&language, "url", json!(page));
            self.graph.set(&language, "identifier", json!(page));
        }
        self.graph.set(ROOT, "mainEntity", json!({"@id": id}));
        self.graph.link(ROOT, "hasPart", &id);
        id
    }

    fn add_attachments(&mut self, workflow: &str) {
        for attachment in self.run.attachments {
            let id = self.id_of_attachment(attachment);
            if id != workflow {
                self.graph.add(&id, json!({"@type": "File", "name": attachment.name}));
                self.graph.link(ROOT, "hasPart", &id);
            }
            self.graph.set(&id, "contentSize", json!(attachment.size.to_string()));
        }
    }

    fn add_run(&mut self, workflow: &str) {
        let log = self.run.log;
        let complete = log.state == RunState::Complete;
        self.graph.add(
            RUN,
            json!({
                "@type": "CreateAction",
                "name": format!("Run {}", log.run_id),
                "identifier": log.run_id,
                "url": self.run_url(),
                "instrument": {"@id": workflow},
                "endTime": self.time(),
                "actionStatus": status(complete),
            }),
        );
        if let Some(start) = &log.run_log.start_time {
            self.graph.set(RUN, "startTime", json!(start));
        }
        if let Some(cmd) = &log.run_log.cmd {
            self.graph.set(RUN, "description", json!(cmd.join(" ")));
        }
        if !complete {
            let reasons = log.run_log.system_logs.join("\n");
            let reason = if reasons.is_empty() { log.state.to_string() } else { reasons };
            self.graph.set(RUN, "error", json!(reason));
        }
        let Some(engine) = &log.request.workflow_engine else { return };
        // What organizes the run's tasks, as in Provenance Run Crate.
        self.graph.add(ENGINE, json!({"@type": "SoftwareApplication", "name": engine}));
        if let Some(version) = &log.request.workflow_engine_version {
            self.graph.set(ENGINE, "softwareVersion", json!(version));
        }
        self.graph.add(
            "#organize",
            json!({
                "@type": "OrganizeAction",
                "name": format!("{engine} executes the workflow"),
                "instrument": {"@id": ENGINE},
                "result": {"@id": RUN},
                "actionStatus": status(complete),
            }),
        );
        self.graph.link(ROOT, "mentions", "#organize");
    }

    fn add_inputs(&mut self, workflow: &str) {
        for (name, value) in &self.run.log.request.workflow_params {
            let mut found = Vec::new();
            let whole = self.input_files(value, &mut found);
            for file in &found {
                self.graph.add(file, json!({"@type": "File", "name": base_name(file)}));
                self.graph.link(ROOT, "hasPart", file);
                self.graph.link(RUN, "object", file);
            }
            let named = Parameter { side: "input", property: "object", name };
            self.parameter(workflow, &named, value, whole.then_some(found));
        }
    }

    /// Finds the files of an input that are data of the crate: attachments, and what has a URL.
    /// Gives whether the input is files, one or a list, and nothing else.
    fn input_files(&self, value: &Value, found: &mut Vec<String>) -> bool {
        let id = match value {
            // CWL has objects for files: a string is a string there.
            Value::String(_) if self.is_cwl() => None,
            Value::String(text) => self.input_id(text),
            Value::Object(object) => {
                let is_file = object.get("class").and_then(Value::as_str) == Some("File");
                let place = object.get("location").or_else(|| object.get("path"));
                let id = place
                    .and_then(Value::as_str)
                    .filter(|_| is_file)
                    .and_then(|place| self.input_id(place));
                for member in object.values().filter(|member| !member.is_string()) {
                    self.input_files(member, found);
                }
                id
            }
            Value::Array(items) => {
                let files = items.iter().map(|item| self.input_files(item, found));
                // Every item is looked at, also behind one that is no file.
                let count = files.filter(|is_file| *is_file).count();
                return count == items.len() && count > 0;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        };
        let is_file = id.is_some();
        found.extend(id);
        is_file
    }

    fn is_cwl(&self) -> bool {
        self.run.log.request.workflow_type.eq_ignore_ascii_case("CWL")
    }

    /// The id of the file that an input names, when it is an attachment or has a URL.
    fn input_id(&self, place: &str) -> Option<String> {
        if let Some(id) = self.attachment_id(place) {
            return Some(id);
        }
        let url = Url::parse(place).ok()?;
        FILE_SCHEMES.contains(&url.scheme()).then(|| url.to_string())
    }

    fn add_outputs(&mut self, workflow: &str) {
        for file in self.run.outputs {
            let id = self.id_of_output(file);
            self.graph.add(
                &id,
                json!({
                    "@type": "File",
                    "name": file.path,
                    "contentSize": file.size.to_string(),
                    "contentUrl": file.location,
                }),
            );
            if let Some(sha1) = file.checksum.strip_prefix("sha1$") {
                self.graph.set(&id, "sha1", json!(sha1));
            }
            self.graph.link(ROOT, "hasPart", &id);
            self.graph.link(RUN, "result", &id);
        }
        // What other engines write has no names; their outputs are the files.
        let kind = self.run.log.request.workflow_type.to_uppercase();
        let Value::Object(outputs) = &self.run.log.outputs else { return };
        if !matches!(kind.as_str(), "CWL" | "WDL") {
            return;
        }
        let by_location: BTreeMap<&str, &OutputEntry> =
            self.run.outputs.iter().map(|file| (file.location.as_str(), file)).collect();
        for (name, value) in outputs {
            let mut found = Vec::new();
            let whole = self.output_files(value, &by_location, &mut found);
            let named = Parameter { side: "output", property: "result", name };
            self.parameter(workflow, &named, value, whole.then_some(found));
        }
    }

    /// Finds the output files that a value of the output object names. Gives whether it is files,
    /// one, a folder or a list, and nothing else.
    fn output_files(
        &self,
        value: &Value,
        by_location: &BTreeMap<&str, &OutputEntry>,
        found: &mut Vec<String>,
    ) -> bool {
        match value {
            Value::Array(items) => {
                let files = items.iter().map(|item| self.output_files(item, by_location, found));
                let count = files.filter(|is_file| *is_file).count();
                count == items.len() && count > 0
            }
            Value::Object(object) => {
                let class = object.get("class").and_then(Value::as_str);
                let location = object.get("location").and_then(Value::as_str).unwrap_or_default();
                match class {
                    Some("File") => {
                        found.extend(by_location.get(location).map(|file| self.id_of_output(file)));
                        if let Some(secondary) = object.get("secondaryFiles") {
                            self.output_files(secondary, by_location, found);
                        }
                        by_location.contains_key(location)
                    }
                    Some("Directory") => {
                        let folder = format!("{}/", location.trim_end_matches('/'));
                        let inside = by_location
                            .range(folder.as_str()..)
                            .take_while(|(location, _)| location.starts_with(&folder));
                        let before = found.len();
                        found.extend(inside.map(|(_, file)| self.id_of_output(file)));
                        found.len() > before
                    }
                    _ => {
                        for member in object.values() {
                            self.output_files(member, by_location, found);
                        }
                        false
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    /// A parameter of the workflow and its value in this run: these `files`, else the value itself.
    fn parameter(
        &mut self,
        workflow: &str,
        Parameter { side, property, name }: &Parameter<'_>,
        value: &Value,
        files: Option<Vec<String>>,
    ) {
        if value.is_null() {
            return;
        }
        let escaped = utf8_percent_encode(name, ESCAPED);
        let id = format!("#{side}/{escaped}");
        let (kind, values) = match files {
            Some(files) => ("File", files),
            None => {
                let (kind, text) = plain(value);
                let holder = format!("#{side}-value/{escaped}");
                self.graph
                    .add(&holder, json!({"@type": "PropertyValue", "name": name, "value": text}));
                self.graph.link(RUN, property, &holder);
                (kind, vec![holder])
            }
        };
        self.graph.add(
            &id,
            json!({
                "@type": "FormalParameter",
                "name": name,
                "additionalType": kind,
                "conformsTo": {"@id": PARAMETER_PROFILE},
            }),
        );
        if kind == "File" && values.len() > 1 {
            self.graph.set(&id, "multipleValues", json!(true));
        }
        for value in values {
            self.graph.link(&id, "workExample", &value);
            self.graph.link(&value, "exampleOfWork", &id);
        }
        self.graph.link(workflow, side, &id);
    }

    fn add_tasks(&mut self) {
        for task in self.run.tasks {
            let tool = format!("#tool/{}", utf8_percent_encode(&task.name, ESCAPED));
            self.graph.add(&tool, json!({"@type": "SoftwareApplication", "name": task.name}));
            let id = format!("#task/{}", utf8_percent_encode(&task.id, ESCAPED));
            self.graph.add(
                &id,
                json!({
                    "@type": "CreateAction",
                    "name": task.name,
                    "identifier": task.id,
                    "instrument": {"@id": tool},
                }),
            );
            if let Some(cmd) = &task.cmd {
                self.graph.set(&id, "description", json!(cmd.join(" ")));
            }
            for (property, time) in [("startTime", &task.start_time), ("endTime", &task.end_time)] {
                if let Some(time) = time {
                    self.graph.set(&id, property, json!(time));
                }
            }
            if let Some(code) = task.exit_code {
                self.graph.set(&id, "actionStatus", status(code == 0));
                if code != 0 {
                    self.graph.set(&id, "error", json!(format!("exit code {code}")));
                }
            }
            self.graph.link(ROOT, "mentions", &id);
        }
    }

    /// All output files as one dataset on the service.
    fn summarize_outputs(&mut self) {
        let files = self.run.outputs.len();
        if files == 0 {
            return;
        }
        let bytes: u64 = self.run.outputs.iter().map(|file| file.size).sum();
        let id = format!("{}/outputs", self.run_url());
        self.graph.add(
            &id,
            json!({
                "@type": "Dataset",
                "name": "Output files",
                "description": format!("{files} files, {bytes} bytes; this URL lists them, page by page"),
            }),
        );
        self.graph.link(ROOT, "hasPart", &id);
        self.graph.link(RUN, "result", &id);
    }

    fn add_logs(&mut self) {
        let log = &self.run.log.run_log;
        // Without a command there was no engine that could have said anything.
        if log.cmd.is_none() {
            return;
        }
        for (stream, url) in [("stdout", &log.stdout), ("stderr", &log.stderr)] {
            let Some(url) = url else { continue };
            let id = match self.files {
                Files::Remote => url.clone(),
                Files::Attached => log_path(stream),
            };
            self.graph.add(
                &id,
                json!({
                    "@type": "File",
                    "name": format!("The engine's {stream}"),
                    "encodingFormat": "text/plain",
                    "about": {"@id": RUN},
                }),
            );
            self.graph.link(ROOT, "hasPart", &id);
        }
    }

    /// The id of the attachment that a request's relative URL or path names.
    fn attachment_id(&self, place: &str) -> Option<String> {
        let decoded = percent_decode_str(place).decode_utf8().ok()?;
        let name = decoded.strip_prefix("./").unwrap_or(&decoded);
        let found = self.run.attachments.iter().find(|attachment| attachment.name == name);
        found.map(|attachment| self.id_of_attachment(attachment))
    }

    fn id_of_attachment(&self, attachment: &AttachmentEntry) -> String {
        self.id(&attachment.url, &attachment_path(&attachment.name))
    }

    fn id_of_output(&self, file: &OutputEntry) -> String {
        self.id(&file.url, &output_path(&file.path))
    }

    fn id(&self, url: &str, path: &str) -> String {
        match self.files {
            Files::Remote => url.to_owned(),
            Files::Attached => utf8_percent_encode(path, ESCAPED).to_string(),
        }
    }

    fn workflow_name(&self) -> String {
        let log = self.run.log;
        log.run_log.name.clone().unwrap_or_else(|| log.request.workflow_url.clone())
    }

    /// The run on the service.
    fn run_url(&self) -> &str {
        let tasks = &self.run.log.task_logs_url;
        tasks.strip_suffix("/tasks").unwrap_or(tasks)
    }

    /// When the run ended; when it was submitted, which its id tells, for one that never started.
    fn time(&self) -> String {
        let log = self.run.log;
        log.run_log.end_time.clone().unwrap_or_else(|| {
            let made = log.run_id.parse::<RunId>().ok().and_then(RunId::created_at);
            made.map_or_else(|| "1970-01-01T00:00:00Z".to_owned(), wes_time)
        })
    }
}

/// A parameter of the workflow.
struct Parameter<'a> {
    /// `input` or `output`: the workflow's property.
    side: &'static str,
    /// The run's property for its value.
    property: &'static str,
    name: &'a str,
}

fn status(good: bool) -> Value {
    let name = if good { "CompletedActionStatus" } else { "FailedActionStatus" };
    json!({"@id": format!("http://schema.org/{name}")})
}

/// A value as a `PropertyValue` has it, and the type of its parameter.
fn plain(value: &Value) -> (&'static str, Value) {
    match value {
        Value::String(_) => ("Text", value.clone()),
        Value::Bool(_) => ("Boolean", value.clone()),
        Value::Number(number) if number.is_f64() => ("Float", value.clone()),
        Value::Number(_) => ("Integer", value.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            ("PropertyValue", Value::String(value.to_string()))
        }
    }
}

/// An absolute URL as an identifier may have it.
fn iri(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.to_string())
}

/// The last part of a path or URL, decoded.
fn base_name(id: &str) -> String {
    let path = id.split(['?', '#']).next().unwrap_or(id);
    let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
