//! The journal: makes small objects durable by one write to the disk, shared with whoever else
//! waits, where a file of its own would need several: its data, its name, each new folder's name.
//!
//! ```text
//! <root>/.tmp/journal/<number>@<boot>    records, one after the other
//! ```
//!
//! A record is its length, its CRC-32 and its text: what an object is, as JSON, and its bytes. It is
//! written before the object's file takes its place, and the writer is told when it is on the disk.
//! Every few seconds a new file is begun and the file system is asked to write everything else it
//! holds; then the older files are no longer needed.
//!
//! The journal is read back when a folder is opened after another boot than it was written in, as
//! after a power cut: whatever of the files' content and names had not reached the disk is made
//! again. After the end of a process nothing is read, for the kernel has what the process wrote.

use super::error::absent;
use super::meta::{Meta, Stamp};
use crate::boot;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Larger objects are written to the disk as the files that they are.
pub(super) const MOST_BYTES: u64 = 64 * 1024;
/// How long a file is written to before the next one is begun.
const WRITTEN_FOR: Duration = Duration::from_secs(5);
/// How long a file may become before that.
const LONGEST: u64 = 32 * 1024 * 1024;
/// Length and checksum, four bytes each.
const HEAD: usize = 8;

/// What became of a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) bucket: String,
    pub(super) key: String,
    /// None when the journal has not got the object: there is none, or its file is on the disk.
    pub(super) object: Option<Described>,
}

/// What an object's file does not say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) stamp: Stamp,
    pub(super) meta: Meta,
}

/// A place in the journal: the number of its file, and the offset behind the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    file: u64,
    end: u64,
}

/// The journal of an open folder.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    boot: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    number: u64,
    /// Where the next record goes.
    end: u64,
    /// How much of the file is on the disk.
    synced: u64,
    /// Somebody is writing the file to the disk.
    syncing: bool,
    /// Files that cannot be written to the disk: up to where they are, and what was said.
    failed: Vec<(Position, i32)>,
    /// Files that are no longer written to.
    older: Vec<PathBuf>,
    closed: bool,
}

impl Journal {
    /// Begins a new file in `folder`, whose other files are `older`.
    pub(super) fn begin(folder: &Path, older: Vec<PathBuf>) -> io::Result<Self> {
        let number = older.iter().filter_map(|path| number_of(path)).max().unwrap_or(0) + 1;
        let boot = boot::id();
        let file = create(folder, number, &boot)?;
        let state = State {
            file: Arc::new(file),
            number,
            end: 0,
            synced: 0,
            syncing: false,
            failed: Vec::new(),
            older,
            closed: false,
        };
        Ok(Self {
            folder: folder.to_owned(),
            boot,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, with the object's bytes. It is not on the disk yet.
    pub(super) fn append(&self, record: &Record, bytes: &[u8]) -> io::Result<Position> {
        let written = encode(record, bytes)?;
        let mut state = self.lock();
        if state.is_failed() {
            self.next_file(&mut state)?;
        }
        // Cut off by a full disk, it is written over by the next one.
        state.file.write_all_at(&written, state.end)?;
        if state.end == 0 {
            self.changed.notify_all();
        }
        state.end += written.len() as u64;
        Ok(Position { file: state.number, end: state.end })
    }

    /// Returns when everything up to `position` is on the disk. One of those who wait writes for
    /// all.
    pub(super) fn wait(&self, position: Position) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer(position) {
                return answer;
            }
            if state.syncing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let (file, end) = (Arc::clone(&state.file), state.end);
            drop(state);
            let done = file.sync_data();
            state = self.lock();
            state.syncing = false;
            state.settle(end, done);
            self.changed.notify_all();
        }
    }

    /// Goes on in a new file; the present one is on the disk by then, or has failed.
    fn next_file(&self, state: &mut State) -> io::Result<()> {
        if !state.is_failed() {
            let done = state.file.sync_data();
            state.settle(state.end, done);
        }
        let next = create(&self.folder, state.number + 1, &self.boot)?;
        state.older.push(self.folder.join(name(state.number, &self.boot)));
        state.number += 1;
        state.file = Arc::new(next);
        state.end = 0;
        state.synced = 0;
        Ok(())
    }

    /// Begins a new file every few seconds and removes the older ones, until the journal is closed.
    pub(super) fn clear_until_closed(&self) {
        loop {
            let mut state = self.lock();
            while state.end == 0 && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let full = |state: &mut State| state.end < LONGEST && !state.closed;
            let (state, _) = self
                .changed
                .wait_timeout_while(state, WRITTEN_FOR, full)
                .unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            drop(state);
            if let Err(error) = self.clear() {
                // Nothing is lost: what could not be written stays in the journal.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the journal of the embedded S3 could not be cleared"
                );
            }
        }
    }

