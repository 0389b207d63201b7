//! A CWL output object, its locations changed from the task's disk to the uploaded files.

use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};
use stepwes_core::task::{EngineOutputs, MAX_OUTPUT_DEPTH, OUTDIR_SCHEME};
use url::Url;

use crate::{bucket::Uploaded, outputs::Outputs};

/// What is encoded in a location: all but RFC 3986's unreserved characters and `/`.
const LOCATION: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Where a File or Directory is.
enum Place {
    /// Below the output directory.
    Output(String),
    /// Its content is in the object itself.
    Literal,
    /// On some other server.
    Elsewhere,
}

/// Maps every File and Directory of the object (in records, arrays, `secondaryFiles`, `listing`)
/// that lies in `outdir` to its [`OUTDIR_SCHEME`] location, with size and checksum of what was
/// uploaded. `path`, which is this machine's, goes. A Directory gets a `listing` when it has none,
/// since S3 shows no empty ones.
///
/// # Errors
/// A sentence naming the output that does not exist or is not in `outdir`.
fn map(mut object: Value, outdir: &Path, uploaded: &Outputs) -> Result<Value, String> {
    match object {
        // What an engine says that has nothing to say.
        Value::Null => return Ok(json!({})),
        Value::Object(_) => {}
        _ => return Err("the engine's output is not a JSON object".to_owned()),
    }
    Mapper { outdir, uploaded }.value(&mut object, 0)?;
    Ok(object)
}

/// Reads what a CWL runner prints, and maps it.
///
/// # Errors
/// A sentence for whoever wrote the workflow; see [`map`].
pub(crate) fn outputs(
    runner: &str,
    stdout: &[u8],
    outdir: &Path,
    uploaded: &Outputs,
) -> Result<EngineOutputs, String> {
    let object = serde_json::from_slice(stdout)
        .map_err(|error| format!("{runner}'s standard output is not an output object: {error}"))?;
    map(object, outdir, uploaded).map(|object| EngineOutputs::Cwl { object })
}

/// The File of that path below the output directory, when it was uploaded.
pub(crate) fn file(path: &str, uploaded: &Outputs) -> Option<Value> {
    let found = uploaded.files.get(path)?;
    let mut object = named("File", path);
    describe(&mut object, found);
    Some(Value::Object(object))
}

/// The Directory of that path below `outdir`, with all that is in it, when it is there.
pub(crate) fn directory(path: &str, outdir: &Path, uploaded: &Outputs) -> Option<Value> {
    let found = uploaded.folders.contains(path);
    let mapper = Mapper { outdir, uploaded };
    found.then(|| {
        let mut object = named("Directory", path);
        object.insert("listing".to_owned(), mapper.listing(path));
        Value::Object(object)
    })
}

/// A File or Directory of that path.
fn named(class: &str, path: &str) -> Map<String, Value> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut object = Map::new();
    object.insert("class".to_owned(), class.into());
    object.insert("basename".to_owned(), name.into());
    object.insert("location".to_owned(), location(path));
    object
}

struct Mapper<'a> {
    outdir: &'a Path,
    uploaded: &'a Outputs,
}

