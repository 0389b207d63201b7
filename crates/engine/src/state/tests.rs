//! Saving and bringing back, over a bucket in memory.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    body::to_bytes,
    extract::Request,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use stepwes_core::{RunId, keys, saved::Manifest};

use super::*;
use crate::{bucket::Bucket, error::Failure};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket; `on_put` is called before each object is kept.
async fn bucket(on_put: impl Fn(&str) + Clone + Send + Sync + 'static) -> (Bucket, Objects) {
    let objects = Objects::default();
    let held = Arc::clone(&objects);
    let serve = move |request: Request| {
        let (held, on_put) = (Arc::clone(&held), on_put.clone());
        async move { answer(request, &held, &on_put).await }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bucket = Bucket::at(&format!("http://{}", listener.local_addr().expect("an address")));
    let router = axum::Router::new().fallback(serve);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (bucket, objects)
}

async fn answer(request: Request, held: &Objects, on_put: &(dyn Fn(&str) + Sync)) -> Response {
    let key = request.uri().path().trim_start_matches("/runs/").to_owned();
    if request.method() == Method::GET {
        let found = held.lock().expect("held").get(&key).cloned();
        return found
            .map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response);
    }
    let chunked = request.headers().get("content-encoding").is_some();
    let mut body = to_bytes(request.into_body(), usize::MAX).await.expect("whole").to_vec();
    if chunked {
        body = unchunked(&body);
    }
    on_put(&key);
    held.lock().expect("held").insert(key, body);
    ([("etag", "\"x\"")], "").into_response()
}

/// What is in an `aws-chunked` body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n").expect("a chunk's head");
        let head = std::str::from_utf8(&body[..end]).expect("text");
        let size = usize::from_str_radix(head.split(';').next().expect("a size"), 16);
        let size = size.expect("hexadecimal");
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

fn run() -> RunId {
    "01890000-0000-7000-8000-000000000000".parse().expect("a run id")
}

/// A work folder, with an engine whose records are in `state/records`.
struct Work {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Work {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real").join("stepwes-x");
        let work = Self { _folder: folder, root };
        for name in ["state/records", "execution", "inputs"] {
            fs::create_dir_all(work.root.join(name)).expect("made");
        }
        work
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn given(&self) -> [PathBuf; 2] {
        ["execution", "inputs"].map(|name| self.root.join(name))
    }

    fn keeper(&self, bucket: &Bucket, limit: u64) -> Keeper {
        let saved = Saved {
            folders: vec![self.root.join("state"), self.root.join("execution")],
            left_out: |path| path == "state/locks",
            is_guard: |path| path.starts_with("state/records/"),
        };
        let staged = Staged::of(&self.root, &self.given(), &[]).expect("staged");
        Keeper::new(bucket.clone(), (run(), 1), "x", self.root.clone(), Some(saved), staged, limit)
    }
}

fn manifest(objects: &Objects) -> Option<Manifest> {
    let body = objects.lock().expect("held").get(&keys::state_manifest(run(), 1)).cloned();
    body.map(|body| serde_json::from_slice(&body).expect("a manifest"))
}

fn paths(objects: &Objects) -> Vec<String> {
    manifest(objects).map_or_else(Vec::new, |manifest| {
        manifest.files.into_iter().map(|file| file.path).collect()
    })
}

fn modified(path: &Path) -> (i64, i64) {
    let data = fs::symlink_metadata(path).expect("there");
    (data.mtime(), data.mtime_nsec())
}

#[tokio::test]
async fn what_was_saved_comes_back_as_it_was() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    work.write("execution/given", "given");
    work.write("inputs/fetched", "fetched");
    let mut keeper = work.keeper(&bucket, u64::MAX);
    let large: Vec<u8> = (0..3 * SMALL).map(|n| u8::try_from(n % 251).expect("small")).collect();
    work.write("state/records/a", "a is done");
    work.write("state/records/empty", "");
    work.write("state/out/ü b", "b");
    work.write("state/out/large", &large);
    work.write("state/locks/held", "x");
    fs::create_dir(work.root.join("state/out/folder")).expect("made");
    symlink("../records/a", work.root.join("state/out/link")).expect("linked");
    let closed = fs::Permissions::from_mode(0o555);
    fs::set_permissions(work.root.join("state/out/ü b"), closed).expect("set");
    keeper.finish().await;
    let before =
        ["state/records/a", "state/out/ü b", "state/out/large", "state/out/link", "state/out"]
            .map(|path| (path, modified(&work.root.join(path))));
    let files = ["state/out/large", "state/out/ü b", "state/records/a", "state/records/empty"];
    assert_eq!(paths(&objects), files, "neither locks nor what was given");

    let manifest = manifest(&objects).expect("saved");
    assert_eq!(Path::new(&manifest.root), work.root);
    fs::remove_dir_all(&work.root).expect("removed");
    work.write("execution/given", "given");
    work.write("inputs/fetched", "fetched");
    let [given, fetched] = ["execution/given", "inputs/fetched"].map(|path| work.root.join(path));
    Staged::of(&work.root, &work.given(), &manifest.staged).expect("staged");
    assert_eq!(modified(&given), manifest.staged[0].modified, "engines tell by times");
    assert_eq!(modified(&fetched), manifest.staged[1].modified, "engines tell by times");
    work.write("execution/given", "other");
    Staged::of(&work.root, &work.given(), &manifest.staged).expect("staged");
    assert_ne!(modified(&given), manifest.staged[0].modified, "it is not what was given then");
    restore(&bucket, &manifest, &work.root).await.expect("restored");
    for (path, then) in before {
        assert_eq!(modified(&work.root.join(path)), then, "{path}");
    }
    assert_eq!(fs::read(work.root.join("state/out/large")).expect("there"), large);
    assert_eq!(fs::read_to_string(work.root.join("state/out/ü b")).expect("there"), "b");
    assert_eq!(fs::metadata(work.root.join("state/out/ü b")).expect("there").mode() & 0o777, 0o555);
    assert_eq!(fs::read_to_string(work.root.join("state/out/link")).expect("a link"), "a is done");
    assert!(work.root.join("state/out/folder").is_dir());
    assert!(!work.root.join("state/locks").exists());

