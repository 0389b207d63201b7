//! Follows the engine's logs while they are written: segments and tasks go to S3 within seconds,
//! whatever the length of the logs, and all of both at the end.

use std::{
    convert::Infallible,
    io::SeekFrom,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use chrono::Utc;
use stepwes_core::{
    RunId,
    keys::{self, LogStream},
    task::Task,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    time::Instant,
};
use tracing::warn;

use crate::{
    bucket::Bucket,
    engines::{TaskLog, TaskParser},
    error::Failure,
    reachable,
    workdir::disk_is_full,
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The pause between two segments of a log: it grows from the first to the second, so that the
/// first lines are there quickly and a long log has not too many segments. With [`LOOK_EVERY`] the
/// longest stays below the 5 s within which new lines are to be seen.
const SEGMENT_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

/// The largest segment, in bytes.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The shortest pause between two writes of the tasks.
const TASKS_PAUSE: Duration = Duration::from_secs(2);

/// For every so many bytes of tasks the pause is a second longer.
const TASKS_BYTES_A_SECOND: usize = 256 * 1024;

/// How long one upload may take before it is tried again.
const UPLOAD_LIMIT: Duration = Duration::from_secs(20);

/// The longest line that is looked at, in bytes; the rest of it is in the log alone.
const MAX_LINE: usize = 64 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Ships one attempt's logs and tasks.
pub(crate) struct Shipper {
    bucket: Bucket,
    run: RunId,
    attempt: u32,
    streams: [Stream; 2],
    tasks: TaskReader,
    tasks_sent: u64,
    tasks_due: Instant,
    disk_full: bool,
    finished: bool,
}

impl Shipper {
    /// For an attempt whose engine writes into `stdout` and `stderr`, and tells its tasks in `log`.
    pub(crate) fn new(
        bucket: Bucket,
        run: RunId,
        attempt: u32,
        (stdout, stderr): (PathBuf, PathBuf),
        (log, parser): (TaskLog, Box<dyn TaskParser>),
    ) -> Self {
        let log = match log {
            TaskLog::Stderr => TaskLog::File(stderr.clone()),
            other => other,
        };
        let tasks = TaskReader { log, path: None, offset: 0, lines: Lines::default(), parser };
        let streams =
            [Stream::new(LogStream::Stdout, stdout), Stream::new(LogStream::Stderr, stderr)];
        let tasks_due = Instant::now();
        Self {
            bucket,
            run,
            attempt,
            streams,
            tasks,
            tasks_sent: 0,
            tasks_due,
            disk_full: false,
            finished: false,
        }
    }

    /// Ships what is new for as long as it is polled. Dropped at any point, it has lost nothing:
    /// what was not sent is sent by the next call or by [`Self::finish`].
    pub(crate) async fn follow(&mut self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // An engine cleans up before it ends: afterwards there may be room again.
            self.disk_full |= disk_is_full(&self.streams[0].path);
            self.tasks.read().await;
            for stream in &mut self.streams {
                stream.ship(&self.bucket, self.run, self.attempt).await;
            }
            if self.tasks.parser.revision() != self.tasks_sent && Instant::now() >= self.tasks_due {
                self.ship_tasks().await;
            }
        }
    }

    /// Whether the disk was seen full.
    pub(crate) fn saw_full_disk(&self) -> bool {
        self.disk_full
    }

    async fn ship_tasks(&mut self) {
        let revision = self.tasks.parser.revision();
        let Some(body) = self.tasks.json() else { return };
        let pause = Duration::from_secs((body.len() / TASKS_BYTES_A_SECOND) as u64) + TASKS_PAUSE;
        let key = keys::tasks(self.run, self.attempt);
        let upload = self.bucket.put_once(&key, body, JSON);
        match tokio::time::timeout(UPLOAD_LIMIT, upload).await {
            Ok(Ok(())) => self.tasks_sent = revision,
            Ok(Err(fault)) => warn!("the tasks: {fault}; trying again"),
            Err(_) => warn!("the tasks: no answer from S3; trying again"),
        }
        self.tasks_due = Instant::now() + pause;
    }

    /// Sends what is not yet in a segment: less than the whole logs, where there is little time.
    pub(crate) async fn send_rest(&mut self) {
        if self.finished {
            return;
        }
        for stream in &mut self.streams {
            while stream
                .send(&self.bucket, self.run, self.attempt)
                .await
                .is_some_and(|sent| sent > 0)
            {}
        }
    }

    /// Uploads the whole logs and all tasks of an engine that has ended, once.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        if self.finished {
            return Ok(());
        }
        self.tasks.read().await;
        self.tasks.end();
        let tasks = self.tasks.json();
        let this = &*self;
        let log = |stream: &'_ Stream| {
            let key = keys::log(this.run, this.attempt, stream.which);
            let path = stream.path.clone();
            async move {
                let sent = this.bucket.upload(&key, &path, Some(TEXT)).await;
                sent.map(drop).map_err(|fault| fault.of_service("uploading the logs"))
            }
        };
        let tasks = async {
            let Some(body) = tasks else { return Ok(()) };
            let sent = this.bucket.put(&keys::tasks(this.run, this.attempt), body, JSON).await;
            sent.map_err(|fault| fault.of_service("uploading the tasks"))
        };
        let [stdout, stderr] = &this.streams;
        futures::future::try_join3(log(stdout), log(stderr), tasks).await?;
        self.finished = true;
        Ok(())
    }
}

