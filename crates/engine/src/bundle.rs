//! Zip bundles of the Amazon Genomics CLI's: a workflow with all its files, and perhaps its inputs
//! and options (<https://aws.github.io/amazon-genomics-cli/docs/concepts/workflows/>, Toil's
//! `toil.server.wes.amazon_wes_utils`).

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value};
use stepwes_core::{
    attachment::{INPUTS_FILE, MAX_NAME_BYTES},
    resources,
};
use url::Url;
use zip::{CompressionMethod, ZipArchive, result::ZipError};

use crate::error::Failure;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

/// The most entries that a bundle may have.
const MAX_ENTRIES: usize = 10_000;

/// How much of an archive may be read to find out what is in it, in bytes: some 800 for each entry.
const MAX_DIRECTORY: u64 = 8 << 20;

/// How much a bundle may be when it is unpacked, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// Packed files that become so many times as large are meant to fill disks: text becomes five to
/// twenty times as large. Deflate's limit is 1,032.
const MAX_RATIO: u64 = 100;

/// Up to this size, in bytes, a ratio says nothing.
const ANY_RATIO: u64 = 4 << 20;

/// The largest manifest, inputs or options file, in bytes.
const MAX_JSON: u64 = 16 << 20;

/// How many characters of a name, or of somebody else's error, a reason shows: what is wrong with it
/// comes behind.
const SHOWN: usize = 200;

const MANIFEST: &str = "MANIFEST.json";
const OPTIONS: &str = "options.json";

/// What a bundle says of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Bundle {
    /// The workflow.
    pub(crate) workflow: Main,
    /// Its inputs, below `workflow_params`.
    pub(crate) inputs: Map<String, Value>,
    /// Options of the engine, below `workflow_engine_parameters`.
    pub(crate) options: Map<String, Value>,
}

/// Where a bundle's workflow is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Main {
    /// In the bundle, by its path.
    File(String, Option<String>),
    /// Elsewhere.
    Url(Url),
}

/// Whether a file is a zip archive, whatever it is called: no workflow begins as one does.
///
/// # Errors
/// As the file system fails.
pub(crate) fn is_zip(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(matches!(start[..], [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6]))
}

/// Unpacks the bundle at `zip` into the folder `base`, and gives the paths of its files. Those for
/// which `is_there` holds are left as they are: attachments win. Of a bundle that is refused nothing
/// is left.
///
/// # Errors
/// [`Failure::Request`] naming the entry that must not be; [`Failure::Service`] for a full disk.
pub(crate) fn unpack(
    zip: &Path,
    base: &Path,
    is_there: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Failure> {
    let mut archive = open(zip)?;
    let packed = fs::metadata(zip).map_err(|error| on_disk("reading the bundle", &error))?.len();
    let names = check(&archive)?;
    let mut room = Room { packed, unpacked: 0 };
    let mut made = Made::default();
    let mut unpacked = Vec::new();
    for (name, index) in names {
        let entry = archive.by_index(index).map_err(|error| unreadable(&name, error))?;
        let mode = entry.unix_mode().unwrap_or_default();
        if !is_there(&name) {
            let path = base.join(&name);
            if let Some(folder) = path.parent() {
                made.folder(folder).map_err(|error| in_the_way(&name, &error))?;
            }
            let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
            let file = made.file(&path, mode).map_err(|error| in_the_way(&name, &error))?;
            write(entry, file, mode, &name, &mut room)?;
        }
        unpacked.push(name);
    }
    made.keep();
    Ok(unpacked)
}

/// What has been made in a folder, and is removed again unless it is kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    /// A folder, and those above it.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above)?;
        }
        fs::create_dir(path)?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        self.files.push(path.to_owned());
        Ok(file)
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What cannot be removed goes with the task's work folder.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// An archive, of which only so much may be read until it is open. What it says of the number of its
/// entries is no bound: it may say that in two places, and each entry takes memory.
struct Bounded {
    file: BufReader<File>,
    left: Rc<Cell<Option<u64>>>,
}

