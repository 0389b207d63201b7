//! Listing: the keys of a bucket in the order of S3, which is that of their UTF-8 bytes.
//!
//! Folders do not lie in that order (`a-b` comes before `a/b`, `a.b` after `a-b`), so a heap holds
//! what is still to be seen, by the text with which its keys begin. The smallest goes first: a file
//! is the next key, for all others begin with a greater text; a folder is replaced by its content.
//! Only folders that can hold wanted keys are read.

use super::checksum::StoredChecksum;
use super::error::{StoreError, StoreResult};
use super::names::{Name, beside, decode, key_path, prefix_folders};
use super::store::Store;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::SystemTime;

/// What to list.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) delimiter: Option<String>,
    pub(super) after: After,
    pub(super) limit: usize,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// From the beginning.
    Nothing,
    /// After this key; or, when it is a common prefix of the listing, after all keys that have it.
    Key(String),
    /// After all keys with this prefix.
    Prefix(String),
}

impl After {
    /// Writes a place of a listing so that it can be given out.
    pub(super) fn token(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Key(key) => Some(format!("k{key}")),
            Self::Prefix(prefix) => Some(format!("p{prefix}")),
        }
    }

    /// Reads what [`After::token`] wrote.
    pub(super) fn from_token(token: &str) -> Option<Self> {
        match token.split_at_checked(1)? {
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }

    /// Whether a key comes after this place.
    fn admits(&self, key: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Key(after) => key > after.as_str(),
            Self::Prefix(prefix) => key > prefix.as_str() && !key.starts_with(prefix.as_str()),
        }
    }

    /// Whether any key that begins with `text` can come after this place.
    fn admits_some(&self, text: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Key(after) => text > after.as_str() || after.starts_with(text),
            Self::Prefix(prefix) => {
                !text.starts_with(prefix.as_str())
                    && (text > prefix.as_str() || prefix.starts_with(text))
            }
        }
    }
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Listed>,
    pub(super) common_prefixes: Vec<String>,
    /// Where the next page goes on, when there is more.
    pub(super) next: Option<After>,
}

/// An object of a listing.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    pub(super) etag: String,
    pub(super) checksum: Option<StoredChecksum>,
}

/// Lists a page.
pub(super) fn list(store: &Store, query: &Query) -> StoreResult<Page> {
    let mut page = Page::default();
    if query.limit == 0 {
        return Ok(page);
    }
    let mut walk = Walk::start(store, query)?;
    let mut last = After::Nothing;
    while let Some(step) = walk.step(query)? {
        let full = page.objects.len() + page.common_prefixes.len() == query.limit;
        match step {
            Step::Common(prefix) => {
                if full {
                    page.next = Some(last);
                    break;
                }
                last = After::Prefix(prefix.clone());
                page.common_prefixes.push(prefix);
            }
            Step::Key(key) => {
                let object = match store.find(&query.bucket, &key) {
                    Ok(Some(object)) => object,
                    // Deleted since its folder was read, or being written by hand: not an object
                    // any more, or not yet.
                    Ok(None) | Err(StoreError::Changing) => continue,
                    Err(error) => return Err(error),
                };
                if full {
                    page.next = Some(last);
                    break;
                }
                last = After::Key(key.clone());
                page.objects.push(Listed {
                    key,
                    size: object.stamp.size,
                    modified: object.stamp.modified(),
                    etag: object.meta.etag,
                    checksum: object.meta.checksum,
                });
            }
        }
    }
    Ok(page)
}

/// Something still to be seen; its keys begin with `text`, or for a file are `text`.
struct Node {
    text: String,
    /// The names of the folders around it, from the bucket's on.
    folder: Rc<Vec<String>>,
    name: String,
    is_folder: bool,
}

impl Node {
    fn names(&self) -> Vec<String> {
        let mut names = self.folder.to_vec();
        names.push(self.name.clone());
        names
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.text, self.is_folder).cmp(&(&other.text, other.is_folder))
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Node {}

enum Step {
    Key(String),
    Common(String),
}

struct Walk<'a> {
    store: &'a Store,
    bucket: &'a str,
    prefix: &'a str,
    after: After,
    heap: BinaryHeap<Reverse<Node>>,
}

impl<'a> Walk<'a> {
    fn start(store: &'a Store, query: &'a Query) -> StoreResult<Self> {
        let mut walk = Self {
            store,
            bucket: &query.bucket,
            prefix: &query.prefix,
            after: query.after.clone(),
            heap: BinaryHeap::new(),
        };
        // The prefix names the folders down to its last slash, so the walk begins there.
        let text = query.prefix.rfind('/').map_or("", |slash| &query.prefix[..=slash]);
        let names = prefix_folders(text);
        if store.is_folder(&query.bucket, &names)? {
            walk.expand(text, names)?;
        }
        Ok(walk)
    }