    /// Has the file system write what it holds, and removes the files that are not needed then.
    pub(super) fn clear(&self) -> io::Result<()> {
        let older = {
            let mut state = self.lock();
            // Whoever is writing the file to the disk would say so of the next one.
            while state.syncing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.end > 0 {
                let done = self.next_file(&mut state);
                self.changed.notify_all();
                done?;
            }
            state.older.clone()
        };
        rustix::fs::syncfs(File::open(&self.folder)?)?;
        for path in &older {
            absent(fs::remove_file(path))?;
        }
        self.lock().older.retain(|path| !older.contains(path));
        Ok(())
    }

    /// Lets [`Journal::clear_until_closed`] return.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl State {
    fn is_failed(&self) -> bool {
        self.failed.iter().any(|(position, _)| position.file == self.number)
    }

    fn settle(&mut self, end: u64, done: io::Result<()>) {
        match done {
            Ok(()) => self.synced = self.synced.max(end),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the journal of the embedded S3 could not be written to the disk"
                );
                let position = Position { file: self.number, end: self.synced };
                self.failed.push((position, error.raw_os_error().unwrap_or(nix::libc::EIO)));
            }
        }
    }

    /// Whether a position is on the disk or never will be; none while that is open.
    fn answer(&self, position: Position) -> Option<io::Result<()>> {
        let failed = self.failed.iter().find(|(failed, _)| failed.file == position.file);
        if let Some((failed, code)) = failed
            && position.end > failed.end
        {
            return Some(Err(io::Error::from_raw_os_error(*code)));
        }
        let done = position.file < self.number || position.end <= self.synced;
        done.then_some(Ok(()))
    }
}

/// The files of an earlier journal, in the order in which they were written, and whether another
/// boot has written any of them.
pub(super) fn left(folder: &Path) -> io::Result<(Vec<PathBuf>, bool)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort_by_key(|path| number_of(path));
    let boot = boot::id();
    // Where the kernel does not tell, it may have been another one.
    let other = files.iter().any(|path| boot.is_empty() || boot_of(path) != Some(boot.as_str()));
    Ok((files, other))
}

/// The last record of every key in the files, as far as they can be read.
pub(super) fn read(files: &[PathBuf]) -> io::Result<Vec<(Record, Vec<u8>)>> {
    let mut last: HashMap<(String, String), (usize, Record, Vec<u8>)> = HashMap::new();
    let mut count = 0;
    for path in files {
        let content = fs::read(path)?;
        let mut rest = content.as_slice();
        while let Some((record, bytes, after)) = decode(rest) {
            count += 1;
            last.insert((record.bucket.clone(), record.key.clone()), (count, record, bytes));
            rest = after;
        }
    }
    let mut last: Vec<_> = last.into_values().collect();
    last.sort_unstable_by_key(|(place, ..)| *place);
    Ok(last.into_iter().map(|(_, record, bytes)| (record, bytes)).collect())
}

fn encode(record: &Record, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(record)?;
    let length = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let mut written = vec![0; HEAD];
    written.extend_from_slice(&length(text.len())?.to_le_bytes());
    written.extend_from_slice(&text);
    written.extend_from_slice(bytes);
    let (head, content) = written.split_at_mut(HEAD);
    head[..4].copy_from_slice(&length(content.len())?.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
    Ok(written)
}

/// The first record, its bytes, and what comes after it; none at the end, or where it is cut off.
fn decode(written: &[u8]) -> Option<(Record, Vec<u8>, &[u8])> {
    let (length, rest) = number(written)?;
    let (checksum, rest) = number(rest)?;
    let (content, after) = rest.split_at_checked(length as usize)?;
    if crc32fast::hash(content) != checksum {
        return None;
    }
    let (length, rest) = number(content)?;
    let (text, bytes) = rest.split_at_checked(length as usize)?;
    Some((serde_json::from_slice(text).ok()?, bytes.to_vec(), after))
}

fn number(written: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = written.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn create(folder: &Path, number: u64, boot: &str) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name(number, boot));
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    // What is written to a file that cannot be found is as good as lost.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn name(number: u64, boot: &str) -> String {
    format!("{number}@{boot}")
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split_once('@')?.0.parse().ok()
}

