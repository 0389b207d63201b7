//! The engine's outputs as the run shows them: every File and Directory below the output directory
//! an `s3://` URL.
//!
//! The URLs hold the keys as they are, not percent-encoded: that is how the AWS CLI, boto3-based
//! tools and the engines themselves read `s3://`.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use stepwes_core::task::{EngineOutputs, OUTDIR_SCHEME, OutputFile, TaskResult};
use thiserror::Error;

/// The longest key that S3 takes, in bytes.
const MAX_KEY: usize = 1024;

/// The result's outputs cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutputsError {
    /// A path that would lead out of the output directory, or that has no one meaning.
    #[error("the output path {0:?} is not a plain path below the output directory")]
    Path(String),
    /// The engine names a file that its task did not upload.
    #[error("the outputs name the file {0:?}, which was not uploaded")]
    NotUploaded(String),
}

/// The output object of a run (WES 1.1, `RunLog.outputs`): the engine's own with its locations
/// mapped, or a listing of the files when it has none. Their keys begin with `prefix`, and `url`
/// gives the URL of a key.
///
/// # Errors
/// [`OutputsError`] when a path is not below the output directory, or a file was not uploaded.
pub fn collected(
    prefix: &str,
    result: &TaskResult,
    url: impl Fn(&str) -> String,
) -> Result<Value, OutputsError> {
    for file in &result.files {
        if !is_plain(&file.path) || prefix.len() + file.path.len() > MAX_KEY {
            return Err(OutputsError::Path(file.path.clone()));
        }
    }
    let outputs = Outputs {
        files: result.files.iter().map(|file| (file.path.as_str(), file)).collect(),
        url: |path: &str| url(format!("{prefix}{path}").trim_end_matches('/')),
    };
    match &result.outputs {
        EngineOutputs::Listing => Ok(json!({
            "files": result.files.iter().map(|file| outputs.listed(file)).collect::<Vec<_>>(),
        })),
        EngineOutputs::Cwl { object } => outputs.mapped(object),
    }
}

struct Outputs<'a, U> {
    files: HashMap<&'a str, &'a OutputFile>,
    url: U,
}

impl<U: Fn(&str) -> String> Outputs<'_, U> {
    /// A file of a listing.
    fn listed(&self, file: &OutputFile) -> Value {
        json!({
            "class": "File",
            "location": (self.url)(&file.path),
            "path": file.path,
            "size": file.size,
            "checksum": checksum(file),
        })
    }

    /// A value with every File and Directory in it mapped, however deep.
    fn mapped(&self, value: &Value) -> Result<Value, OutputsError> {
        match value {
            Value::Array(items) => items
                .iter()
                .map(|item| self.mapped(item))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Value::Object(fields) => {
                let mut fields = fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.mapped(value)?)))
                    .collect::<Result<Map<_, _>, OutputsError>>()?;
                self.locate(&mut fields)?;
                Ok(Value::Object(fields))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(value.clone()),
        }
    }

    /// Maps the location of a File or Directory (CWL v1.2, section "File"). What the engine says of
    /// a file's size and content gives way to what its task has uploaded; `path`, where the file
    /// was in the task, leads nowhere any more.
    fn locate(&self, fields: &mut Map<String, Value>) -> Result<(), OutputsError> {
        let is_file = match fields.get("class").and_then(Value::as_str) {
            Some("File") => true,
            Some("Directory") => false,
            _ => return Ok(()),
        };
        let Some(location) = fields.get("location").and_then(Value::as_str) else { return Ok(()) };
        let Some(encoded) = location.strip_prefix(OUTDIR_SCHEME) else { return Ok(()) };
        let wrong = || OutputsError::Path(encoded.to_owned());
        let path = percent_decode_str(encoded).decode_utf8().map_err(|_| wrong())?.into_owned();
        if is_file {
            if !is_plain(&path) {
                return Err(wrong());
            }
            let Some(file) = self.files.get(path.as_str()) else {
                return Err(OutputsError::NotUploaded(path));
            };
            fields.insert("location".to_owned(), json!((self.url)(&path)));
            fields.insert("size".to_owned(), json!(file.size));
            fields.insert("checksum".to_owned(), json!(checksum(file)));
        } else {
            // An empty directory has no object in S3, so there is nothing to look for.
            let path = path.strip_suffix('/').unwrap_or(&path);
            if !path.is_empty() && !is_plain(path) {
                return Err(wrong());
            }
            fields.insert("location".to_owned(), json!((self.url)(path)));
        }
        fields.shift_remove("path");
        Ok(())
    }
}

/// As CWL writes it.
fn checksum(file: &OutputFile) -> String {
    format!("sha1${}", file.sha1)
}

/// Whether a path is below its directory whatever reads it: no empty, `.` or `..` part, no NUL.
fn is_plain(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
