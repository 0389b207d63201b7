//! Starting and going down.

mod common;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use chrono::TimeDelta;
use stepwes_local::{Auth, ServeError, ServeOptions, start};

use common::{options, serve, serve_with};

async fn refused(options: ServeOptions) -> ServeError {
    match start(options).await {
        Err(error) => error,
        Ok(server) => panic!("{server:?} started"),
    }
}

#[tokio::test]
async fn a_server_answers_and_goes_down() {
    let rig = serve("exit 0").await;
    let url = format!("{}/ga4gh/wes/v1/service-info", rig.server.url());
    let answer = common::http().get(&url).send().await.expect("answered");
    assert_eq!(answer.status(), 200);
    assert_eq!(rig.server.shutdown().await, stepwes_local::LeftRunning::default());
    assert!(common::http().get(&url).send().await.is_err());
}

#[tokio::test]
async fn the_folder_is_its_owners_alone_and_one_servers() {
    let rig = serve("exit 0").await;
    let mode = fs::metadata(rig.server.dir()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let error = refused(options(rig.folder.path(), "exit 0")).await;
    let told = error.to_string();
    assert!(matches!(error, ServeError::InUse { .. }), "{told}");
    assert!(told.contains(&format!("pid {}", std::process::id())), "{told}");
    rig.server.shutdown().await;
    let again = start(options(rig.folder.path(), "exit 0")).await.expect("started");
    again.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_others_could_read_is_closed_to_them_with_its_databases() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || options(folder.path(), "exit 0");
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    };
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let dir = options().dir;
    fs::create_dir(&dir).expect("made");
    open(&dir, 0o755);
    let files = ["aws.sqlite", "dynamodb.sqlite"].map(|name| dir.join(name));
    for file in &files {
        fs::write(file, "").expect("made");
        open(file, 0o644);
    }
    let server = start(options()).await.expect("started");
    assert_eq!(mode(&dir), 0o700);
    for file in &files {
        assert_eq!(mode(file), 0o600);
        let wal = format!("{}-wal", file.display());
        assert_eq!(mode(Path::new(&wal)), 0o600);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("an address").port();
    let error = refused(ServeOptions { port, ..options(folder.path(), "exit 0") }).await;
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.to_string().contains("--port"), "{error}");
}

#[tokio::test]
async fn the_internal_port_stays_and_when_it_is_taken_the_message_names_it_and_its_file() {
    let rig = serve("exit 0").await;
    let (internal, folder) = (rig.server.internal_url().to_owned(), rig.folder);
    rig.server.shutdown().await;
    let address = internal.strip_prefix("http://").expect("a URL");
    let taken = std::net::TcpListener::bind(address).expect("free");
    let error = refused(options(folder.path(), "exit 0")).await;
    let told = error.to_string();
    let port = address.rsplit(':').next().expect("a port");
    assert!(told.contains(port) && told.contains("internal-port"), "{told}");
    drop(taken);
    let again = start(options(folder.path(), "exit 0")).await.expect("started");
    assert_eq!(again.internal_url(), internal);
    again.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("stepwes"), "a file").expect("written");
    let error = refused(options(folder.path(), "exit 0")).await;
    assert!(matches!(error, ServeError::Dir { .. }), "{error}");
    assert!(error.to_string().contains("--dir"), "{error}");
}

#[tokio::test]
async fn others_are_served_only_with_a_token_or_when_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let everywhere =
        ServeOptions { host: "0.0.0.0".to_owned(), ..options(folder.path(), "exit 0") };
    for auth in [None, Some(Auth::Token)] {
        let error = refused(ServeOptions { auth, ..everywhere.clone() }).await;
        assert!(matches!(error, ServeError::NoToken { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains("stepwes token create") && told.contains("--auth none"), "{told}");
    }
    let open = ServeOptions { auth: Some(Auth::None), ..everywhere.clone() };
    let server = start(open).await.expect("started");
    assert!(server.url().starts_with("http://127.0.0.1:"));
    assert_eq!(server.auth(), Auth::None);
    server.shutdown().await;

    common::token(&everywhere.dir, "late", "ada", &[], Some(TimeDelta::zero())).await;
    let error = refused(everywhere.clone()).await;
    assert!(matches!(error, ServeError::NoToken { .. }), "expired is none: {error}");
    common::token(&everywhere.dir, "ada", "ada", &[], None).await;
    let server = start(everywhere).await.expect("started");
    assert_eq!(server.auth(), Auth::Token);
    server.shutdown().await;
}

#[tokio::test]
async fn an_engine_task_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("nothing");
    let error = refused(ServeOptions {
        engine_path: Some(missing.clone()),
        ..options(folder.path(), "exit 0")
    })
    .await;
    let told = error.to_string();
    assert!(told.contains(&missing.display().to_string()), "{told}");
    assert!(told.contains("same folder") && !told.contains("--"), "{told}");
}

#[tokio::test]
async fn a_public_url_must_be_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for url in ["wes.example.org", "ftp://wes.example.org", "https://"] {
        let error = refused(ServeOptions {
            public_url: Some(url.to_owned()),
            ..options(folder.path(), "exit 0")
        })
        .await;
        assert!(matches!(error, ServeError::PublicUrl { .. }), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_engine_is_found_in_the_servers_folder_and_asked_for_its_version() {
    let rig = serve_with("exit 0", |options| {
        let bin = options.dir.join("engines/bin");
        fs::create_dir_all(&bin).expect("made");
        let program = common::engine(&bin, "echo \"$0 3.9.9\"");
        fs::rename(program, bin.join("cwltool")).expect("renamed");
    })
    .await;
    let url = format!("{}/ga4gh/wes/v1/service-info", rig.server.url());
    common::until("the version is told", || async {
        let info: serde_json::Value =
            common::http().get(&url).send().await.expect("answered").json().await.expect("JSON");
        info["workflow_engine_versions"]["cwltool"].to_string().contains("3.9.9")
    })
    .await;
    rig.server.shutdown().await;
}
