//! Pages of the runs that a filter holds of.

use chrono::TimeDelta;
use stepwes_core::{
    Clock as _,
    run::{RequestSummary, RunId},
    run_state::{RunEvent as E, RunState as S},
};
use stepwes_store::{NewRun, RunFilter, RunPage};

use crate::support::{World, summary};

/// What a run is after, by its number.
fn events(n: usize) -> &'static [E] {
    match n % 5 {
        0 => &[],
        1 => &[E::Initialize],
        2 => &[E::Initialize, E::Run { attempt: 1 }],
        3 => &[E::Initialize, E::Run { attempt: 1 }, E::Complete { attempt: 1 }],
        _ => &[E::Initialize, E::SystemError { attempt: 1 }],
    }
}

/// A run of `owner` with tags, type and engine by its number.
fn numbered(world: &World, owner: &str, n: usize) -> NewRun {
    let new = world.submission(owner);
    let pick = |of: [&str; 2]| of[n % 2].to_owned();
    let summary = RequestSummary {
        workflow_type: pick(["CWL", "WDL"]),
        workflow_engine: pick(["cwltool", "miniwdl"]),
        tags: [("n".to_owned(), (n % 3).to_string()), ("a:b".to_owned(), "c:d".to_owned())].into(),
        ..summary("x")
    };
    NewRun { summary, ..new }
}

async fn submit(world: &World, owner: &str, n: usize) -> RunId {
    let new = numbered(world, owner, n);
    let run_id = new.run_id;
    world.store.create(new).await.expect("created");
    for event in events(n) {
        world.step(run_id, *event).await;
    }
    run_id
}