impl io::Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get() else { return self.file.read(buffer) };
        if left == 0 {
            return Err(io::Error::other("its directory is too large"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        self.left.set(Some(left - read as u64));
        Ok(read)
    }
}

impl io::Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn open(zip: &Path) -> Result<ZipArchive<Bounded>, Failure> {
    let file = File::open(zip).map_err(|error| on_disk("reading the bundle", &error))?;
    let left = Rc::new(Cell::new(Some(MAX_DIRECTORY)));
    let opened = ZipArchive::new(Bounded { file: BufReader::new(file), left: Rc::clone(&left) });
    let left = left.replace(None);
    opened.map_err(|error| match error {
        _ if left == Some(0) => request(&format!(
            "the directory of the archive is larger than {} MiB",
            MAX_DIRECTORY >> 20
        )),
        ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            on_disk("reading the bundle", &error)
        }
        error => request(&format!("it is no whole zip archive: {}", cut(error.to_string()))),
    })
}

/// The files of an archive by their paths in order, once none is what it must not be.
fn check(archive: &ZipArchive<Bounded>) -> Result<Vec<(String, usize)>, Failure> {
    if archive.len() > MAX_ENTRIES {
        return Err(request(&format!("it has more than {MAX_ENTRIES} entries")));
    }
    if archive.has_duplicate_names() {
        return Err(request("two of its entries have the same name"));
    }
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    let mut folders = BTreeSet::new();
    let mut bytes = 0_u64;
    for index in 0..archive.len() {
        let raw = |error: ZipError| unreadable(&format!("entry {}", index + 1), error);
        let entry = archive.by_index_data(index).map_err(raw)?;
        let given = entry.name().map_err(raw)?;
        let refused = |what: &str| request(&format!("its entry {} {what}", shown(&given)));
        // The folder itself, as some programs pack it.
        if given.ends_with('/') && given.split('/').all(|part| matches!(part, "" | ".")) {
            continue;
        }
        let name = relative(&given).map_err(|what| refused(&what))?;
        const KIND: u32 = 0o170_000;
        let kind = entry.unix_mode().unwrap_or_default() & KIND;
        match kind {
            0 | 0o040_000 | 0o100_000 => {}
            0o120_000 => return Err(refused("is a symbolic link; pack the file itself")),
            _ => return Err(refused("is neither a file nor a folder")),
        }
        if entry.encrypted() {
            return Err(refused("is encrypted; pack it without a password"));
        }
        // Not by a backslash at its end, which is of a file here.
        if given.ends_with('/') || kind == 0o040_000 {
            folders.insert(name);
            continue;
        }
        if is_debris(&name) {
            continue;
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            let method = entry.compression();
            return Err(refused(&format!("is packed by {method}; pack it by deflate")));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > MAX_BYTES {
            return Err(too_large());
        }
        if !seen.insert(name.clone()) {
            return Err(refused("is there twice"));
        }
        folders.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
        files.push((name, index));
    }
    if let Some(both) = seen.iter().find(|name| folders.contains(*name)) {
        let both = shown(both);
        return Err(request(&format!("its entry {both} would be a file and a folder")));
    }
    if files.is_empty() {
        return Err(request("it is empty"));
    }
    Ok(files)
}

/// A path below a folder, without empty and `.` parts.
///
/// # Errors
/// What is wrong with it, a phrase behind its name.
pub(crate) fn relative(name: &str) -> Result<String, String> {
    let told = |what: &str| Err(what.to_owned());
    if name.contains('\0') {
        return told("has a NUL in its name");
    }
    if name.starts_with('/') {
        return told("is an absolute path; paths in a bundle are relative to it");
    }
    let parts: Vec<_> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return told("leads out of its folder by ..");
    }
    if parts.iter().any(|part| part.len() > 255) || name.len() > MAX_NAME_BYTES {
        return told("has too long a name");
    }
    if parts.is_empty() {
        return told("has no name");
    }
    Ok(parts.join("/"))
}

/// What macOS puts beside files.
fn is_debris(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next() == Some(".DS_Store")
}

/// How much of a bundle has been unpacked.
struct Room {
    packed: u64,
    unpacked: u64,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        self.unpacked += bytes as u64;
        if self.unpacked > MAX_BYTES {
            return Err(too_large());
        }
        if self.unpacked > ANY_RATIO && self.unpacked / MAX_RATIO > self.packed {
            return Err(request(&format!(
                "it becomes more than {MAX_RATIO} times as large when it is unpacked, as archives do that are meant to fill disks; send such files apart from the bundle"
            )));
        }
        Ok(())
    }
}

/// Writes an entry, counting what really comes out of it.
fn write(
    mut entry: impl io::Read,
    mut file: File,
    mode: u32,
    name: &str,
    room: &mut Room,
) -> Result<(), Failure> {
    let doing = format!("unpacking {}", shown(name));
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = entry.read(&mut buffer).map_err(|error| unreadable(name, error.into()))?;
        if read == 0 {
            break;
        }
        room.take(read)?;
        file.write_all(&buffer[..read]).map_err(|error| on_disk(&doing, &error))?;
    }
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(|error| on_disk(&doing, &error))
}

