//! Where the object of a key lies in the bucket's folder, and which key a file there has.
//!
//! A key is cut at `/`; each part is a folder, the last a file, under its own name. Only a part
//! that cannot be a file name as it is gets another one, which begins with `%`:
//!
//! | name | stands for |
//! |---|---|
//! | `%` | an empty part: the key begins or ends with `/`, or has `//` |
//! | `%-text` | a part that is `.` or `..`, begins with `%`, has a NUL, or ends a part over 250 bytes; in `text`, `%0` is NUL and `%%` is `%` |
//! | `%+text` | a folder: the beginning of a part over 250 bytes, which goes on inside |
//! | `%=name` | the object whose file would be `name`, were there not a folder `name` (key `x` beside `x/y`) |
//!
//! The mapping of a key to folders is fixed; only the file has two possible places, `name` and
//! `%=name`. A file that a person put there under a name that no key maps to is not an object.

/// Longest file name used; with every mark before it, it stays within the 255 bytes of Linux.
const MAX_NAME: usize = 250;
const MARK: char = '%';

/// The place of a key below its bucket's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyPath {
    /// Folder names, outermost first.
    pub(super) folders: Vec<String>,
    /// The file's name.
    pub(super) name: String,
}

/// What a name in a bucket's folder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// A whole part of a key.
    Whole(String),
    /// The beginning of a part of a key; always a folder.
    Beginning(String),
    /// A whole part of a key whose own name is taken by a folder; always a file.
    Beside(String),
}

/// Maps a key to its place.
pub(super) fn key_path(key: &str) -> KeyPath {
    let mut names = Vec::new();
    for part in key.split('/') {
        push_part(part, &mut names);
    }
    // `split` yields at least one part, and each part at least one name.
    let name = names.pop().unwrap_or_default();
    KeyPath { folders: names, name }
}

/// The folders of all keys that begin with `prefix`, which ends with `/` or is empty.
pub(super) fn prefix_folders(prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(parts) = prefix.strip_suffix('/') {
        for part in parts.split('/') {
            push_part(part, &mut names);
        }
    }
    names
}

/// The other place of an object's file, used while `name` is a folder.
pub(super) fn beside(name: &str) -> String {
    format!("{MARK}={name}")
}

/// Reads a name back; `None` when it cannot have come from [`key_path`].
pub(super) fn decode(name: &str) -> Option<Name> {
    let Some(marked) = name.strip_prefix(MARK) else {
        return Some(Name::Whole(name.to_owned()));
    };
    let mut rest = marked.chars();
    match rest.next() {
        None => Some(Name::Whole(String::new())),
        Some('-') => unescape(rest.as_str()).map(Name::Whole),
        Some('+') => unescape(rest.as_str()).map(Name::Beginning),
        Some('=') => match decode(rest.as_str())? {
            Name::Whole(part) => Some(Name::Beside(part)),
            Name::Beginning(_) | Name::Beside(_) => None,
        },
        Some(_) => None,
    }
}

fn push_part(part: &str, names: &mut Vec<String>) {
    let plain = !part.is_empty()
        && part != "."
        && part != ".."
        && part.len() <= MAX_NAME
        && !part.starts_with(MARK)
        && !part.contains('\0');
    if plain {
        names.push(part.to_owned());
        return;
    }
    if part.is_empty() {
        names.push(MARK.to_string());
        return;
    }
    let mut text = String::new();
    for c in part.chars() {
        let width = if matches!(c, MARK | '\0') { 2 } else { c.len_utf8() };
        if text.len() + width > MAX_NAME {
            names.push(format!("{MARK}+{text}"));
            text.clear();
        }
        match c {
            MARK => text.push_str("%%"),
            '\0' => text.push_str("%0"),
            other => text.push(other),
        }
    }
    names.push(format!("{MARK}-{text}"));
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == MARK {
            match chars.next()? {
                MARK => plain.push(MARK),
                '0' => plain.push('\0'),
                _ => return None,
            }
        } else {
            plain.push(c);
        }
    }
    Some(plain)
}

