//! Files from elsewhere: `http(s)://`, `s3://`, and `file://` below the operator's folders. Each is
//! streamed to the disk, and goes on where it broke off.

use std::{
    io,
    os::fd::AsRawFd as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use reqwest::{
    Client, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
        LAST_MODIFIED, RANGE, RETRY_AFTER,
    },
    redirect,
};
use serde_json::Value;
use stepwes_core::attachment::AttachmentName;
use tokio::{
    fs::File,
    io::{AsyncWriteExt as _, BufWriter},
    sync::OnceCell,
    time::Instant,
};
use tracing::warn;
use url::Url;

use crate::{
    bucket::{self, Bucket},
    config::{Limits, Sources},
    error::{Failure, chain},
    hosts::Refused,
    http, reachable,
    report::PAUSES,
};

/// The name of a workflow whose URL names no file.
const UNNAMED: &str = "workflow";

/// The most redirects that are followed, as in curl's and browsers' habits.
const MAX_REDIRECTS: usize = 10;

/// The longest pause that a server may ask for before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How much is written to the disk at once, in bytes.
const WRITE: usize = 512 * 1024;

/// The largest answer of a service that tells where a file is, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The name that a workflow from `url` gets in the execution folder: its last path segment.
pub(crate) fn file_name(url: &Url) -> String {
    last_segment(url).unwrap_or_else(|| UNNAMED.to_owned())
}

/// The last segment of a URL's path, when a file can have that name.
pub(crate) fn last_segment(url: &Url) -> Option<String> {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    let decoded = percent_decode_str(last).decode_utf8_lossy();
    match AttachmentName::parse(Some(&decoded), 1) {
        Ok(name) if !name.as_str().contains('/') => Some(name.as_str().to_owned()),
        _ => None,
    }
}

/// The URL as it may be shown: without a user's name and password, and without the query, which
/// may be a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that have no room for them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.to_string()
}

/// Why a file was not fetched.
#[derive(Debug)]
pub(crate) enum Unfetched {
    /// There is none.
    Missing(String),
    /// It cannot be had, or must not be.
    Refused(String),
    /// It is more than a run may have.
    TooMuch(String),
    /// The service's own fault.
    Failed(Failure),
}

impl Unfetched {
    /// The failure of an attempt that wanted `what`.
    pub(crate) fn of(self, what: &str) -> Failure {
        match self {
            Self::Missing(text) | Self::Refused(text) | Self::TooMuch(text) => {
                Failure::Request(format!("{what}: {text}"))
            }
            Self::Failed(failure) => failure,
        }
    }
}

/// How many bytes may be fetched, by one file or several.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    used: AtomicU64,
    beyond: String,
}

impl Budget {
    /// A budget of `most` bytes, and what is said of more.
    pub(crate) fn new(most: u64, beyond: String) -> Self {
        Self { most, used: AtomicU64::new(0), beyond }
    }

    fn take(&self, bytes: u64) -> Result<(), Unfetched> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        if used.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        self.give_back(bytes);
        Err(self.exceeded())
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Refuses what will not fit, before it is fetched.
    fn has_room(&self, bytes: u64) -> Result<(), Unfetched> {
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(bytes) <= self.most { Ok(()) } else { Err(self.exceeded()) }
    }

    fn exceeded(&self) -> Unfetched {
        Unfetched::TooMuch(self.beyond.clone())
    }
}

/// A file that is being fetched.
struct Sink<'a> {
    path: &'a Path,
    budget: &'a Budget,
    file: Option<BufWriter<File>>,
    /// How much of it there is.
    size: u64,
    /// How much of it there was at most.
    furthest: u64,
}

impl<'a> Sink<'a> {
    fn new(path: &'a Path, budget: &'a Budget) -> Self {
        Self { path, budget, file: None, size: 0, furthest: 0 }
    }

    /// Begins anew.
    async fn restart(&mut self) -> Result<(), Unfetched> {
        self.budget.give_back(self.size);
        self.size = 0;
        let file = File::create(self.path).await.map_err(|error| self.local(&error))?;
        self.file = Some(BufWriter::with_capacity(WRITE, file));
        Ok(())
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), Unfetched> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.budget.take(piece.len() as u64)?;
        self.size += piece.len() as u64;
        self.furthest = self.furthest.max(self.size);
        let written = file.write_all(piece).await;
        written.map_err(|error| self.local(&error))
    }

    async fn finish(&mut self) -> Result<(), Unfetched> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let flushed = file.flush().await;
        flushed.map_err(|error| self.local(&error))
    }

    fn local(&self, error: &io::Error) -> Unfetched {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        Unfetched::Failed(Failure::local(&format!("staging {name:?}"), error))
    }
}