fn boot_of(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.split_once('@')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn record(key: &str, object: Option<u8>) -> Record {
        let described = |etag: u8| Described {
            stamp: Stamp::of(&fs::metadata("/").expect("the root")),
            meta: Meta { etag: etag.to_string(), ..Meta::default() },
        };
        Record { bucket: "runs".into(), key: key.into(), object: object.map(described) }
    }

    fn begun() -> (TempDir, Journal) {
        let folder = TempDir::new().expect("a folder");
        let journal = Journal::begin(folder.path(), Vec::new()).expect("a journal");
        (folder, journal)
    }

    fn add(journal: &Journal, key: &str, object: Option<u8>, bytes: &[u8]) -> Position {
        journal.append(&record(key, object), bytes).expect("appended")
    }

    fn files(folder: &TempDir) -> Vec<PathBuf> {
        left(folder.path()).expect("the files").0
    }

    /// The keys that can be read back, each with its ETag and bytes.
    fn told(folder: &TempDir) -> Vec<(String, Option<String>, Vec<u8>)> {
        let records = read(&files(folder)).expect("the records");
        let etag = |record: &Record| record.object.as_ref().map(|object| object.meta.etag.clone());
        records
            .into_iter()
            .map(|(record, bytes)| (record.key.clone(), etag(&record), bytes))
            .collect()
    }

    #[test]
    fn the_last_record_of_a_key_is_what_counts() {
        let (folder, journal) = begun();
        add(&journal, "a", Some(1), b"one");
        add(&journal, "b", Some(2), b"");
        add(&journal, "gone", Some(3), b"three");
        add(&journal, "a", Some(4), b"four");
        add(&journal, "gone", None, b"");
        let expected = [
            ("b".to_owned(), Some("2".to_owned()), Vec::new()),
            ("a".to_owned(), Some("4".to_owned()), b"four".to_vec()),
            ("gone".to_owned(), None, Vec::new()),
        ];
        assert_eq!(told(&folder), expected);
    }

    #[test]
    fn a_journal_is_read_up_to_where_it_is_cut_off() {
        let (folder, journal) = begun();
        add(&journal, "whole", Some(1), b"one");
        let before = add(&journal, "also", Some(2), b"two").end;
        add(&journal, "cut off", Some(3), b"three");
        let path = files(&folder).remove(0);
        let content = fs::read(&path).expect("the file");
        let keys = || told(&folder).into_iter().map(|(key, ..)| key).collect::<Vec<_>>();
        assert_eq!(keys(), ["whole", "also", "cut off"]);
        for end in usize::try_from(before).expect("an offset")..content.len() {
            fs::write(&path, &content[..end]).expect("written");
            assert_eq!(keys(), ["whole", "also"], "{end} of {} bytes", content.len());
        }
        // As where blocks have their length but never got their content.
        let mut blank = content.clone();
        let end = blank.len();
        blank[end - 3..].fill(0);
        fs::write(&path, blank).expect("written");
        assert_eq!(keys(), ["whole", "also"]);
    }

    #[test]
    fn many_writers_are_all_told() {
        let (folder, journal) = begun();
        std::thread::scope(|threads| {
            for thread in 0..8 {
                let journal = &journal;
                threads.spawn(move || {
                    for count in 0..20 {
                        let position = add(journal, &format!("{thread}/{count}"), Some(1), b"x");
                        journal.wait(position).expect("on the disk");
                        if count == 10 {
                            journal.clear().expect("cleared");
                        }
                    }
                });
            }
        });
        assert!(files(&folder).len() < 8);
        let state = journal.lock();
        assert_eq!(state.synced, state.end);
    }

    #[test]
    fn what_the_file_system_has_written_is_not_kept() {
        let (folder, journal) = begun();
        let first = add(&journal, "first", Some(1), b"one");
        journal.clear().expect("cleared");
        journal.wait(first).expect("on the disk since");
        add(&journal, "second", Some(2), b"two");
        assert_eq!(told(&folder).len(), 1);
        assert_eq!(files(&folder).len(), 1);
    }

    #[test]
    fn files_of_earlier_journals_are_kept_until_they_are_not_needed() {
        let (folder, journal) = begun();
        add(&journal, "first", Some(1), b"one");
        drop(journal);
        let older = files(&folder);
        let journal = Journal::begin(folder.path(), older.clone()).expect("a journal");
        add(&journal, "second", Some(2), b"two");
        assert_eq!(told(&folder).len(), 2);
        journal.clear().expect("cleared");
        assert!(!older[0].exists());
    }

    #[test]
    fn a_writer_is_told_when_the_disk_does_not_take_it_and_the_next_one_is_served() {
        let (folder, journal) = begun();
        let kept = add(&journal, "kept", Some(1), b"one");
        journal.wait(kept).expect("on the disk");
        // It takes what is written, and cannot write it to a disk.
        let sink = OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
        journal.lock().file = Arc::new(sink);
        let lost = add(&journal, "lost", Some(2), b"two");
        let error = journal.wait(lost).expect_err("it is not on the disk");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL));
        journal.wait(kept).expect("still on the disk");
        let next = add(&journal, "next", Some(3), b"three");
        journal.wait(next).expect("on the disk");
        journal.wait(lost).expect_err("it still is not");
        let keys: Vec<_> = told(&folder).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["kept", "next"]);
    }

    #[test]
    fn the_journal_ends_with_its_folder() {
        let (_folder, journal) = begun();
        std::thread::scope(|threads| {
            let clearing = threads.spawn(|| journal.clear_until_closed());
            add(&journal, "a", Some(1), b"one");
            journal.close();
            clearing.join().expect("it returns");
        });
    }

    #[test]
    fn another_boot_is_told_by_the_name() {
        let (folder, journal) = begun();
        assert!(!left(folder.path()).expect("the files").1);
        drop(journal);
        let path = files(&folder).remove(0);
        fs::rename(&path, folder.path().join("1@another")).expect("renamed");
        assert!(left(folder.path()).expect("the files").1);
    }
}
