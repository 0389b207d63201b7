//! What is in the engine's output directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use stepwes_core::task::MAX_OUTPUT_FILES;

/// The most folders that are taken.
const MAX_FOLDERS: usize = 100_000;

/// The longest path below the output directory, in bytes: an S3 key has 1,024, and the run's
/// prefix, which may be a destination's, needs room.
const MAX_PATH_BYTES: usize = 920;

/// The files and folders of an output directory, by their paths below it, `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Files, and where each is to be read.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// Folders, the output directory itself (`""`) included.
    pub(crate) folders: BTreeSet<String>,
}

/// The files of a folder as they were at some time, by their paths below it.
pub(crate) type Snapshot = BTreeMap<String, Version>;

/// What changes when somebody writes to a file, or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    inode: u64,
    /// In bytes.
    pub(crate) size: u64,
    modified: (i64, i64),
}

impl Version {
    /// The present one; of a link, the link's own.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let data = fs::symlink_metadata(path)?;
        let modified = (data.mtime(), data.mtime_nsec());
        Ok(Self { inode: data.ino(), size: data.len(), modified })
    }
}

impl Tree {
    /// The present versions of its files.
    ///
    /// # Errors
    /// When one is gone.
    pub(crate) fn snapshot(&self) -> io::Result<Snapshot> {
        self.files.iter().map(|(path, real)| Ok((path.clone(), Version::of(real)?))).collect()
    }

    /// Leaves out the files that are still as they were.
    pub(crate) fn since(mut self, before: &Snapshot) -> Self {
        self.files.retain(|path, real| {
            before.get(path).is_none_or(|then| Version::of(real).ok() != Some(*then))
        });
        self
    }
}

/// Lists `outdir`, save the paths below it that are `left_out`; nothing when it is not there. Symbolic
/// links count as what they lead to, which must be below `workdir`; both
/// are absolute and without symbolic links themselves.
///
/// # Errors
/// A sentence naming the file that cannot be an output, for whoever wrote the workflow.
pub(crate) fn walk(
    outdir: &Path,
    workdir: &Path,
    left_out: fn(&str) -> bool,
) -> Result<Tree, String> {
    let mut tree = Tree::default();
    // Folders to list: the path below `outdir`, where they really are, and the real folders that
    // lead there.
    let mut waiting = vec![(String::new(), outdir.to_owned(), vec![outdir.to_owned()])];
    while let Some((path, folder, ancestors)) = waiting.pop() {
        let unreadable =
            |error: io::Error| format!("the output directory {path:?} cannot be read: {error}");
        let entries = match fs::read_dir(&folder) {
            Err(error) if path.is_empty() && error.kind() == io::ErrorKind::NotFound => break,
            entries => entries.map_err(unreadable)?,
        };
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(format!(
                    "the name of the output {:?} is not UTF-8; rename it in the workflow",
                    entry.file_name().to_string_lossy()
                ));
            };
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            if left_out(&below) {
                continue;
            }
            if below.len() > MAX_PATH_BYTES {
                return Err(format!(
                    "the path of the output {below:?} is longer than {MAX_PATH_BYTES} bytes"
                ));
            }
            let real = real_path(&entry, &below, workdir)?;
            let kind = fs::metadata(&real)
                .map_err(|error| format!("the output {below:?} cannot be read: {error}"))?;
            if kind.is_dir() {
                if ancestors.contains(&real) {
                    return Err(format!(
                        "the output {below:?} is a symbolic link to a folder that it is in"
                    ));
                }
                let mut chain = ancestors.clone();
                chain.push(real.clone());
                tree.folders.insert(below.clone());
                waiting.push((below, real, chain));
            } else if kind.is_file() {
                tree.files.insert(below, real);
            } else {
                return Err(format!("the output {below:?} is neither a file nor a directory"));
            }
            if tree.files.len() > MAX_OUTPUT_FILES {
                return Err(format!(
                    "there are more than {MAX_OUTPUT_FILES} output files; pack them into archives"
                ));
            }
            if tree.folders.len() > MAX_FOLDERS {
                return Err(format!("there are more than {MAX_FOLDERS} output folders"));
            }
        }
        tree.folders.insert(path);
    }
    Ok(tree)
}

