//! The RunRequest: read from a form or from JSON, validated, and kept as it was accepted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    attachment::{AttachmentName, check_collisions},
    destination::Destination,
    engines::{Engine, Engines},
    error::ApiError,
    run::{RequestSummary, RunId},
    saved::{RESUMED_FROM, ResumedFrom},
    trigger::TRIGGERED_BY,
    wes::RunRequestView,
};

/// The RunRequest's text fields, in a form or in JSON.
pub const FIELDS: [&str; 8] = [
    "workflow_params",
    "workflow_type",
    "workflow_type_version",
    "tags",
    "workflow_engine",
    "workflow_engine_version",
    "workflow_engine_parameters",
    "workflow_url",
];

/// WES 1.1 `RunRequest`, its fields read but not yet held against the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The workflow's parameters; `{}` when there are none.
    #[serde(default)]
    pub workflow_params: Map<String, Value>,
    /// `CWL`, …
    pub workflow_type: String,
    /// `v1.2`, …
    pub workflow_type_version: String,
    /// The caller's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The engine, when the caller names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_engine: Option<String>,
    /// Its version, when the caller names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_engine_version: Option<String>,
    /// Options for the engine: a value, or null for a bare flag. In the order of the request.
    #[serde(default)]
    pub workflow_engine_parameters: Map<String, Value>,
    /// The workflow: absolute, or relative to the attachments.
    pub workflow_url: String,
}

/// A request as accepted, `requests/<run_id>/request.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredRequest {
    /// The run that it made.
    pub run_id: RunId,
    /// The request.
    pub request: RunRequest,
    /// The engine that was chosen.
    pub engine: String,
    /// What the operator passes to it, as `workflow_engine_parameters` that the request's win over.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub default_parameters: Map<String, Value>,
    /// Where the run's outputs go, when that is not the runs bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// The attachments, which lie beside this file.
    pub attachments: Vec<Attachment>,
    /// The attempt of another run whose saved state this run begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<ResumedFrom>,
}

/// One stored attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its path below the execution folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The most levels that a JSON value in a request may have. What is stored holds it some levels
/// deeper, and JSON readers stop at 128.
const MAX_DEPTH: usize = 100;

/// How JSON clients name attachments, the second one being Sapporo's.
const JSON_ATTACHMENTS: [&str; 2] = ["workflow_attachment", "workflow_attachment_obj"];

/// How many levels a value has; 1 for one that holds no other.
fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

impl RunRequest {
    /// Reads the text fields of a `multipart/form-data` request.
    ///
    /// # Errors
    /// 400 naming the field that is missing or cannot be read.
    pub fn from_form(mut fields: BTreeMap<String, String>) -> Result<Self, ApiError> {
        let mut object = Map::new();
        for name in FIELDS {
            let Some(text) = fields.remove(name) else { continue };
            let value = match name {
                "workflow_params" | "tags" | "workflow_engine_parameters" => {
                    // An empty field is how `toil-wes-cwl-runner` says that there is none.
                    if text.trim().is_empty() {
                        continue;
                    }
                    serde_json::from_str(&text).map_err(|error| {
                        ApiError::BadRequest(format!("{name} is not JSON: {error}"))
                    })?
                }
                _ => Value::String(text),
            };
            object.insert(name.to_owned(), value);
        }
        Self::from_object(object)
    }

