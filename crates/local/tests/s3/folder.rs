//! The folder: what lies where, what a person may do in it, and what a crash leaves.

use crate::{BUCKET, Served, code, delete, files_under, get, noise, put, status};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

async fn keys(client: &Client) -> Vec<String> {
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.expect("listed");
    listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
}

async fn etag_and_type(client: &Client, key: &str) -> (String, String) {
    let head = client.head_object().bucket(BUCKET).key(key).send().await.expect("head");
    (
        head.e_tag().unwrap_or_default().to_owned(),
        head.content_type().unwrap_or_default().to_owned(),
    )
}

async fn put_typed(client: &Client, key: &str, body: &'static str, content_type: &str) {
    client
        .put_object()
        .bucket(BUCKET)
        .key(key)
        .content_type(content_type)
        .body(ByteStream::from_static(body.as_bytes()))
        .send()
        .await
        .expect("put");
}

#[tokio::test]
async fn awkward_keys_are_kept_apart_and_inside_the_folder() {
    let served = Served::new().await;
    let client = served.client();
    let long = "l".repeat(1024);
    let wide = "ü/".repeat(341);
    let slashes = "/".repeat(1024);
    let awkward = [
        "..",
        "../..",
        "../x",
        "a/../b",
        "./a",
        "a/./b",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        "%",
        "%x",
        "%-..",
        "%=a",
        "a/%/b",
        "~",
        "\u{1}",
        "a\0b",
        ".meta/x",
        ".tmp/x",
        "a\\b",
        "c:d",
        "-rf",
        "a b",
        "a+b",
        "é",
        long.as_str(),
        wide.as_str(),
        slashes.as_str(),
    ];
    for key in awkward {
        put(&client, key, format!("content of {key}")).await;
    }
    for key in awkward {
        let got = get(&client, key).await;
        assert_eq!(got, Some(format!("content of {key}").into_bytes()), "{key:?}");
    }
    let outside: Vec<_> = fs::read_dir(served.root())
        .expect("the root")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(outside, [".meta", ".tmp", crate::OTHER, BUCKET]);
    assert_eq!(files_under(&served.root().join(BUCKET)).len(), awkward.len());
    for key in awkward {
        delete(&client, key).await;
    }
    assert_eq!(files_under(served.root()), Vec::<String>::new());
    assert_eq!(fs::read_dir(served.file("")).expect("the bucket").count(), 0);
    let too_long = client.put_object().bucket(BUCKET).key("l".repeat(1025)).send().await;
    assert_eq!(code(&too_long.expect_err("refused")), "KeyTooLongError");
}

