//! Puts a run's request, attachments and workflow where the engine finds them.

use std::path::Path;

use stepwes_core::{
    RunId,
    attachment::{AttachmentName, INPUTS_FILE},
    keys,
    request::{StoredRequest, WorkflowUrl},
};

use crate::{bucket::Bucket, config::Config, error::Failure, fetch};

/// A run that is ready for its engine.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The request as accepted.
    pub(crate) request: StoredRequest,
    /// The workflow's path below the execution folder.
    pub(crate) workflow: String,
    /// The part of the workflow that is meant, without `#`.
    pub(crate) fragment: Option<String>,
}

/// Fills the `execution` folder (Toil's `initialize_run` and `write_workflow`).
///
/// # Errors
/// [`Failure`], sorted by whose fault it is.
pub(crate) async fn stage(
    bucket: &Bucket,
    config: &Config,
    request: StoredRequest,
    execution: &Path,
) -> Result<Staged, Failure> {
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
    let inputs = serde_json::to_vec(&request.request.workflow_params)
        .map_err(|error| Failure::Service(format!("workflow_params cannot be written: {error}")))?;
    std::fs::write(execution.join(INPUTS_FILE), inputs)
        .map_err(|error| Failure::local("staging workflow_params", &error))?;
    let url = WorkflowUrl::parse(&request.request.workflow_url)
        .map_err(|error| Failure::Request(error.to_string()))?;
    let (workflow, fragment) = match url {
        WorkflowUrl::Relative { path, .. } if !taken[1..].contains(&path) => {
            return Err(Failure::Request(format!(
                "workflow_url {path:?} is not among the attachments"
            )));
        }
        WorkflowUrl::Relative { path, fragment } => (path, fragment),
        WorkflowUrl::Absolute(url) => {
            let name = fetch::file_name(&url);
            if taken.iter().any(|other| collides(other, &name)) {
                return Err(Failure::Request(format!(
                    "workflow_url and an attachment would both be {name:?}; rename the attachment"
                )));
            }
            fetch::fetch(&url, &execution.join(&name), bucket, &config.limits).await?;
            (name, url.fragment().map(str::to_owned))
        }
    };
    Ok(Staged { request, workflow, fragment })
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
