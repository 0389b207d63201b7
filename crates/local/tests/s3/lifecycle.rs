//! What lifecycle rules remove, and what they leave.

use super::{BUCKET, OTHER, Served, files_under, get, put};
use std::time::{Duration, SystemTime};
use stepwes_local::s3::Expiration;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn after_days(days: u32) -> [Expiration; 1] {
    [Expiration { bucket: BUCKET.to_owned(), prefix: "old/".to_owned(), after: DAY * days }]
}

#[tokio::test]
async fn objects_below_the_prefix_expire_by_their_age_and_others_do_not() {
    let served = Served::new().await;
    let client = served.client();
    for key in ["old/a", "old/b/c", "old/b%c/\u{fc} d", "older", "new/a"] {
        put(&client, key, "x").await;
    }
    client.put_object().bucket(OTHER).key("old/a").send().await.expect("put");
    let in_days = |days| SystemTime::now() + DAY * days;
    served.endpoint.sweep(&after_days(30), in_days(29)).await;
    assert!(get(&client, "old/a").await.is_some());
    served.endpoint.sweep(&[], in_days(31)).await;
    assert!(get(&client, "old/a").await.is_some(), "no rule, nothing expires");
    served.endpoint.sweep(&after_days(30), in_days(31)).await;
    for (key, stays) in [
        ("old/a", false),
        ("old/b/c", false),
        ("old/b%c/\u{fc} d", false),
        ("older", true),
        ("new/a", true),
    ] {
        assert_eq!(get(&client, key).await.is_some(), stays, "{key}");
    }
    client.head_object().bucket(OTHER).key("old/a").send().await.expect("another bucket's stays");
    // Neither folders nor descriptions are left.
    assert!(!served.file("old").exists());
    assert_eq!(files_under(&served.root().join(".meta").join(BUCKET)).len(), 2);
    // Written again, it is new.
    put(&client, "old/a", "y").await;
    served.endpoint.sweep(&after_days(30), in_days(29)).await;
    assert_eq!(get(&client, "old/a").await.as_deref(), Some(&b"y"[..]));
}

#[tokio::test]
async fn a_sweep_removes_a_thousand_objects_at_most() {
    let served = Served::new().await;
    let folder = served.file("old");
    std::fs::create_dir(&folder).expect("made");
    for n in 0..1001 {
        std::fs::write(folder.join(n.to_string()), "").expect("written");
    }
    for left in [1, 0] {
        served.endpoint.sweep(&after_days(1), SystemTime::now() + DAY * 2).await;
        assert_eq!(files_under(&served.root().join(BUCKET)).len(), left);
    }
}