/// One log, and how much of it is in S3.
struct Stream {
    which: LogStream,
    path: PathBuf,
    shipped: u64,
    /// What comes next, once it has been read: a segment that may have arrived must not be sent
    /// again with other bytes.
    segment: Bytes,
    pause: Duration,
    due: Instant,
}

impl Stream {
    fn new(which: LogStream, path: PathBuf) -> Self {
        Self {
            which,
            path,
            shipped: 0,
            segment: Bytes::new(),
            pause: SEGMENT_PAUSE.0,
            due: Instant::now(),
        }
    }

    /// Sends at most one segment, when it is time.
    async fn ship(&mut self, bucket: &Bucket, run: RunId, attempt: u32) {
        if Instant::now() < self.due {
            return;
        }
        let sent = self.send(bucket, run, attempt).await;
        // A full segment is followed by the next one in the next turn.
        if !matches!(sent, Some(0 | SEGMENT_BYTES)) {
            self.due = Instant::now() + self.pause;
            self.pause = self.pause.mul_f64(1.25).min(SEGMENT_PAUSE.1);
        }
    }

    /// Sends the next segment, and gives its length; 0 when there is nothing new, nothing when it
    /// could not be sent.
    async fn send(&mut self, bucket: &Bucket, run: RunId, attempt: u32) -> Option<u64> {
        if self.segment.is_empty() {
            match read_from(&self.path, self.shipped, SEGMENT_BYTES).await {
                Ok(piece) => self.segment = piece.into(),
                Err(error) => {
                    warn!("the engine's {} cannot be read: {error}", self.which.as_str());
                    return None;
                }
            }
        }
        let length = self.segment.len() as u64;
        if length == 0 {
            return Some(0);
        }
        let key = keys::log_segment(run, attempt, self.which, self.shipped);
        let upload = bucket.put_once(&key, self.segment.clone(), TEXT);
        match tokio::time::timeout(UPLOAD_LIMIT, upload).await {
            Ok(Ok(())) => {
                self.shipped += length;
                self.segment.clear();
                Some(length)
            }
            Ok(Err(fault)) => {
                warn!("{key}: {fault}; trying again");
                None
            }
            Err(_) => {
                warn!("{key}: no answer from S3; trying again");
                None
            }
        }
    }
}

/// Reads at most `most` bytes of a file from `offset` on.
async fn read_from(path: &Path, offset: u64, most: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::from_std(reachable::open(path)?);
    let length = file.metadata().await?.len().saturating_sub(offset).min(most);
    let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    if length > 0 {
        file.seek(SeekFrom::Start(offset)).await?;
        file.take(length).read_to_end(&mut piece).await?;
    }
    Ok(piece)
}

/// Reads tasks from a log.
struct TaskReader {
    log: TaskLog,
    /// The file, once it is known.
    path: Option<PathBuf>,
    offset: u64,
    lines: Lines,
    parser: Box<dyn TaskParser>,
}