fn real_path(entry: &fs::DirEntry, below: &str, workdir: &Path) -> Result<PathBuf, String> {
    let path = entry.path();
    let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
    if !is_link {
        return Ok(path);
    }
    let real = path
        .canonicalize()
        .map_err(|_| format!("the output {below:?} is a symbolic link that leads nowhere"))?;
    if real.starts_with(workdir) {
        Ok(real)
    } else {
        Err(format!("the output {below:?} is a symbolic link out of the run's folder"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
    };

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        work: PathBuf,
        out: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let work = folder.path().canonicalize().expect("real").join("work");
        let out = work.join("outputs");
        fs::create_dir_all(&out).expect("made");
        Place { _folder: folder, work, out }
    }

    fn listed(place: &Place) -> Result<Tree, String> {
        walk(&place.out, &place.work, |_| false)
    }

    #[test]
    fn what_was_there_before_is_told_from_what_was_made_or_changed() {
        let place = place();
        for (name, content) in
            [("kept", "1"), ("same/deep", "2"), ("changed", "3"), ("replaced", "4")]
        {
            let path = place.out.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        let before = listed(&place).expect("good").snapshot().expect("there");
        fs::write(place.out.join("changed"), "33").expect("written");
        fs::write(place.work.join("other"), "4").expect("written");
        fs::rename(place.work.join("other"), place.out.join("replaced")).expect("moved");
        fs::create_dir_all(place.out.join("results/.own")).expect("made");
        fs::write(place.out.join("results/.own/new"), "5").expect("written");
        fs::create_dir(place.out.join(".own")).expect("made");
        symlink("/etc/passwd", place.out.join(".own/leaves")).expect("linked");
        let now = walk(&place.out, &place.work, |path| path == ".own").expect("good");
        let files: Vec<_> = now.since(&before).files.into_keys().collect();
        assert_eq!(files, ["changed", "replaced", "results/.own/new"]);
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        let place = place();
        fs::remove_dir(&place.out).expect("removed");
        let tree = listed(&place).expect("good");
        assert!(tree.files.is_empty() && tree.folders.is_empty());
    }

    #[test]
    fn files_and_folders_are_found_with_odd_names_and_through_links() {
        let place = place();
        fs::create_dir_all(place.out.join("a b/empty")).expect("made");
        fs::write(place.out.join("a b/x%y#z"), "1").expect("written");
        fs::write(place.out.join("x".repeat(255)), "").expect("written");
        fs::write(place.work.join("kept"), "2").expect("written");
        symlink("../kept", place.out.join("link")).expect("linked");
        symlink("a b", place.out.join("folder")).expect("linked");
        let tree = listed(&place).expect("all good");
        let files: Vec<_> = tree.files.keys().map(String::as_str).collect();
        assert_eq!(files, ["a b/x%y#z", "folder/x%y#z", "link", &"x".repeat(255)]);
        assert_eq!(tree.files["link"], place.work.join("kept"));
        let folders: Vec<_> = tree.folders.iter().map(String::as_str).collect();
        assert_eq!(folders, ["", "a b", "a b/empty", "folder", "folder/empty"]);
    }

    #[test]
    fn more_files_than_a_result_can_hold_are_refused() {
        let place = place();
        let first = place.out.join("0");
        fs::write(&first, "").expect("written");
        for n in 1..=MAX_OUTPUT_FILES {
            // The same file under another name is much quicker than another file. A file has
            // some 65,000 names at most.
            let folder = place.out.join(format!("d{}", n / 50_000));
            let target = folder.join("first");
            if !target.exists() {
                fs::create_dir(&folder).expect("made");
                fs::write(&target, "").expect("written");
            }
            fs::hard_link(&target, folder.join(n.to_string())).expect("linked");
        }
        let error = listed(&place).expect_err("too many");
        assert!(error.contains("more than 100000 output files"), "{error}");
    }

    #[test]
    fn what_cannot_be_an_output_is_named() {
        type Make = fn(&Place);
        let cases: [(Make, &str); 6] = [
            (|p| symlink("/etc/passwd", p.out.join("leaves")).expect("linked"), "out of the run"),
            (|p| symlink("nothing", p.out.join("dangles")).expect("linked"), "leads nowhere"),
            (|p| symlink("..", p.out.join("up")).expect("linked"), "up/outputs"),
            (|p| symlink(".", p.out.join("loops")).expect("linked"), "a folder that it is in"),
            (
                |p| drop(std::os::unix::net::UnixListener::bind(p.out.join("socket"))),
                "neither a file nor a directory",
            ),
            (
                |p| fs::write(p.out.join(OsStr::from_bytes(b"\xff")), "").expect("written"),
                "is not UTF-8",
            ),
        ];
        for (make, what) in cases {
            let place = place();
            make(&place);
            let error = listed(&place).expect_err(what);
            assert!(error.contains(what), "{error}");
        }
        let place = place();
        let deep = place.out.join(vec!["d".repeat(200); 5].join("/"));
        fs::create_dir_all(deep).expect("made");
        assert!(listed(&place).expect_err("too long").contains("longer than 920"));
    }
}