/// An entry that cannot be written because of another file.
fn in_the_way(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => request(&format!(
            "its entry {} and another file would be in the same place; rename one of them",
            shown(name)
        )),
        _ => on_disk(&format!("unpacking {}", shown(name)), error),
    }
}

fn unreadable(name: &str, error: ZipError) -> Failure {
    match error {
        ZipError::Io(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::Other
            ) =>
        {
            on_disk(&format!("unpacking {}", shown(name)), &error)
        }
        error => {
            let error = cut(error.to_string());
            request(&format!("its entry {} cannot be unpacked: {error}", shown(name)))
        }
    }
}

fn on_disk(doing: &str, error: &io::Error) -> Failure {
    Failure::local(doing, error)
}

fn request(what: &str) -> Failure {
    Failure::Request(format!("the workflow bundle cannot be used: {what}"))
}

/// A name as a reason shows it.
fn shown(name: &str) -> String {
    cut(format!("{name:?}"))
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn too_large() -> Failure {
    request(&format!("it is larger than {} GiB when it is unpacked", MAX_BYTES >> 30))
}

/// `MANIFEST.json`; what it says beside this is ignored.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(rename = "mainWorkflowURL")]
    main: String,
    #[serde(rename = "inputFileURLs", default)]
    inputs: Option<Vec<String>>,
    // Two names: the Amazon Genomics CLI's documentation has the second, Toil's the first.
    #[serde(rename = "optionsFileURL", default)]
    options: Option<String>,
    #[serde(rename = "optionFileURL", default)]
    option: Option<String>,
    #[serde(rename = "engineOptions", default)]
    engine_options: Option<Value>,
}

/// Reads what an unpacked bundle says, by `files`, its paths: a single file is the workflow; else
/// `MANIFEST.json` tells; else it is the `main` file of the workflow type, with every `inputs*.json`
/// and `options.json` beside it.
///
/// # Errors
/// [`Failure::Request`] naming what is missing.
pub(crate) fn read(base: &Path, files: &[String], workflow_type: &str) -> Result<Bundle, Failure> {
    let found = Reader { base, files };
    found.bundle(workflow_type).map_err(|what| request(&what))
}

struct Reader<'a> {
    base: &'a Path,
    files: &'a [String],
}