    /// Reads an `application/json` request.
    ///
    /// # Errors
    /// 400 naming the field that is missing or of the wrong type.
    pub fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::BadRequest(format!("the body is not JSON: {error}")))?;
        match value {
            Value::Object(object) => {
                let has_some = |name: &&&str| match object.get(**name) {
                    None | Some(Value::Null) => false,
                    Some(Value::Array(items)) => !items.is_empty(),
                    Some(_) => true,
                };
                if let Some(name) = JSON_ATTACHMENTS.iter().find(has_some) {
                    return Err(ApiError::BadRequest(format!(
                        "{name}: a JSON request carries no attachments; send multipart/form-data with workflow_attachment parts"
                    )));
                }
                Self::from_object(object)
            }
            _ => {
                Err(ApiError::BadRequest("the body must be a JSON object, a RunRequest".to_owned()))
            }
        }
    }

    /// Reads a RunRequest's fields; others are ignored.
    ///
    /// # Errors
    /// 400 naming the field that is missing or of the wrong type.
    pub fn from_object(mut object: Map<String, Value>) -> Result<Self, ApiError> {
        let mut text = |name: &str| match object.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::BadRequest(format!("{name} must be a string"))),
        };
        let required = |name: &str, value: Option<String>| {
            value.ok_or_else(|| ApiError::BadRequest(format!("{name} is missing; a run needs it")))
        };
        let workflow_type = required("workflow_type", text("workflow_type")?)?;
        let workflow_type_version =
            required("workflow_type_version", text("workflow_type_version")?)?;
        let workflow_url = required("workflow_url", text("workflow_url")?)?;
        let workflow_engine = text("workflow_engine")?;
        let workflow_engine_version = text("workflow_engine_version")?;
        let mut map = |name: &str| match object.remove(name) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(value @ Value::Object(_)) if depth(&value) > MAX_DEPTH => Err(
                ApiError::BadRequest(format!("{name} is nested deeper than {MAX_DEPTH} levels")),
            ),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(ApiError::BadRequest(format!("{name} must be a JSON object"))),
        };
        let workflow_params = map("workflow_params")?;
        let workflow_engine_parameters = map("workflow_engine_parameters")?;
        for (name, value) in &workflow_engine_parameters {
            if matches!(value, Value::Array(_) | Value::Object(_)) {
                return Err(ApiError::BadRequest(format!(
                    "workflow_engine_parameters: {name:?} must be a string, a number, a boolean, or null for a bare flag"
                )));
            }
        }
        let mut tags = BTreeMap::new();
        for (name, value) in map("tags")? {
            let value = scalar(&value).ok_or_else(|| {
                ApiError::BadRequest(format!(
                    "tags: {name:?} must be a string, a number or a boolean"
                ))
            })?;
            tags.insert(name, value);
        }
        if tags.contains_key(RESUMED_FROM) {
            return Err(ApiError::BadRequest(format!(
                "tags: {RESUMED_FROM:?} is this service's own; leave it out, and use POST /runs/{{run_id}}/resume to go on from a run"
            )));
        }
        if tags.contains_key(TRIGGERED_BY) {
            return Err(ApiError::BadRequest(format!(
                "tags: {TRIGGERED_BY:?} is this service's own, for runs that a trigger starts; leave it out"
            )));
        }
        Ok(Self {
            workflow_params,
            workflow_type,
            workflow_type_version,
            tags,
            workflow_engine,
            workflow_engine_version,
            workflow_engine_parameters,
            workflow_url,
        })
    }

    /// Holds the request against the service: its engines, its URL schemes and its attachments.
    /// Gives the engine that is to run it.
    ///
    /// # Errors
    /// 400 that says what is supported, or which attachment is missing.
    pub fn validate<'a>(
        &self,
        engines: &'a Engines,
        schemes: &[String],
        attachments: &[AttachmentName],
    ) -> Result<&'a Engine, ApiError> {
        let engine = engines.select(
            &self.workflow_type,
            &self.workflow_type_version,
            self.workflow_engine.as_deref(),
            self.workflow_engine_version.as_deref(),
        )?;
        check_collisions(attachments)?;
        match WorkflowUrl::parse(&self.workflow_url)? {
            WorkflowUrl::Absolute(url) => {
                if !schemes.iter().any(|scheme| scheme == url.scheme()) {
                    return Err(ApiError::BadRequest(format!(
                        "workflow_url: the scheme {:?} is not supported; supported: {}, or a path relative to the attachments",
                        url.scheme(),
                        schemes.join(", ")
                    )));
                }
            }
            WorkflowUrl::Relative { .. } if attachments.is_empty() => {
                return Err(ApiError::BadRequest(
                    "Relative 'workflow_url' but missing 'workflow_attachment'".to_owned(),
                ));
            }
            WorkflowUrl::Relative { path, .. } => {
                if !attachments.iter().any(|name| name.as_str() == path) {
                    let names: Vec<_> =
                        attachments.iter().take(10).map(AttachmentName::as_str).collect();
                    return Err(ApiError::BadRequest(format!(
                        "workflow_url {path:?} is not among the attachments; attached: {}{}",
                        names.join(", "),
                        if attachments.len() > names.len() { ", …" } else { "" }
                    )));
                }
            }
        }
        Ok(engine)
    }

    /// What identifies the request for an idempotency key: the SHA-256 of its fields and of its
    /// attachments' names and contents, in hexadecimal.
    #[must_use]
    pub fn fingerprint<'a>(
        &self,
        attachments: impl IntoIterator<Item = (&'a AttachmentName, &'a [u8])>,
    ) -> String {
        let mut hash = Sha256::new();
        let sorted: BTreeMap<_, _> = attachments.into_iter().collect();
        hash.update(sort_keys(&serde_json::to_value(self).unwrap_or_default()).to_string());
        for (name, content) in sorted {
            hash.update([0]);
            hash.update(name.as_str());
            hash.update([0]);
            hash.update(Sha256::digest(content));
        }
        hex::encode(hash.finalize())
    }

    /// The part that lists and events show.
    #[must_use]
    pub fn summary(&self, engine: &str) -> RequestSummary {
        RequestSummary {
            workflow_type: self.workflow_type.trim().to_uppercase(),
            workflow_type_version: self.workflow_type_version.clone(),
            workflow_engine: engine.to_owned(),
            workflow_url: self.workflow_url.clone(),
            tags: self.tags.clone(),
        }
    }

    /// The request as `GET /runs/{id}` shows it: a bare flag is an empty string there, since the
    /// specification allows strings only.
    #[must_use]
    pub fn view(&self) -> RunRequestView {
        RunRequestView {
            workflow_params: self.workflow_params.clone(),
            workflow_type: self.workflow_type.clone(),
            workflow_type_version: self.workflow_type_version.clone(),
            tags: self.tags.clone(),
            workflow_engine_parameters: self
                .workflow_engine_parameters
                .iter()
                .map(|(name, value)| (name.clone(), scalar(value).unwrap_or_default()))
                .collect(),
            workflow_engine: self.workflow_engine.clone(),
            workflow_engine_version: self.workflow_engine_version.clone(),
            workflow_url: self.workflow_url.clone(),
        }
    }
}