/// Why one try did not succeed.
enum Trouble {
    /// Trying again may help; not before that pause, when the server asks for one.
    Passing(String, Option<Duration>),
    /// It will not.
    Settled(Unfetched),
}

impl From<Unfetched> for Trouble {
    fn from(unfetched: Unfetched) -> Self {
        Self::Settled(unfetched)
    }
}

/// What is known of a file on a web server, to go on with the same.
#[derive(Default)]
struct Version {
    /// Its strong entity tag, else its time of change (RFC 9110, section 13.1.5).
    validator: Option<HeaderValue>,
    total: Option<u64>,
}

impl Version {
    fn of(answer: &Response) -> Self {
        let headers = answer.headers();
        let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
        let validator = strong.or_else(|| headers.get(LAST_MODIFIED)).cloned();
        Self { validator, total: answer.content_length() }
    }
}

/// Fetches files, within what the operator allows.
#[derive(Debug)]
pub(crate) struct Fetcher {
    sources: Sources,
    bucket: Bucket,
    limits: Limits,
    /// Made when it is needed: the system's certificates take their time.
    client: OnceCell<Client>,
}

impl Fetcher {
    /// A fetcher that reads S3 as `bucket` does.
    pub(crate) fn new(sources: Sources, bucket: Bucket, limits: Limits) -> Self {
        Self { sources, bucket, limits, client: OnceCell::new() }
    }

    /// Downloads the workflow at `url` into the file at `path`.
    ///
    /// # Errors
    /// [`Failure::Request`] naming the URL and what is wrong with it; [`Failure::Service`] when it
    /// cannot be stored.
    pub(crate) async fn workflow(&self, url: &Url, path: &Path) -> Result<(), Failure> {
        let most = self.limits.fetch_bytes;
        let budget = Budget::new(most, format!("it is larger than {most} bytes"));
        let fetched = async { self.fetch(url, &HeaderMap::new(), path, &budget).await };
        let fetched = if matches!(url.scheme(), "http" | "https") {
            // A server that sends a byte now and then must not keep a run waiting for days.
            let seconds = self.limits.fetch_total.as_secs();
            let late = || Unfetched::Refused(format!("it could not be fetched within {seconds} s"));
            let fetched = tokio::time::timeout(self.limits.fetch_total, fetched).await;
            fetched.unwrap_or_else(|_| Err(late()))
        } else {
            fetched.await
        };
        fetched.map(drop).map_err(|error| error.of(&format!("workflow_url {}", shown(url))))
    }

    /// Downloads what is at `url` into the file at `path`, and gives its size in bytes.
    ///
    /// # Errors
    /// [`Unfetched`].
    pub(crate) async fn fetch(
        &self,
        url: &Url,
        headers: &HeaderMap,
        path: &Path,
        budget: &Budget,
    ) -> Result<u64, Unfetched> {
        let mut sink = Sink::new(path, budget);
        match url.scheme() {
            "http" | "https" => self.http(url, headers, &mut sink).await?,
            "s3" => self.s3(url, &mut sink).await?,
            "file" => self.file(url, &mut sink).await?,
            other => {
                return Err(Unfetched::Refused(format!("the scheme {other:?} is not supported")));
            }
        }
        sink.finish().await?;
        Ok(sink.size)
    }

    async fn client(&self) -> Result<&Client, Unfetched> {
        let make = || async {
            let hosts = self.sources.hosts.clone();
            let follow = redirect::Policy::custom(move |hop| {
                if hop.previous().len() > MAX_REDIRECTS {
                    return hop.error(format!("more than {MAX_REDIRECTS} redirects"));
                }
                match hosts.check(hop.url()) {
                    Ok(()) => hop.follow(),
                    Err(refused) => hop.error(refused),
                }
            });
            http::builder()
                .connect_timeout(self.limits.fetch_connect)
                .read_timeout(self.limits.fetch_idle)
                .redirect(follow)
                // It would tell the next server a signature.
                .referer(false)
                .dns_resolver(self.sources.hosts.clone())
                .build()
        };
        self.client.get_or_try_init(make).await.map_err(|error| {
            let text = format!("no HTTP client can be made: {}", chain(&error));
            Unfetched::Failed(Failure::Service(text))
        })
    }

