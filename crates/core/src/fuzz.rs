//! What must hold of requests, names, patterns and tokens, whoever sends what.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use serde_json::Value;
use uuid::Uuid;

use crate::{
    attachment::{AttachmentName, INPUTS_FILE, MAX_NAME_BYTES, check_collisions},
    caller_token::CallerToken,
    keys,
    request::{RunRequest, StoredRequest, WorkflowUrl},
    request_file::RequestFile,
    resources::{ResourceBounds, Resources, Sizes},
    run::RunId,
    trigger::{Pattern, Trigger},
};

/// Panics when something does not hold for an input.
pub type Property = fn(&[u8]);

/// The properties by their names.
pub const TARGETS: &[(&str, Property)] = &[
    ("attachment", attachment),
    ("request", request),
    ("request_file", request_file),
    ("resources", resources),
    ("pattern", pattern),
    ("trigger", trigger),
    ("caller_token", caller_token),
];

const RUN: RunId = RunId::from_uuid(Uuid::max());

/// Lines are the names of attachments: those that are accepted lie in their folder under the name
/// that was kept, and together they can be laid out in one.
pub fn attachment(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut names = Vec::new();
    for line in text.split('\n') {
        match AttachmentName::parse(Some(line), 1) {
            Err(error) => assert_eq!(error.status(), 400),
            Ok(name) => {
                assert_is_inside(name.as_str());
                assert!(name.as_str().len() <= MAX_NAME_BYTES);
                assert!(keys::attachment(RUN, name.as_str()).len() <= keys::MAX_KEY_BYTES);
                assert_ne!(name.as_str().split('/').next(), Some(INPUTS_FILE));
                assert_eq!(AttachmentName::parse(Some(name.as_str()), 1).as_ref(), Ok(&name));
                names.push(name);
            }
        }
    }
    let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
    let mut collide = false;
    for path in names.iter().map(|name| Path::new(name.as_str())) {
        collide |= !files.insert(path);
        folders.extend(path.ancestors().skip(1));
    }
    collide |= !files.is_disjoint(&folders);
    assert_eq!(check_collisions(&names).is_err(), collide, "{names:?}");
}

/// That a path leads to a file below the folder that it is joined to, and is written in one way.
fn assert_is_inside(name: &str) {
    let path = Path::new(name);
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
    assert_eq!(path.components().collect::<PathBuf>().to_str(), Some(name));
    assert!(path.components().all(|part| part.as_os_str().len() <= 255), "{name:?}");
    assert!(!name.is_empty() && !name.contains('\0'), "{name:?}");
}

/// A JSON body: what is accepted is what is stored and read again, and a form says the same.
pub fn request(input: &[u8]) {
    let request = match RunRequest::from_json(input) {
        Ok(request) => request,
        Err(error) => return assert_eq!(error.status(), 400),
    };
    assert_is_kept(&request);
    let mut fields = BTreeMap::new();
    let Ok(Value::Object(object)) = serde_json::to_value(&request) else { panic!("an object") };
    for (name, value) in object {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fields.insert(name, text);
    }
    assert_eq!(RunRequest::from_form(fields).as_ref(), Ok(&request));
}

fn assert_is_kept(request: &RunRequest) {
    let stored = StoredRequest {
        run_id: RUN,
        request: request.clone(),
        engine: "engine".to_owned(),
        default_parameters: request.workflow_engine_parameters.clone(),
        attachments: Vec::new(),
        destination: None,
        resumed_from: None,
    };
    let text = serde_json::to_vec(&stored).expect("plain data");
    let read: StoredRequest = serde_json::from_slice(&text).expect("what was just written");
    assert_eq!(read, stored);
    assert_eq!(read.request.fingerprint([]), request.fingerprint([]));
    serde_json::to_vec(&request.view()).expect("plain data");
    if let Ok(WorkflowUrl::Relative { path, .. }) = WorkflowUrl::parse(&request.workflow_url) {
        assert_is_inside(&path);
    }
}

/// A RunRequest that landed: it attaches what is in its folder, its own workflow among it.
pub fn request_file(input: &[u8]) {
    let file = match RequestFile::from_json(input) {
        Ok(file) => file,
        Err(error) => return assert_eq!(error.status(), 400),
    };
    assert_is_kept(&file.request);
    for name in &file.attachments {
        assert_is_inside(name.as_str());
    }
    if let Ok(WorkflowUrl::Relative { path, .. }) = WorkflowUrl::parse(&file.request.workflow_url) {
        assert!(file.attachments.iter().any(|name| name.as_str() == path), "{path:?}");
    }
}

