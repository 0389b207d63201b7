//! Objects of GA4GH's Data Repository Service by their hostname-based ids
//! (<https://ga4gh.github.io/data-repository-service-schemas/preview/release/drs-1.2.0/docs/>).

use std::{fs::File, io, path::Path};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use md5::Md5;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use url::Url;

use crate::{
    error::Failure,
    fetch::{Budget, Fetcher, Unfetched, shown},
};

/// A file as a DRS server describes it (`DrsObject`).
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Where it is described.
    place: Url,
    /// Its name, when it has one.
    pub(crate) name: Option<String>,
    size: Option<u64>,
    checksums: Vec<Checksum>,
    /// The ways to it that can be gone, the best first.
    methods: Vec<Method>,
}

#[derive(Debug, Deserialize)]
struct Description {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    checksums: Vec<Checksum>,
    #[serde(default)]
    access_methods: Option<Vec<Method>>,
    #[serde(default)]
    contents: Option<Vec<Content>>,
}

/// What a bundle holds, as it tells it (`ContentsObject`): a file or another bundle.
#[derive(Debug, Deserialize)]
struct Content {
    name: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    drs_uri: Option<Vec<String>>,
    #[serde(default)]
    contents: Option<Vec<Content>>,
}

/// The files of a bundle, and of those in it.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// Its name, when it has one.
    pub(crate) name: Option<String>,
    /// Each by its path in the bundle.
    pub(crate) files: Vec<(String, Object)>,
}

#[derive(Clone, Debug, Deserialize)]
struct Checksum {
    checksum: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Method {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    access_url: Option<AccessUrl>,
    #[serde(default)]
    access_id: Option<String>,
}

/// A URL, and headers to send there: they may be secrets, and are not shown.
#[derive(Clone, Deserialize)]
struct AccessUrl {
    url: String,
    #[serde(default)]
    headers: Option<Vec<String>>,
}

impl std::fmt::Debug for AccessUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessUrl")
    }
}

/// The kinds of access that are used, the one that needs no rights first.
const KINDS: [&str; 3] = ["https", "http", "s3"];

/// How deep bundles may lie in each other.
const MAX_DEPTH: usize = 32;

/// How many objects of a bundle are asked for at once.
const AT_ONCE: usize = 8;

/// Asks the server that a `drs://` URL names for the object.
///
/// # Errors
/// [`Unfetched`]: also for what is no file but a bundle of several.
pub(crate) async fn resolve(fetcher: &Fetcher, url: &Url) -> Result<Object, Unfetched> {
    resolve_over(fetcher, url, "https").await
}

async fn resolve_over(fetcher: &Fetcher, url: &Url, scheme: &str) -> Result<Object, Unfetched> {
    let place = place(url, scheme).ok_or_else(no_place)?;
    let mut described = describe(fetcher, &place).await?;
    match described.contents() {
        Some(contents) => Err(refused(format!(
            "it is a bundle of {}, not a file; a Directory takes it whole",
            contents.len()
        ))),
        None => object(place, described),
    }
}

/// Asks for a bundle, and for everything in it: `most` files at most.
///
/// # Errors
/// [`Unfetched`]: also for what is a single file, and for names that are none.
pub(crate) async fn bundle(fetcher: &Fetcher, url: &Url, most: usize) -> Result<Bundle, Unfetched> {
    bundle_over(fetcher, url, most, "https").await
}

