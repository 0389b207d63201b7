//! Puts a run's request, attachments, workflow and inputs where the engine finds them.

use std::path::Path;

use serde_json::{Map, Value};
use stepwes_core::{
    RunId,
    attachment::{AttachmentName, INPUTS_FILE},
    keys,
    request::{StoredRequest, WorkflowUrl},
};
use url::Url;

use crate::{
    bucket::Bucket,
    bundle::{self, Main},
    config::Config,
    error::Failure,
    fetch::{self, Fetcher},
    inputs::{self, Language},
};

/// A run that is ready for its engine.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The request as accepted.
    pub(crate) request: StoredRequest,
    /// The request's `workflow_engine_parameters`, above those of its bundle.
    pub(crate) parameters: Map<String, Value>,
    /// The workflow's path below the execution folder.
    pub(crate) workflow: String,
    /// The part of the workflow that is meant, without `#`.
    pub(crate) fragment: Option<String>,
}

/// A workflow that is in the execution folder.
struct Workflow {
    path: String,
    fragment: Option<String>,
}

/// Fills the `execution` folder (Toil's `initialize_run` and `write_workflow`), and `inputs_folder` with
/// what `workflow_params` name by URL.
///
/// # Errors
/// [`Failure`], sorted by whose fault it is.
pub(crate) async fn stage(
    bucket: &Bucket,
    config: &Config,
    request: StoredRequest,
    execution: &Path,
    inputs_folder: &Path,
) -> Result<Staged, Failure> {
    let fetcher = Fetcher::new(config.sources.clone(), bucket.clone(), config.limits.clone());
    let mut taken = vec![INPUTS_FILE.to_owned()];
    for attachment in &request.attachments {
        let doing = format!("staging the attachment {:?}", attachment.name);
        let name = AttachmentName::parse(Some(&attachment.name), 1)
            .map_err(|error| Failure::Service(format!("{doing}: {error}")))?;
        let path = execution.join(name.as_str());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Failure::local(&doing, &error))?;
        }
        let key = keys::attachment(config.run_id, name.as_str());
        let size = bucket
            .download(None, &key, &path, attachment.size)
            .await
            .map_err(|fault| fault.of_service(&doing))?;
        if size != attachment.size {
            return Err(Failure::Service(format!(
                "{doing}: it has {size} bytes of {} that were submitted",
                attachment.size
            )));
        }
        taken.push(name.as_str().to_owned());
    }
    let url = WorkflowUrl::parse(&request.request.workflow_url)
        .map_err(|error| Failure::Request(error.to_string()))?;
    let workflow = match url {
        WorkflowUrl::Relative { path, .. } if !taken[1..].contains(&path) => {
            return Err(Failure::Request(format!(
                "workflow_url {path:?} is not among the attachments"
            )));
        }
        WorkflowUrl::Relative { path, fragment } => Workflow { path, fragment },
        WorkflowUrl::Absolute(url) => {
            let workflow = fetch_workflow(&fetcher, &url, execution, &taken).await?;
            taken.push(workflow.path.clone());
            workflow
        }
    };
    let (workflow, mut params, mut parameters) =
        unbundle(&fetcher, workflow, &request, execution, &taken).await?;
    params.extend(request.request.workflow_params.clone());
    parameters.extend(request.request.workflow_engine_parameters.clone());
    let kind = &request.request.workflow_type;
    let language = Language::of(kind, execution, &workflow.path, workflow.fragment.as_deref());
    let most = config.limits.input_bytes;
    let params = inputs::stage(params, &language, &fetcher, inputs_folder, most).await?;
    let inputs = serde_json::to_vec(&params)
        .map_err(|error| Failure::Service(format!("workflow_params cannot be written: {error}")))?;
    std::fs::write(execution.join(INPUTS_FILE), inputs)
        .map_err(|error| Failure::local("staging workflow_params", &error))?;
    let Workflow { path, fragment } = workflow;
    Ok(Staged { request, parameters, workflow: path, fragment })
}

