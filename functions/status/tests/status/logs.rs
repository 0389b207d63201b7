//! Logs while they are written and afterwards.

use axum::body::Body;
use stepwes_core::{
    Run, RunEvent, RunState,
    keys::{self, LogStream},
};
use stepwes_store::Change;

use crate::{
    path, routes, routes_with, settings,
    support::{Answer, World, get, request, send},
};

/// A running run whose standard output has these segments.
async fn run_with(world: &World, segments: &[&str]) -> Run {
    let run = world.in_state("ada", RunState::Running).await;
    let mut offset = 0;
    for segment in segments {
        let key = keys::log_segment(run.run_id, 1, LogStream::Stdout, offset);
        world.put(&key, (*segment).to_owned());
        offset += segment.len() as u64;
    }
    run
}

async fn ask(world: &World, run: &Run, range: &str) -> Answer {
    let mut builder = request("ada", "GET", &path(run, "/logs/stdout"));
    if !range.is_empty() {
        builder = builder.header("range", range);
    }
    send(&routes(world), builder.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn a_log_that_is_being_written_is_put_together_from_its_segments() {
    let world = World::new().await;
    // More segments than a page of the listing, and one answer holds ten bytes.
    let run = run_with(&world, &["ab", "c", "def", "g", "hijklm", "no"]).await;
    for (range, status, content_range, body) in [
        ("", 206, "bytes 0-9/15", "abcdefghij"),
        ("bytes=0-", 206, "bytes 0-9/15", "abcdefghij"),
        ("bytes=10-", 206, "bytes 10-14/15", "klmno"),
        ("bytes=1-4", 206, "bytes 1-4/15", "bcde"),
        ("bytes=2-2", 206, "bytes 2-2/15", "c"),
        ("bytes=-3", 206, "bytes 12-14/15", "mno"),
        ("bytes=-99", 206, "bytes 0-9/15", "abcdefghij"),
        ("bytes=5-1", 206, "bytes 0-9/15", "abcdefghij"),
        ("bytes=14-99", 206, "bytes 14-14/15", "o"),
    ] {
        let answer = ask(&world, &run, range).await;
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.body, body, "{range}");
    }
    for range in ["bytes=15-", "bytes=15-20", "bytes=-0"] {
        let answer = ask(&world, &run, range).await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */15"), "{range}");
    }
}

#[tokio::test]
async fn a_short_log_is_answered_whole() {
    let world = World::new().await;
    let run = run_with(&world, &["abc", "\u{1F9EC}"]).await;
    let answer = ask(&world, &run, "").await;
    assert_eq!((answer.status, answer.header("content-range")), (200, ""));
    assert_eq!(answer.body, "abc\u{1F9EC}");
}

#[tokio::test]
async fn a_log_that_does_not_exist_yet_is_empty() {
    let world = World::new().await;
    for run in [world.queued("ada").await, world.claimed("ada").await, run_with(&world, &[]).await]
    {
        for range in ["", "bytes=0-"] {
            let answer = ask(&world, &run, range).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{range}");
        }
        let answer = ask(&world, &run, "bytes=1-").await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */0"));
    }
}

#[tokio::test]
async fn what_comes_behind_a_gap_is_not_shown() {
    let world = World::new().await;
    let run = run_with(&world, &["abc"]).await;
    world.put(&keys::log_segment(run.run_id, 1, LogStream::Stdout, 7), "xyz");
    assert_eq!(ask(&world, &run, "").await.body, "abc");
}

#[tokio::test]
async fn a_whole_log_is_redirected_to() {
    let world = World::new().await;
    for state in [RunState::Running, RunState::Complete, RunState::Canceled] {
        let run = world.in_state("ada", state).await;
        for (stream, on_toil) in [("stdout", false), ("stderr", false), ("stderr", true)] {
            let key = format!("work/{}/1/logs/{stream}", run.run_id);
            world.put(&key, "all of it");
            let path = if on_toil {
                format!("/toil/wes/v1/logs/{}/{stream}", run.run_id)
            } else {
                path(&run, &format!("/logs/{stream}"))
            };
            let answer = get(&routes(&world), "ada", &path).await;
            assert_eq!(answer.status, 307);
            let location = answer.header("location");
            assert!(location.contains(&format!("/bucket/{key}?")), "{location}");
            assert!(location.contains("response-content-type=text%2Fplain"), "{location}");
            assert!(location.contains("X-Amz-Expires=900"), "{location}");
        }
    }
}

#[tokio::test]
async fn a_log_that_is_finished_while_it_is_read_is_redirected_to() {
    let world = World::new().await;
    let run = run_with(&world, &["abc"]).await;
    world.vanish(&keys::log_segment(run.run_id, 1, LogStream::Stdout, 0));
    assert_eq!(ask(&world, &run, "").await.status, 307);
}

#[tokio::test]
async fn a_run_that_was_killed_shows_what_it_had_written() {
    let world = World::new().await;
    let run = run_with(&world, &["abc", "def"]).await;
    world.step(run.run_id, RunEvent::SystemError { attempt: 1 }, Change::default()).await;
    assert_eq!(ask(&world, &run, "").await.body, "abcdef");
}

#[tokio::test]
async fn the_present_attempts_log_is_shown() {
    let world = World::new().await;
    let run = run_with(&world, &["first"]).await;
    let preempt = RunEvent::Preempt { attempt: 1, max_attempts: 3 };
    world.step(run.run_id, preempt, Change::default()).await;
    assert_eq!(ask(&world, &run, "").await.body, "");
    world.put(&keys::log_segment(run.run_id, 2, LogStream::Stdout, 0), "second");
    assert_eq!(ask(&world, &run, "").await.body, "second");
}

#[tokio::test]
async fn a_run_has_no_third_log_and_one_stream_does_not_show_the_other() {
    let world = World::new().await;
    let run = run_with(&world, &["abc"]).await;
    let router = routes(&world);
    assert_eq!(get(&router, "ada", &path(&run, "/logs/stdin")).await.status, 404);
    assert_eq!(get(&router, "ada", &path(&run, "/logs/stderr")).await.body, "");
}

#[tokio::test]
async fn presigned_urls_live_as_long_as_the_operator_says_up_to_the_limit() {
    let world = World::new().await;
    let run = world.in_state("ada", RunState::Complete).await;
    world.put(&keys::log(run.run_id, 1, LogStream::Stdout), "x");
    for (seconds, expires) in [(60, "X-Amz-Expires=60"), (86_400, "X-Amz-Expires=900")] {
        let mut settings = settings();
        settings.presign_expiry = std::time::Duration::from_secs(seconds);
        let answer = get(&routes_with(&world, settings), "ada", &path(&run, "/logs/stdout")).await;
        assert!(answer.header("location").contains(expires));
    }
}
