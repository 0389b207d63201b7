//! A workflow on the command line as a RunRequest: its type, its parameters, its attachments.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};

use crate::{
    args::WorkflowArgs,
    attach::{Attachment, Bundle, Named, encoded},
    ui::hint,
};

/// What is sent to `POST /runs`.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    /// The text fields.
    pub(crate) fields: Vec<(String, String)>,
    /// The files.
    pub(crate) attachments: Vec<Attachment>,
    /// The `Idempotency-Key`.
    pub(crate) idempotency_key: Option<String>,
}

impl Submission {
    /// Reads the files that the arguments name.
    pub(crate) fn read(args: &WorkflowArgs) -> anyhow::Result<Self> {
        let params = args.inputs.as_deref().map(read_params).transpose()?;
        let remote = ["http://", "https://", "s3://", "file://"]
            .iter()
            .any(|scheme| args.workflow.starts_with(scheme));
        let (path, fragment) = match args.workflow.split_once('#') {
            Some((path, fragment)) if !Path::new(&args.workflow).exists() => (path, Some(fragment)),
            _ => (args.workflow.as_str(), None),
        };
        let local = (!remote).then(|| PathBuf::from(path));
        let workflow_type = match &args.workflow_type {
            Some(name) => name.clone(),
            // A URL's query is no part of the name; a file's name may hold a `?`.
            None if remote => type_by_name(path.split('?').next().unwrap_or(path))?,
            None => type_by_name(path)?,
        };
        let mut bundle = Bundle::default();
        let mut version = args.type_version.clone();
        if let Some(local) = &local {
            let document = bundle.add_workflow(local, fragment, &workflow_type)?;
            version = version
                .or_else(|| document.get("cwlVersion").and_then(Value::as_str).map(str::to_owned));
            if version.is_none() && workflow_type.eq_ignore_ascii_case("WDL") {
                version = Some(wdl_version(local)?);
            }
        }
        let params = match (params, &args.inputs) {
            (Some(params), Some(inputs)) => bundle.add_inputs(params, inputs)?,
            _ => Map::new(),
        };
        for path in &args.attach {
            bundle.add_path(path)?;
        }
        let version = version.unwrap_or_else(|| default_version(&workflow_type).to_owned());
        let Named { workflow: name, params, attachments } = bundle.finish(params)?;
        // The server reads it as a URL reference, so that a file's name must be written as one.
        let mut url = name.map_or_else(|| args.workflow.clone(), |name| encoded(&name));
        if let (Some(fragment), Some(_)) = (fragment, &local) {
            url = format!("{url}#{fragment}");
        }
        let mut fields = vec![
            ("workflow_type".to_owned(), workflow_type),
            ("workflow_type_version".to_owned(), version),
            ("workflow_url".to_owned(), url),
            ("workflow_params".to_owned(), Value::Object(params).to_string()),
        ];
        if let Some(engine) = &args.engine {
            fields.push(("workflow_engine".to_owned(), engine.clone()));
        }
        if let Some(version) = &args.engine_version {
            fields.push(("workflow_engine_version".to_owned(), version.clone()));
        }
        if !args.engine_options.is_empty() {
            let options: Map<String, Value> = args
                .engine_options
                .iter()
                .map(|option| match option.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Value::String(value.to_owned())),
                    None => (option.clone(), Value::Null),
                })
                .collect();
            fields.push((
                "workflow_engine_parameters".to_owned(),
                Value::Object(options).to_string(),
            ));
        }
        if !args.tag.is_empty() {
            let mut tags = Map::new();
            for tag in &args.tag {
                let Some((name, value)) = tag.split_once('=') else {
                    return Err(hint(
                        format!("the tag {tag:?} has no value"),
                        "give it as NAME=VALUE",
                    ));
                };
                tags.insert(name.to_owned(), Value::String(value.to_owned()));
            }
            fields.push(("tags".to_owned(), Value::Object(tags).to_string()));
        }
        Ok(Self { fields, attachments, idempotency_key: args.idempotency_key.clone() })
    }
}

