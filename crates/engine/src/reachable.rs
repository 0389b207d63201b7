//! Reading files that a workflow can reach.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

/// Opens a file of the run's. A tool may have put a link in its place, to what it cannot read itself
/// (this process' environment, say), or something that would never end.
///
/// # Errors
/// As the file system fails, or when there is something else than a file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "there is something else than a file"))
    }
}

/// Opens a file below `root`, a real path: a tool may have put a link in the place of a folder above
/// it, too.
///
/// # Errors
/// As [`open`], or when the file is elsewhere.
pub(crate) fn open_below(root: &Path, path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if real.starts_with(root) {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "a link leads elsewhere"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_file_is_read_and_what_leads_elsewhere_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").expect("written");
        let mut text = String::new();
        open(&at("file")).expect("opened").read_to_string(&mut text).expect("read");
        assert_eq!(text, "text");
        symlink("/proc/self/environ", at("link")).expect("made");
        mkfifo(&at("pipe"), Mode::S_IRWXU).expect("made");
        for name in ["link", "pipe", ".", "none"] {
            open(&at(name)).expect_err(name);
        }
        let root = folder.path().canonicalize().expect("real");
        fs::create_dir(root.join("inner")).expect("made");
        symlink("..", root.join("inner/up")).expect("made");
        fs::write(root.join("inner/file"), "").expect("written");
        let below = |name: &str| open_below(&root.join("inner"), &root.join("inner").join(name));
        below("file").expect("opened");
        below("up/file").expect_err("elsewhere");
    }
}