impl TaskReader {
    async fn read(&mut self) {
        let Some(path) = self.find() else { return };
        loop {
            match read_from(&path, self.offset, 256 * 1024).await {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => {
                    self.offset += piece.len() as u64;
                    let now = Utc::now();
                    let parser = &mut self.parser;
                    self.lines.feed(&piece, |line| parser.line(line, now));
                }
                // It is not there yet; of a stream's own file, the stream says so already.
                Err(_) => return,
            }
        }
    }

    fn find(&mut self) -> Option<PathBuf> {
        if self.path.is_none() {
            self.path = match &self.log {
                TaskLog::Stderr => None,
                TaskLog::File(path) => Some(path.clone()),
                TaskLog::First { folder, suffix } => first_file(folder, suffix),
            };
        }
        self.path.clone()
    }

    fn end(&mut self) {
        let now = Utc::now();
        let parser = &mut self.parser;
        self.lines.end(|line| parser.line(line, now));
        self.parser.end(now);
    }

    fn json(&self) -> Option<Bytes> {
        /// [`stepwes_core::task::Tasks`], borrowed.
        #[derive(serde::Serialize)]
        struct Borrowed<'a> {
            tasks: &'a [Task],
        }
        match serde_json::to_vec(&Borrowed { tasks: self.parser.tasks() }) {
            Ok(body) => Some(body.into()),
            Err(error) => {
                warn!("the tasks cannot be written: {error}");
                None
            }
        }
    }
}

/// The first file of a folder whose name ends so.
fn first_file(folder: &Path, suffix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files
        .filter(|entry| entry.file_name().as_encoded_bytes().ends_with(suffix.as_bytes()))
        .map(|entry| entry.path())
        .min()
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, mut piece: &[u8], mut line: impl FnMut(&str)) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.push(&piece[..end]);
            self.end(&mut line);
            piece = &piece[end + 1..];
        }
        self.push(piece);
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.begun.len()).min(bytes.len());
        self.begun.extend_from_slice(&bytes[..room]);
    }

    fn end(&mut self, mut line: impl FnMut(&str)) {
        if self.begun.is_empty() {
            return line("");
        }
        line(String::from_utf8_lossy(&self.begun).trim_end_matches('\r'));
        self.begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let text = "one\r\n\nthrée\nlast";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.feed(piece, |line| seen.push(line.to_owned()));
            }
            lines.end(|line| seen.push(line.to_owned()));
            assert_eq!(seen, ["one", "", "thrée", "last"]);
        }
    }

    #[test]
    fn an_endless_line_takes_no_endless_memory() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.feed(&[b'x'; 10_000], |_| panic!("no line yet"));
        }
        let mut length = 0;
        lines.feed(b"\n", |line| length = line.len());
        assert_eq!(length, MAX_LINE);
    }

    #[tokio::test]
    async fn a_turn_sends_one_segment_however_much_there_is() {
        let take = |request: axum::extract::Request| async {
            axum::body::to_bytes(request.into_body(), usize::MAX).await.map(drop).expect("whole");
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let bucket = Bucket::at(&format!("http://{}", listener.local_addr().expect("an address")));
        let router = axum::Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let run = "01890000-0000-7000-8000-000000000000".parse().expect("a run id");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let long = 2 * SEGMENT_BYTES + 1;
        file.as_file().set_len(long).expect("made");
        let mut stream = Stream::new(LogStream::Stdout, file.path().to_owned());
        for shipped in [SEGMENT_BYTES, 2 * SEGMENT_BYTES, long] {
            stream.ship(&bucket, run, 1).await;
            assert_eq!(stream.shipped, shipped);
        }
    }

    #[test]
    fn the_first_file_with_that_end_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(first_file(&folder.path().join("none"), ".log"), None);
        std::fs::create_dir(folder.path().join("0.log")).expect("made");
        for name in ["2.log", "1.log", "0.txt"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(first_file(folder.path(), ".log"), Some(folder.path().join("1.log")));
    }

    #[tokio::test]
    async fn a_piece_starts_where_the_last_one_ended() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "0123456789").expect("written");
        assert_eq!(read_from(file.path(), 0, 4).await.expect("read"), b"0123");
        assert_eq!(read_from(file.path(), 4, 100).await.expect("read"), b"456789");
        assert_eq!(read_from(file.path(), 10, 100).await.expect("read"), b"");
    }
}
