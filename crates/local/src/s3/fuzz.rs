//! What must hold of keys, and of session policies.

use std::path::{Component, Path};

use super::{
    names::{KeyPath, beside, key_of, key_path, prefix_folders},
    policy::{Policy, Question},
};

/// A key, and after a line break another: each has a place of its own, in the bucket's folder.
pub(crate) fn key(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (key, other) = text.split_once('\n').unwrap_or((&text, ""));
    if !(1..=1024).contains(&key.len()) {
        return;
    }
    let place = key_path(key);
    let path = path_of(&place);
    for part in Path::new(&path).components() {
        let Component::Normal(name) = part else { panic!("{path:?} leaves the folder") };
        let name = name.as_encoded_bytes();
        assert!(name.len() + 2 <= 255 && !name.contains(&0), "{path:?}");
    }
    assert_eq!(Path::new(&path).components().count(), place.folders.len() + 1);
    assert_eq!(key_of(&place).as_deref(), Some(key));
    assert_eq!(place == key_path(other), key == other);
    let other_place = KeyPath { name: beside(&place.name), ..place.clone() };
    assert_eq!(key_of(&other_place).as_deref(), Some(key));
    if let Some((prefix, _)) = key.rsplit_once('/') {
        // A long last part has folders of its own.
        assert!(place.folders.starts_with(&prefix_folders(&format!("{prefix}/"))), "{prefix:?}");
    }
}

fn path_of(place: &KeyPath) -> String {
    place.folders.iter().chain([&place.name]).map(String::as_str).collect::<Vec<_>>().join("/")
}

/// A key, and after a line break a policy: it allows only what one of its statements says, read in
/// another way.
pub(crate) fn policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (key, document) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(policy) = Policy::parse(document) else { return };
    if key.len() > 40 {
        return;
    }
    let resource = format!("arn:aws:s3:::{key}");
    for (action, prefix) in
        [("s3:GetObject", None), ("s3:PutObject", None), ("s3:ListBucket", Some(key))]
    {
        let allowed = policy.allows(Question { action, resource: &resource, prefix });
        assert_eq!(allowed, policy.allows_read_in_another_way(action, &resource, prefix));
    }
}
