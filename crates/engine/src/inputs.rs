//! Input files that `workflow_params` name by URL: they are fetched before the engine starts, and
//! it is given their paths. So they come over one way whatever the engine, with its guards, limits
//! and patience.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use stepwes_core::secondary_files;
use tracing::info;
use url::Url;

use crate::{
    bundle,
    drs::{self, Bundle, Object},
    error::Failure,
    fetch::{Budget, Fetcher, Unfetched, last_segment, shown},
    wdl_inputs::{Inputs, Type},
};

/// The most files that are fetched for a run.
const MAX_FILES: usize = 100_000;

/// How many are fetched at once.
const AT_ONCE: usize = 8;

/// The largest CWL document whose secondary files are looked for, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The name of a file whose URL tells none.
const UNNAMED: &str = "input";

/// What is encoded in a path that becomes a URL: all but RFC 3986's unreserved characters and `/`.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// How `workflow_params` name files.
#[derive(Debug)]
pub(crate) enum Language {
    /// By File and Directory objects, with the patterns of secondary files that are looked for
    /// beside each input.
    Cwl(BTreeMap<String, Vec<String>>),
    /// By strings where the workflow declares files.
    Wdl(Inputs),
    /// By strings; with URLs of the web if they have the name of a file.
    Snakemake,
    /// By strings; those that the engine reads itself are left to it.
    Nextflow,
    /// In the workflow's own way.
    Own,
}

impl Language {
    /// That of a workflow in the folder `execution`.
    pub(crate) fn of(
        workflow_type: &str,
        execution: &Path,
        workflow: &str,
        fragment: Option<&str>,
    ) -> Self {
        match workflow_type.trim().to_ascii_uppercase().as_str() {
            "CWL" => Self::Cwl(patterns(&execution.join(workflow), fragment)),
            "WDL" => Self::Wdl(Inputs::read(execution, workflow)),
            "SMK" => Self::Snakemake,
            "NFL" => Self::Nextflow,
            _ => Self::Own,
        }
    }

    /// Calls `visit` for every file that is elsewhere, and puts the path that it answers in its
    /// place.
    fn walk(&self, params: &mut Map<String, Value>, visit: &mut Visit<'_>) -> Result<(), String> {
        for (name, value) in params {
            let walked = match self {
                Self::Cwl(patterns) => {
                    let patterns = patterns.get(name).map(Vec::as_slice).unwrap_or_default();
                    cwl(value, patterns, visit)
                }
                Self::Wdl(inputs) => match inputs.of_key(name) {
                    Some(kind) => wdl(value, kind, inputs, visit, 0),
                    None => Ok(()),
                },
                Self::Snakemake => strings(value, is_read_by_nobody_or_a_file, visit),
                Self::Nextflow => strings(value, |url| url.scheme() == "drs", visit),
                Self::Own => Ok(()),
            };
            walked.map_err(|what| format!("workflow_params: {name}: {what}"))?;
        }
        Ok(())
    }
}

/// A file that is elsewhere.
struct Reference<'a> {
    url: Url,
    is_folder: bool,
    /// The name that it must have here.
    name: Option<String>,
    /// The patterns of files beside it that may be there.
    beside: &'a [String],
}

type Visit<'v> = dyn FnMut(Reference<'_>) -> Result<Option<PathBuf>, String> + 'v;

/// The URL that a text is, if it is one of a file that can be fetched.
fn remote(text: &str) -> Result<Option<Url>, String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https" | "s3") => {
            let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
            // What is behind it would be left out of the key.
            if url.scheme() == "s3" && url.fragment().is_some() {
                return Err(format!("{text}: write a # in a key as %23"));
            }
            Ok(Some(url))
        }
        Some("drs") => Url::parse(text).map(Some).map_err(|_| {
            format!("{text}: it must be drs://host/id; compact ids (drs://prefix:accession) are not looked up")
        }),
        _ => Ok(None),
    }
}

