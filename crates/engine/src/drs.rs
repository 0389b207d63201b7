//! Objects of GA4GH's Data Repository Service by their hostname-based ids
//! (<https://ga4gh.github.io/data-repository-service-schemas/preview/release/drs-1.2.0/docs/>).

use std::{fs::File, io, path::Path};

use md5::Md5;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
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
    contents: Option<Vec<Value>>,
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

/// Asks the server that a `drs://` URL names for the object.
///
/// # Errors
/// [`Unfetched`]: also for what is no file but a bundle of several.
pub(crate) async fn resolve(fetcher: &Fetcher, url: &Url) -> Result<Object, Unfetched> {
    resolve_over(fetcher, url, "https").await
}

async fn resolve_over(fetcher: &Fetcher, url: &Url, scheme: &str) -> Result<Object, Unfetched> {
    let refused = |text: String| Unfetched::Refused(text);
    let place = place(url, scheme).ok_or_else(|| {
        refused(
            "it must be drs://host/id; compact ids (drs://prefix:accession) are not looked up"
                .to_owned(),
        )
    })?;
    let described = fetcher.json(&place).await?;
    let Description { name, size, checksums, access_methods, contents } =
        serde_json::from_value(described)
            .map_err(|error| refused(format!("the server's answer is no DRS object: {error}")))?;
    if let Some(contents) = contents.filter(|contents| !contents.is_empty()) {
        return Err(refused(format!(
            "it is a bundle of {}, not a file; name the files in it one by one",
            contents.len()
        )));
    }
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
    use serde_json::json;
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
                get(move |Part(id): Part<String>| async move {
                    let mut object = objects(&id);
                    if object.is_null() {
                        return StatusCode::NOT_FOUND.into_response();
                    }
                    let text = object.to_string().replace("HERE", &format!("http://{base}"));
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
            .route("/data/{name}", get(|| async { TEXT }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn get_object(address: &str, id: &str) -> Result<Vec<u8>, Unfetched> {
        let hosts = Hosts::allowing("127.0.0.1").expect("hosts");
        let limits =
            Limits { fetch_tries: 1, fetch_pause: std::time::Duration::ZERO, ..Limits::default() };
        let sources = Sources { hosts, ..Sources::default() };
        let fetcher = Fetcher::new(sources, Bucket::at("http://127.0.0.1:9"), limits);
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
            "bundle" => json!({"contents": [{"name": "a"}, {"name": "b"}]}),
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
            ("bundle", "a bundle of 2"),
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
