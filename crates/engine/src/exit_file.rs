//! The record of how the task ended, for a host that may not have been there to see it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use chrono::Utc;
use serde_json::json;

/// Writes `{"exit_code": code, "time": …}` (RFC 3339, UTC) so that a reader sees either nothing
/// or all of it.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write(path: &Path, code: i32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    writeln!(file, "{}", json!({ "exit_code": code, "time": Utc::now() }))?;
    // The rename must not survive a power cut that the content does not.
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_replaces_an_older_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("exit.json");
        write(&path, 1).expect("written");
        write(&path, 75).expect("written again");
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        assert_eq!(record["exit_code"], 75);
        let time = record["time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