async fn bundle_over(
    fetcher: &Fetcher,
    url: &Url,
    most: usize,
    scheme: &str,
) -> Result<Bundle, Unfetched> {
    let place = place(url, scheme).ok_or_else(no_place)?;
    let mut described = describe(fetcher, &place).await?;
    let contents = described.contents();
    let contents = contents
        .ok_or_else(|| refused("it is a file, not a bundle; name it as a File".to_owned()))?;
    let mut files = Vec::new();
    let mut bundles = vec![(String::new(), place, contents)];
    for _ in 0..MAX_DEPTH {
        let mut named = Vec::new();
        while let Some((above, server, contents)) = bundles.pop() {
            for content in contents {
                let path = content.path(&above)?;
                match content.contents.filter(|inner| !inner.is_empty()) {
                    Some(inner) => bundles.push((format!("{path}/"), server.clone(), inner)),
                    None => {
                        let told = content.id.as_deref().and_then(|id| beside(&server, id));
                        let uris = content.drs_uri.into_iter().flatten();
                        let mut uris = uris.filter_map(|uri| {
                            let uri = Url::parse(&uri).ok().filter(|uri| uri.scheme() == "drs")?;
                            self::place(&uri, scheme)
                        });
                        let place = told.or_else(|| uris.next()).ok_or_else(|| {
                            refused(format!("{path:?} in the bundle has neither id nor drs_uri"))
                        })?;
                        named.push((path, place));
                    }
                }
            }
            if files.len() + named.len() > most {
                return Err(refused(format!("it is a bundle of more than {most} files")));
            }
        }
        let descriptions = stream::iter(named).map(async |(path, place)| {
            let described =
                describe(fetcher, &place).await.map_err(|error| within(&path, error))?;
            Ok::<_, Unfetched>((path, place, described))
        });
        let descriptions = descriptions.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        for (path, place, mut described) in descriptions {
            match described.contents() {
                Some(inner) => bundles.push((format!("{path}/"), place, inner)),
                None => {
                    let object = object(place, described).map_err(|error| within(&path, error))?;
                    files.push((path, object));
                }
            }
        }
        if bundles.is_empty() {
            return Ok(Bundle { name: described.name, files });
        }
    }
    Err(refused(format!("it is a bundle of bundles, more than {MAX_DEPTH} deep")))
}

fn refused(text: String) -> Unfetched {
    Unfetched::Refused(text)
}

fn no_place() -> Unfetched {
    let text = "it must be drs://host/id; compact ids (drs://prefix:accession) are not looked up";
    refused(text.to_owned())
}

/// What went wrong with something in a bundle.
fn within(path: &str, error: Unfetched) -> Unfetched {
    let at = |text: String| format!("{path:?} in the bundle: {text}");
    match error {
        Unfetched::Missing(text) => Unfetched::Missing(at(text)),
        Unfetched::Refused(text) => Unfetched::Refused(at(text)),
        other => other,
    }
}

async fn describe(fetcher: &Fetcher, place: &Url) -> Result<Description, Unfetched> {
    serde_json::from_value(fetcher.json(place).await?)
        .map_err(|error| refused(format!("the server's answer is no DRS object: {error}")))
}

impl Description {
    /// Takes out what it holds, when it is a bundle.
    fn contents(&mut self) -> Option<Vec<Content>> {
        self.contents.take().filter(|contents| !contents.is_empty())
    }
}

impl Content {
    /// Its path in the bundle that was asked for; `above` is empty or ends in a slash.
    fn path(&self, above: &str) -> Result<String, Unfetched> {
        let name = &self.name;
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(refused(format!("{name:?} in the bundle is no name for a file")));
        }
        Ok(format!("{above}{name}"))
    }
}

/// The file that a description describes.
fn object(place: Url, described: Description) -> Result<Object, Unfetched> {
    let Description { name, size, checksums, access_methods, contents: _ } = described;
    let offered = access_methods.unwrap_or_default();
    let kinds: Vec<_> = offered.iter().map(|method| method.kind.clone()).collect();
    let rank = |method: &Method| KINDS.iter().position(|kind| *kind == method.kind);
    let mut methods: Vec<_> = offered.into_iter().filter(|method| rank(method).is_some()).collect();
    methods.sort_by_key(rank);
    if methods.is_empty() {
        let kinds = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        return Err(refused(format!("the server offers {kinds}; supported: {}", KINDS.join(", "))));
    }
    Ok(Object { place, name, size, checksums, methods })
}