/// The workflow type that a file's name tells.
fn type_by_name(path: &str) -> anyhow::Result<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("cwl") => Ok("CWL".to_owned()),
        Some("wdl") => Ok("WDL".to_owned()),
        Some("smk") => Ok("SMK".to_owned()),
        Some("nf") => Ok("NFL".to_owned()),
        Some("py") => Ok("PY".to_owned()),
        _ if name == "Snakefile" => Ok("SMK".to_owned()),
        _ => Err(hint(
            format!("the type of the workflow {name:?} cannot be told from its name"),
            "give --type, such as --type CWL",
        )),
    }
}

/// The version to ask for when neither the arguments nor the workflow name one.
fn default_version(workflow_type: &str) -> &'static str {
    match workflow_type.trim().to_ascii_uppercase().as_str() {
        "CWL" => "v1.2",
        "PY" => "3.12",
        "SMK" => "9",
        "NFL" => "DSL2",
        _ => "1.0",
    }
}

/// The version that a WDL document says in its first statement; without one it is a draft
/// (WDL 1.1, "Versioning").
fn wdl_version(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let version = first.and_then(|line| line.strip_prefix("version "));
    Ok(version
        .map_or("draft-2", |version| version.split('#').next().unwrap_or_default().trim())
        .to_owned())
}

/// Reads an inputs file: JSON, or YAML.
fn read_params(path: &Path) -> anyhow::Result<Map<String, Value>> {
    match read_document(path)? {
        Value::Object(params) => Ok(params),
        Value::Null => Ok(Map::new()),
        _ => Err(hint(
            format!("{} is not an object of inputs", path.display()),
            "write it as JSON or YAML: a name and a value for each input",
        )),
    }
}

/// Reads a JSON or YAML file.
pub(crate) fn read_document(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    // JSON first: it is faster, keeps the order of keys, and says where it is wrong.
    serde_json::from_str(&text).or_else(|_| {
        serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is neither JSON nor YAML", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn submission(workflow: &str) -> Submission {
        let cli = Cli::try_parse_from(["stepwes", "submit", workflow]).expect("arguments");
        let Command::Submit(args) = cli.command else { unreachable!("submit") };
        Submission::read(&args.workflow).expect("a submission")
    }

    fn workflow_url(workflow: &Path, fragment: &str) -> String {
        let submission = submission(&format!("{}{fragment}", workflow.display()));
        let url = submission.fields.into_iter().find(|(name, _)| name == "workflow_url");
        url.expect("a workflow_url").1
    }

    #[test]
    fn type_and_version_are_told_by_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content, kind, version) in [
            ("a.cwl", "cwlVersion: v1.1\nclass: Workflow\n", "CWL", "v1.1"),
            ("a.wdl", "# hello\n\nversion 1.1 # yes\nworkflow w {}\n", "WDL", "1.1"),
            ("b.wdl", "workflow w {}\n", "WDL", "draft-2"),
            ("Snakefile", "rule all:\n", "SMK", "9"),
            ("a.smk", "rule all:\n", "SMK", "9"),
            ("main.nf", "workflow {}\n", "NFL", "DSL2"),
            ("a.py", "import toil\n", "PY", "3.12"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("a file");
            let submission = submission(&path.display().to_string());
            let field = |name: &str| {
                let (_, value) = submission.fields.iter().find(|(field, _)| field == name)?;
                Some(value.clone())
            };
            assert_eq!(field("workflow_type").as_deref(), Some(kind), "{name}");
            assert_eq!(field("workflow_type_version").as_deref(), Some(version), "{name}");
        }
    }

    #[test]
    fn a_workflows_name_is_sent_as_a_url() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, fragment, url) in [
            ("a#b.cwl", "", "a%23b.cwl"),
            ("why?.cwl", "", "why%3F.cwl"),
            ("100%20.cwl", "", "100%2520.cwl"),
            ("x:y.cwl", "", "x%3Ay.cwl"),
            ("a.cwl", "#main", "a.cwl#main"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "class: Workflow\n").expect("a file");
            assert_eq!(workflow_url(&path, fragment), url);
        }
        let remote = "https://example.org/w.cwl?version=1.x";
        assert_eq!(workflow_url(Path::new(remote), "#main"), format!("{remote}#main"));
    }
}
