//! What must hold of bundles, whatever they are.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use crc_fast::CrcAlgorithm;
use percent_encoding::percent_decode;
use serde_json::{Map, Value};
use stepwes_core::resources;
use url::Url;

use super::{ANY_RATIO, Bundle, MAX_BYTES, MAX_ENTRIES, MAX_RATIO, Main, read, unpack};
use crate::error::Failure;

/// What is in the folder before: a file that bundles may have as well, and one that they may not
/// touch.
const ATTACHED: [(&str, &[u8]); 2] = [("mine.json", b"{\"mine\": 1}"), ("held/inner.txt", b"held")];

/// What a reason can be before its end is cut off (`stepwes_cloud::quote`), in characters.
const MOST_SAID: usize = 600;

/// The workflow types of bundles, by whose names their workflows are found.
const KINDS: [&str; 3] = ["CWL", "NFL", "SMK"];

/// Any bytes, as an archive.
pub(crate) fn archive(input: &[u8]) {
    let place = Place::new();
    let Some(files) = place.unpack(input) else { return };
    let there = place.files();
    let paths: Vec<_> = there.keys().map(String::as_str).collect();
    let mut expected: Vec<_> = files.iter().map(String::as_str).collect();
    expected.extend(ATTACHED.map(|(name, _)| name));
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(paths, expected, "what it says and what is there");
    let bytes: usize = there.values().map(|file| file.content.len()).sum();
    let (bytes, packed) = (bytes as u64, input.len() as u64);
    assert!(files.len() <= MAX_ENTRIES && bytes <= MAX_BYTES);
    // With what was there before.
    assert!(bytes <= ANY_RATIO + 64 || bytes / MAX_RATIO <= packed + 1, "{bytes}");
    place.read(&files, &there);
}

/// A line for each entry: what it is (`f`ile, `x` executable, `d` folder, `l`ink, `p`ipe, else
/// nothing is said), its name, percent-encoded, a tab, and its content.
pub(crate) fn entries(input: &[u8]) {
    let entries: Vec<_> = input.split(|byte| *byte == b'\n').filter_map(Entry::read).collect();
    let place = Place::new();
    let unpacked = place.unpack(&pack(&entries));
    // Others are in a code page, and spelt otherwise.
    if entries.iter().any(|entry| str::from_utf8(&entry.name).is_err()) {
        return;
    }
    let expected = expected(&entries);
    match (unpacked, expected) {
        (None, None) => {}
        (None, Some(expected)) => panic!("refused, with nothing wrong: {expected:?}"),
        (Some(files), None) => panic!("not refused: {files:?}"),
        (Some(files), Some(expected)) => {
            let names: Vec<_> = expected.iter().map(|(name, _)| name).collect();
            assert_eq!(files.iter().collect::<Vec<_>>(), names, "in the archive's order");
            let there = place.files();
            for (name, entry) in &expected {
                if ATTACHED.iter().any(|(attached, _)| attached == name) {
                    continue;
                }
                let mode = if entry.kind == b'x' { 0o755 } else { 0o644 };
                let file = File { content: entry.content.clone(), mode };
                assert_eq!(there.get(name), Some(&file), "{name:?}");
            }
            place.read(&files, &there);
        }
    }
}

