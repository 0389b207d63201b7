//! Patterns of keys: literal text and named parts, `fastq/{sample}_R1.fastq.gz`.
//!
//! A part stands for one or more characters without a `/`, as few as the rest of the pattern lets
//! it have; `{{` and `}}` are braces. Parts do not reach over a `/`, so a key is held against a
//! pattern folder by folder, and within one from literal to literal: every character is looked at a
//! bounded number of times, whatever pattern and key.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::keys::MAX_KEY_BYTES;

/// What the named parts of a pattern stand for in a key.
pub type Parts = BTreeMap<String, String>;

/// The longest name of a part, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A pattern of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Between slashes.
    folders: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Part(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing, or more than a key can have.
    #[error("a pattern has 1 to {MAX_KEY_BYTES} bytes")]
    Length,
    /// A brace that does not belong to a part.
    #[error("{0}; write {{{{ or }}}} for a brace that names no part")]
    Brace(&'static str),
    /// A name that no part can have.
    #[error(
        "{0:?} is no name of a part: lower-case letters, digits and underscores, a letter first, \
         {MAX_NAME_BYTES} bytes at most"
    )]
    Name(String),
    /// Two parts of one name.
    #[error("the part {{{0}}} is there twice; give its second place another name")]
    Twice(String),
    /// Two parts without anything between them.
    #[error("{{{0}}} and {{{1}}} touch: nothing tells where one ends; put text between them")]
    Touching(String, String),
    /// A pattern that says nothing of how a key ends.
    #[error(
        "the pattern does not say how keys end; end it with text, such as .fastq.gz, so that \
         other files of the folder start nothing"
    )]
    OpenEnd,
    /// What no key that we look at has.
    #[error("{0}")]
    Key(&'static str),
}

/// A piece of a text with names in braces.
pub(super) enum Split<'a> {
    Literal(&'a str),
    Name(&'a str),
}

/// Splits a text at its braces; `{{` and `}}` are braces.
pub(super) fn split(text: &str) -> Result<Vec<Split<'_>>, PatternError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, braces) = rest.split_at(at);
        if !before.is_empty() {
            pieces.push(Split::Literal(before));
        }
        if braces.starts_with("{{") || braces.starts_with("}}") {
            pieces.push(Split::Literal(&braces[..1]));
            rest = &braces[2..];
        } else if let Some(opened) = braces.strip_prefix('{') {
            let end = opened.find(['{', '}']).filter(|end| opened[*end..].starts_with('}'));
            let end = end.ok_or(PatternError::Brace("a { has no } after it"))?;
            pieces.push(Split::Name(&opened[..end]));
            rest = &opened[end + 1..];
        } else {
            return Err(PatternError::Brace("a } has no { before it"));
        }
    }
    if !rest.is_empty() {
        pieces.push(Split::Literal(rest));
    }
    Ok(pieces)
}