/// `workflow_engine_parameters` as JSON: what a run gets is what it asked for at least, and never
/// more than the service has.
pub fn resources(input: &[u8]) {
    let Ok(Value::Object(parameters)) = serde_json::from_slice(input) else { return };
    let asked = match Resources::of_parameters(&parameters) {
        Ok(asked) => asked,
        Err(error) => return assert_eq!(error.status(), 400),
    };
    for sizes in [Sizes::Fargate, Sizes::Any] {
        let bounds = ResourceBounds { sizes, ..ResourceBounds::default() };
        let Ok(size) = bounds.size(&asked) else { continue };
        let number = |text: &Option<String>| text.as_deref().map(str::parse::<u32>);
        let within = |got: Option<u32>, asked: Option<u32>, max: u32| {
            assert!(asked.is_none_or(|asked| got.is_some_and(|got| got >= asked)), "{asked:?}");
            assert!(got.is_none_or(|got| got <= max), "{got:?} of {max}");
        };
        let cpu = number(&size.cpu).map(|cpu| cpu.expect("a number"));
        let memory = number(&size.memory).map(|memory| memory.expect("a number"));
        within(cpu, asked.cpu, bounds.cpu.max);
        within(memory, asked.memory, bounds.memory.max);
        if sizes == Sizes::Fargate {
            let disk = size.ephemeral_storage.map(|disk| disk.size_in_gib);
            within(disk, asked.disk, bounds.disk.max);
        }
        assert!((1..=bounds.time).contains(&bounds.time_of(&asked)));
    }
}

/// A pattern, and after a line break a key: its parts are pieces of the key that make it again.
pub fn pattern(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (pattern, key) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(pattern) = Pattern::parse(pattern) else { return };
    let Some(parts) = pattern.find(key) else { return };
    assert_eq!(pattern.key(&parts).as_deref(), Some(key));
    assert!(pattern.names().eq(pattern.names().filter(|name| parts.contains_key(*name))));
    for part in parts.values() {
        let plain = !part.contains('/') && !part.contains(char::is_control);
        assert!(!part.is_empty() && plain, "{part:?}");
    }
    if let Some((folder, _)) = key.split_once('/') {
        assert!(pattern.reaches(&format!("{folder}/")), "{folder:?}");
    }
}

/// A key, and after a line break a trigger, YAML or JSON: whichever object of a set comes, the run
/// is the same one, and no name of an object changes what is run.
pub fn trigger(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (key, content) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let file = if content.starts_with(b"{") { "t.json" } else { "t.yaml" };
    let Ok(trigger) = Trigger::parse(file, content) else { return };
    let key = String::from_utf8_lossy(key);
    let attached = trigger.attachments().expect("it could be read");
    let example = trigger.request(&trigger.example()).expect("it could be read");
    for set in trigger.matches(&trigger.bucket, &key) {
        assert!(set.objects.iter().any(|object| object.key == key));
        for object in &set.objects {
            assert!(object.key.len() <= keys::MAX_KEY_BYTES);
            assert!(trigger.matches(&trigger.bucket, &object.key).contains(&set), "{object:?}");
            let is_ours = keys::OURS.iter().any(|prefix| object.key.starts_with(prefix));
            assert!(!is_ours || trigger.check_prefixes().is_err(), "{object:?}");
        }
        let Ok(file) = trigger.request(&set) else { continue };
        assert_eq!(file.attachments, attached);
        assert_eq!(scheme(&file.request), scheme(&example.request));
        assert!(
            file.request
                .workflow_engine_parameters
                .keys()
                .eq(example.request.workflow_engine_parameters.keys()),
            "names of fields are the trigger's"
        );
    }
}

fn scheme(request: &RunRequest) -> Option<String> {
    match WorkflowUrl::parse(&request.workflow_url) {
        Ok(WorkflowUrl::Absolute(url)) => Some(url.scheme().to_owned()),
        Ok(WorkflowUrl::Relative { .. }) | Err(_) => None,
    }
}

/// An `Authorization` header: a token that is read can be sent in the plain form, and is not shown.
pub fn caller_token(input: &[u8]) {
    let Some(token) = CallerToken::from_authorization(&String::from_utf8_lossy(input)) else {
        return;
    };
    let text = token.reveal();
    let (name, _) = text.split_once('.').expect("a name and a secret");
    assert_eq!(name, token.name().as_str());
    assert_eq!(format!("{token:?}"), format!("CallerToken({name}…)"));
    let again = CallerToken::from_authorization(&format!("Bearer {text}")).expect("the same");
    assert_eq!(again.reveal(), text);
    let key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!(name.len() <= 63 && name.bytes().all(key), "{name:?} goes into a key of the table");
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_property_holds_on_its_corpus_and_on_changes_of_it() {
        stepwes_fuzz::check_all(super::TARGETS);
    }
}