impl Reader<'_> {
    fn bundle(&self, workflow_type: &str) -> Result<Bundle, String> {
        let only = |file: &str| Main::File(file.to_owned(), None);
        let (workflow, inputs, options, more) = if let [file] = self.files {
            (only(file), Vec::new(), None, None)
        } else if self.has(MANIFEST) {
            // From a list, too, serde would make one.
            let manifest: Manifest = serde_json::from_value(self.object(MANIFEST)?.into())
                .map_err(|error| {
                    format!("{MANIFEST} cannot be read: {}", cut(error.to_string()))
                })?;
            let mut inputs = Vec::new();
            for url in manifest.inputs.unwrap_or_default() {
                inputs.push(self.file_of("inputFileURLs", &url)?);
            }
            let options = match (manifest.options, manifest.option) {
                (Some(_), Some(_)) => {
                    return Err(format!(
                        "{MANIFEST} has both optionsFileURL and optionFileURL; leave one out"
                    ));
                }
                (Some(url), None) => Some(self.file_of("optionsFileURL", &url)?),
                (None, Some(url)) => Some(self.file_of("optionFileURL", &url)?),
                (None, None) => None,
            };
            (self.main(&manifest.main)?, inputs, options, manifest.engine_options)
        } else {
            let mains = mains(workflow_type);
            let main = mains.iter().find(|name| self.has(name)).ok_or_else(|| {
                format!("it has neither {MANIFEST} nor a workflow {}", mains.join(" or "))
            })?;
            let is_inputs = |name: &&String| {
                name.starts_with("inputs") && name.ends_with(".json") && !name.contains('/')
            };
            let inputs = self.files.iter().filter(is_inputs).cloned().collect();
            let options = self.has(OPTIONS).then(|| OPTIONS.to_owned());
            (only(main), inputs, options, None)
        };
        let mut bundle = Bundle { workflow, inputs: Map::new(), options: Map::new() };
        for file in inputs {
            bundle.inputs.extend(self.object(&file)?);
        }
        if let Some(file) = options {
            bundle.options.extend(of_engine(&shown(&file), self.object(&file)?)?);
        }
        match more {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => bundle.options.extend(words(&text)?),
            Some(Value::Object(object)) => {
                bundle.options.extend(of_engine("engineOptions", object)?);
            }
            Some(_) => return Err(format!("engineOptions in {MANIFEST} is no string of options")),
        }
        Ok(bundle)
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }

    fn main(&self, url: &str) -> Result<Main, String> {
        match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "http" | "https" | "s3") => Ok(Main::Url(url)),
            _ => {
                let (path, fragment) = match url.split_once('#') {
                    Some((path, fragment)) => (path, Some(fragment.to_owned())),
                    None => (url, None),
                };
                self.file_of("mainWorkflowURL", path).map(|file| Main::File(file, fragment))
            }
        }
    }

    /// The file of the bundle that a manifest's `field` names.
    fn file_of(&self, field: &str, url: &str) -> Result<String, String> {
        let wrong = |what: &str| format!("{field} {} in {MANIFEST} {what}", shown(url));
        if url.contains("://") || url.starts_with("file:") {
            return Err(wrong("is not the relative path of a file in the bundle"));
        }
        let path = relative(url).map_err(|what| wrong(&what))?;
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        [path, decoded]
            .into_iter()
            .find(|path| self.has(path))
            .ok_or_else(|| wrong("is not in the bundle"))
    }

    fn content(&self, file: &str) -> Result<Vec<u8>, String> {
        let read = || {
            let mut content = Vec::new();
            File::open(self.base.join(file))?.take(MAX_JSON + 1).read_to_end(&mut content)?;
            Ok(content)
        };
        let content = read().map_err(|error: io::Error| format!("{}: {error}", shown(file)))?;
        if content.len() as u64 > MAX_JSON {
            return Err(format!("{} is larger than {MAX_JSON} bytes", shown(file)));
        }
        Ok(content)
    }

    fn object(&self, file: &str) -> Result<Map<String, Value>, String> {
        serde_json::from_slice(&self.content(file)?).map_err(|error| {
            format!("{} is no JSON object: {}", shown(file), cut(error.to_string()))
        })
    }
}

/// The names that the workflow of a bundle without manifest may have.
fn mains(workflow_type: &str) -> Vec<String> {
    let kind = workflow_type.trim().to_ascii_lowercase();
    let others: &[&str] = match kind.as_str() {
        "smk" => &["Snakefile", "workflow/Snakefile"],
        "nfl" => &["main.nf"],
        _ => &[],
    };
    let others = others.iter().map(|name| (*name).to_owned());
    std::iter::once(format!("main.{kind}")).chain(others).collect()
}

/// Options of the engine, which a request could say as well. `file` is what they are in, as it is
/// shown.
fn of_engine(file: &str, options: Map<String, Value>) -> Result<Map<String, Value>, String> {
    for (name, value) in &options {
        if matches!(value, Value::Array(_) | Value::Object(_)) {
            return Err(format!(
                "the option {} in {file} must be a string, a number, a boolean, or null for a bare flag",
                shown(name)
            ));
        }
        if name.starts_with(resources::PREFIX) {
            return Err(format!(
                "{} in {file}: what a run asks of the service is read before its bundle is; put it into the request's workflow_engine_parameters",
                shown(name)
            ));
        }
    }
    Ok(options)
}

/// The options of a command line: `--name`, `--name=value`, or `--name value`.
fn words(text: &str) -> Result<Map<String, Value>, String> {
    let mut options = BTreeMap::new();
    let mut order = Vec::new();
    let mut last: Option<String> = None;
    for word in text.split_whitespace() {
        if word.starts_with('-') {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Value::from(value)),
                None => (word, Value::Null),
            };
            last = value.is_null().then(|| name.to_owned());
            options.insert(name.to_owned(), value);
            order.push(name.to_owned());
        } else {
            let name = last.take().ok_or_else(|| {
                format!(
                    "{} in engineOptions of {MANIFEST} is no option: options start with -",
                    shown(word)
                )
            })?;
            options.insert(name, word.into());
        }
    }
    let found = order.into_iter().filter_map(|name| options.remove_entry(&name)).collect();
    of_engine("engineOptions", found)
}