/// Whether a text can name a part or an object.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`], which says what to change.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !(1..=MAX_KEY_BYTES).contains(&text.len()) {
            return Err(PatternError::Length);
        }
        if text.starts_with('/') {
            return Err(PatternError::Key("a pattern begins without a slash, as keys do"));
        }
        let (mut folders, mut folder) = (Vec::new(), Vec::new());
        let mut names = BTreeSet::new();
        for piece in split(text)? {
            match piece {
                Split::Name(name) => {
                    if !is_name(name) {
                        return Err(PatternError::Name(name.to_owned()));
                    }
                    if !names.insert(name) {
                        return Err(PatternError::Twice(name.to_owned()));
                    }
                    if let Some(Piece::Part(before)) = folder.last() {
                        return Err(PatternError::Touching(before.clone(), name.to_owned()));
                    }
                    folder.push(Piece::Part(name.to_owned()));
                }
                Split::Literal(literal) => {
                    for (at, text) in literal.split('/').enumerate() {
                        if at > 0 {
                            folders.push(std::mem::take(&mut folder));
                        }
                        match folder.last_mut() {
                            _ if text.is_empty() => {}
                            Some(Piece::Literal(before)) => before.push_str(text),
                            _ => folder.push(Piece::Literal(text.to_owned())),
                        }
                    }
                }
            }
        }
        folders.push(folder);
        for folder in &folders {
            if let [Piece::Literal(literal)] = folder.as_slice()
                && matches!(literal.as_str(), "." | "..")
            {
                return Err(PatternError::Key("a pattern must not contain the folders . and .."));
            }
        }
        if text.contains(char::is_control) {
            return Err(PatternError::Key("a pattern must not contain control characters"));
        }
        match folders.last().and_then(|folder| folder.last()) {
            Some(Piece::Literal(_)) => {}
            Some(Piece::Part(_)) => return Err(PatternError::OpenEnd),
            None => return Err(PatternError::Key("a pattern names files: it must not end in /")),
        }
        Ok(Self { text: text.to_owned(), folders })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its parts, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().flatten().filter_map(|piece| match piece {
            Piece::Part(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// What the parts stand for in a key; `None` when it is not one of the pattern's.
    ///
    /// Keys with control characters, or with `.` or `..` as a folder, are nobody's: parts go into
    /// URLs.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Parts> {
        if key.contains(char::is_control) {
            return None;
        }
        let mut parts = Parts::new();
        let mut texts = key.split('/');
        for folder in &self.folders {
            let text = texts.next()?;
            if matches!(text, "." | "..") || !find_in_folder(folder, text, &mut parts) {
                return None;
            }
        }
        texts.next().is_none().then_some(parts)
    }

    /// The key that has these parts; `None` when one is missing.
    #[must_use]
    pub fn key(&self, parts: &Parts) -> Option<String> {
        let mut key = String::new();
        for (at, folder) in self.folders.iter().enumerate() {
            if at > 0 {
                key.push('/');
            }
            for piece in folder {
                key.push_str(match piece {
                    Piece::Literal(literal) => literal,
                    Piece::Part(name) => parts.get(name)?,
                });
            }
        }
        Some(key)
    }

    /// Whether some key of the pattern begins with `prefix`, a folder's name and a slash.
    #[must_use]
    pub fn reaches(&self, prefix: &str) -> bool {
        let folder = prefix.trim_end_matches('/');
        match self.folders.as_slice() {
            [first, _, ..] => find_in_folder(first, folder, &mut Parts::new()),
            _ => false,
        }
    }
}

/// Holds the text between two slashes against the pieces there. Each literal is looked for where
/// it comes first: that leaves the most to what follows, so no other choice could do better.
fn find_in_folder(pieces: &[Piece], text: &str, parts: &mut Parts) -> bool {
    let mut rest = text;
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Literal(literal) => match rest.strip_prefix(literal.as_str()) {
                Some(after) => rest = after,
                None => return false,
            },
            Piece::Part(name) => {
                let Some(first) = rest.chars().next() else { return false };
                let part = match pieces.next() {
                    None => std::mem::take(&mut rest),
                    Some(Piece::Literal(literal)) if pieces.peek().is_none() => {
                        match rest.strip_suffix(literal.as_str()) {
                            Some(part) if !part.is_empty() => {
                                rest = "";
                                part
                            }
                            _ => return false,
                        }
                    }
                    Some(Piece::Literal(literal)) => {
                        let from = first.len_utf8();
                        let Some(at) = rest[from..].find(literal.as_str()) else { return false };
                        let part = &rest[..from + at];
                        rest = &rest[from + at + literal.len()..];
                        part
                    }
                    // Parts do not touch.
                    Some(Piece::Part(_)) => return false,
                };
                parts.insert(name.clone(), part.to_owned());
            }
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn found(text: &str, key: &str) -> Option<Vec<(String, String)>> {
        pattern(text).find(key).map(|parts| parts.into_iter().collect())
    }

    #[test]
    fn parts_are_what_stands_between_the_text() {
        let part = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, key, expected) in [
            (
                "fastq/{sample}_R1.fastq.gz",
                "fastq/s1_R1.fastq.gz",
                Some(vec![part("sample", "s1")]),
            ),
            (
                "{run}/{lane}/x.txt",
                "r 1/ü/x.txt",
                Some(vec![part("lane", "ü"), part("run", "r 1")]),
            ),
            // As little as the rest lets it have; the end is the key's end.
            ("{a}_{b}.gz", "x_y_z.gz", Some(vec![part("a", "x"), part("b", "y_z")])),
            ("{a}.gz", "x.gz.gz", Some(vec![part("a", "x.gz")])),
            ("a{{b}}.txt", "a{b}.txt", Some(vec![])),
            ("fastq/{sample}_R1.fastq.gz", "fastq/_R1.fastq.gz", None),
            ("fastq/{sample}_R1.fastq.gz", "fastq/a/b_R1.fastq.gz", None),
            ("fastq/{sample}_R1.fastq.gz", "fastq/s1_R1.fastq.gz.md5", None),
            ("fastq/{sample}_R1.fastq.gz", "x/fastq/s1_R1.fastq.gz", None),
            ("{a}/x", "../x", None),
            ("{a}/x", "./x", None),
            ("{a}.x", "a\nb.x", None),
        ] {
            assert_eq!(found(text, key), expected, "{text} on {key}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_what_to_change() {
        for (text, told) in [
            ("", "1 to 1024 bytes"),
            ("/a.gz", "without a slash"),
            ("a/", "must not end in /"),
            ("a/{b}", "does not say how keys end"),
            ("{a}{b}.gz", "touch"),
            ("{a}/{a}.gz", "twice"),
            ("{A}.gz", "no name of a part"),
            ("{}.gz", "no name of a part"),
            ("{a.gz", "has no }"),
            ("a}.gz", "has no {"),
            ("{a{b}.gz", "has no }"),
            ("a/../{b}.gz", ". and .."),
            ("a\n{b}.gz", "control characters"),
        ] {
            let error = Pattern::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error} lacks {told}");
        }
    }

    #[test]
    fn a_pattern_reaches_a_prefix_that_begins_one_of_its_keys() {
        for (text, prefix, expected) in [
            ("work/{a}.gz", "work/", true),
            ("{a}/b.gz", "work/", true),
            ("w{a}k/b.gz", "work/", true),
            ("{a}.gz", "work/", false),
            ("workers/{a}.gz", "work/", false),
            ("fastq/work/{a}.gz", "work/", false),
        ] {
            assert_eq!(pattern(text).reaches(prefix), expected, "{text} {prefix}");
        }
    }

    /// The same question, answered by trying everything.
    fn tried(pieces: &[Piece], text: &str) -> bool {
        match pieces.split_first() {
            None => text.is_empty(),
            Some((Piece::Literal(literal), rest)) => {
                text.strip_prefix(literal.as_str()).is_some_and(|text| tried(rest, text))
            }
            Some((Piece::Part(_), rest)) => {
                (1..=text.len()).any(|end| !text[..end].contains('/') && tried(rest, &text[end..]))
            }
        }
    }

    /// Pieces of a pattern over few letters, so that texts meet patterns.
    fn pieces() -> impl Strategy<Value = String> {
        vec(prop_oneof!["[ab/]{1,3}", Just("{}".to_owned())], 1..6).prop_map(|pieces| {
            let mut text = String::new();
            for (at, piece) in pieces.iter().enumerate() {
                text.push_str(&piece.replace("{}", &format!("{{p{at}}}")));
            }
            text
        })
    }

    proptest! {
        #[test]
        fn a_key_is_found_exactly_if_some_split_of_it_fits(text in pieces(), key in "[ab/]{0,9}") {
            let Ok(pattern) = Pattern::parse(&text) else { return Ok(()) };
            let mut flat = Vec::new();
            for (at, folder) in pattern.folders.iter().enumerate() {
                if at > 0 {
                    flat.push(Piece::Literal("/".to_owned()));
                }
                flat.extend(folder.iter().cloned());
            }
            let parts = pattern.find(&key);
            prop_assert_eq!(parts.is_some(), tried(&flat, &key));
            if let Some(parts) = parts {
                prop_assert_eq!(pattern.key(&parts), Some(key));
            }
        }

        #[test]
        fn a_key_made_of_parts_is_found_again(text in pieces(), value in "[ab]{1,4}") {
            let Ok(pattern) = Pattern::parse(&text) else { return Ok(()) };
            let parts = pattern.names().map(|name| (name.to_owned(), value.clone())).collect();
            let key = pattern.key(&parts).expect("all parts are there");
            let again = pattern.find(&key);
            prop_assert!(again.is_some(), "{} {}", text, key);
            prop_assert_eq!(pattern.key(&again.unwrap_or_default()), Some(key));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", key in "\\PC{0,40}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.find(&key);
            }
        }
    }
}