async fn fetch_workflow(
    fetcher: &Fetcher,
    url: &Url,
    execution: &Path,
    taken: &[String],
) -> Result<Workflow, Failure> {
    let name = fetch::file_name(url);
    if taken.iter().any(|other| collides(other, &name)) {
        return Err(Failure::Request(format!(
            "workflow_url and an attachment would both be {name:?}; rename the attachment"
        )));
    }
    fetcher.workflow(url, &execution.join(&name)).await?;
    Ok(Workflow { path: name, fragment: url.fragment().map(str::to_owned) })
}

/// Unpacks a workflow that is a bundle, beside it; gives the workflow in it, its inputs and options.
async fn unbundle(
    fetcher: &Fetcher,
    workflow: Workflow,
    request: &StoredRequest,
    execution: &Path,
    taken: &[String],
) -> Result<(Workflow, Map<String, Value>, Map<String, Value>), Failure> {
    let zip = execution.join(&workflow.path);
    let is_bundle =
        bundle::is_zip(&zip).map_err(|error| Failure::local("reading the workflow", &error))?;
    if !is_bundle {
        if workflow.path.to_ascii_lowercase().ends_with(".zip") {
            return Err(Failure::Request(format!(
                "workflow_url: {:?} is called a zip archive and is none",
                workflow.path
            )));
        }
        return Ok((workflow, Map::new(), Map::new()));
    }
    let folder = workflow.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_folder = |name: &str| {
        if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
    };
    let base = execution.join(folder);
    // Reading many files would hold up whatever else this thread has to do.
    let unpacked = {
        let (base, taken, folder) = (base.clone(), taken.to_vec(), folder.to_owned());
        tokio::task::spawn_blocking(move || {
            let below = |name: &str| match folder.as_str() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            };
            bundle::unpack(&zip, &base, |name| taken[1..].contains(&below(name)))
        })
        .await
        .map_err(|error| Failure::Passing(format!("unpacking the bundle: {error}")))?
    };
    let files = unpacked?;
    if folder.is_empty() && files.iter().any(|file| bundle::is_taken(file)) {
        return Err(Failure::Request(format!(
            "the workflow bundle cannot be used: {INPUTS_FILE} is taken by the workflow's parameters; give them in inputs.json"
        )));
    }
    let read = bundle::read(&base, &files, &request.request.workflow_type)?;
    let inner = match read.workflow {
        Main::File(path, fragment) => {
            Workflow { path: in_folder(&path), fragment: workflow.fragment.or(fragment) }
        }
        Main::Url(url) => {
            let taken: Vec<_> =
                taken.iter().cloned().chain(files.iter().map(|file| in_folder(file))).collect();
            let fetched = fetch_workflow(fetcher, &url, execution, &taken).await?;
            Workflow { fragment: workflow.fragment.or(fetched.fragment), ..fetched }
        }
    };
    bundle::not_nested(&execution.join(&inner.path), &inner.path)?;
    Ok((inner, read.inputs, read.options))
}

/// Whether the file `name` cannot be beside `other`.
fn collides(other: &str, name: &str) -> bool {
    other.split('/').next() == Some(name)
}

/// Reads what was asked for.
///
/// # Errors
/// As the store fails.
pub(crate) async fn read_request(bucket: &Bucket, run: RunId) -> Result<StoredRequest, Failure> {
    let doing = "reading the run's request";
    let body = bucket.get(&keys::request(run)).await.map_err(|fault| fault.of_service(doing))?;
    serde_json::from_slice(&body).map_err(|error| Failure::Service(format!("{doing}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_workflow_replaces_no_attachment_and_no_folder_of_attachments() {
        assert!(collides("main.cwl", "main.cwl"));
        assert!(collides("tools/main.cwl", "tools"));
        assert!(!collides("tools/main.cwl", "main.cwl"));
    }
}