/// Whether a string of a configuration is a file: `s3://` and `drs://` always, a URL of the web when
/// its path ends in the name of a file with an extension. Others are services more often than not.
/// A fragment says that it is a text.
fn is_read_by_nobody_or_a_file(url: &Url) -> bool {
    if !matches!(url.scheme(), "http" | "https") {
        return true;
    }
    if url.fragment().is_some() {
        return false;
    }
    last_segment(url).and_then(|name| Some(name.rsplit_once('.')?.1.to_owned())).is_some_and(
        |end| {
            !end.is_empty()
                && end.len() <= 10
                && end.bytes().all(|byte| byte.is_ascii_alphanumeric())
        },
    )
}

/// File and Directory objects (CWL v1.2, `File`).
fn cwl(value: &mut Value, patterns: &[String], visit: &mut Visit<'_>) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| cwl(item, patterns, visit)),
        Value::Object(object) => {
            make_literal(object)?;
            if let Some(path) = of_object(object, patterns, visit)? {
                let path = path.to_string_lossy();
                let url = format!("file://{}", utf8_percent_encode(&path, PATH));
                object.remove("path");
                object.insert("location".to_owned(), url.into());
            }
            object.values_mut().try_for_each(|member| cwl(member, patterns, visit))
        }
        _ => Ok(()),
    }
}

/// Takes the URL from a Directory that lists what is in it: engines would look there.
fn make_literal(object: &mut Map<String, Value>) -> Result<(), String> {
    let is_listed = object.get("class").and_then(Value::as_str) == Some("Directory")
        && object.get("listing").is_some_and(Value::is_array);
    if !is_listed {
        return Ok(());
    }
    let location = object.get("location").or_else(|| object.get("path")).and_then(Value::as_str);
    let Some(url) = location.map(remote).transpose()?.flatten() else { return Ok(()) };
    object.remove("location");
    object.remove("path");
    if !object.contains_key("basename")
        && let Some(name) = last_segment(&without_slash(&url))
    {
        object.insert("basename".to_owned(), name.into());
    }
    Ok(())
}