    /// Repeats `attempt` until it succeeds, fails for good, or has come no further several times.
    async fn in_tries<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> (u64, Result<T, Trouble>),
    ) -> Result<T, Unfetched> {
        let (mut furthest, mut pause, mut tries) = (0, self.limits.fetch_pause, 1);
        loop {
            let (reached, done) = attempt().await;
            let (text, asked) = match done {
                Ok(done) => return Ok(done),
                Err(Trouble::Settled(unfetched)) => return Err(unfetched),
                Err(Trouble::Passing(text, asked)) => (text, asked),
            };
            if reached > furthest {
                (furthest, pause, tries) = (reached, self.limits.fetch_pause, 1);
            } else if tries >= self.limits.fetch_tries {
                let text = format!("it could not be fetched in {tries} tries: {text}");
                return Err(Unfetched::Refused(text));
            } else {
                tries += 1;
            }
            warn!("a server of files: {text}; trying again");
            tokio::time::sleep(asked.unwrap_or_default().max(pause)).await;
            pause *= 2;
        }
    }

    /// One request, whose answer is good as far as its status tells.
    async fn ask(&self, url: &Url, headers: HeaderMap) -> Result<Response, Trouble> {
        let refused = |why: &Refused| Unfetched::Refused(why.to_string());
        self.sources.hosts.check(url).map_err(|why| refused(&why))?;
        let request = self.client().await?.get(url.clone()).headers(headers);
        let answer = request.send().await.map_err(|error| match Refused::within(&error) {
            Some(why) => refused(why).into(),
            None if error.is_redirect() => Unfetched::Refused(chain(&error.without_url())).into(),
            None => self.network(error),
        })?;
        let status = answer.status();
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = asked.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let pause = pause.map(|pause| pause.min(LONGEST_PAUSE));
        let text = format!("the server answered {status}");
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(answer)
            }
            // A DRS server's way to say that it is still at it.
            StatusCode::ACCEPTED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Err(Trouble::Passing(text, pause))
            }
            status if status.is_server_error() => Err(Trouble::Passing(text, pause)),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(Unfetched::Missing(text).into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = format!("{text}: whoever has no account there must be able to read it");
                Err(Unfetched::Refused(text).into())
            }
            _ => Err(Unfetched::Refused(text).into()),
        }
    }

    fn network(&self, error: reqwest::Error) -> Trouble {
        let silent = error.is_timeout() && !error.is_connect();
        let text = chain(&error.without_url());
        let seconds = self.limits.fetch_idle.as_secs();
        let text = if silent { format!("the server said nothing for {seconds} s") } else { text };
        Trouble::Passing(text, None)
    }

    async fn http(
        &self,
        url: &Url,
        headers: &HeaderMap,
        sink: &mut Sink<'_>,
    ) -> Result<(), Unfetched> {
        let mut version = Version::default();
        self.in_tries(async || {
            let done = self.try_http(url, headers, &mut version, sink).await;
            // What has come is there for the next try.
            let done = match sink.finish().await {
                Err(unfetched) => Err(unfetched.into()),
                Ok(()) => done,
            };
            (sink.furthest, done)
        })
        .await
    }

    async fn try_http(
        &self,
        url: &Url,
        headers: &HeaderMap,
        version: &mut Version,
        sink: &mut Sink<'_>,
    ) -> Result<(), Trouble> {
        let mut headers = headers.clone();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let from = sink.size;
        let goes_on = match &version.validator {
            Some(validator) if from > 0 => {
                headers.insert(IF_RANGE, validator.clone());
                headers.insert(RANGE, range_from(from));
                true
            }
            _ => false,
        };
        let mut answer = self.ask(url, headers).await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            version.validator = None;
            return Err(Trouble::Passing("the file has become shorter".to_owned(), None));
        }
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let (begins, total) = content_range(&answer).unwrap_or((u64::MAX, None));
            let same = total.is_none() || version.total.is_none() || total == version.total;
            if !goes_on || begins != from || !same {
                version.validator = None;
                let text = "the server answered with another part than the one asked for";
                return Err(Trouble::Passing(text.to_owned(), None));
            }
        } else {
            *version = Version::of(&answer);
            sink.restart().await?;
        }
        if let Some(length) = answer.content_length() {
            sink.budget.has_room(length)?;
        }
        while let Some(piece) = answer.chunk().await.map_err(|error| self.network(error))? {
            sink.write(&piece).await?;
        }
        match version.total {
            Some(total) if total != sink.size => {
                let text = format!("the server sent {} bytes of {total}", sink.size);
                Err(Trouble::Passing(text, None))
            }
            _ => Ok(()),
        }
    }

    /// What a DRS server says at `url`; it is shown its token, if it has one.
    ///
    /// # Errors
    /// [`Unfetched`], also when it is no JSON.
    pub(crate) async fn json(&self, url: &Url) -> Result<Value, Unfetched> {
        self.in_tries(async || (0, self.try_json(url).await)).await
    }

    async fn try_json(&self, url: &Url) -> Result<Value, Trouble> {
        // The client takes it off when it is led to another server.
        let token = self.sources.drs_tokens.of(url);
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let headers = header.map(|mut header| {
            header.set_sensitive(true);
            HeaderMap::from_iter([(AUTHORIZATION, header)])
        });
        let mut answer = self.ask(url, headers.unwrap_or_default()).await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.network(error))? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER {
                let text = format!("the answer is larger than {MAX_ANSWER} bytes");
                return Err(Unfetched::Refused(text).into());
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            Unfetched::Refused(format!("the server's answer is not JSON: {error}")).into()
        })
    }

    async fn s3(&self, url: &Url, sink: &mut Sink<'_>) -> Result<(), Unfetched> {
        let (name, key) = s3_place(url)?;
        if key.is_empty() || key.ends_with('/') {
            return Err(Unfetched::Refused("it names no object".to_owned()));
        }
        let (mut tag, mut furthest) = (None, 0);
        let (mut pause, mut end) = (PAUSES.0, Instant::now() + self.limits.patience);
        loop {
            let done = self.try_s3(&name, &key, &mut tag, sink).await;
            sink.finish().await?;
            let text = match done {
                Ok(()) => return Ok(()),
                Err(Trouble::Settled(unfetched)) => return Err(unfetched),
                Err(Trouble::Passing(text, _)) => text,
            };
            if sink.furthest > furthest {
                furthest = sink.furthest;
                (pause, end) = (PAUSES.0, Instant::now() + self.limits.patience);
            } else if Instant::now() + pause >= end {
                let text = format!("staging {}: {text}", shown(url));
                return Err(Unfetched::Failed(Failure::Passing(text)));
            }
            warn!("{}: {text}; trying again in {pause:?}", shown(url));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn try_s3(
        &self,
        name: &str,
        key: &str,
        tag: &mut Option<String>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Trouble> {
        let from = if tag.is_some() { sink.size } else { 0 };
        let passing = |text: String| Trouble::Passing(text, None);
        let begun = self.bucket.begin(name, key, from, tag.as_deref().filter(|_| from > 0)).await;
        let mut object = begun.map_err(|fault| match fault {
            bucket::Fault::Passing(text) => passing(text),
            bucket::Fault::Missing(text) => Unfetched::Missing(text).into(),
            // It has changed, or ends before that.
            bucket::Fault::Refused(text) if from > 0 => {
                *tag = None;
                passing(text)
            }
            bucket::Fault::Refused(text) => Unfetched::Refused(text).into(),
            bucket::Fault::Local(error) => sink.local(&error).into(),
        })?;
        if from == 0 {
            sink.restart().await?;
        }
        *tag = object.e_tag().map(str::to_owned);
        let length = object.content_length().and_then(|length| u64::try_from(length).ok());
        sink.budget.has_room(length.unwrap_or_default())?;
        while let Some(piece) = object.body.next().await {
            let piece = piece.map_err(|error| passing(chain(&error)))?;
            sink.write(&piece).await?;
        }
        Ok(())
    }

    /// The paths of the objects in an `s3://` folder.
    ///
    /// # Errors
    /// [`Unfetched`], also when there are more than `most`.
    pub(crate) async fn list(&self, url: &Url, most: usize) -> Result<Vec<String>, Unfetched> {
        let (name, key) = s3_place(url)?;
        let prefix = if key.is_empty() || key.ends_with('/') { key } else { format!("{key}/") };
        let listed = self.bucket.list(&name, &prefix, most).await;
        let keys = listed.map_err(|fault| match fault {
            bucket::Fault::Missing(text) => Unfetched::Missing(text),
            bucket::Fault::Refused(text) => Unfetched::Refused(text),
            other => Unfetched::Failed(other.of_service(&format!("listing {}", shown(url)))),
        })?;
        if keys.is_empty() {
            return Err(Unfetched::Missing("there is nothing in it".to_owned()));
        }
        Ok(keys.into_iter().map(|key| key[prefix.len()..].to_owned()).collect())
    }

    /// Copies a file of this machine's from below a folder that the operator names.
    async fn file(&self, url: &Url, sink: &mut Sink<'_>) -> Result<(), Unfetched> {
        let refused = |text: String| Unfetched::Refused(text);
        if self.sources.file_roots.is_empty() {
            return Err(refused("file:// URLs are not read by this service".to_owned()));
        }
        let path = url
            .to_file_path()
            .map_err(|()| refused("it is no path of this machine: file:///path".to_owned()))?;
        let opened = reachable::open(&path.canonicalize().unwrap_or(path));
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unfetched::Missing("there is no such file".to_owned()),
            _ => Unfetched::Refused(error.to_string()),
        })?;
        // Of what was opened, whatever its path leads to by now.
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let real = real.map_err(|error| sink.local(&error))?;
        if !self.sources.file_roots.iter().any(|root| real.starts_with(root)) {
            let roots: Vec<_> =
                self.sources.file_roots.iter().map(|root| root.display().to_string()).collect();
            return Err(refused(format!(
                "it is not below a folder that this service reads: {}",
                roots.join(", ")
            )));
        }
        let length = file.metadata().map_err(|error| sink.local(&error))?.len();
        sink.budget.has_room(length)?;
        sink.restart().await?;
        let mut file = File::from_std(file);
        let mut buffer = vec![0; WRITE];
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut file, &mut buffer).await;
            match read.map_err(|error| sink.local(&error))? {
                0 => return Ok(()),
                read => sink.write(&buffer[..read]).await?,
            }
        }
    }
}