/// What an archive's entries are to become, in another way than the reader's; `None` when it is to
/// be refused.
fn expected(entries: &[Entry]) -> Option<Vec<(String, &Entry)>> {
    let mut files: Vec<(String, &Entry)> = Vec::new();
    let mut folders = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let name = str::from_utf8(&entry.name).expect("looked at before");
        let parts: Vec<_> = Path::new(name).components().collect();
        let is_folder = name.ends_with('/');
        if entries[..index].iter().any(|other| other.name == entry.name) {
            return None;
        }
        if is_folder
            && parts.iter().all(|part| matches!(part, Component::RootDir | Component::CurDir))
        {
            continue;
        }
        let mut plain = Vec::new();
        for part in parts {
            match part {
                Component::CurDir => {}
                Component::Normal(part) if part.len() <= 255 => plain.push(part.to_str()?),
                _ => return None,
            }
        }
        if plain.is_empty() || name.contains('\0') || name.len() > 900 {
            return None;
        }
        let path = plain.join("/");
        let is_debris =
            plain.last() == Some(&".DS_Store") || plain.len() > 1 && plain[0] == "__MACOSX";
        match entry.kind {
            b'l' | b'p' => return None,
            _ if is_folder || entry.kind == b'd' => folders.push(path),
            _ if is_debris => {}
            _ => files.push((path, entry)),
        }
    }
    if files.is_empty() {
        return None;
    }
    let is_above = |above: &str, path: &str| Path::new(path).starts_with(above) && above != path;
    for (index, (file, _)) in files.iter().enumerate() {
        let collides = files[..index].iter().any(|(other, _)| other == file)
            || files.iter().any(|(other, _)| is_above(file, other))
            || folders.contains(file)
            || ATTACHED.iter().any(|(name, _)| is_above(file, name) || is_above(name, file));
        if collides {
            return None;
        }
    }
    Some(files)
}

/// One entry of an archive that is made here.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What it is, as of [`entries`].
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

impl Entry {
    fn read(line: &[u8]) -> Option<Self> {
        let (kind, rest) = line.split_first()?;
        let mut parts = rest.splitn(2, |byte| *byte == b'\t');
        let name = percent_decode(parts.next()?).collect();
        let content = parts.next().unwrap_or_default().to_vec();
        Some(Self { kind: *kind, name, content })
    }
}

/// Packs entries as they are, which programs that make archives do not (APPNOTE.TXT, 4.3).
pub(crate) fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::<u8>::new();
    let mut directory = Vec::<u8>::new();
    for Entry { kind, name, content } in entries {
        // In UTF-8, where it is.
        let flags: u16 = if str::from_utf8(name).is_ok() { 1 << 11 } else { 0 };
        let mode: u32 = match kind {
            b'f' => 0o100_600,
            b'x' => 0o100_700,
            b'd' => 0o040_700,
            b'l' => 0o120_777,
            b'p' => 0o010_600,
            _ => 0,
        };
        let crc = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, content) as u32;
        let size = content.len() as u32;
        // Stored, at no time.
        let mut common = vec![20, 0];
        common.extend(flags.to_le_bytes());
        common.extend([0; 6]);
        common.extend([crc, size, size].map(u32::to_le_bytes).concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let offset = archive.len() as u32;
        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(name);
        archive.extend(content);
        // By a Unix.
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(name);
    }
    let number = (entries.len() as u16).to_le_bytes();
    let places = [directory.len() as u32, archive.len() as u32].map(u32::to_le_bytes).concat();
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([number, number].concat());
    archive.extend(places);
    archive.extend([0, 0]);
    archive
}

#[derive(Debug, PartialEq, Eq)]
struct File {
    content: Vec<u8>,
    mode: u32,
}