#[tokio::test]
async fn a_key_can_be_the_folder_of_another_in_either_order() {
    for order in [["x", "x/y", "x/y/z"], ["x/y/z", "x/y", "x"], ["x/y", "x", "x/y/z"]] {
        let served = Served::new().await;
        let client = served.client();
        for key in order {
            put_typed(&client, key, "same", &format!("text/{}", key.len())).await;
        }
        assert_eq!(keys(&client).await, ["x", "x/y", "x/y/z"]);
        for key in order {
            assert_eq!(get(&client, key).await.as_deref(), Some(&b"same"[..]));
            let (_, content_type) = etag_and_type(&client, key).await;
            assert_eq!(content_type, format!("text/{}", key.len()), "{key} in {order:?}");
        }
        put(&client, "x", "again").await;
        assert_eq!(get(&client, "x").await.as_deref(), Some(&b"again"[..]));
        delete(&client, "x/y").await;
        assert_eq!(keys(&client).await, ["x", "x/y/z"]);
        delete(&client, "x/y/z").await;
        assert_eq!(keys(&client).await, ["x"]);
        put(&client, "x", "plain again").await;
        assert_eq!(files_under(&served.root().join(BUCKET)), ["x"]);
        delete(&client, "x").await;
        assert_eq!(files_under(served.root()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_and_deletes_in_the_same_folders_lose_nothing() {
    let served = Served::new().await;
    let client = Arc::new(served.client());
    let mut tasks = tokio::task::JoinSet::new();
    // Each task has its own key; the keys are folders of each other and come and go.
    for key in ["d", "d/e", "d/e/f", "d/e/g", "d/h/i", "d/e/f/j"] {
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            for round in 0..25 {
                let body = format!("{key} {round}");
                put(&client, key, body.clone()).await;
                assert_eq!(get(&client, key).await, Some(body.into_bytes()), "{key} {round}");
                let listed = keys(&client).await;
                assert!(listed.iter().any(|listed| listed == key), "{key} in {listed:?}");
                delete(&client, key).await;
                assert_eq!(get(&client, key).await, None, "{key} {round}");
            }
            put(&client, key, "stays").await;
        });
    }
    tasks.join_all().await;
    let mut expected = vec!["d", "d/e", "d/e/f", "d/e/f/j", "d/e/g", "d/h/i"];
    expected.sort_unstable();
    assert_eq!(keys(&client).await, expected);
    for key in expected {
        delete(&client, key).await;
    }
    assert_eq!(fs::read_dir(served.file("")).expect("the bucket").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_one_whole_version_while_it_is_replaced() {
    let served = Served::new().await;
    let client = Arc::new(served.client());
    put_typed(&client, "v", "00", "text/even").await;
    let writer = tokio::spawn({
        let client = Arc::clone(&client);
        async move {
            for round in 1..60 {
                // The same size, so that size alone does not tell the versions apart.
                let (body, kind) = [("00", "text/even"), ("11", "text/odd")][round % 2];
                put_typed(&client, "v", body, kind).await;
            }
        }
    });
    while !writer.is_finished() {
        let got = client.get_object().bucket(BUCKET).key("v").send().await.expect("always there");
        let (etag, kind) = (got.e_tag().map(str::to_owned), got.content_type().map(str::to_owned));
        let body = got.body.collect().await.expect("a body").to_vec();
        let (expected, expected_kind) = if body == b"00" {
            ("\"b4b147bc522828731f1a016bfa72c073\"", "text/even")
        } else {
            ("\"6512bd43d9caa6e02c990b0a82652dca\"", "text/odd")
        };
        assert_eq!(etag.as_deref(), Some(expected));
        assert_eq!(kind.as_deref(), Some(expected_kind));
    }
    writer.await.expect("the writer");
}

#[tokio::test]
async fn a_file_put_there_by_hand_is_an_object() {
    let served = Served::new().await;
    let client = served.client();
    fs::create_dir_all(served.file("by/hand")).expect("a folder");
    fs::write(served.file("by/hand/a.txt"), "hello").expect("a file");
    fs::create_dir_all(served.file("empty/folder")).expect("a folder");
    assert_eq!(keys(&client).await, ["by/hand/a.txt"]);
    assert_eq!(
        etag_and_type(&client, "by/hand/a.txt").await,
        ("\"5d41402abc4b2a76b9719d911017c592\"".to_owned(), "binary/octet-stream".to_owned())
    );
    let grouped =
        client.list_objects_v2().bucket(BUCKET).delimiter("/").send().await.expect("listed");
    let prefixes: Vec<_> = grouped.common_prefixes().iter().filter_map(|p| p.prefix()).collect();
    assert_eq!(prefixes, ["by/"], "a folder without objects is none");
    put(&client, "empty", "gives way").await;
    assert_eq!(get(&client, "empty").await.as_deref(), Some(&b"gives way"[..]));
}

#[tokio::test]
async fn a_file_changed_by_hand_has_its_own_etag() {
    let served = Served::new().await;
    let client = served.client();
    put_typed(&client, "x", "world", "text/plain").await;
    fs::write(served.file("x"), "hello").expect("changed");
    let expected =
        ("\"5d41402abc4b2a76b9719d911017c592\"".to_owned(), "binary/octet-stream".to_owned());
    assert_eq!(etag_and_type(&client, "x").await, expected);
    // Old enough that what was computed is kept.
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(served.file("x")).expect("the file");
    file.set_modified(hour_ago).expect("set");
    for _ in 0..2 {
        assert_eq!(etag_and_type(&client, "x").await, expected);
    }
    assert_eq!(files_under(&served.root().join(".meta")).len(), 1);
    fs::remove_file(served.file("x")).expect("removed");
    assert_eq!(get(&client, "x").await, None);
}

#[tokio::test]
async fn names_that_no_key_has_and_links_are_not_objects() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "seen", "seen").await;
    let secret = served.root().join("secret");
    fs::create_dir(&secret).expect("a folder");
    fs::write(secret.join("file"), "secret").expect("a file");
    symlink(secret.join("file"), served.file("link")).expect("a link");
    symlink(&secret, served.file("folder")).expect("a link");
    fs::write(served.file("%unknown"), "").expect("a file");
    fs::write(served.file("%-needless"), "").expect("a file");
    fs::create_dir(served.file("%-dir")).expect("a folder");
    fs::write(served.file("%-dir/x"), "").expect("a file");
    assert_eq!(keys(&client).await, ["seen"]);
    for key in ["link", "folder/file", "folder", "needless", "dir/x"] {
        assert_eq!(get(&client, key).await, None, "{key}");
    }
    let grouped =
        client.list_objects_v2().bucket(BUCKET).delimiter("/").send().await.expect("listed");
    assert!(grouped.common_prefixes().is_empty());
    put(&client, "link", "replaces the link, not its target").await;
    assert_eq!(fs::read(secret.join("file")).expect("the file"), b"secret");
    let through = client.put_object().bucket(BUCKET).key("folder/new").send().await;
    assert_eq!(status(&through.expect_err("refused")), 500);
    assert!(!secret.join("new").exists());
}

#[tokio::test]
async fn a_crash_between_description_and_file_never_gives_wrong_data_a_right_etag() {
    let served = Served::new().await;
    let client = served.client();
    put_typed(&client, "x", "old!", "text/old").await;
    let old = etag_and_type(&client, "x").await;
    let old_file = fs::read(served.file("x")).expect("the file");
    let old_time = fs::metadata(served.file("x")).and_then(|m| m.modified()).expect("a time");
    put_typed(&client, "x", "new!", "text/new").await;
    // The state of a process that died after writing the new description and before moving the new
    // file into place: the description knows both.
    fs::write(served.file("x"), old_file).expect("written");
    let file = fs::File::options().write(true).open(served.file("x")).expect("the file");
    file.set_modified(old_time).expect("set");
    assert_eq!(get(&client, "x").await.as_deref(), Some(&b"old!"[..]));
    assert_eq!(etag_and_type(&client, "x").await, old);
    // And of one whose description was lost or cut off with the power.
    for path in files_under(&served.root().join(".meta")) {
        fs::write(served.root().join(".meta").join(path), "{\"ver").expect("written");
    }
    assert_eq!(etag_and_type(&client, "x").await, (old.0, "binary/octet-stream".to_owned()));
    put_typed(&client, "x", "mend", "text/mended").await;
    assert_eq!(etag_and_type(&client, "x").await.1, "text/mended");
}

#[tokio::test]
async fn objects_survive_a_restart_and_half_written_files_do_not() {
    let served = Served::new().await;
    put_typed(&served.client(), "x/y", "kept", "text/kept").await;
    fs::write(served.root().join(".tmp/put/half"), "half").expect("written");
    let folder = Arc::clone(&served.folder);
    drop(served);
    let served = Served::over(folder).await;
    let client = served.client();
    assert_eq!(get(&client, "x/y").await.as_deref(), Some(&b"kept"[..]));
    assert_eq!(etag_and_type(&client, "x/y").await.1, "text/kept");
    assert_eq!(files_under(&served.root().join(".tmp")), Vec::<String>::new());
}

/// What a power cut leaves: the journal of another boot, and of the files whatever had reached the
/// disk.
fn forget_boot(root: &Path) {
    let journal = root.join(".tmp/journal");
    for name in files_under(&journal) {
        let (number, _) = name.split_once('@').expect("a number");
        let other = journal.join(format!("{number}@another-boot"));
        fs::rename(journal.join(&name), other).expect("renamed");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    let served = Served::new().await;
    let client = served.client();
    for key in ["whole", "torn", "renamed too late", "deep/er/lost", "x", "x/y", "replaced"] {
        put_typed(&client, key, "the content", "text/kept").await;
    }
    put_typed(&client, "replaced", "the second content", "text/second").await;
    put(&client, "empty", "").await;
    put(&client, "deleted", "deleted").await;
    delete(&client, "deleted").await;
    put(&client, "large", "small at first").await;
    put(&client, "large", noise(100_000)).await;
    let etags = |client: Client| async move {
        let mut etags = Vec::new();
        for key in keys(&client).await {
            etags.push((key.clone(), etag_and_type(&client, &key).await));
        }
        etags
    };
    let before = etags(client).await;
    let folder = Arc::clone(&served.folder);
    let file = |path: &str| folder.path().join(BUCKET).join(path);
    drop(served);
    // A file that has its name and length, but not its content; one that has its name alone; names
    // that are still the old ones; folders that are not there.
    let modified = fs::metadata(file("torn")).and_then(|found| found.modified()).expect("a time");
    fs::write(file("torn"), "           ").expect("written");
    let torn = fs::File::options().write(true).open(file("torn")).expect("the file");
    torn.set_modified(modified).expect("set");
    fs::write(file("replaced"), "").expect("written");
    let replaced = fs::File::options().write(true).open(file("replaced")).expect("the file");
    replaced.set_modified(modified).expect("set");
    fs::remove_file(file("renamed too late")).expect("removed");
    fs::remove_dir_all(file("deep")).expect("removed");
    fs::remove_dir_all(folder.path().join(".meta")).expect("removed");
    forget_boot(folder.path());
    let served = Served::over(folder).await;
    let client = served.client();
    let mut after = etags(client.clone()).await;
    // What is not small has no more than its file.
    for (_, (_, content_type)) in after.iter_mut().filter(|(key, _)| key == "large") {
        assert_eq!(content_type, "binary/octet-stream");
    }
    let known = |etags: &[(String, (String, String))]| {
        etags.iter().map(|(key, (etag, _))| (key.clone(), etag.clone())).collect::<Vec<_>>()
    };
    assert_eq!(known(&after), known(&before));
    assert_eq!(etag_and_type(&client, "torn").await.1, "text/kept");
    assert_eq!(etag_and_type(&client, "deep/er/lost").await.1, "text/kept");
    assert_eq!(get(&client, "torn").await.as_deref(), Some(&b"the content"[..]));
    assert_eq!(get(&client, "replaced").await.as_deref(), Some(&b"the second content"[..]));
    assert_eq!(get(&client, "large").await, Some(noise(100_000)));
    assert_eq!(get(&client, "deleted").await, None);
}

#[tokio::test]
async fn what_a_person_did_to_the_folder_since_is_not_undone() {
    let served = Served::new().await;
    let client = served.client();
    for key in ["edited", "removed"] {
        put(&client, key, "the content").await;
    }
    let folder = Arc::clone(&served.folder);
    drop(served);
    let file = |path: &str| folder.path().join(BUCKET).join(path);
    fs::write(file("edited"), "by hand").expect("written");
    fs::remove_file(file("removed")).expect("removed");
    // The same boot: the folder is as it was left.
    let served = Served::over(Arc::clone(&folder)).await;
    assert_eq!(keys(&served.client()).await, ["edited"]);
    put(&served.client(), "edited", "again").await;
    drop(served);
    fs::write(file("edited"), "by hand").expect("written");
    forget_boot(folder.path());
    let served = Served::over(Arc::clone(&folder)).await;
    assert_eq!(get(&served.client(), "edited").await.as_deref(), Some(&b"by hand"[..]));
}

#[tokio::test]
async fn what_the_file_system_refuses_is_an_error_and_changes_nothing() {
    let served = Served::new().await;
    let client = served.client();
    put(&client, "kept", "kept").await;
    // A file where a folder must be fails for every user, even one that permissions do not bind.
    fs::remove_dir_all(served.root().join(".tmp")).expect("removed");
    fs::write(served.root().join(".tmp"), "").expect("written");
    let error = client
        .put_object()
        .bucket(BUCKET)
        .key("kept")
        .body(ByteStream::from_static(b"new"))
        .send()
        .await
        .expect_err("it cannot be written");
    assert_eq!((code(&error).as_str(), status(&error)), ("InternalError", 500));
    assert_eq!(get(&client, "kept").await.as_deref(), Some(&b"kept"[..]));
    fs::remove_file(served.root().join(".tmp")).expect("removed");
    put(&client, "kept", "new").await;
    assert_eq!(get(&client, "kept").await.as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_file() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = Served::new().await;
    let client = served.client();
    let url = client
        .put_object()
        .bucket(BUCKET)
        .key("gone")
        .presigned(
            aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_secs(
                60,
            ))
            .expect("a time"),
        )
        .await
        .expect("a url");
    let address = served.url.trim_start_matches("http://");
    let path = url.uri().split_once(address).expect("a path").1;
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connected");
    let head = format!("PUT {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(&vec![7; 600_000]).await.expect("sent");
    socket.shutdown().await.expect("ended");
    let mut answer = Vec::new();
    // Answered or closed, the request is over when the connection is.
    let _ = socket.read_to_end(&mut answer).await;
    assert_eq!(get(&client, "gone").await, None);
    let tmp = served.root().join(".tmp");
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while !files_under(&tmp).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the temporary file is removed");
}