/// Where another object of the same server is described.
fn beside(place: &Url, id: &str) -> Option<Url> {
    let mut place = place.clone();
    place.path_segments_mut().ok()?.pop().push(id);
    Some(place)
}

/// Where a `drs://` URL's object is described (DRS 1.2, "Hostname-based DRS URIs").
fn place(url: &Url, scheme: &str) -> Option<Url> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let id = url.path().strip_prefix('/').filter(|id| !id.is_empty())?;
    // In the URL it is encoded, slashes too.
    let id = percent_decode_str(id).decode_utf8().ok()?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let mut place = Url::parse(&format!("{scheme}://{host}{port}/ga4gh/drs/v1/objects")).ok()?;
    place.path_segments_mut().ok()?.push(&id);
    Some(place)
}

impl Object {
    /// The name of the file where its access URL leads, when that tells one.
    pub(crate) fn name_of_access(&self) -> Option<String> {
        let urls = self.methods.iter().filter_map(|method| method.access_url.as_ref());
        urls.filter_map(|access| Url::parse(&access.url).ok())
            .find_map(|url| crate::fetch::last_segment(&url))
    }

    /// Downloads it into the file at `path` by the first way that leads there, and checks that it
    /// is whole.
    ///
    /// # Errors
    /// [`Unfetched`], with what was tried.
    pub(crate) async fn fetch(
        &self,
        fetcher: &Fetcher,
        path: &Path,
        budget: &Budget,
    ) -> Result<(), Unfetched> {
        let mut tried = Vec::new();
        for method in &self.methods {
            match self.try_method(fetcher, method, path, budget).await {
                Ok(size) => return self.check(path, size).await,
                Err(Unfetched::Missing(text) | Unfetched::Refused(text)) => {
                    tried.push(format!("by {}: {text}", method.kind));
                }
                Err(other) => return Err(other),
            }
        }
        Err(Unfetched::Refused(tried.join("; ")))
    }

    async fn try_method(
        &self,
        fetcher: &Fetcher,
        method: &Method,
        path: &Path,
        budget: &Budget,
    ) -> Result<u64, Unfetched> {
        let refused = |text: &str| Unfetched::Refused(text.to_owned());
        let access = match (&method.access_url, &method.access_id) {
            (Some(access), _) => access.clone(),
            (None, Some(id)) => {
                let mut place = self.place.clone();
                if let Ok(mut segments) = place.path_segments_mut() {
                    segments.push("access").push(id);
                }
                serde_json::from_value(fetcher.json(&place).await?)
                    .map_err(|_| refused("the server's answer is no access URL"))?
            }
            (None, None) => return Err(refused("the server tells neither URL nor id")),
        };
        let url = Url::parse(&access.url).map_err(|_| refused("the access URL is no URL"))?;
        if !KINDS.contains(&url.scheme()) {
            return Err(refused("the access URL is neither https nor s3"));
        }
        let mut headers = HeaderMap::new();
        for header in access.headers.unwrap_or_default() {
            let (name, value) =
                header.split_once(':').ok_or_else(|| refused("a header is none"))?;
            let name = name.trim().parse::<HeaderName>();
            let value = HeaderValue::from_str(value.trim());
            let (Ok(name), Ok(mut value)) = (name, value) else {
                return Err(refused("a header of the access URL is none"));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let fetched = fetcher.fetch(&url, &headers, path, budget).await;
        let at = |text: String| format!("{}: {text}", shown(&url));
        fetched.map_err(|unfetched| match unfetched {
            Unfetched::Missing(text) => Unfetched::Missing(at(text)),
            Unfetched::Refused(text) => Unfetched::Refused(at(text)),
            other => other,
        })
    }

    /// Holds a file against the size and the strongest checksum that are told of it.
    async fn check(&self, path: &Path, size: u64) -> Result<(), Unfetched> {
        if let Some(told) = self.size.filter(|told| *told != size) {
            return Err(Unfetched::Refused(format!(
                "it has {size} bytes, and {told} by its description"
            )));
        }
        for kind in [Kind::Sha512, Kind::Sha256, Kind::Sha1, Kind::Md5] {
            let told = self.checksums.iter().find(|sum| Kind::of(&sum.kind) == Some(kind));
            let Some(told) = told else { continue };
            let path = path.to_owned();
            let found = tokio::task::spawn_blocking(move || kind.digest(&path)).await;
            let found = match found {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    return Err(Unfetched::Failed(Failure::local("checking an input", &error)));
                }
                Err(error) => {
                    let text = format!("checking an input: {error}");
                    return Err(Unfetched::Failed(Failure::Passing(text)));
                }
            };
            if !found.eq_ignore_ascii_case(told.checksum.trim()) {
                return Err(Unfetched::Refused(format!(
                    "its {} is {found}, and {} by its description",
                    told.kind, told.checksum
                )));
            }
            break;
        }
        Ok(())
    }
}

/// The checksums that can be checked (IANA's Named Information registry, and `md5`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().replace('-', "").as_str() {
            "md5" => Some(Self::Md5),
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn digest(self, path: &Path) -> io::Result<String> {
        match self {
            Self::Md5 => digest::<Md5>(path),
            Self::Sha1 => digest::<Sha1>(path),
            Self::Sha256 => digest::<Sha256>(path),
            Self::Sha512 => digest::<Sha512>(path),
        }
    }
}