    /// Puts the content of a folder on the heap, as far as it can be wanted.
    fn expand(&mut self, text: &str, folder: Vec<String>) -> StoreResult<()> {
        let entries = self.store.entries(self.bucket, &folder)?;
        let folder = Rc::new(folder);
        for (name, is_folder) in entries {
            // Keys are UTF-8, so a name that is not belongs to no key.
            let Ok(name) = name.into_string() else {
                continue;
            };
            let text = match (decode(&name), is_folder) {
                (Some(Name::Whole(part)), true) => format!("{text}{part}/"),
                (Some(Name::Beginning(part)), true) => format!("{text}{part}"),
                (Some(Name::Whole(part) | Name::Beside(part)), false) => format!("{text}{part}"),
                _ => continue,
            };
            let wanted = if is_folder {
                (text.starts_with(self.prefix) || self.prefix.starts_with(&text))
                    && self.after.admits_some(&text)
            } else {
                text.starts_with(self.prefix)
                    && self.after.admits(&text)
                    && is_place_of(&text, &folder, &name)
            };
            if wanted {
                self.heap.push(Reverse(Node { text, folder: Rc::clone(&folder), name, is_folder }));
            }
        }
        Ok(())
    }

    /// The next key or common prefix.
    fn step(&mut self, query: &Query) -> StoreResult<Option<Step>> {
        while let Some(Reverse(node)) = self.heap.pop() {
            // What was on the heap already may have been listed since: the same key in its two
            // places, or a key that a common prefix stands for.
            let admitted = if node.is_folder {
                self.after.admits_some(&node.text)
            } else {
                self.after.admits(&node.text)
            };
            if !admitted {
                continue;
            }
            let common = self.common_prefix(query, &node.text);
            if let Some(common) = common {
                // A start within the prefix's keys, or at the prefix itself as an older listing's
                // marker gives it.
                if self.after == After::Key(common.clone()) {
                    self.after = After::Prefix(common);
                    continue;
                }
                if node.is_folder && !self.has_key(&node)? {
                    continue;
                }
                self.after = After::Prefix(common.clone());
                return Ok(Some(Step::Common(common)));
            }
            if node.is_folder {
                self.expand(&node.text, node.names())?;
            } else {
                self.after = After::Key(node.text.clone());
                return Ok(Some(Step::Key(node.text)));
            }
        }
        Ok(None)
    }

    /// The common prefix that stands for the keys with this text, if the listing groups them.
    fn common_prefix(&self, query: &Query, text: &str) -> Option<String> {
        let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty())?;
        let rest = text.strip_prefix(self.prefix)?;
        let end = self.prefix.len() + rest.find(delimiter)? + delimiter.len();
        Some(text[..end].to_owned())
    }

    /// Whether a folder holds any key that the listing admits; an empty one has none.
    fn has_key(&self, node: &Node) -> StoreResult<bool> {
        let mut inside = Walk {
            store: self.store,
            bucket: self.bucket,
            prefix: self.prefix,
            after: self.after.clone(),
            heap: BinaryHeap::new(),
        };
        inside.expand(&node.text, node.names())?;
        while let Some(Reverse(node)) = inside.heap.pop() {
            if !node.is_folder {
                return Ok(true);
            }
            inside.expand(&node.text, node.names())?;
        }
        Ok(false)
    }
}

/// Whether a file is where the key maps to; one that a person put elsewhere is no object.
fn is_place_of(key: &str, folder: &[String], name: &str) -> bool {
    let place = key_path(key);
    place.folders == folder && (place.name == name || beside(&place.name) == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn query(prefix: &str, after: After) -> Query {
        Query {
            bucket: "bucket".to_owned(),
            prefix: prefix.to_owned(),
            delimiter: None,
            after,
            limit: 1000,
        }
    }

    #[test]
    fn only_the_folders_that_a_listing_needs_are_read() {
        let root = tempfile::TempDir::new().expect("a folder");
        let store = Store::open(root.path(), &["bucket"]).expect("a store");
        for file in ["other/x", "wanted/1/x", "wanted/1/y", "wanted/11/x", "wanted/2/x"] {
            let path = root.path().join("bucket").join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, "").expect("written");
        }
        let first_read = |prefix: &str, after| {
            let query = query(prefix, after);
            let walk = Walk::start(&store, &query).expect("a walk");
            let mut texts: Vec<String> =
                walk.heap.into_iter().map(|Reverse(node)| node.text).collect();
            texts.sort();
            texts
        };
        // What waits on the heap is what was read, so far as it can be wanted.
        assert_eq!(first_read("wanted/1/", After::Nothing), ["wanted/1/x", "wanted/1/y"]);
        assert_eq!(first_read("wanted/1", After::Nothing), ["wanted/1/", "wanted/11/"]);
        assert_eq!(first_read("wanted/none/", After::Nothing), Vec::<String>::new());
        let after = After::Key("wanted/1/x".to_owned());
        assert_eq!(first_read("wanted/1/", after), ["wanted/1/y"]);
        let after = After::Prefix("wanted/1/".to_owned());
        assert_eq!(first_read("wanted/", after), ["wanted/11/", "wanted/2/"]);
    }

    #[test]
    fn a_place_of_a_listing_survives_being_written_down() {
        for after in [After::Key("k/é".to_owned()), After::Prefix("p/".to_owned())] {
            let token = after.token().expect("a token");
            assert_eq!(After::from_token(&token), Some(after));
        }
        for wrong in ["", "x", "é"] {
            assert_eq!(After::from_token(wrong), None);
        }
    }
}