/// A folder to unpack into, in one with nothing else but the archive.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("stepwes-fuzz-{}-{made}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        for (name, content) in ATTACHED {
            let path = place.base().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        }
        place
    }

    fn base(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The paths of an archive's files, or `None` when it is refused: for a reason, with nothing
    /// left.
    fn unpack(&self, archive: &[u8]) -> Option<Vec<String>> {
        let zip = self.0.join("bundle.zip");
        fs::write(&zip, archive).expect("written");
        let attached = |name: &str| ATTACHED.iter().any(|(attached, _)| *attached == name);
        let unpacked = unpack(&zip, &self.base(), attached);
        let mut beside: Vec<_> = entries_of(&self.0).collect();
        beside.sort();
        assert_eq!(beside, [zip, self.base()]);
        let there = self.files();
        for (name, content) in ATTACHED {
            assert_eq!(there[name].content, content, "{name}");
        }
        match unpacked {
            Ok(files) => Some(files),
            Err(failure) => {
                self.check_reason(failure);
                let left: Vec<_> = entries_of(&self.base()).collect();
                assert_eq!((there.len(), left.len()), (2, 2), "{left:?}");
                None
            }
        }
    }

    /// A reason says what is wrong, in one line, to the end, and nothing of this machine.
    fn check_reason(&self, failure: Failure) {
        let Failure::Request(reason) = failure else { panic!("not the request's: {failure:?}") };
        let what = reason.strip_prefix("the workflow bundle cannot be used: ").expect(&reason);
        assert!(!what.is_empty() && !reason.contains(char::is_control), "{reason:?}");
        assert!(reason.chars().count() <= MOST_SAID, "{reason:?}");
        assert!(!reason.contains(&*self.0.to_string_lossy()), "{reason:?}");
    }

    /// What is in the folder: plain files and folders, and no way out.
    fn files(&self) -> BTreeMap<String, File> {
        let base = self.base();
        let mut files = BTreeMap::new();
        let mut folders = vec![base.clone()];
        while let Some(folder) = folders.pop() {
            for path in entries_of(&folder) {
                let found = fs::symlink_metadata(&path).expect("there");
                if found.is_dir() {
                    folders.push(path);
                    continue;
                }
                assert!(found.is_file() && found.nlink() == 1, "{path:?}");
                let name = path.strip_prefix(&base).ok().and_then(Path::to_str).expect("text");
                let content = fs::read(&path).expect("read");
                let mode = found.mode() & 0o7777;
                let is_ours = ATTACHED.iter().any(|(attached, _)| *attached == name);
                assert!(is_ours || [0o644, 0o755].contains(&mode), "{name:?}: {mode:o}");
                files.insert(name.to_owned(), File { content, mode });
            }
        }
        files
    }

    /// Reads what the files say of a run: nothing but what is among them.
    fn read(&self, files: &[String], there: &BTreeMap<String, File>) {
        for kind in KINDS {
            match read(&self.base(), files, kind) {
                Ok(bundle) => check(&bundle, files, there),
                Err(failure) => self.check_reason(failure),
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entries_of(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).expect("listed").map(|entry| entry.expect("listed").path())
}

/// The workflow is one of the files, or where the manifest says; each input and option is one that a
/// file has.
fn check(bundle: &Bundle, files: &[String], there: &BTreeMap<String, File>) {
    let json = |name: &str| -> Map<String, Value> {
        serde_json::from_slice(&there[name].content).unwrap_or_default()
    };
    let manifest = files.iter().any(|file| file == "MANIFEST.json").then(|| json("MANIFEST.json"));
    let manifest = manifest.filter(|_| files.len() > 1);
    let says = |field: &str| manifest.as_ref().and_then(|manifest| manifest.get(field));
    match &bundle.workflow {
        Main::File(file, _) => {
            assert!(files.contains(file), "{file:?}");
            if let Some(main) = says("mainWorkflowURL").and_then(Value::as_str) {
                let name = Path::new(file).file_name().and_then(OsStr::to_str).expect("a name");
                let decoded = percent_decode(main.as_bytes()).decode_utf8_lossy();
                assert!(main.contains(name) || decoded.contains(name), "{main:?} is no {file:?}");
            }
        }
        Main::Url(url) => {
            let main = says("mainWorkflowURL").and_then(Value::as_str).expect("a manifest");
            assert_eq!(Some(url), Url::parse(main).ok().as_ref());
            assert!(["http", "https", "s3"].contains(&url.scheme()), "{url}");
        }
    }
    for (name, value) in &bundle.inputs {
        let has = |file: &String| json(file).get(name) == Some(value);
        assert!(files.iter().any(has), "the input {name:?} is {value} in no file");
    }
    let words = says("engineOptions").and_then(Value::as_str).unwrap_or_default();
    let more = says("engineOptions").and_then(Value::as_object);
    for (name, value) in &bundle.options {
        assert!(!value.is_array() && !value.is_object(), "{name:?}: {value}");
        assert!(!name.starts_with(resources::PREFIX), "{name:?}");
        let has = |file: &String| json(file).get(name) == Some(value);
        let said = words.contains(name) || more.is_some_and(|more| more.get(name) == Some(value));
        assert!(said || files.iter().any(has), "the option {name:?} is {value} in no file");
    }
}