fn digest<D: Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = D::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        extract::Path as Part,
        http::{HeaderMap as Heads, StatusCode},
        response::IntoResponse as _,
        routing::get,
    };
    use serde_json::{Value, json};
    use stepwes_core::drs_tokens::DrsTokens;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        bucket::Bucket,
        config::{Limits, Sources},
        hosts::Hosts,
    };

    const TEXT: &str = "ACGT\n";
    const SHA256: &str = "0c3e9c2b4dca2b1cfbd8e6cd2b94d7c93c4cf2a0b3d3d1fb1c2d1f2e2f4c9a60";

    /// A DRS server whose objects are `objects`, with their files.
    async fn serve(objects: fn(&str) -> Value) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let base = address.clone();
        let router = Router::new()
            .route("/ga4gh/drs/v1/objects/{id}", {
                get(move |Part(id): Part<String>, headers: Heads| async move {
                    if id == "closed" && headers.get("authorization").is_none() {
                        return StatusCode::UNAUTHORIZED.into_response();
                    }
                    if let Some(sent) = headers.get("authorization") {
                        assert_eq!(sent, "Bearer mine");
                    }
                    let mut object = objects(&id);
                    if object.is_null() {
                        return StatusCode::NOT_FOUND.into_response();
                    }
                    let text = object.to_string().replace("HERE", &format!("http://{base}"));
                    let text = text.replace("DRS", &format!("drs://{base}"));
                    object = serde_json::from_str(&text).expect("JSON");
                    axum::Json(object).into_response()
                })
            })
            .route("/ga4gh/drs/v1/objects/{id}/access/{access}", {
                let base = address.clone();
                get(move |Part((_, access)): Part<(String, String)>| async move {
                    assert_eq!(access, "x/y");
                    let url = format!("http://{base}/signed/a?sig=secret");
                    axum::Json(json!({"url": url, "headers": ["Authorization: Bearer t"]}))
                })
            })
            .route(
                "/signed/{access}",
                get(|headers: Heads| async move {
                    let known =
                        headers.get("authorization").is_some_and(|value| value == "Bearer t");
                    if known { TEXT.into_response() } else { StatusCode::FORBIDDEN.into_response() }
                }),
            )
            .route(
                "/data/{name}",
                get(|headers: Heads| async move {
                    assert!(!headers.contains_key("authorization"), "it is not for files");
                    TEXT
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn fetcher() -> Fetcher {
        fetcher_showing(DrsTokens::default())
    }

    fn fetcher_showing(drs_tokens: DrsTokens) -> Fetcher {
        let hosts = Hosts::allowing("127.0.0.1").expect("hosts");
        let limits =
            Limits { fetch_tries: 1, fetch_pause: std::time::Duration::ZERO, ..Limits::default() };
        let sources = Sources { hosts, drs_tokens, ..Sources::default() };
        Fetcher::new(sources, Bucket::at("http://127.0.0.1:9"), limits)
    }

    async fn get_object(address: &str, id: &str) -> Result<Vec<u8>, Unfetched> {
        let fetcher = fetcher();
        let url = Url::parse(&format!("drs://{address}/{id}")).expect("a URL");
        let object = resolve_over(&fetcher, &url, "http").await?;
        let file = tempfile::NamedTempFile::new().expect("a file");
        let budget = Budget::new(1000, "too much".to_owned());
        object.fetch(&fetcher, file.path(), &budget).await?;
        Ok(std::fs::read(file.path()).expect("read"))
    }

    fn told(result: Result<Vec<u8>, Unfetched>) -> String {
        match result {
            Err(Unfetched::Missing(text) | Unfetched::Refused(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn objects(id: &str) -> Value {
        let sha256 = hex::encode(Sha256::digest(TEXT));
        let md5 = hex::encode(Md5::digest(TEXT));
        let here = json!([{"type": "https", "access_url": {"url": "HERE/data/a.txt"}}]);
        match id {
            "plain" => json!({
                "id": id, "size": 5, "access_methods": here,
                "checksums": [{"type": "crc32c", "checksum": "x"}, {"type": "md5", "checksum": md5}],
            }),
            "a/b c" => json!({
                "id": id, "size": 5, "access_methods": [{"type": "https", "access_id": "x/y"}],
                "checksums": [{"type": "sha-256", "checksum": sha256.to_uppercase()}],
            }),
            "second way" => json!({"access_methods": [
                {"type": "gs", "access_url": {"url": "gs://bucket/a"}},
                {"type": "https", "access_url": {"url": "HERE/gone"}},
                {"type": "https", "access_url": {"url": "HERE/data/a"}},
            ]}),
            "other sum" => json!({
                "access_methods": here, "checksums": [{"type": "sha-256", "checksum": SHA256}],
            }),
            "other size" => json!({"size": 6, "access_methods": here}),
            "inside" => json!({"access_methods": [
                {"type": "https", "access_url": {"url": "http://169.254.169.254/latest"}},
            ]}),
            "file" => json!({"access_methods": [
                {"type": "https", "access_url": {"url": "file:///etc/passwd"}},
            ]}),
            "bundle" => json!({"name": "set", "contents": [
                {"name": "a.txt", "id": "plain"},
                {"name": "in line", "contents": [{"name": "b.txt", "id": "a/b c"}]},
                {"name": "inner", "id": "inner"},
            ]}),
            "closed" => json!({"size": 5, "access_methods": here}),
            "inner" => json!({"contents": [{"name": "c.txt", "drs_uri": ["gs://x", "DRS/plain"]}]}),
            "itself" => json!({"contents": [{"name": "again", "id": "itself"}]}),
            "broken" => json!({"contents": [{"name": "x", "id": "gone"}]}),
            "nowhere" => json!({"contents": [{"name": "x"}]}),
            "escaping" => json!({"contents": [{"name": "../x", "id": "plain"}]}),
            "elsewhere" => json!({"access_methods": [{"type": "globus", "access_id": "1"}]}),
            "none" => json!({"size": 5}),
            "odd" => json!({"access_methods": 3}),
            _ => Value::Null,
        }
    }

    #[tokio::test]
    async fn an_object_is_fetched_by_url_by_id_and_by_whatever_way_leads_there() {
        let address = serve(objects).await;
        for id in ["plain", "a%2Fb%20c", "second%20way"] {
            assert_eq!(get_object(&address, id).await.expect(id), TEXT.as_bytes(), "{id}");
        }
    }

    #[tokio::test]
    async fn what_is_not_what_was_described_is_refused_and_so_is_what_is_no_file() {
        let address = serve(objects).await;
        for (id, why) in [
            ("other%20sum", "its sha-256 is"),
            ("other%20size", "5 bytes, and 6"),
            ("inside", "a link-local address"),
            ("file", "neither https nor s3"),
            ("bundle", "a bundle of 3"),
            ("elsewhere", "offers globus"),
            ("none", "offers nothing"),
            ("odd", "no DRS object"),
            ("gone", "404"),
        ] {
            let told = told(get_object(&address, id).await);
            assert!(told.contains(why), "{id}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_server_is_shown_the_token_that_is_for_it_and_no_other_server_is() {
        let (address, other) = (serve(objects).await, serve(objects).await);
        let told = told(get_object(&address, "closed").await);
        assert!(told.contains("401"), "{told}");
        let showing = async |server: &str| {
            let tokens = json!({ server: "mine" }).to_string();
            let fetcher = fetcher_showing(DrsTokens::parse(&tokens).expect("a token"));
            let url = Url::parse(&format!("drs://{address}/closed")).expect("a URL");
            let object = resolve_over(&fetcher, &url, "http").await?;
            let file = tempfile::NamedTempFile::new().expect("a file");
            object.fetch(&fetcher, file.path(), &Budget::new(1000, String::new())).await
        };
        showing(&address).await.expect("fetched");
        assert!(showing(&other).await.is_err());
    }

    #[tokio::test]
    async fn a_bundle_is_known_with_all_that_is_in_it() {
        let address = serve(objects).await;
        let fetcher = fetcher();
        let bundle = async |id: &str, most| {
            let url = Url::parse(&format!("drs://{address}/{id}")).expect("a URL");
            bundle_over(&fetcher, &url, most, "http").await
        };
        let whole = bundle("bundle", 3).await.expect("a bundle");
        assert_eq!(whole.name.as_deref(), Some("set"));
        let mut paths: Vec<_> = whole.files.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["a.txt", "in line/b.txt", "inner/c.txt"]);
        let budget = Budget::new(1000, "too much".to_owned());
        for (path, object) in &whole.files {
            let file = tempfile::NamedTempFile::new().expect("a file");
            object.fetch(&fetcher, file.path(), &budget).await.expect(path);
            assert_eq!(std::fs::read(file.path()).expect("read"), TEXT.as_bytes(), "{path}");
        }
        for (id, most, why) in [
            ("bundle", 2, "more than 2 files"),
            ("plain", 9, "a file, not a bundle"),
            ("itself", 9, "more than 32 deep"),
            ("broken", 9, "\"x\" in the bundle: the server answered 404"),
            ("nowhere", 9, "neither id nor drs_uri"),
            ("escaping", 9, "no name"),
        ] {
            let told = told(bundle(id, most).await.map(|_| Vec::new()));
            assert!(told.contains(why), "{id}: {told}");
        }
    }

    #[test]
    fn ids_are_encoded_as_one_segment() {
        let at = |url: &str| place(&Url::parse(url).expect(url), "https").map(String::from);
        assert_eq!(
            at("drs://drs.example.org:8443/a%2Fb").as_deref(),
            Some("https://drs.example.org:8443/ga4gh/drs/v1/objects/a%2Fb")
        );
        assert_eq!(
            at("drs://drs.example.org/314159").as_deref(),
            Some("https://drs.example.org/ga4gh/drs/v1/objects/314159")
        );
        assert_eq!(at("drs://drs.example.org/"), None);
    }
}