/// The key of a whole place, as a walk through the folders reads it.
#[cfg(any(test, fuzzing))]
pub(super) fn key_of(place: &KeyPath) -> Option<String> {
    let mut key = String::new();
    for folder in &place.folders {
        match decode(folder)? {
            Name::Whole(part) => {
                key.push_str(&part);
                key.push('/');
            }
            Name::Beginning(text) => key.push_str(&text),
            Name::Beside(_) => return None,
        }
    }
    match decode(&place.name)? {
        Name::Whole(part) | Name::Beside(part) => key.push_str(&part),
        Name::Beginning(_) => return None,
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    fn relative(path: &KeyPath) -> String {
        let mut names = path.folders.clone();
        names.push(path.name.clone());
        names.join("/")
    }

    #[test]
    fn a_usual_key_is_its_own_path() {
        for key in ["outputs/0197/1/a/b.txt", "x", "a b/c+d/é.bam", "dir.with.dots/...", "100%/a%b"]
        {
            assert_eq!(relative(&key_path(key)), key);
        }
    }

    #[test]
    fn what_cannot_be_a_file_name_is_escaped() {
        let cases = [
            ("/", "%/%"),
            ("a//b", "a/%/b"),
            ("a/", "a/%"),
            ("../../etc/passwd", "%-../%-../etc/passwd"),
            ("./x", "%-./x"),
            ("%x/y", "%-%%x/y"),
            ("a\0b", "%-a%0b"),
        ];
        for (key, path) in cases {
            assert_eq!(relative(&key_path(key)), path, "{key:?}");
        }
        let long = key_path(&"é".repeat(300));
        assert_eq!(
            long.folders,
            [format!("%+{}", "é".repeat(125)), format!("%+{}", "é".repeat(125))]
        );
        assert_eq!(long.name, format!("%-{}", "é".repeat(50)));
    }

    #[test]
    fn names_that_no_key_maps_to_are_not_read() {
        for name in ["%x", "%-%", "%-%1", "%=%+a", "%=%=a"] {
            assert_eq!(decode(name), None, "{name}");
        }
        assert_eq!(decode(&beside("%-%%a")), Some(Name::Beside("%a".into())));
        assert_eq!(decode(&beside("%")), Some(Name::Beside(String::new())));
    }

    #[test]
    fn the_folders_of_a_prefix_are_those_of_its_keys() {
        for prefix in ["", "a/", "a//", "/", "../x/", "%/"] {
            let key = format!("{prefix}file");
            assert_eq!(prefix_folders(prefix), key_path(&key).folders, "{prefix:?}");
        }
    }

    fn any_key() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-c%.]{0,3}",
            1 => "[a%é\u{0}]{200,400}",
            1 => any::<String>(),
        ];
        proptest::collection::vec(part, 1..6).prop_filter_map("1 to 1,024 bytes", |parts| {
            let key = parts.join("/");
            (1..=1024).contains(&key.len()).then_some(key)
        })
    }

    proptest! {
        #[test]
        fn every_key_has_its_own_place_inside_the_folder(key in any_key(), other in any_key()) {
            let path = key_path(&key);
            prop_assert_eq!(key_of(&path), Some(key.clone()));
            let relative = relative(&path);
            for component in Path::new(&relative).components() {
                match component {
                    Component::Normal(name) => {
                        prop_assert!(name.len() + 2 <= 255);
                        prop_assert!(!name.as_encoded_bytes().contains(&0));
                    }
                    other => prop_assert!(false, "{:?} leaves the folder", other),
                }
            }
            prop_assert!(relative.len() < 3_000);
            prop_assert_eq!(path == key_path(&other), key == other);
            let mut besides = path.clone();
            besides.name = beside(&path.name);
            prop_assert_eq!(key_of(&besides), Some(key));
            prop_assert!(besides != key_path(&other));
        }

        #[test]
        fn every_key_of_the_greatest_length_fits(c in any::<char>(), slash in any::<bool>()) {
            let unit = if slash { format!("{c}/") } else { c.to_string() };
            let key = unit.repeat(1024 / unit.len());
            let path = key_path(&key);
            prop_assert_eq!(key_of(&path), Some(key));
            prop_assert!(relative(&path).len() < 3_000);
        }
    }
}
