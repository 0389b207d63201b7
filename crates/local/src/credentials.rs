//! The two long-lived principals of the embedded AWS, kept in a file that only its owner reads.

use std::{
    fmt,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Their file in the server's folder.
pub(crate) const FILE: &str = "credentials.json";

/// A principal's key and secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Who may call the embedded AWS, besides the temporary credentials of STS.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Principals {
    /// The functions, the state machine and the operator: everything.
    pub(crate) service: Key,
    /// Every engine task: invoking the report function, like the task role in AWS.
    pub(crate) task: Key,
}

/// What a request's access key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    Service,
    Task,
}

impl Principals {
    /// Reads the file of `dir`, or makes it.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                serde_json::from_slice(&text).map_err(io::Error::other)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Self { service: key()?, task: key()? };
                let text = serde_json::to_vec_pretty(&made).map_err(io::Error::other)?;
                write_private(&path, &text)?;
                Ok(made)
            }
            Err(error) => Err(error),
        }
    }

    /// Whose key this is, with its secret.
    pub(crate) fn find(&self, access_key: &str) -> Option<(Principal, &str)> {
        [(Principal::Service, &self.service), (Principal::Task, &self.task)]
            .into_iter()
            .find(|(_, key)| key.access_key_id == access_key)
            .map(|(principal, key)| (principal, key.secret_access_key.as_str()))
    }
}

fn key() -> io::Result<Key> {
    Ok(Key {
        access_key_id: format!("SWLOCAL{}", random::<20>()?.to_uppercase()),
        secret_access_key: random::<32>()?,
    })
}

/// `N` random bytes, in hexadecimal.
pub(crate) fn random<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", Uuid::new_v4().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // What is left over has a name of its own and is in nobody's way.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_private_and_long() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = Principals::load(dir.path()).expect("made");
        let mode = fs::metadata(dir.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(dir.path().join(FILE), Permissions::from_mode(0o644)).expect("set");
        let read = Principals::load(dir.path()).expect("read");
        let mode = fs::metadata(dir.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "a file that others can read is closed again");
        assert_eq!(made.service.secret_access_key, read.service.secret_access_key);
        assert_ne!(made.service.access_key_id, made.task.access_key_id);
        assert!(made.task.access_key_id.len() >= 40 && made.task.secret_access_key.len() == 64);
        assert_eq!(made.find(&made.task.access_key_id).map(|found| found.0), Some(Principal::Task));
        assert!(made.find("other").is_none());
        assert!(!format!("{made:?}").contains(&made.task.secret_access_key));
    }
}