impl Mapper<'_> {
    fn value(&self, value: &mut Value, depth: usize) -> Result<(), String> {
        if depth > MAX_OUTPUT_DEPTH {
            return Err(format!(
                "the output object is nested deeper than {MAX_OUTPUT_DEPTH} levels; a folder counts twice"
            ));
        }
        match value {
            Value::Array(items) => {
                items.iter_mut().try_for_each(|item| self.value(item, depth + 1))
            }
            Value::Object(object) => {
                match object.get("class").and_then(Value::as_str) {
                    Some("File") => self.file(object)?,
                    Some("Directory") => self.directory(object)?,
                    _ => {}
                }
                object.values_mut().try_for_each(|item| self.value(item, depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, object: &mut Map<String, Value>) -> Result<(), String> {
        match self.place(object, "contents")? {
            Place::Output(path) => {
                let Some(file) = self.uploaded.files.get(&path) else {
                    return Err(format!(
                        "the workflow names the output file {path:?}, which does not exist"
                    ));
                };
                object.insert("location".to_owned(), location(&path));
                describe(object, file);
            }
            Place::Literal | Place::Elsewhere => {}
        }
        forget_machine(object);
        Ok(())
    }

    fn directory(&self, object: &mut Map<String, Value>) -> Result<(), String> {
        match self.place(object, "listing")? {
            Place::Output(path) => {
                if !self.uploaded.folders.contains(&path) {
                    return Err(format!(
                        "the workflow names the output directory {path:?}, which does not exist"
                    ));
                }
                object.insert("location".to_owned(), location(&path));
                if !object.contains_key("listing") {
                    object.insert("listing".to_owned(), self.listing(&path));
                    // It holds our own locations, which need no mapping.
                }
            }
            Place::Literal | Place::Elsewhere => {}
        }
        forget_machine(object);
        Ok(())
    }

    /// Where an object is, by its `location` or, failing that, `path`; `content` is the field that
    /// a literal has.
    fn place(&self, object: &Map<String, Value>, content: &str) -> Result<Place, String> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let Some(location) = text("location").or_else(|| text("path")) else {
            return if object.contains_key(content) {
                Ok(Place::Literal)
            } else {
                let class = text("class").unwrap_or_default();
                Err(format!("an output {class} has neither location, path nor {content}"))
            };
        };
        // Already ours: the listing of a directory that came without one.
        if location.starts_with(OUTDIR_SCHEME) {
            return self.ours(location);
        }
        let path = match Url::parse(location) {
            Ok(url) if url.scheme() == "file" => url
                .to_file_path()
                .map_err(|()| format!("the output location {location:?} is not a local file"))?,
            Ok(_) => return Ok(Place::Elsewhere),
            // CWL's name for what exists in memory alone.
            Err(_) if location.starts_with("_:") => return Ok(Place::Literal),
            Err(_) => self.outdir.join(location),
        };
        self.below(&path).map(Place::Output).ok_or_else(|| {
            format!(
                "the output {location:?} is not in the output directory; only what is there is kept"
            )
        })
    }

    fn ours(&self, location: &str) -> Result<Place, String> {
        let path = percent_decode_str(&location[OUTDIR_SCHEME.len()..]).decode_utf8_lossy();
        let known =
            self.uploaded.files.contains_key(&*path) || self.uploaded.folders.contains(&*path);
        if known {
            Ok(Place::Output(path.into_owned()))
        } else {
            Err(format!("the output {location:?} does not exist"))
        }
    }

    /// A path below the output directory, `/` between its parts.
    fn below(&self, path: &Path) -> Option<String> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(clean.pop()),
                Component::CurDir => {}
                other => clean.push(other),
            }
        }
        clean.strip_prefix(self.outdir).ok()?.to_str().map(str::to_owned)
    }

    /// What is in a folder, all the way down.
    fn listing(&self, folder: &str) -> Value {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let direct = |path: &&String| {
            path.strip_prefix(&prefix).is_some_and(|name| !name.is_empty() && !name.contains('/'))
        };
        let start = prefix.clone();
        let folders = self
            .uploaded
            .folders
            .range(start.clone()..)
            .take_while(|path| path.starts_with(&prefix))
            .filter(direct)
            .map(|path| {
                let mut object = named("Directory", path);
                object.insert("listing".to_owned(), self.listing(path));
                Value::Object(object)
            });
        let files = self
            .uploaded
            .files
            .range(start..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| direct(path))
            .map(|(path, file)| {
                let mut object = named("File", path);
                describe(&mut object, file);
                Value::Object(object)
            });
        Value::Array(folders.chain(files).collect())
    }
}

fn location(path: &str) -> Value {
    format!("{OUTDIR_SCHEME}{}", utf8_percent_encode(path, LOCATION)).into()
}

fn describe(object: &mut Map<String, Value>, file: &Uploaded) {
    object.insert("size".to_owned(), file.size.into());
    object.insert("checksum".to_owned(), format!("sha1${}", file.sha1).into());
}