/// Everything under a filter, in pages of that size.
async fn all(world: &World, filter: &RunFilter, page_size: u32) -> Vec<RunId> {
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let RunPage { runs, next } =
            world.store.list_where("ann", filter, page_size, after).await.expect("a page");
        assert!(runs.len() <= page_size as usize);
        assert!(next.is_none_or(|next| after.is_none_or(|after| next < after)), "it goes on");
        seen.extend(runs.iter().map(|run| run.run_id));
        after = next;
        if after.is_none() {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_filter_shows_all_that_it_holds_of_and_nothing_else_newest_first() {
    let world = World::new().await;
    let start = world.clock.now();
    let mut mine = Vec::new();
    for n in 0..60 {
        mine.push((n, submit(&world, "ann", n).await));
        submit(&world, "bob", n).await;
        world.clock.advance(TimeDelta::seconds(1));
    }
    mine.reverse();
    let expect = |holds: &dyn Fn(usize) -> bool| -> Vec<RunId> {
        mine.iter().filter(|(n, _)| holds(*n)).map(|(_, run_id)| *run_id).collect()
    };
    let none = RunFilter::default();
    let text = |text: &str| Some(text.to_owned());
    let time = |seconds: i64| Some(start + TimeDelta::seconds(seconds));
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    let cases: Vec<(RunFilter, Vec<RunId>)> = vec![
        (none.clone(), expect(&|_| true)),
        (RunFilter { states: [S::Running].into(), ..none.clone() }, expect(&|n| n % 5 == 2)),
        (
            RunFilter { states: [S::Queued, S::Initializing].into(), ..none.clone() },
            expect(&|n| n % 5 < 2),
        ),
        (RunFilter { states: [S::Complete].into(), ..none.clone() }, expect(&|n| n % 5 == 3)),
        (
            RunFilter { states: [S::SystemError, S::Running].into(), ..none.clone() },
            expect(&|n| n % 5 == 4 || n % 5 == 2),
        ),
        (RunFilter { states: [S::Canceling].into(), ..none.clone() }, Vec::new()),
        (RunFilter { tags: tags(&["n:1"]), ..none.clone() }, expect(&|n| n % 3 == 1)),
        (RunFilter { tags: tags(&["n:1", "a:b:c:d"]), ..none.clone() }, expect(&|n| n % 3 == 1)),
        (RunFilter { tags: tags(&["n:1", "n:2"]), ..none.clone() }, Vec::new()),
        (RunFilter { tags: tags(&["a:b:c"]), ..none.clone() }, Vec::new()),
        (RunFilter { workflow_type: text("wdl"), ..none.clone() }, expect(&|n| n % 2 == 1)),
        (RunFilter { workflow_engine: text("CWLtool"), ..none.clone() }, expect(&|n| n % 2 == 0)),
        (
            RunFilter {
                states: [S::Running].into(),
                workflow_type: text("CWL"),
                tags: tags(&["n:0"]),
                ..none.clone()
            },
            expect(&|n| n % 5 == 2 && n % 2 == 0 && n % 3 == 0),
        ),
        (RunFilter { created_after: time(50), ..none.clone() }, expect(&|n| n >= 50)),
        (RunFilter { created_before: time(10), ..none.clone() }, expect(&|n| n < 10)),
        (
            RunFilter {
                created_after: time(20),
                created_before: time(40),
                states: [S::Running, S::Queued].into(),
                ..none.clone()
            },
            expect(&|n| (20..40).contains(&n) && matches!(n % 5, 0 | 2)),
        ),
        (
            RunFilter { created_after: time(40), created_before: time(40), ..none.clone() },
            Vec::new(),
        ),
    ];
    for (filter, expected) in cases {
        for page_size in [1000, 7, 1] {
            assert_eq!(
                all(&world, &filter, page_size).await,
                expected,
                "{filter:?} by {page_size}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_rare_among_many_is_found_by_short_pages() {
    let world = World::new().await;
    let complete = [E::Initialize, E::Run { attempt: 1 }, E::Complete { attempt: 1 }];
    let mut rare = Vec::new();
    for _ in 0..3 {
        rare.insert(0, submit(&world, "ann", 4).await);
        let many: Vec<_> = (0..1100).map(|n| numbered(&world, "ann", 2 * n)).collect();
        world.store.seed(&many, &complete).await.expect("written");
    }
    let failed = RunFilter { states: [S::SystemError].into(), ..RunFilter::default() };
    assert_eq!(all(&world, &failed, 100).await, rare);
    world.wire.items();
    world.wire.sent();
    let page = world.store.list_where("ann", &failed, 100, None).await.expect("a page");
    assert!(page.runs.is_empty() && page.next.is_some(), "{page:?}");
    assert_eq!(world.wire.items(), 1000, "no page looks at more");
    assert_eq!(world.wire.sent(), [("Query".to_owned(), 4)].into());

    let wdl = RunFilter { workflow_type: Some("WDL".to_owned()), ..RunFilter::default() };
    let page = world.store.list_where("ann", &wdl, 100, None).await.expect("a page");
    assert!(page.runs.is_empty() && page.next.is_some(), "{page:?}");
    assert!(world.wire.items() <= 2000, "each that was looked at is fetched once");
    assert_eq!(world.store.counts().await.expect("counts")[&S::Complete], 3300);
}

#[tokio::test]
async fn many_unfinished_runs_are_listed_as_a_few_are() {
    let world = World::new().await;
    let waiting: Vec<_> = (0..1001).map(|n| numbered(&world, "ann", n)).collect();
    world.store.seed(&waiting, &[]).await.expect("written");
    let queued = RunFilter { states: [S::Queued].into(), ..RunFilter::default() };
    let mut expected: Vec<_> = waiting.iter().map(|new| new.run_id).collect();
    expected.reverse();
    assert_eq!(all(&world, &queued, 300).await, expected);
    world.step(expected[0], E::Initialize).await;
    assert_eq!(all(&world, &queued, 300).await, expected[1..]);
}

#[tokio::test]
async fn an_answer_that_leaves_keys_over_is_asked_for_the_rest() {
    use crate::support::wire::Fault;
    let world = World::new().await;
    let running = submit(&world, "ann", 2).await;
    let left = serde_json::json!({
        "Responses": {"runs": []},
        "UnprocessedKeys": {"runs": {"Keys": [
            {"PK": {"S": format!("RUN#{running}")}, "SK": {"S": "RUN"}},
        ]}},
    });
    world.wire.next("BatchGetItem", Fault::Answer(200, left.to_string()));
    let filter = RunFilter { states: [S::Running].into(), ..RunFilter::default() };
    assert_eq!(all(&world, &filter, 10).await, [running]);
    assert_eq!(world.wire.unmet(), 0);
}