/// Refuses a workflow that is a bundle again.
pub(crate) fn not_nested(path: &Path, name: &str) -> Result<(), Failure> {
    match is_zip(path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(request(&format!("its workflow {} is a zip archive, too", shown(name)))),
        Err(error) => Err(on_disk("reading the bundle's workflow", &error)),
    }
}

/// Whether a bundle may not have a file of that name in the folder of the run itself.
pub(crate) fn is_taken(name: &str) -> bool {
    name.split('/').next() == Some(INPUTS_FILE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// Packs entries: a name with a slash at its end is a folder.
    fn pack(folder: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("workflow.zip");
        let mut zip = ZipWriter::new(File::create(&path).expect("made"));
        for (name, content) in entries {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .unix_permissions(if name.ends_with(".sh") { 0o755 } else { 0o600 });
            if name.ends_with('/') {
                zip.add_directory(*name, options).expect("added");
            } else {
                zip.start_file(*name, options).expect("begun");
                zip.write_all(content).expect("written");
            }
        }
        zip.finish().expect("finished");
        path
    }

    /// Replaces bytes of a packed bundle, everywhere.
    fn forge(zip: &Path, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        let mut bytes = fs::read(zip).expect("read");
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|part| part == from) {
            bytes[at + found..at + found + to.len()].copy_from_slice(to);
            at += found + to.len();
        }
        assert!(at > 0, "there is no {from:?}");
        fs::write(zip, bytes).expect("written");
    }

    fn unpacked(zip: &Path) -> (TempDir, Result<Vec<String>, String>) {
        let base = TempDir::new().expect("a folder");
        let files = unpack(zip, base.path(), |_| false).map_err(|failure| match failure {
            Failure::Request(reason) => reason,
            other => panic!("not the request's: {other:?}"),
        });
        (base, files)
    }

    fn refused(zip: &Path) -> String {
        let (base, files) = unpacked(zip);
        let told = files.expect_err("refused");
        assert!(told.starts_with("the workflow bundle cannot be used: "), "{told}");
        drop(base);
        told
    }

    fn bundled(entries: &[(&str, &str)], kind: &str) -> Result<Bundle, String> {
        let folder = TempDir::new().expect("a folder");
        let entries: Vec<_> = entries.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        let (base, files) = unpacked(&pack(folder.path(), &entries));
        read(base.path(), &files?, kind).map_err(|failure| failure.to_string())
    }

    #[test]
    fn files_keep_their_folders_and_programs_stay_programs() {
        let folder = TempDir::new().expect("a folder");
        let zip = pack(
            folder.path(),
            &[
                ("tools/", b""),
                ("tools/./a b.cwl", b"a"),
                ("bin/run.sh", b"#!"),
                ("\u{fc}.txt", b""),
                ("__MACOSX/._a", b"x"),
                (".DS_Store", b"x"),
            ],
        );
        assert!(is_zip(&zip).expect("read"));
        let (base, files) = unpacked(&zip);
        assert_eq!(files.expect("unpacked"), ["tools/a b.cwl", "bin/run.sh", "\u{fc}.txt"]);
        assert_eq!(fs::read(base.path().join("tools/a b.cwl")).expect("read"), b"a");
        let mode = |name: &str| {
            fs::metadata(base.path().join(name)).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode("bin/run.sh"), mode("\u{fc}.txt")), (0o755, 0o644));
        assert!(!base.path().join("__MACOSX").exists());
    }

    #[test]
    fn the_folder_itself_is_no_entry_and_a_backslash_makes_no_folder() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("made.zip");
        let entry = |kind, name: &str| fuzz::Entry { kind, name: name.into(), content: vec![] };
        let entries = [entry(b'd', "./"), entry(b'd', "empty"), entry(b'f', "back\\")];
        fs::write(&path, fuzz::pack(&entries)).expect("written");
        assert_eq!(unpacked(&path).1.expect("unpacked"), ["back\\"]);
    }

    #[test]
    fn attachments_win() {
        let folder = TempDir::new().expect("a folder");
        let zip = pack(folder.path(), &[("main.cwl", b"packed"), ("inputs.json", b"{}")]);
        let base = TempDir::new().expect("a folder");
        fs::write(base.path().join("inputs.json"), "mine").expect("written");
        let files = unpack(&zip, base.path(), |name| name == "inputs.json").expect("unpacked");
        assert_eq!(files, ["main.cwl", "inputs.json"]);
        assert_eq!(fs::read(base.path().join("inputs.json")).expect("read"), b"mine");
        let told = unpack(&zip, base.path(), |_| false).expect_err("in the way").to_string();
        assert!(told.contains("main.cwl") && told.contains("same place"), "{told}");
    }

    #[test]
    fn what_leads_out_of_the_bundle_is_refused_by_name() {
        let folder = TempDir::new().expect("a folder");
        for (name, why) in [
            ("../evil", "leads out"),
            ("a/../../evil", "leads out"),
            ("/etc/evil", "absolute path"),
            ("./..", "leads out"),
        ] {
            // The writer mends such names: they are put in afterwards.
            let harmless = "x".repeat(name.len());
            let zip = pack(folder.path(), &[(&harmless, b"x"), ("main.cwl", b"")]);
            forge(&zip, harmless.as_bytes(), name.as_bytes());
            let told = refused(&zip);
            assert!(told.contains(name) && told.contains(why), "{told}");
        }
        let long = "n".repeat(256);
        assert!(refused(&pack(folder.path(), &[(&long, b"x")])).contains("too long"));
    }

    #[test]
    fn links_duplicates_and_what_is_file_and_folder_are_refused() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("link.zip");
        let mut zip = ZipWriter::new(File::create(&path).expect("made"));
        zip.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).expect("added");
        zip.finish().expect("finished");
        assert!(refused(&path).contains("\"link\" is a symbolic link"));
        let twice = pack(folder.path(), &[("aaa", b"1"), ("bbb", b"2")]);
        forge(&twice, b"bbb", b"aaa");
        assert!(refused(&twice).contains("same name"));
        let dotted = pack(folder.path(), &[("a/b", b"1"), ("a/./b", b"2")]);
        assert!(refused(&dotted).contains("twice"), "{}", refused(&dotted));
        let both = pack(folder.path(), &[("a", b"1"), ("a/b", b"2")]);
        assert!(refused(&both).contains("\"a\" would be a file and a folder"));
    }

    #[test]
    fn too_many_entries_are_refused_before_they_are_read() {
        let folder = TempDir::new().expect("a folder");
        let names: Vec<_> = (0..=MAX_ENTRIES).map(|number| number.to_string()).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
        let zip = pack(folder.path(), &entries);
        assert!(refused(&zip).contains("more than 10000 entries"));
        let most = pack(folder.path(), &entries[1..]);
        assert_eq!(unpacked(&most).1.expect("unpacked").len(), MAX_ENTRIES);
    }

    /// The directory of a Zip64 archive has a number of its own (APPNOTE.TXT, 4.3.14).
    #[test]
    fn a_directory_that_is_larger_than_it_says_is_not_read_to_its_end() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("large.zip");
        let mut entry =
            fuzz::pack(&[fuzz::Entry { kind: b'f', name: b"a".into(), content: vec![] }]);
        let directory = entry.len() - 22 - 47;
        let begins = directory as u64;
        let end = entry.split_off(directory + 47);
        let number = MAX_DIRECTORY / 47 + 1;
        for _ in 1..number {
            entry.extend_from_within(directory..directory + 47);
        }
        let (ends, size) = (entry.len() as u64, number * 47);
        entry.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
        entry.extend([number, number, size, begins].map(u64::to_le_bytes).concat());
        entry.extend(b"PK\x06\x07\0\0\0\0");
        entry.extend(ends.to_le_bytes());
        entry.extend([1, 0, 0, 0]);
        entry.extend(&end[..16]);
        // Where the other number is to be looked for.
        entry.extend([0xff; 4]);
        entry.extend([0; 2]);
        fs::write(&path, &entry).expect("written");
        assert!(refused(&path).contains("directory of the archive is larger than 8 MiB"));
    }

    #[test]
    fn a_bundle_that_is_refused_in_the_middle_leaves_nothing() {
        let folder = TempDir::new().expect("a folder");
        let zip = pack(folder.path(), &[("a/b/main.cwl", b"x"), ("mine/c", b""), ("d", b"text")]);
        // The second one is in the way; then the last one's content is not what it should be.
        forge(&zip, b"mine/c", b"mine/d");
        for (held, is_damaged) in [("mine/d", false), ("mine/other", true)] {
            let base = TempDir::new().expect("a folder");
            fs::create_dir(base.path().join("mine")).expect("made");
            fs::write(base.path().join(held), "mine").expect("written");
            if is_damaged {
                let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, b"text") as u32;
                forge(&zip, &crc.to_le_bytes(), &(crc ^ 1).to_le_bytes());
            }
            let told = unpack(&zip, base.path(), |_| false).expect_err("refused").to_string();
            assert_eq!(told.contains("cannot be unpacked"), is_damaged, "{told}");
            let left: Vec<_> = fs::read_dir(base.path()).expect("listed").collect();
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!(fs::read_dir(base.path().join("mine")).expect("listed").count(), 1);
            assert_eq!(fs::read(base.path().join(held)).expect("read"), b"mine");
        }
    }

    #[test]
    fn bombs_are_refused_and_what_is_well_packed_is_not() {
        let folder = TempDir::new().expect("a folder");
        let zeros = vec![0; 8 << 20];
        let told = refused(&pack(folder.path(), &[("main.cwl", b""), ("zeros", &zeros)]));
        assert!(told.contains("100 times as large"), "{told}");
        let little =
            pack(folder.path(), &[("main.cwl", b""), ("zeros", &zeros[..ANY_RATIO as usize])]);
        assert!(unpacked(&little).1.is_ok());
    }

    #[test]
    fn a_size_that_is_too_large_is_refused_before_anything_is_unpacked() {
        let folder = TempDir::new().expect("a folder");
        let zip = pack(folder.path(), &[("main.cwl", b"12345")]);
        // The size of the entry, in the central directory alone.
        let mut bytes = fs::read(&zip).expect("read");
        let entry = bytes.windows(4).position(|part| part == b"PK\x01\x02").expect("a directory");
        bytes[entry + 24..entry + 28].copy_from_slice(&u32::MAX.wrapping_sub(1).to_le_bytes());
        fs::write(&zip, bytes).expect("written");
        let (base, files) = unpacked(&zip);
        assert!(files.expect_err("refused").contains("larger than 2 GiB"));
        assert_eq!(fs::read_dir(base.path()).expect("listed").count(), 0);
    }

    #[test]
    fn what_is_no_archive_or_a_torn_one_is_refused() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("a.zip");
        fs::write(&path, "class: Workflow").expect("written");
        assert!(!is_zip(&path).expect("read"));
        let whole = fs::read(pack(folder.path(), &[("main.cwl", b"some text"), ("b", b"c")]));
        let whole = whole.expect("read");
        fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        assert!(is_zip(&path).expect("read"));
        assert!(refused(&path).contains("no whole zip archive"));
        // Its content is not what its checksum says.
        let damaged = pack(folder.path(), &[("main.cwl", b"")]);
        fs::write(&path, fs::read(&damaged).expect("read")).expect("written");
        assert!(unpacked(&path).1.is_ok());
        assert!(refused(&pack(folder.path(), &[("only/", b"")])).contains("empty"));
    }

    #[test]
    fn an_encrypted_entry_is_refused() {
        let folder = TempDir::new().expect("a folder");
        let zip = pack(folder.path(), &[("main.cwl", b"text")]);
        let mut bytes = fs::read(&zip).expect("read");
        let entry = bytes.windows(4).position(|part| part == b"PK\x01\x02").expect("a directory");
        bytes[entry + 8] |= 1;
        fs::write(&zip, bytes).expect("written");
        assert!(refused(&zip).contains("encrypted"));
    }

    #[test]
    fn a_single_file_is_the_workflow() {
        let bundle = bundled(&[("d/any.wdl", "x")], "WDL").expect("read");
        assert_eq!(bundle.workflow, Main::File("d/any.wdl".into(), None));
        assert!(bundle.inputs.is_empty() && bundle.options.is_empty());
    }

    #[test]
    fn a_manifest_names_workflow_inputs_and_options_in_their_order() {
        let manifest = json!({
            "mainWorkflowURL": "./wf/main%20one.cwl#main", "inputFileURLs": ["a.json", "in/b.json"],
            "optionFileURL": "o.json", "engineOptions": "--debug --target=x -t y", "other": 1,
        });
        let manifest = manifest.to_string();
        let files = [
            ("MANIFEST.json", manifest.as_str()),
            ("wf/main one.cwl", ""),
            ("a.json", r#"{"x": 1, "y": {"deep": 1}, "z": 1}"#),
            ("in/b.json", r#"{"y": 2}"#),
            ("inputs.json", r#"{"z": "not named"}"#),
            ("o.json", r#"{"--debug": "from file", "--parallel": null}"#),
        ];
        let bundle = bundled(&files, "CWL").expect("read");
        assert_eq!(bundle.workflow, Main::File("wf/main one.cwl".into(), Some("main".into())));
        assert_eq!(Value::Object(bundle.inputs), json!({"x": 1, "y": 2, "z": 1}));
        assert_eq!(
            Value::Object(bundle.options),
            json!({"--debug": null, "--parallel": null, "--target": "x", "-t": "y"})
        );
    }

    #[test]
    fn a_manifest_s_workflow_may_be_elsewhere() {
        let manifest = r#"{"mainWorkflowURL": "https://example.org/a.cwl", "inputFileURLs": null}"#;
        let bundle = bundled(&[("MANIFEST.json", manifest), ("b", "")], "CWL").expect("read");
        let url = Url::parse("https://example.org/a.cwl").expect("a URL");
        assert_eq!(bundle.workflow, Main::Url(url));
    }

    #[test]
    fn without_a_manifest_names_tell() {
        let bundle = bundled(
            &[
                ("main.cwl", ""),
                ("inputs_b.json", r#"{"n": 1, "b": 1}"#),
                ("inputs.json", r#"{"n": 2}"#),
                ("inputs.txt", "data"),
                ("sub/inputs.json", "{"),
                ("options.json", r#"{"--debug": true}"#),
            ],
            " cwl",
        )
        .expect("read");
        assert_eq!(bundle.workflow, Main::File("main.cwl".into(), None));
        assert_eq!(Value::Object(bundle.inputs), json!({"n": 2, "b": 1}), "in the archive's order");
        assert_eq!(Value::Object(bundle.options), json!({"--debug": true}));
        for (kind, file) in [("SMK", "workflow/Snakefile"), ("NFL", "main.nf"), ("PY", "main.py")] {
            let bundle = bundled(&[(file, ""), ("other", "")], kind).expect(kind);
            assert_eq!(bundle.workflow, Main::File(file.into(), None));
        }
    }

    #[test]
    fn what_a_bundle_does_not_say_well_is_told() {
        let told = |manifest: &str| {
            bundled(&[("MANIFEST.json", manifest), ("a.json", "[1]"), ("m.cwl", "")], "CWL")
                .expect_err(manifest)
        };
        for (manifest, why) in [
            ("{", "\"MANIFEST.json\" is no JSON object"),
            (r#"["m.cwl", []]"#, "\"MANIFEST.json\" is no JSON object"),
            ("{}", "MANIFEST.json cannot be read: missing field `mainWorkflowURL`"),
            (
                r#"{"mainWorkflowURL": "none.cwl"}"#,
                "mainWorkflowURL \"none.cwl\" in MANIFEST.json is not in the bundle",
            ),
            (r#"{"mainWorkflowURL": "/m.cwl"}"#, "is an absolute path"),
            (r#"{"mainWorkflowURL": "../m.cwl"}"#, "leads out"),
            (r#"{"mainWorkflowURL": "file:///etc/passwd"}"#, "not the relative path"),
            (
                r#"{"mainWorkflowURL": "m.cwl", "inputFileURLs": ["a.json"]}"#,
                "\"a.json\" is no JSON object",
            ),
            (
                r#"{"mainWorkflowURL": "m.cwl", "inputFileURLs": ["s3://b/a.json"]}"#,
                "inputFileURLs",
            ),
            (
                r#"{"mainWorkflowURL": "m.cwl", "optionsFileURL": "x", "optionFileURL": "y"}"#,
                "both",
            ),
            (r#"{"mainWorkflowURL": "m.cwl", "engineOptions": "resume"}"#, "\"resume\""),
            (r#"{"mainWorkflowURL": "m.cwl", "engineOptions": 3}"#, "engineOptions"),
            (r#"{"mainWorkflowURL": "m.cwl", "engineOptions": {"--x": []}}"#, "must be a string"),
            (
                r#"{"mainWorkflowURL": "m.cwl", "engineOptions": {"stepwes.cpu": 2}}"#,
                "put it into the request",
            ),
        ] {
            let told = told(manifest);
            assert!(told.contains(why), "{manifest}: {told}");
        }
        let none = bundled(&[("a.cwl", ""), ("b.cwl", "")], "SMK").expect_err("no workflow");
        assert!(none.contains("main.smk or Snakefile"), "{none}");
    }

    #[test]
    fn a_bundle_in_a_bundle_is_refused() {
        let folder = TempDir::new().expect("a folder");
        let inner = pack(folder.path(), &[("main.cwl", b"x")]);
        let told = not_nested(&inner, "inner.zip").expect_err("refused").to_string();
        assert!(told.contains("inner.zip") && told.contains("zip archive, too"), "{told}");
    }
}