/// Takes out what says where things were on this machine.
fn forget_machine(object: &mut Map<String, Value>) {
    object.shift_remove("path");
    object.shift_remove("dirname");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploaded() -> Outputs {
        let file = |size| Uploaded { size, sha1: format!("{size:040}") };
        let names = ["a.bam", "a.bam.bai", "d e/sub/x%y#z.txt", "ü.txt", "d e.txt"];
        Outputs {
            files: names.into_iter().map(str::to_owned).zip((1..).map(file)).collect(),
            folders: ["", "d e", "d e/empty", "d e/sub", "void"].map(str::to_owned).into(),
        }
    }

    fn mapped(object: Value) -> Result<Value, String> {
        map(object, Path::new("/work/outputs"), &uploaded())
    }

    #[test]
    fn files_are_mapped_wherever_they_are() {
        let object = json!({
            "bam": {
                "class": "File", "basename": "a.bam", "size": 99, "checksum": "sha1$old",
                "location": "file:///work/outputs/a.bam", "path": "/work/outputs/a.bam",
                "secondaryFiles": [{"class": "File", "location": "file:///work/outputs/a.bam.bai"}],
            },
            "record": {"list": [[{"class": "File", "path": "/work/outputs/%C3%BC.txt/../ü.txt"}]]},
            "n": 1, "none": null, "text": "file:///work/outputs/a.bam",
        });
        insta::assert_json_snapshot!(mapped(object).expect("all there"), @r#"
        {
          "bam": {
            "class": "File",
            "basename": "a.bam",
            "size": 1,
            "checksum": "sha1$0000000000000000000000000000000000000001",
            "location": "outdir:a.bam",
            "secondaryFiles": [
              {
                "class": "File",
                "location": "outdir:a.bam.bai",
                "size": 2,
                "checksum": "sha1$0000000000000000000000000000000000000002"
              }
            ]
          },
          "record": {
            "list": [
              [
                {
                  "class": "File",
                  "location": "outdir:%C3%BC.txt",
                  "size": 4,
                  "checksum": "sha1$0000000000000000000000000000000000000004"
                }
              ]
            ]
          },
          "n": 1,
          "none": null,
          "text": "file:///work/outputs/a.bam"
        }
        "#);
    }

    #[test]
    fn directories_show_what_is_in_them_and_that_they_are_empty() {
        let object = json!({
            "dir": {"class": "Directory", "location": "file:///work/outputs/d%20e", "basename": "d e"},
            "void": {
                "class": "Directory", "location": "file:///work/outputs/void", "listing": [],
            },
        });
        insta::assert_json_snapshot!(mapped(object).expect("all there"), @r#"
        {
          "dir": {
            "class": "Directory",
            "location": "outdir:d%20e",
            "basename": "d e",
            "listing": [
              {
                "class": "Directory",
                "basename": "empty",
                "location": "outdir:d%20e/empty",
                "listing": []
              },
              {
                "class": "Directory",
                "basename": "sub",
                "location": "outdir:d%20e/sub",
                "listing": [
                  {
                    "class": "File",
                    "basename": "x%y#z.txt",
                    "location": "outdir:d%20e/sub/x%25y%23z.txt",
                    "size": 3,
                    "checksum": "sha1$0000000000000000000000000000000000000003"
                  }
                ]
              }
            ]
          },
          "void": {
            "class": "Directory",
            "location": "outdir:void",
            "listing": []
          }
        }
        "#);
    }

    #[test]
    fn literals_and_other_servers_files_stay() {
        let object = json!({
            "literal": {"class": "File", "basename": "l", "contents": "x"},
            "anonymous": {"class": "Directory", "location": "_:1", "listing": []},
            "remote": {"class": "File", "location": "https://example.org/x"},
            "stored": {"class": "File", "location": "s3://bucket/x"},
        });
        assert_eq!(mapped(object.clone()), Ok(object));
        assert_eq!(mapped(Value::Null), Ok(json!({})));
    }

    #[test]
    fn what_does_not_exist_or_is_elsewhere_is_named() {
        let told = |class: &str, location: &str| {
            mapped(json!({"o": {"class": class, "location": location}})).expect_err(location)
        };
        insta::assert_snapshot!(
            [
                told("File", "file:///work/outputs/gone.txt"),
                told("File", "file:///work/outputs/void"),
                told("Directory", "file:///work/outputs/a.bam"),
                told("File", "file:///etc/passwd"),
                told("File", "/work/outputs/../secret"),
                told("File", "outdir:gone"),
                mapped(json!({"o": {"class": "File"}})).expect_err("nothing"),
                mapped(json!([])).expect_err("an array"),
            ]
            .join("\n"),
            @r#"
        the workflow names the output file "gone.txt", which does not exist
        the workflow names the output file "void", which does not exist
        the workflow names the output directory "a.bam", which does not exist
        the output "file:///etc/passwd" is not in the output directory; only what is there is kept
        the output "/work/outputs/../secret" is not in the output directory; only what is there is kept
        the output "outdir:gone" does not exist
        an output File has neither location, path nor contents
        the engine's output is not a JSON object
        "#
        );
    }

    #[test]
    fn endless_nesting_is_an_error_and_not_a_crash() {
        let mut object = json!({});
        for _ in 0..=MAX_OUTPUT_DEPTH {
            object = json!({"in": object});
        }
        assert!(mapped(object).expect_err("too deep").contains("nested"));
    }
}
