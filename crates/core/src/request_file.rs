//! A RunRequest that lies in a bucket: the API's JSON body, and the attachments by their names.

use serde_json::{Map, Value};

use crate::{
    attachment::AttachmentName,
    error::ApiError,
    request::{RunRequest, WorkflowUrl},
};

/// How the keys of RunRequests end.
pub const SUFFIX: &str = ".run.json";

/// The field that names attachments, as a form has them.
const ATTACHMENTS: &str = "workflow_attachment";

/// A RunRequest and what it attaches.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestFile {
    /// The request.
    pub request: RunRequest,
    /// The files beside it that it attaches, by their paths below its folder: those that
    /// `workflow_attachment` lists, and a relative `workflow_url`.
    pub attachments: Vec<AttachmentName>,
}

impl RequestFile {
    /// Reads a file.
    ///
    /// # Errors
    /// 400 naming the field that is missing or cannot be read.
    pub fn from_json(content: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(content) {
            Ok(Value::Object(object)) => Self::from_object(object),
            Ok(_) => Err(ApiError::BadRequest(
                "the file must hold a JSON object, a RunRequest".to_owned(),
            )),
            Err(error) => Err(ApiError::BadRequest(format!("the file is not JSON: {error}"))),
        }
    }

    /// Reads a RunRequest's fields; fields that WES does not know are ignored, as by the API.
    ///
    /// # Errors
    /// 400 naming the field that is missing or of the wrong type.
    pub fn from_object(mut object: Map<String, Value>) -> Result<Self, ApiError> {
        let mut attachments = match object.remove(ATTACHMENTS) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(at, item)| match item {
                    Value::String(name) => AttachmentName::parse(Some(name), at + 1),
                    _ => Err(not_names()),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(not_names()),
        };
        let request = RunRequest::from_object(object)?;
        if let WorkflowUrl::Relative { path, .. } = WorkflowUrl::parse(&request.workflow_url)? {
            let workflow = AttachmentName::parse(Some(&path), attachments.len() + 1)?;
            if !attachments.contains(&workflow) {
                attachments.push(workflow);
            }
        }
        Ok(Self { request, attachments })
    }
}

fn not_names() -> ApiError {
    ApiError::BadRequest(format!(
        "{ATTACHMENTS} must be a list of file names, relative to the file's own folder"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<RequestFile, ApiError> {
        RequestFile::from_json(value.to_string().as_bytes())
    }

    fn with(url: &str, attachments: &Value) -> Value {
        json!({
            "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": url,
            "workflow_attachment": attachments,
        })
    }

    #[test]
    fn a_relative_workflow_is_attached_without_being_listed() {
        let names = |url: &str, attachments: Value| -> Vec<String> {
            let file = read(&with(url, &attachments)).expect("a request");
            file.attachments.iter().map(|name| name.as_str().to_owned()).collect()
        };
        assert_eq!(names("main.cwl", Value::Null), ["main.cwl"]);
        assert_eq!(names("./a%20b.cwl#main", json!(["tools/t.cwl"])), ["tools/t.cwl", "a b.cwl"]);
        assert_eq!(names("main.cwl", json!(["main.cwl", "x"])), ["main.cwl", "x"]);
        assert_eq!(names("https://example.org/a.cwl", json!([])), [""; 0]);
    }

    #[test]
    fn what_is_no_request_or_leaves_the_folder_is_refused() {
        for (bad, told) in [
            (json!([]), "a JSON object"),
            (json!({}), "workflow_type is missing"),
            (with("../main.cwl", &Value::Null), "workflow_url"),
            (with("/main.cwl", &Value::Null), "workflow_url"),
            (with("main.cwl", &json!(["../x"])), "must not contain '..'"),
            (with("main.cwl", &json!("x")), "a list of file names"),
            (with("main.cwl", &json!([1])), "a list of file names"),
        ] {
            let error = read(&bad).expect_err("refused");
            assert_eq!(error.status(), 400, "{bad}");
            assert!(error.to_string().contains(told), "{error} lacks {told}");
        }
        let error = RequestFile::from_json(b"{\"a\": ").expect_err("refused");
        assert!(error.to_string().contains("not JSON"), "{error}");
    }
}
