//! Names of attachments: kept as they came, as far as that is safe.

use std::{collections::BTreeSet, fmt};

use crate::error::ApiError;

/// The file that the engine's task makes beside the attachments (Toil's `initialize_run`).
pub const INPUTS_FILE: &str = "wes_inputs.json";

/// The longest name, in bytes: it has to fit an S3 key behind our prefix.
pub const MAX_NAME_BYTES: usize = 900;

/// An attachment's path below the execution folder: relative, without `.`, `..` or empty parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentName(String);

impl AttachmentName {
    /// Reads the `filename` of a `workflow_attachment` part (WES 1.1, `RunWorkflow`). `part` is
    /// the part's number, from 1, to name it in the error.
    ///
    /// # Errors
    /// 400 naming the part: no name, an absolute one, `..`, a NUL, a part over 255 bytes, or a
    /// name of more than [`MAX_NAME_BYTES`].
    pub fn parse(filename: Option<&str>, part: usize) -> Result<Self, ApiError> {
        let wrong = |name: &str, what: &str| {
            ApiError::BadRequest(format!("workflow_attachment {part} ({name:?}): {what}"))
        };
        let Some(name) = filename.filter(|name| !name.is_empty()) else {
            return Err(ApiError::BadRequest(format!(
                "workflow_attachment {part} has no filename; give one in its Content-Disposition"
            )));
        };
        if name.contains('\0') {
            return Err(wrong(name, "a filename must not contain a NUL"));
        }
        if name.starts_with('/') {
            return Err(wrong(name, "a filename must be relative"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(wrong(
                name,
                &format!("a filename must not be over {MAX_NAME_BYTES} bytes"),
            ));
        }
        let parts: Vec<_> =
            name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(wrong(name, "a filename must not contain '..'"));
        }
        if parts.iter().any(|part| part.len() > 255) {
            return Err(wrong(name, "no part of a filename may be over 255 bytes"));
        }
        if parts.is_empty() || name.ends_with('/') {
            return Err(wrong(name, "a filename must name a file"));
        }
        let name = parts.join("/");
        if parts.first() == Some(&INPUTS_FILE) {
            return Err(wrong(&name, "wes_inputs.json is taken by the workflow's parameters"));
        }
        Ok(Self(name))
    }

    /// The path, `/` between its parts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttachmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that no attachment would overwrite another: no name twice, none a folder of another.
///
/// # Errors
/// 400 naming both.
pub fn check_collisions<'a>(
    names: impl IntoIterator<Item = &'a AttachmentName>,
) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.as_str()) {
            return Err(ApiError::BadRequest(format!(
                "two workflow_attachment parts have the filename {name:?}; filenames must differ",
                name = name.as_str()
            )));
        }
    }
    for name in &seen {
        for (at, _) in name.match_indices('/') {
            if let Some(file) = seen.get(&name[..at]) {
                return Err(ApiError::BadRequest(format!(
                    "the workflow_attachment filenames {file:?} and {name:?} collide: the first would have to be a file and a folder"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_with_their_folders() {
        for (given, kept) in [
            ("a.cwl", "a.cwl"),
            ("tools/b c.cwl", "tools/b c.cwl"),
            ("./a//b.cwl", "a/b.cwl"),
            ("..a/b..", "..a/b.."),
            ("ünï/\u{1F9EC}.txt", "ünï/\u{1F9EC}.txt"),
        ] {
            assert_eq!(AttachmentName::parse(Some(given), 1).map(|n| n.0), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn what_could_leave_the_folder_is_refused_naming_the_part() {
        let long = "x".repeat(256);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "a\0b",
            "a/",
            ".",
            "wes_inputs.json",
            "wes_inputs.json/a",
            &long,
        ] {
            let error = AttachmentName::parse(Some(bad), 3).expect_err(bad);
            assert_eq!(error.status(), 400);
            assert!(error.to_string().contains("workflow_attachment 3"), "{error}");
        }
        assert_eq!(AttachmentName::parse(None, 1).expect_err("no name").status(), 400);
    }

    #[test]
    fn a_name_twice_or_a_file_that_is_a_folder_is_refused() {
        let name = |text| AttachmentName::parse(Some(text), 1).expect(text);
        assert!(check_collisions(&[name("a"), name("b/c"), name("b/d")]).is_ok());
        for pair in [["a", "./a"], ["a", "a/b/c"], ["b/c/d", "b/c"]] {
            let names = pair.map(name);
            assert_eq!(check_collisions(&names).expect_err("collide").status(), 400, "{pair:?}");
        }
    }
}