/// Where the File or Directory that an object is will be, when it is elsewhere.
fn of_object(
    object: &Map<String, Value>,
    patterns: &[String],
    visit: &mut Visit<'_>,
) -> Result<Option<PathBuf>, String> {
    let class = object.get("class").and_then(Value::as_str);
    let (Some("File" | "Directory"), false) = (class, object.contains_key("listing")) else {
        return Ok(None);
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let Some(location) = text("location").or_else(|| text("path")) else { return Ok(None) };
    let Some(url) = remote(location)? else { return Ok(None) };
    let name = text("basename").map(str::to_owned);
    visit(Reference { url, is_folder: class == Some("Directory"), name, beside: patterns })
}

/// Strings of a configuration, and File objects, which say that they are files.
fn strings(
    value: &mut Value,
    is_file: fn(&Url) -> bool,
    visit: &mut Visit<'_>,
) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| strings(item, is_file, visit)),
        Value::Object(object) => match of_object(object, &[], visit)? {
            Some(path) => {
                *value = path.to_string_lossy().into();
                Ok(())
            }
            None => object.values_mut().try_for_each(|member| strings(member, is_file, visit)),
        },
        Value::String(text) => match remote(text) {
            Ok(Some(url)) if is_file(&url) => string(value, url, false, visit),
            // What is no URL after all is a text.
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn string(
    value: &mut Value,
    url: Url,
    is_folder: bool,
    visit: &mut Visit<'_>,
) -> Result<(), String> {
    if let Some(path) = visit(Reference { url, is_folder, name: None, beside: &[] })? {
        *value = path.to_string_lossy().into();
    }
    Ok(())
}

/// A value of a WDL type (WDL 1.1, "JSON Serialization of WDL").
fn wdl(
    value: &mut Value,
    kind: &Type,
    inputs: &Inputs,
    visit: &mut Visit<'_>,
    depth: usize,
) -> Result<(), String> {
    const MAX_DEPTH: usize = 100;
    if depth > MAX_DEPTH {
        return Ok(());
    }
    match (kind, value) {
        (Type::File | Type::Directory, value @ Value::String(_)) => {
            let url = remote(value.as_str().unwrap_or_default())?;
            match url {
                Some(url) => string(value, url, *kind == Type::Directory, visit),
                None => Ok(()),
            }
        }
        (Type::Array(item), Value::Array(items)) => {
            items.iter_mut().try_for_each(|value| wdl(value, item, inputs, visit, depth + 1))
        }
        (Type::Map(key, item), Value::Object(fields)) => {
            let mut mapped = Map::new();
            for (name, mut value) in std::mem::take(fields) {
                wdl(&mut value, item, inputs, visit, depth + 1)?;
                let mut name = Value::from(name);
                wdl(&mut name, key, inputs, visit, depth + 1)?;
                mapped.insert(name.as_str().unwrap_or_default().to_owned(), value);
            }
            *fields = mapped;
            Ok(())
        }
        (Type::Pair(left, right), Value::Array(both)) => {
            let kinds = [left, right];
            both.iter_mut()
                .zip(kinds)
                .try_for_each(|(value, kind)| wdl(value, kind, inputs, visit, depth + 1))
        }
        (Type::Pair(left, right), Value::Object(both)) => {
            for (name, kind) in [("left", left), ("right", right)] {
                if let Some(value) = both.get_mut(name) {
                    wdl(value, kind, inputs, visit, depth + 1)?;
                }
            }
            Ok(())
        }
        (Type::Named(name), Value::Object(fields)) => {
            let Some(members) = inputs.members(name) else { return Ok(()) };
            for (name, value) in fields {
                if let Some(kind) = members.get(name) {
                    wdl(value, kind, inputs, visit, depth + 1)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The patterns of secondary files that a CWL document declares; none when it cannot be read, which
/// the engine will tell.
fn patterns(document: &Path, fragment: Option<&str>) -> BTreeMap<String, Vec<String>> {
    let read = || {
        fs::metadata(document).ok().filter(|found| found.len() <= MAX_DOCUMENT)?;
        let text = fs::read_to_string(document).ok()?;
        serde_json::from_str(&text).ok().or_else(|| serde_saphyr::from_str::<Value>(&text).ok())
    };
    read().map(|document| secondary_files::patterns(&document, fragment)).unwrap_or_default()
}

/// A file to fetch.
struct Want {
    url: Url,
    object: Option<Object>,
    path: PathBuf,
    /// Nobody minds if there is none.
    optional: bool,
}

/// What is fetched, and where it goes: what lies together there lies together here, since tools
/// look for indexes beside their files.
struct Plan<'a> {
    root: &'a Path,
    objects: &'a HashMap<String, Object>,
    bundles: &'a HashMap<String, Bundle>,
    listings: &'a HashMap<String, Vec<String>>,
    folders: HashMap<String, usize>,
    /// The URL that each place here is for.
    places: HashMap<PathBuf, String>,
    /// The places, among `wants`, that nobody has named yet.
    optional: HashMap<PathBuf, usize>,
    wants: Vec<Want>,
}

impl Plan<'_> {
    fn add(&mut self, reference: Reference<'_>) -> Result<PathBuf, String> {
        let Reference { url, is_folder, name, beside } = reference;
        let source = url.to_string();
        let object = self.objects.get(&source);
        let name = match name {
            Some(name) if is_name(&name) => name,
            Some(name) => return Err(format!("{name:?} is no name for a file")),
            None => {
                let bundle = self.bundles.get(&source);
                let told = object
                    .and_then(|object| object.name.as_deref())
                    .or_else(|| bundle.and_then(|bundle| bundle.name.as_deref()))
                    .and_then(|name| name.rsplit('/').next())
                    .filter(|name| is_name(name))
                    .map(str::to_owned);
                let url = if is_folder { without_slash(&url) } else { url.clone() };
                told.or_else(|| object.and_then(Object::name_of_access))
                    .or_else(|| last_segment(&url))
                    .filter(|name| is_name(name))
                    .unwrap_or_else(|| UNNAMED.to_owned())
            }
        };
        let mut above = above(&url);
        let (path, is_new) = loop {
            let count = self.folders.len();
            let folder = *self.folders.entry(above.clone()).or_insert(count);
            let path = self.root.join(folder.to_string()).join(&name);
            match self.places.get(&path) {
                None => break (path, true),
                Some(other) if *other == source => break (path, false),
                // Another file of that name from there.
                Some(_) => above.push('\n'),
            }
        };
        if is_new {
            self.places.insert(path.clone(), source.clone());
            if is_folder {
                self.add_folder(&url, &path)?;
            } else {
                self.want(Want {
                    url: url.clone(),
                    object: object.cloned(),
                    path: path.clone(),
                    optional: false,
                })?;
            }
        } else if let Some(want) = self.optional.remove(&path) {
            self.wants[want].optional = false;
        }
        // A signature is for one file.
        if matches!(url.scheme(), "http" | "https" | "s3") && url.query().is_none() && !is_folder {
            self.add_beside(&url, &path, &name, beside)?;
        }
        Ok(path)
    }

    fn add_folder(&mut self, url: &Url, path: &Path) -> Result<(), String> {
        if let Some(bundle) = self.bundles.get(url.as_str()) {
            let names: Vec<_> = bundle.files.iter().map(|(name, _)| name.as_str()).collect();
            are_files(url, &names)?;
            for (name, object) in &bundle.files {
                let (url, object) = (url.clone(), Some(object.clone()));
                self.want(Want { url, object, path: path.join(name), optional: false })?;
            }
            return Ok(());
        }
        let listing = self.listings.get(url.as_str()).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<_> = listing.iter().map(String::as_str).collect();
        are_files(url, &names)?;
        for name in names {
            let encoded = utf8_percent_encode(name, PATH);
            let url = Url::parse(&format!("{}/{encoded}", without_slash(url)));
            let url = url.map_err(|error| format!("{name:?}: {error}"))?;
            self.want(Want { url, object: None, path: path.join(name), optional: false })?;
        }
        Ok(())
    }

    /// Adds what a pattern makes of the file's own name there, under what it makes of the one here.
    fn add_beside(
        &mut self,
        url: &Url,
        path: &Path,
        name: &str,
        patterns: &[String],
    ) -> Result<(), String> {
        let Some(there) = last_segment(url) else { return Ok(()) };
        for pattern in patterns {
            let here = secondary_files::name(name, pattern);
            let there = secondary_files::name(&there, pattern);
            if !is_name(&here) || !is_name(&there) {
                continue;
            }
            let path = path.with_file_name(here);
            let mut url = url.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop().push(&there);
            }
            if !self.places.contains_key(&path) {
                self.places.insert(path.clone(), url.to_string());
                self.optional.insert(path.clone(), self.wants.len());
                self.want(Want { url, object: None, path, optional: true })?;
            }
        }
        Ok(())
    }

    fn want(&mut self, want: Want) -> Result<(), String> {
        if self.wants.len() >= MAX_FILES {
            return Err(format!("a run has {MAX_FILES} input files at most"));
        }
        self.wants.push(want);
        Ok(())
    }
}

/// That these can be the paths of files in one folder, side by side.
fn are_files(folder: &Url, names: &[&str]) -> Result<(), String> {
    let all: BTreeSet<_> = names.iter().copied().collect();
    for name in names {
        bundle::relative(name).map_err(|what| format!("{}: {name:?} {what}", shown(folder)))?;
        let is_file_above = |(at, _): (usize, &str)| all.contains(&name[..at]);
        if name.contains("//") || name.match_indices('/').any(is_file_above) {
            return Err(format!("{}: {name:?} cannot be a file here", shown(folder)));
        }
    }
    if all.len() < names.len() {
        return Err(format!("{}: two files there have one name", shown(folder)));
    }
    Ok(())
}

/// Whether a file can have that name.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255
}

fn without_slash(url: &Url) -> Url {
    let mut url = url.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

/// The folder that a URL's file is in.
fn above(url: &Url) -> String {
    if url.scheme() == "drs" {
        return "drs://".to_owned();
    }
    let url = without_slash(url);
    let text = url[..url::Position::AfterPath].to_owned();
    text.rsplit_once('/').map_or(text.clone(), |(above, _)| above.to_owned())
}

/// Fetches the files that `params` name by URL into the folder `root`, and gives `params` with
/// their paths.
///
/// # Errors
/// [`Failure::Request`] naming the input and its URL; [`Failure`] as the disk or S3 fails.
pub(crate) async fn stage(
    mut params: Map<String, Value>,
    language: &Language,
    fetcher: &Fetcher,
    root: &Path,
    most: u64,
) -> Result<Map<String, Value>, Failure> {
    let mut ids = BTreeMap::new();
    let mut bundles = BTreeMap::new();
    let mut folders = BTreeMap::new();
    let mut is_any = false;
    let mut look = |reference: Reference<'_>| {
        is_any = true;
        let url = reference.url;
        match (url.scheme(), reference.is_folder) {
            ("s3", true) => {
                folders.insert(url.to_string(), url);
            }
            ("drs", true) => {
                bundles.insert(url.to_string(), url);
            }
            (scheme, true) => {
                return Err(format!(
                    "{}: a Directory cannot be listed by {scheme}; give it a listing of Files, or s3:// or drs://",
                    shown(&url)
                ));
            }
            ("drs", false) => {
                ids.insert(url.to_string(), url);
            }
            _ => {}
        }
        Ok(None)
    };
    language.walk(&mut params, &mut look).map_err(Failure::Request)?;
    if !is_any {
        return Ok(params);
    }
    let what = |url: &Url| format!("workflow_params: {}", shown(url));
    let objects = stream::iter(ids).map(async |(text, url)| {
        let object = drs::resolve(fetcher, &url).await.map_err(|error| error.of(&what(&url)))?;
        Ok::<_, Failure>((text, object))
    });
    let objects: HashMap<_, _> = objects.buffer_unordered(AT_ONCE).try_collect().await?;
    let bundles = stream::iter(bundles).map(async |(text, url)| {
        let bundle = drs::bundle(fetcher, &url, MAX_FILES).await;
        Ok::<_, Failure>((text, bundle.map_err(|error| error.of(&what(&url)))?))
    });
    let bundles: HashMap<_, _> = bundles.buffer_unordered(AT_ONCE).try_collect().await?;
    let listings = stream::iter(folders).map(async |(text, url)| {
        let listing = fetcher.list(&url, MAX_FILES).await;
        Ok::<_, Failure>((text, listing.map_err(|error| error.of(&what(&url)))?))
    });
    let listings: HashMap<_, _> = listings.buffer_unordered(AT_ONCE).try_collect().await?;
    let mut plan = Plan {
        root,
        objects: &objects,
        bundles: &bundles,
        listings: &listings,
        folders: HashMap::new(),
        places: HashMap::new(),
        optional: HashMap::new(),
        wants: Vec::new(),
    };
    let mut add = |reference: Reference<'_>| plan.add(reference).map(Some);
    language.walk(&mut params, &mut add).map_err(Failure::Request)?;
    let wants = plan.wants;
    info!("fetching {} input files", wants.len());
    let budget = Budget::new(
        most,
        format!(
            "the run's inputs are larger than {} MiB together, the most that this service fetches",
            most >> 20
        ),
    );
    let budget = &budget;
    let fetched = stream::iter(wants).map(async |want| {
        fetch(fetcher, &want, budget).await.map_err(|error| error.of(&what(&want.url)))
    });
    fetched.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(params)
}

async fn fetch(fetcher: &Fetcher, want: &Want, budget: &Budget) -> Result<(), Unfetched> {
    let path = &want.path;
    let local = |error| Unfetched::Failed(Failure::local("staging the inputs", &error));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(local)?;
    }
    let fetched = match &want.object {
        Some(object) => object.fetch(fetcher, path, budget).await,
        None => fetcher.fetch(&want.url, &HeaderMap::new(), path, budget).await.map(drop),
    };
    match fetched {
        Err(Unfetched::Missing(why) | Unfetched::Refused(why)) if want.optional => {
            info!("no secondary file {}: {why}", shown(&want.url));
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(local(error)),
                _ => Ok(()),
            }
        }
        fetched => fetched,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse as _};
    use serde_json::json;
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        bucket::Bucket,
        config::{Limits, Sources},
        hosts::Hosts,
    };

    /// A web server and an S3 whose files say their path, with those that were asked for; `.none`
    /// is not there.
    struct Web {
        url: String,
        asked: Arc<Mutex<Vec<String>>>,
        root: TempDir,
    }

    impl Web {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let asked = Arc::new(Mutex::new(Vec::new()));
            let seen = asked.clone();
            let router = Router::new().fallback(move |request: Request| async move {
                let path = request.uri().path().to_owned();
                let query = request.uri().query().unwrap_or_default();
                if query.contains("list-type=2") {
                    let keys = ["ref/a.fa", "ref/sub/b c.fa", "ref/sub/", "ref/d%25.fa"];
                    let keys = keys.map(|key| format!("<Contents><Key>{key}</Key></Contents>"));
                    let body = format!("<ListBucketResult>{}</ListBucketResult>", keys.concat());
                    return body.into_response();
                }
                seen.lock().expect("no panic").push(path.clone());
                if path.ends_with(".none") || path.contains(".none.") {
                    let body = "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>";
                    return (StatusCode::NOT_FOUND, body).into_response();
                }
                path.into_response()
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, asked, root: TempDir::new().expect("a folder") }
        }

        async fn stage(&self, params: Value, language: &Language) -> Result<Value, String> {
            self.stage_within(params, language, 1 << 20).await
        }

        async fn stage_within(
            &self,
            params: Value,
            language: &Language,
            most: u64,
        ) -> Result<Value, String> {
            let hosts = Hosts::allowing("127.0.0.1").expect("hosts");
            let limits = Limits { fetch_tries: 1, ..Limits::default() };
            let sources = Sources { hosts, ..Sources::default() };
            let fetcher = Fetcher::new(sources, Bucket::at(&self.url), limits);
            let text = params.to_string().replace("WEB", &self.url);
            let params = serde_json::from_str(&text).expect("an object");
            let staged = stage(params, language, &fetcher, self.root.path(), most).await;
            match staged {
                Ok(staged) => Ok(self.shown(staged)),
                Err(Failure::Request(reason)) => Err(reason),
                Err(other) => panic!("not the request's: {other:?}"),
            }
        }

        /// Parameters with `ROOT` for the folder of the inputs.
        fn shown(&self, params: Map<String, Value>) -> Value {
            let root = self.root.path().to_string_lossy().into_owned();
            let text = Value::Object(params).to_string().replace(&root, "ROOT");
            serde_json::from_str(&text.replace(&self.url, "WEB")).expect("JSON")
        }

        /// What a staged file says.
        fn content(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.root.path().join(path)).ok()
        }
    }

    #[tokio::test]
    async fn cwl_files_come_with_those_beside_them() {
        let web = Web::start().await;
        let patterns = [".bai", "^.idx", ".none"].map(str::to_owned).to_vec();
        let language = Language::Cwl([("reads".to_owned(), patterns)].into());
        let staged = web
            .stage(
                json!({
                    "reads": [{"class": "File", "path": "WEB/d/a%20b.bam?x=1"},
                              {"class": "File", "location": "s3://data/d/c.bam"}],
                    "listed": {"class": "File", "location": "WEB/d/e.bam", "basename": "f.bam",
                               "secondaryFiles": [{"class": "File", "location": "WEB/d/e.bam.bai"}]},
                    "record": {"in": {"class": "File", "location": "WEB/other/a%20b.bam"}},
                    "local": {"class": "File", "location": "x.txt"},
                    "literal": {"class": "File", "contents": "WEB/d/x", "basename": "x"},
                    "text": "WEB/d/text.txt",
                }),
                &language,
            )
            .await
            .expect("staged");
        assert_eq!(
            staged,
            json!({
                "reads": [{"class": "File", "location": "file://ROOT/0/a%20b.bam"},
                          {"class": "File", "location": "file://ROOT/1/c.bam"}],
                "listed": {"class": "File", "location": "file://ROOT/0/f.bam", "basename": "f.bam",
                           "secondaryFiles": [{"class": "File", "location": "file://ROOT/0/e.bam.bai"}]},
                "record": {"in": {"class": "File", "location": "file://ROOT/2/a%20b.bam"}},
                "local": {"class": "File", "location": "x.txt"},
                "literal": {"class": "File", "contents": "WEB/d/x", "basename": "x"},
                "text": "WEB/d/text.txt",
            })
        );
        for (path, content) in [
            ("0/a b.bam", Some("/d/a%20b.bam")),
            ("0/a b.bam.bai", None),
            ("1/c.bam", Some("/data/d/c.bam")),
            ("1/c.bam.bai", Some("/data/d/c.bam.bai")),
            ("1/c.idx", Some("/data/d/c.idx")),
            ("1/c.bam.none", None),
            ("0/f.bam", Some("/d/e.bam")),
        ] {
            assert_eq!(web.content(path).as_deref(), content, "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_is_fetched_once_and_another_of_its_name_lies_elsewhere() {
        let web = Web::start().await;
        let staged = web
            .stage(
                json!({"a": {"class": "File", "location": "WEB/d/x"},
                       "b": [{"class": "File", "location": "WEB/d/x"}],
                       "c": {"class": "File", "location": "WEB/d/x?v=2"}}),
                &Language::Cwl(BTreeMap::new()),
            )
            .await
            .expect("staged");
        assert_eq!(staged["a"]["location"], "file://ROOT/0/x");
        assert_eq!(staged["b"][0]["location"], "file://ROOT/0/x");
        assert_eq!(staged["c"]["location"], "file://ROOT/1/x");
        assert_eq!(web.asked.lock().expect("no panic").len(), 2);
    }

    #[tokio::test]
    async fn what_is_named_must_be_there_even_where_it_was_only_looked_for_before() {
        let web = Web::start().await;
        let language = Language::Cwl([("a".to_owned(), vec![".none".to_owned()])].into());
        let file = |name: &str| json!({"class": "File", "location": format!("WEB/d/{name}")});
        assert!(web.stage(json!({"a": file("x")}), &language).await.is_ok());
        let named = json!({"a": file("x"), "b": file("x.none")});
        let told = web.stage(named, &language).await.expect_err("missing");
        assert!(told.contains("x.none") && told.contains("404"), "{told}");
    }

    #[tokio::test]
    async fn folders_come_from_s3_whole() {
        let web = Web::start().await;
        let staged = web
            .stage(
                json!({"dir": {"class": "Directory", "location": "s3://data/ref/"},
                       "made": {"class": "Directory", "location": "WEB/x", "listing": [
                           {"class": "File", "location": "WEB/x/one"}]}}),
                &Language::Cwl(BTreeMap::new()),
            )
            .await
            .expect("staged");
        assert_eq!(staged["dir"]["location"], "file://ROOT/0/ref");
        assert_eq!(staged["made"].get("location"), None);
        assert_eq!(staged["made"]["basename"], "x");
        assert_eq!(staged["made"]["listing"][0]["location"], "file://ROOT/1/one");
        assert_eq!(web.content("0/ref/a.fa").as_deref(), Some("/data/ref/a.fa"));
        assert_eq!(web.content("0/ref/sub/b c.fa").as_deref(), Some("/data/ref/sub/b%20c.fa"));
        assert_eq!(web.content("0/ref/d%25.fa").as_deref(), Some("/data/ref/d%2525.fa"));
        let by_web = json!({"dir": {"class": "Directory", "location": "WEB/ref/"}});
        let told = web.stage(by_web, &Language::Cwl(BTreeMap::new())).await.expect_err("refused");
        assert!(told.contains("dir") && told.contains("listing"), "{told}");
    }

    #[tokio::test]
    async fn wdl_files_are_those_that_the_workflow_declares() {
        let web = Web::start().await;
        let folder = TempDir::new().expect("a folder");
        let document = "version 1.0\nstruct S { File f String s }\nworkflow w { input { File a \
                        Array[File?] b Map[String, File] c Map[File, Int] d Pair[File, String] e \
                        S s String text } }";
        fs::write(folder.path().join("w.wdl"), document).expect("written");
        let language = Language::of("wdl", folder.path(), "w.wdl", None);
        let staged = web
            .stage(
                json!({"w.a": "WEB/d/1", "w.b": ["WEB/d/2", null, "here"], "w.c": {"WEB/k": "WEB/d/3"},
                       "w.d": {"WEB/d/4": 1}, "w.e": {"left": "s3://data/5", "right": "WEB/t"},
                       "w.s": {"f": "WEB/d/6", "s": "WEB/t"}, "w.text": "WEB/t", "other": "WEB/t"}),
                &language,
            )
            .await
            .expect("staged");
        assert_eq!(
            staged,
            json!({"w.a": "ROOT/0/1", "w.b": ["ROOT/0/2", null, "here"], "w.c": {"WEB/k": "ROOT/0/3"},
                   "w.d": {"ROOT/0/4": 1}, "w.e": {"left": "ROOT/1/5", "right": "WEB/t"},
                   "w.s": {"f": "ROOT/0/6", "s": "WEB/t"}, "w.text": "WEB/t", "other": "WEB/t"})
        );
        assert_eq!(web.content("1/5").as_deref(), Some("/data/5"));
    }

    #[tokio::test]
    async fn strings_of_a_configuration_are_files_when_they_can_be_nothing_else() {
        let web = Web::start().await;
        let params = json!({"reads": ["WEB/d/a.fastq.gz?download=1", "s3://data/x"], "api": "WEB/v1/lookup",
                            "site": "WEB", "note": "see WEB/a.txt", "n": 3, "text": "WEB/a.txt#",
                            "sure": {"class": "File", "location": "WEB/v1/data"}});
        let staged = web.stage(params.clone(), &Language::Snakemake).await.expect("staged");
        assert_eq!(
            staged,
            json!({"reads": ["ROOT/0/a.fastq.gz", "ROOT/1/x"], "api": "WEB/v1/lookup", "site": "WEB",
                   "note": "see WEB/a.txt", "n": 3, "text": "WEB/a.txt#", "sure": "ROOT/2/data"})
        );
        let staged = web.stage(params.clone(), &Language::Nextflow).await.expect("staged");
        assert_eq!(staged["reads"], json!(["WEB/d/a.fastq.gz?download=1", "s3://data/x"]));
        assert_eq!(staged["sure"], "ROOT/0/data");
        let staged = web.stage(params.clone(), &Language::Own).await.expect("staged");
        assert_eq!(staged, params);
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_named_with_its_url_and_its_reason() {
        let web = Web::start().await;
        let language = Language::Cwl(BTreeMap::new());
        for (location, why) in [
            ("WEB/gone.none", "404"),
            ("s3://data/gone.none", "NoSuchKey"),
            ("s3://data/", "no object"),
            ("s3://data/a?b", "%3F"),
            ("s3://data/a#b", "%23"),
            ("http://169.254.169.254/latest/meta-data/", "link-local"),
            ("http://[::ffff:10.0.0.1]/", "private"),
            ("drs://dg.4503:abc", "compact ids"),
            ("drs://127.0.0.1:9/x", "could not be fetched"),
            ("http://", "no URL"),
        ] {
            let params = json!({"in": {"class": "File", "location": location}});
            let told = web.stage(params, &language).await.expect_err(location);
            assert!(told.contains(why) && told.contains("workflow_params"), "{location}: {told}");
        }
        let named = json!({"in": {"class": "File", "location": "WEB/a", "basename": "../a"}});
        let told = web.stage(named, &language).await.expect_err("a name");
        assert!(told.contains("\"../a\" is no name"), "{told}");
    }

    #[tokio::test]
    async fn a_run_s_inputs_together_have_a_limit() {
        let web = Web::start().await;
        let file = |name: &str| json!({"class": "File", "location": format!("WEB/{name}")});
        let params = json!({"a": file("four"), "b": file("five")});
        let language = Language::Cwl(BTreeMap::new());
        assert!(web.stage_within(params.clone(), &language, 10).await.is_ok());
        let told = web.stage_within(params, &language, 9).await.expect_err("too much");
        assert!(told.contains("together"), "{told}");
    }
}