    let piece = keys::state_piece(run(), 1, manifest.files[0].piece);
    objects.lock().expect("held").remove(&piece);
    fs::remove_dir_all(&work.root).expect("removed");
    let lost = restore(&bucket, &manifest, &work.root).await.expect_err("a piece is gone");
    assert!(matches!(lost, Failure::Service(_)), "{lost}");
    let mut bad = manifest;
    bad.files[0].path = "../out".to_owned();
    let refused = restore(&bucket, &bad, &work.root).await.expect_err("it leads out");
    assert!(refused.to_string().contains("../out"), "{refused}");
}

#[tokio::test]
async fn only_what_has_changed_is_uploaded() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    let mut keeper = work.keeper(&bucket, u64::MAX);
    work.write("state/records/a", "a");
    work.write("state/out/b", "b");
    keeper.finish().await;
    let first = objects.lock().expect("held").clone();
    assert_eq!(first.len(), 2, "one piece and the manifest: {:?}", first.keys());
    keeper.finish().await;
    assert_eq!(*objects.lock().expect("held"), first);
    work.write("state/records/c", "c");
    keeper.finish().await;
    let second = objects.lock().expect("held").clone();
    assert_eq!(second.len(), 3);
    assert_eq!(second[&keys::state_piece(run(), 1, 1)], b"c");
    assert_eq!(paths(&objects).len(), 3);
}

#[tokio::test]
async fn an_engine_that_has_tidied_up_takes_nothing_away() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    let mut keeper = work.keeper(&bucket, u64::MAX);
    work.write("state/out/b", "b");
    keeper.finish().await;
    assert_eq!(manifest(&objects), None, "no record says that anything is done");
    work.write("state/records/a", "a");
    keeper.finish().await;
    let saved = manifest(&objects);
    assert!(saved.is_some());
    fs::remove_file(work.root.join("state/records/a")).expect("removed");
    keeper.finish().await;
    assert_eq!(manifest(&objects), saved);
}

#[tokio::test]
async fn a_moment_at_which_records_change_is_none() {
    let work = Work::new();
    work.write("state/records/a", "a");
    let (root, count) = (work.root.clone(), Arc::new(Mutex::new(0)));
    let (bucket, objects) = bucket(move |key| {
        if !key.ends_with("manifest.json") {
            let mut count = count.lock().expect("counted");
            *count += 1;
            fs::write(root.join("state/records/a"), format!("again {count}")).expect("written");
        }
    })
    .await;
    work.keeper(&bucket, u64::MAX).finish().await;
    assert_eq!(manifest(&objects), None);
    assert!(!objects.lock().expect("held").is_empty(), "it was tried");
}

#[tokio::test]
async fn files_of_steps_that_are_under_way_are_left_out() {
    let work = Work::new();
    work.write("state/records/a", "a");
    work.write("state/out/done", "done");
    work.write("state/out/begun", "be");
    let root = work.root.clone();
    let (bucket, objects) = bucket(move |key| {
        if !key.ends_with("manifest.json") {
            fs::write(root.join("state/out/begun"), "begun").expect("written");
            fs::write(root.join("state/out/new"), "new").expect("written");
        }
    })
    .await;
    work.keeper(&bucket, u64::MAX).finish().await;
    assert_eq!(paths(&objects), ["state/out/done", "state/records/a"]);
}

#[tokio::test]
async fn while_the_engine_works_a_save_waits_for_records_to_settle() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    let mut keeper = work.keeper(&bucket, u64::MAX);
    work.write("state/records/a", "a");
    keeper.save(false).await;
    assert_eq!(paths(&objects), ["state/records/a"]);
}

#[tokio::test]
async fn beyond_its_limit_an_attempt_stores_nothing_and_keeps_what_it_has() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    let mut keeper = work.keeper(&bucket, 10);
    work.write("state/records/a", "12345");
    keeper.finish().await;
    let saved = manifest(&objects);
    assert!(saved.is_some());
    work.write("state/records/b", "123456");
    keeper.finish().await;
    keeper.finish().await;
    assert_eq!(manifest(&objects), saved);
    assert_eq!(objects.lock().expect("held").len(), 2);
    let mut none = work.keeper(&bucket, 0);
    none.finish().await;
    assert_eq!(objects.lock().expect("held").len(), 2);
}

#[tokio::test]
async fn a_link_out_of_the_run_s_folder_is_saved_as_a_link_and_not_followed() {
    let (bucket, objects) = bucket(|_| {}).await;
    let work = Work::new();
    let mut keeper = work.keeper(&bucket, u64::MAX);
    work.write("state/records/a", "a");
    symlink("/etc", work.root.join("state/etc")).expect("linked");
    keeper.finish().await;
    assert_eq!(paths(&objects), ["state/records/a"]);
    assert_eq!(manifest(&objects).expect("saved").links[0].target, "/etc");
}