/// A string, number or boolean as a string.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The same value with every object's keys in order, so that equal values have one text.
fn sort_keys(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let names: BTreeSet<_> = map.keys().collect();
            Value::Object(
                names.into_iter().map(|name| (name.clone(), sort_keys(&map[name]))).collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sort_keys).collect()),
        other => other.clone(),
    }
}

/// A `workflow_url`, told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkflowUrl {
    /// With a scheme; its fragment is kept.
    Absolute(Url),
    /// A path below the attachments.
    Relative {
        /// The attachment's name, without `./` and percent-decoded.
        path: String,
        /// What follows `#`.
        fragment: Option<String>,
    },
}

impl WorkflowUrl {
    /// Reads a `workflow_url`.
    ///
    /// # Errors
    /// 400 when it is neither an absolute URL nor a relative path.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let text = text.trim();
        match Url::parse(text) {
            Ok(url) => Ok(Self::Absolute(url)),
            Err(url::ParseError::RelativeUrlWithoutBase) => {
                let (path, fragment) = match text.split_once('#') {
                    Some((path, fragment)) => (path, Some(fragment.to_owned())),
                    None => (text, None),
                };
                let path =
                    percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| {
                        ApiError::BadRequest(format!(
                            "workflow_url {text:?} is not UTF-8 when percent-decoded"
                        ))
                    })?;
                let name = AttachmentName::parse(Some(&path), 0).map_err(|_| {
                    ApiError::BadRequest(format!(
                        "workflow_url {text:?} must be an absolute URL or the relative path of an attachment"
                    ))
                })?;
                Ok(Self::Relative { path: name.as_str().to_owned(), fragment })
            }
            Err(error) => {
                Err(ApiError::BadRequest(format!("workflow_url {text:?} is not a URL: {error}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const MINIMAL: [(&str, &str); 3] =
        [("workflow_type", "CWL"), ("workflow_type_version", "v1.2"), ("workflow_url", "a.cwl")];

    fn validate(request: &RunRequest, attachments: &[&str]) -> Result<String, ApiError> {
        let names: Vec<_> = attachments
            .iter()
            .map(|name| AttachmentName::parse(Some(name), 1).expect("a good name"))
            .collect();
        let engines = Engines::new(vec![Engine::cwltool(Vec::new())]);
        let schemes = ["http".into(), "https".into(), "s3".into()];
        request.validate(&engines, &schemes, &names).map(|engine| engine.name.clone())
    }

    #[test]
    fn a_form_and_json_say_the_same() {
        let mut fields = form(&MINIMAL);
        fields.extend(form(&[
            ("workflow_params", r#"{"n": 1}"#),
            ("tags", r#"{"project": "x", "n": 7, "b": true}"#),
            ("workflow_engine_parameters", r#"{"--debug": null, "--outdir": "x"}"#),
        ]));
        let from_form = RunRequest::from_form(fields).expect("a good form");
        let from_json = RunRequest::from_json(
            json!({
                "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "a.cwl",
                "workflow_params": {"n": 1}, "tags": {"project": "x", "n": 7, "b": true},
                "workflow_engine_parameters": {"--debug": null, "--outdir": "x"},
            })
            .to_string()
            .as_bytes(),
        )
        .expect("good JSON");
        assert_eq!(from_form, from_json);
        assert_eq!(from_form.tags["n"], "7");
        assert_eq!(from_form.view().workflow_engine_parameters["--debug"], "");
        assert_eq!(from_form.fingerprint([]), from_json.fingerprint([]));
    }

    #[test]
    fn empty_parameters_mean_none() {
        let mut fields = form(&MINIMAL);
        fields.insert("workflow_params".into(), String::new());
        assert!(RunRequest::from_form(fields).expect("good").workflow_params.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let with = |name: &str, value: &str| {
            let mut fields = form(&MINIMAL);
            fields.insert(name.to_owned(), value.to_owned());
            RunRequest::from_form(fields).expect_err(name).to_string()
        };
        let without = |name: &str| {
            let mut fields = form(&MINIMAL);
            fields.remove(name);
            RunRequest::from_form(fields).expect_err(name).to_string()
        };
        insta::assert_snapshot!(
            [
                with("workflow_params", "{"),
                with("workflow_params", "[1]"),
                with("tags", r#"{"a": null}"#),
                with("workflow_engine_parameters", r#"{"--x": [1]}"#),
                without("workflow_type"),
                without("workflow_url"),
                RunRequest::from_json(b"[]").expect_err("an array").to_string(),
                RunRequest::from_json(br#"{"workflow_type": 1}"#).expect_err("a number").to_string(),
            ]
            .join("\n"),
            @r#"
        workflow_params is not JSON: EOF while parsing an object at line 1 column 1
        workflow_params must be a JSON object
        tags: "a" must be a string, a number or a boolean
        workflow_engine_parameters: "--x" must be a string, a number, a boolean, or null for a bare flag
        workflow_type is missing; a run needs it
        workflow_url is missing; a run needs it
        the body must be a JSON object, a RunRequest
        workflow_type must be a string
        "#
        );
    }

    #[test]
    fn attachments_in_json_are_refused_and_not_dropped() {
        let json = |attachments: Value| {
            let mut request = json!({
                "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "http://x/a.cwl",
            });
            request["workflow_attachment"] = attachments;
            RunRequest::from_json(request.to_string().as_bytes())
        };
        for none in [json!(null), json!([])] {
            assert!(json(none).is_ok());
        }
        for some in [json!(["a"]), json!("a")] {
            let told = json(some).expect_err("refused").to_string();
            assert!(told.contains("multipart/form-data"), "{told}");
        }
    }

    #[test]
    fn what_is_accepted_can_be_read_again_however_deep_it_is() {
        let nested = |levels: usize| {
            let text = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
            let mut fields = form(&MINIMAL);
            fields.insert("workflow_params".to_owned(), text);
            RunRequest::from_form(fields)
        };
        let deepest = nested(MAX_DEPTH - 1).expect("accepted");
        let stored = serde_json::to_string(&json!({"request": {"inner": deepest}})).expect("JSON");
        assert!(serde_json::from_str::<Value>(&stored).is_ok());
        let told = nested(MAX_DEPTH).expect_err("too deep").to_string();
        assert!(told.contains("workflow_params") && told.contains("100"), "{told}");
    }

    #[test]
    fn a_relative_url_needs_its_attachment() {
        let mut request = RunRequest::from_form(form(&MINIMAL)).expect("good");
        assert_eq!(
            validate(&request, &[]).expect_err("no attachment").to_string(),
            "Relative 'workflow_url' but missing 'workflow_attachment'"
        );
        assert!(
            validate(&request, &["b.cwl"])
                .expect_err("another")
                .to_string()
                .contains("attached: b.cwl")
        );
        for url in ["a.cwl", "./a.cwl", "a.cwl#main"] {
            url.clone_into(&mut request.workflow_url);
            assert_eq!(validate(&request, &["a.cwl"]), Ok("cwltool".to_owned()), "{url}");
        }
        "d%20e/a.cwl".clone_into(&mut request.workflow_url);
        assert!(validate(&request, &["d e/a.cwl"]).is_ok());
        for url in ["/etc/passwd", "../a.cwl", "file:///etc/passwd", "gopher://x/", "http://"] {
            url.clone_into(&mut request.workflow_url);
            assert_eq!(validate(&request, &["a.cwl"]).expect_err(url).status(), 400);
        }
        "https://example.org/a.cwl#main".clone_into(&mut request.workflow_url);
        assert!(validate(&request, &[]).is_ok());
    }

    #[test]
    fn a_fingerprint_knows_contents_but_not_the_order_of_keys() {
        let request = |params: Value| {
            RunRequest::from_json(
                json!({"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "a", "workflow_params": params})
                    .to_string()
                    .as_bytes(),
            )
            .expect("good")
        };
        let name = AttachmentName::parse(Some("a"), 1).expect("good");
        let ab =
            request(json!({"a": 1, "b": {"c": 2, "d": 3}})).fingerprint([(&name, b"x".as_slice())]);
        let ba =
            request(json!({"b": {"d": 3, "c": 2}, "a": 1})).fingerprint([(&name, b"x".as_slice())]);
        let other =
            request(json!({"a": 1, "b": {"c": 2, "d": 3}})).fingerprint([(&name, b"y".as_slice())]);
        assert_eq!(ab, ba);
        assert_ne!(ab, other);
    }
}