fn range_from(from: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes={from}-"))
        .unwrap_or_else(|_| HeaderValue::from_static("bytes=0-"))
}

/// Where a part begins, and how large the whole is (RFC 9110, section 14.4).
fn content_range(answer: &Response) -> Option<(u64, Option<u64>)> {
    let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (part, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = part.split_once('-')?;
    Some((from.parse().ok()?, total.parse().ok()))
}

/// Bucket and key of an `s3://` URL.
fn s3_place(url: &Url) -> Result<(String, String), Unfetched> {
    let refused = |text: &str| Unfetched::Refused(text.to_owned());
    if url.query().is_some() {
        return Err(refused("write a ? in a key as %3F"));
    }
    let key = percent_decode_str(url.path().trim_start_matches('/')).decode_utf8();
    match (url.host_str(), key) {
        (Some(name), Ok(key)) if !name.is_empty() => Ok((name.to_owned(), key.into_owned())),
        _ => Err(refused("it must be s3://bucket/key")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use axum::{Router, extract::Request, http::StatusCode as Status, routing::get};
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::TcpListener,
    };

    use super::*;
    use crate::hosts::Hosts;

    fn limits() -> Limits {
        Limits {
            fetch_connect: Duration::from_millis(500),
            fetch_idle: Duration::from_millis(200),
            fetch_tries: 1,
            fetch_pause: Duration::ZERO,
            fetch_bytes: 1000,
            ..Limits::default()
        }
    }

    /// A fetcher that may reach this machine.
    fn fetcher(limits: Limits) -> Fetcher {
        let hosts = Hosts::allowing("127.0.0.0/8,localhost").expect("hosts");
        let sources = Sources { hosts, ..Sources::default() };
        Fetcher::new(sources, Bucket::at("http://127.0.0.1:9"), limits)
    }

    async fn serve(router: Router) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Url::parse(&format!("http://{address}/")).expect("a URL")
    }

    /// A server that answers its connections, one after the other, with these bytes and hangs up;
    /// and the heads of the requests that it got.
    async fn scripted(answers: Vec<Vec<u8>>) -> (Url, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (connection, _) = listener.accept().await.expect("a connection");
                let mut connection = BufReader::new(connection);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(connection.read_line(&mut head).await.expect("a head") > 0, "{head}");
                }
                heads.push(head.to_lowercase());
                connection.get_mut().write_all(&answer).await.expect("sent");
                connection.get_mut().shutdown().await.expect("closed");
            }
            heads
        });
        (Url::parse(&format!("http://{address}/a")).expect("a URL"), asked)
    }

    fn answer(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}").into_bytes()
    }

    async fn fetch(fetcher: &Fetcher, url: &Url) -> Result<Vec<u8>, Failure> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fetcher.workflow(url, file.path()).await?;
        Ok(std::fs::read(file.path()).expect("read"))
    }

    fn reason(result: Result<Vec<u8>, Failure>) -> String {
        match result {
            Err(Failure::Request(reason)) => reason,
            other => panic!("not the request's fault: {other:?}"),
        }
    }

    #[test]
    fn the_file_is_named_by_the_path() {
        for (url, name) in [
            ("https://example.org/a/b.cwl?raw=1#main", "b.cwl"),
            ("https://example.org/a/b%20c.cwl", "b c.cwl"),
            ("s3://bucket/x/main.cwl", "main.cwl"),
            ("https://example.org/", UNNAMED),
            ("https://example.org/%2e%2e%2fetc%2fpasswd", UNNAMED),
            ("https://example.org/..%2f", UNNAMED),
            ("https://example.org/wes_inputs.json", UNNAMED),
        ] {
            assert_eq!(file_name(&Url::parse(url).expect(url)), name, "{url}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        let url = Url::parse("https://me:secret@example.org/a.cwl?token=secret#x").expect("a URL");
        assert_eq!(shown(&url), "https://example.org/a.cwl?%E2%80%A6");
    }

    #[tokio::test]
    async fn any_content_type_is_stored_as_it_comes() {
        let router = Router::new()
            .route("/a.zip", get(|| async { ([("content-type", "application/zip")], "PK\0") }));
        let url = serve(router).await.join("a.zip").expect("a URL");
        assert_eq!(fetch(&fetcher(limits()), &url).await.expect("fetched"), b"PK\0");
    }

    #[tokio::test]
    async fn a_missing_workflow_is_told_with_url_and_status() {
        let url = serve(Router::new()).await.join("gone.cwl").expect("a URL");
        let reason = reason(fetch(&fetcher(limits()), &url).await);
        assert!(reason.contains(url.as_str()) && reason.contains("404"), "{reason}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/a.cwl", listener.local_addr().expect("an address"));
        let url = Url::parse(&url).expect("a URL");
        let reason = reason(fetch(&fetcher(limits()), &url).await);
        assert!(reason.contains("the server said nothing"), "{reason}");
    }

    #[tokio::test]
    async fn a_server_that_drips_is_given_up_in_time() {
        let drip = || async {
            let drops = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, io::Error>("x"), ()))
            });
            axum::body::Body::from_stream(drops)
        };
        let url = serve(Router::new().route("/a.cwl", get(drip))).await.join("a.cwl");
        let url = url.expect("a URL");
        let limits =
            Limits { fetch_total: Duration::from_secs(1), fetch_bytes: u64::MAX, ..limits() };
        let reason = reason(fetch(&fetcher(limits), &url).await);
        assert!(reason.contains(url.as_str()) && reason.contains("within 1 s"), "{reason}");
    }

    #[tokio::test]
    async fn a_server_that_stumbles_is_asked_again() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let router = Router::new().route(
            "/a.cwl",
            get(move || async move {
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => (Status::BAD_GATEWAY, "no"),
                    _ => (Status::OK, "yes"),
                }
            }),
        );
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let fetcher = fetcher(Limits { fetch_tries: 2, ..limits() });
        assert_eq!(fetch(&fetcher, &url).await.expect("fetched"), b"yes");
        let reason = reason(fetch(&self::fetcher(limits()), &url.join("/x").expect("a URL")).await);
        assert!(reason.contains("404"), "{reason}");
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused() {
        let router = Router::new().route("/a.cwl", get(|| async { "x".repeat(1001) }));
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let reason = reason(fetch(&fetcher(limits()), &url).await);
        assert!(reason.contains("larger than 1000 bytes"), "{reason}");
    }

    #[tokio::test]
    async fn a_length_that_is_not_told_is_counted() {
        let body = "x".repeat(1001);
        let (url, _) = scripted(vec![answer("200 OK", &body)]).await;
        let reason = reason(fetch(&fetcher(limits()), &url).await);
        assert!(reason.contains("larger than 1000 bytes"), "{reason}");
    }

    #[tokio::test]
    async fn a_full_disk_is_the_service_s_fault() {
        let router = Router::new().route("/a.cwl", get(|| async { "workflow" }));
        let url = serve(router).await.join("a.cwl").expect("a URL");
        let result = fetcher(limits()).workflow(&url, Path::new("/dev/full")).await;
        let Err(Failure::Service(reason)) = result else { panic!("{result:?}") };
        assert!(reason.contains("disk is full"), "{reason}");
    }

    #[tokio::test]
    async fn what_broke_off_goes_on_where_it_was() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("206 Partial\r\ncontent-range: bytes 3-7/8\r\ncontent-length: 5", "de"),
            answer("206 Partial\r\ncontent-range: bytes 5-7/8\r\ncontent-length: 3", "fgh"),
        ])
        .await;
        assert_eq!(fetch(&fetcher(limits()), &url).await.expect("fetched"), b"abcdefgh");
        let heads = asked.await.expect("asked");
        assert!(!heads[0].contains("range:"), "{}", heads[0]);
        for (head, range) in [(&heads[1], "bytes=3-"), (&heads[2], "bytes=5-")] {
            assert!(head.contains(&format!("\r\nrange: {range}\r\n")), "{head}");
            assert!(head.contains("\r\nif-range: \"one\"\r\n"), "{head}");
        }
    }

    #[tokio::test]
    async fn what_has_changed_begins_anew() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("200 OK\r\netag: \"two\"\r\ncontent-length: 4", "wxyz"),
        ])
        .await;
        assert_eq!(fetch(&fetcher(limits()), &url).await.expect("fetched"), b"wxyz");
        assert!(asked.await.expect("asked")[1].contains("if-range: \"one\""));
    }

    #[tokio::test]
    async fn without_a_strong_version_nothing_is_put_together() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: W/\"one\"\r\ncontent-length: 8", "abc"),
            answer("200 OK\r\ncontent-length: 8", "abcdefgh"),
        ])
        .await;
        assert_eq!(fetch(&fetcher(limits()), &url).await.expect("fetched"), b"abcdefgh");
        assert!(!asked.await.expect("asked")[1].contains("range:"));
    }

    #[tokio::test]
    async fn another_part_than_the_one_asked_for_is_not_put_together() {
        let (url, _) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("206 Partial\r\ncontent-range: bytes 0-7/8\r\ncontent-length: 8", "abcdefgh"),
            answer("200 OK\r\ncontent-length: 8", "abcdefgh"),
        ])
        .await;
        let fetcher = fetcher(Limits { fetch_tries: 2, ..limits() });
        assert_eq!(fetch(&fetcher, &url).await.expect("fetched"), b"abcdefgh");
    }

    #[tokio::test]
    async fn a_file_that_shrank_is_fetched_again_from_its_start() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("416 No\r\ncontent-length: 0", ""),
            answer("200 OK\r\ncontent-length: 2", "ab"),
        ])
        .await;
        let fetcher = fetcher(Limits { fetch_tries: 2, ..limits() });
        assert_eq!(fetch(&fetcher, &url).await.expect("fetched"), b"ab");
        assert!(!asked.await.expect("asked")[2].contains("range:"));
    }

    #[tokio::test]
    async fn a_server_that_lies_about_the_length_is_given_up() {
        let short = answer("200 OK\r\netag: \"one\"\r\ncontent-length: 100", "abc");
        let nothing =
            answer("206 Partial\r\ncontent-range: bytes 3-99/100\r\ncontent-length: 97", "");
        let (url, _) = scripted(vec![short, nothing.clone(), nothing]).await;
        let fetcher = fetcher(Limits { fetch_tries: 2, ..limits() });
        let reason = reason(fetch(&fetcher, &url).await);
        assert!(reason.contains("in 2 tries"), "{reason}");
    }

    #[tokio::test]
    async fn a_file_that_vanishes_halfway_is_missing() {
        let (url, _) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("404 Not Found\r\ncontent-length: 0", ""),
        ])
        .await;
        let reason = reason(fetch(&fetcher(limits()), &url).await);
        assert!(reason.contains("404"), "{reason}");
    }

    #[tokio::test]
    async fn a_redirect_to_the_inside_is_not_followed() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let router = Router::new()
            .route("/ok", get(|| async { (Status::FOUND, [("location", "/there")]) }))
            .route("/there", get(|| async { "yes" }))
            .route(
                "/{to}",
                get(move |request: Request| async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let to = match request.uri().path() {
                        "/metadata" => "http://169.254.169.254/latest/meta-data/iam/",
                        "/mapped" => "http://[::ffff:169.254.169.254]/",
                        "/private" => "http://10.0.0.1/",
                        "/file" => "file:///etc/passwd",
                        "/ftp" => "ftp://example.org/",
                        _ => "/loop",
                    };
                    (Status::TEMPORARY_REDIRECT, [("location", to)])
                }),
            );
        let url = serve(router).await;
        let fetcher = fetcher(limits());
        let to = |path: &str| url.join(path).expect("a URL");
        assert_eq!(fetch(&fetcher, &to("ok")).await.expect("fetched"), b"yes");
        for (path, why) in [
            ("metadata", "169.254.169.254 is a link-local address"),
            ("mapped", "169.254.169.254 is a link-local address"),
            ("private", "10.0.0.1 is a private address"),
        ] {
            let reason = reason(fetch(&fetcher, &to(path)).await);
            assert!(reason.contains(why) && reason.contains("STEPWES_ALLOWED_HOSTS"), "{reason}");
        }
        for path in ["file", "ftp"] {
            let result = fetch(&fetcher, &to(path)).await;
            assert!(!reason(result).contains("root:"), "{path}");
        }
        let before = asked.load(Ordering::SeqCst);
        assert!(reason(fetch(&fetcher, &to("loop")).await).contains("redirects"));
        assert_eq!(asked.load(Ordering::SeqCst) - before, 1 + MAX_REDIRECTS as u32);
    }

    #[tokio::test]
    async fn a_host_inside_is_not_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let fetcher = Fetcher::new(Sources::default(), Bucket::at("http://127.0.0.1:9"), limits());
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
            let url = Url::parse(&format!("http://{host}:{port}/a")).expect("a URL");
            let reason = reason(fetch(&fetcher, &url).await);
            assert!(reason.contains("a loopback address"), "{host}: {reason}");
        }
        let nobody = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(nobody.is_err(), "no connection was made");
    }

    #[tokio::test]
    async fn a_local_workflow_lies_below_a_folder_of_the_operator_s() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        std::fs::create_dir_all(root.join("open/in")).expect("made");
        std::fs::write(root.join("open/in/a b.cwl"), "here").expect("written");
        std::fs::write(root.join("secret"), "secret").expect("written");
        std::os::unix::fs::symlink(root.join("secret"), root.join("open/out")).expect("linked");
        std::os::unix::fs::symlink(root.join("open/in"), root.join("open/also")).expect("linked");
        let with = |file_roots: Vec<PathBuf>| {
            let sources = Sources { file_roots, ..Sources::default() };
            Fetcher::new(sources, Bucket::at("http://127.0.0.1:9"), limits())
        };
        let url = |path: &str| Url::from_file_path(root.join(path)).expect("a URL");
        let open = with(vec![root.join("open")]);
        for path in ["open/in/a b.cwl", "open/also/a b.cwl"] {
            assert_eq!(fetch(&open, &url(path)).await.expect("fetched"), b"here");
        }
        for path in ["secret", "open/out", "open/../secret"] {
            let reason = reason(fetch(&open, &url(path)).await);
            assert!(reason.contains("not below a folder"), "{path}: {reason}");
        }
        let missing = reason(fetch(&open, &url("open/none")).await);
        assert!(missing.contains("no such file"), "{missing}");
        let closed = reason(fetch(&with(Vec::new()), &url("open/in/a b.cwl")).await);
        assert!(closed.contains("not read by this service"), "{closed}");
    }

    #[tokio::test]
    async fn an_object_that_broke_off_goes_on_where_it_was() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer(
                "206 Partial\r\netag: \"one\"\r\ncontent-range: bytes 3-7/8\r\ncontent-length: 5",
                "defgh",
            ),
        ])
        .await;
        let bucket = Bucket::at(url.as_str().trim_end_matches("/a"));
        let fetcher = Fetcher::new(Sources::default(), bucket, limits());
        let url = Url::parse("s3://data/x/a%20b").expect("a URL");
        assert_eq!(fetch(&fetcher, &url).await.expect("fetched"), b"abcdefgh");
        let heads = asked.await.expect("asked");
        assert!(heads[0].starts_with("get /data/x/a%20b"), "{}", heads[0]);
        assert!(heads[1].contains("range: bytes=3-") && heads[1].contains("if-match: \"one\""));
    }

    #[tokio::test]
    async fn an_object_that_changed_meanwhile_is_read_anew() {
        let (url, asked) = scripted(vec![
            answer("200 OK\r\netag: \"one\"\r\ncontent-length: 8", "abc"),
            answer("412 Precondition Failed\r\ncontent-length: 0", ""),
            answer("200 OK\r\netag: \"two\"\r\ncontent-length: 2", "xy"),
        ])
        .await;
        let bucket = Bucket::at(url.as_str().trim_end_matches("/a"));
        let fetcher = Fetcher::new(Sources::default(), bucket, limits());
        let url = Url::parse("s3://data/x").expect("a URL");
        assert_eq!(fetch(&fetcher, &url).await.expect("fetched"), b"xy");
        assert!(!asked.await.expect("asked")[2].contains("range:"));
    }
}
