//! The run table: the store's own decisions and conditions over runs that are a few bytes large.

use std::{cell::RefCell, collections::HashMap};

use chrono::DateTime;
use stepwes_core::{
    resources::Resources,
    run::{RequestSummary, Run, RunId},
    run_state::{Refusal, RunEvent, RunState},
    task::{ReportAction, ReportRequest},
    token::AttemptToken,
};
use stepwes_report::may_speak as report_may_speak;
use stepwes_store::{
    self as store, Change, Holder, Idempotency, IdempotentRun, NewRun,
    rules::{self, ClaimDecision, Decision},
};
use uuid::Uuid;

use crate::{
    call::{Created, RunIx},
    task::{TaskIx, arn},
};

/// A run's item, as far as anybody goes by it. The token is the attempt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) state: RunState,
    pub(crate) version: u8,
    pub(crate) attempt: u8,
    pub(crate) holder: Option<TaskIx>,
}

/// [`Holder`], in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Any,
    Nobody,
    Task(TaskIx),
}

impl Who {
    pub(crate) fn of(holder: Option<TaskIx>) -> Self {
        holder.map_or(Self::Nobody, Self::Task)
    }

    pub(crate) fn is_of(self, item: Item) -> bool {
        Holder::from(self).is_of(&item.run())
    }
}

impl From<Who> for Holder {
    fn from(who: Who) -> Self {
        match who {
            Who::Any => Self::Any,
            Who::Nobody => Self::Nobody,
            Who::Task(task) => Self::Task(arn(task)),
        }
    }
}

/// [`Decision`], in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    Write { item: Item, counts: Option<(RunState, RunState)> },
    Repeated,
    Refused,
    Held,
}

/// [`ClaimDecision`], in a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecidedClaim {
    Bind,
    Bound,
    Refused,
}

/// The secret of an attempt.
fn token(attempt: u8) -> AttemptToken {
    AttemptToken::from_secret(format!("the token of attempt {attempt}"))
}

/// A run with what every model of it goes by, and nothing else.
pub(crate) fn run(state: RunState, version: u8, attempt: u8) -> Run {
    let queued = Run::queued(RunId::from_uuid(Uuid::nil()), String::new(), DateTime::UNIX_EPOCH);
    Run { state, version: version.into(), attempt: attempt.into(), ..queued }
}

impl Item {
    /// A run that was just enqueued.
    pub(crate) const NEW: Self =
        Self { state: RunState::Queued, version: 1, attempt: 0, holder: None };

    /// The run as the store has it.
    fn run(self) -> Run {
        Run {
            token: (self.attempt > 0).then(|| token(self.attempt)),
            task_arn: self.holder.map(arn),
            ..run(self.state, self.version, self.attempt)
        }
    }

    fn of(run: &Run) -> Self {
        let attempt = small(run.attempt.into());
        let expected = (attempt > 0).then(|| token(attempt));
        assert_eq!(run.token, expected, "a new attempt has a new token, and no other event has");
        let holder = run.task_arn.as_ref();
        Self {
            state: run.state,
            version: small(run.version),
            attempt,
            holder: holder.map(|holder| {
                (0..TaskIx::MAX).find(|task| arn(*task) == *holder).expect("a task's ARN")
            }),
        }
    }
}

pub(crate) fn small(number: u64) -> u8 {
    u8::try_from(number).expect("the model is small")
}

type Decisions = HashMap<(Item, RunEvent, Who), Decided>;
type Claims = HashMap<(Item, u8, TaskIx), DecidedClaim>;
type Conditions = HashMap<(Item, Item), bool>;

thread_local! {
    // There are few different cases, and each comes up a million times.
    static DECISIONS: RefCell<Decisions> = RefCell::default();
    static CLAIMS: RefCell<Claims> = RefCell::default();
    static UNCHANGED: RefCell<Conditions> = RefCell::default();
    static FREE: RefCell<Conditions> = RefCell::default();
    static MAY_SPEAK: RefCell<HashMap<(Item, u8, TaskIx), bool>> = RefCell::default();
}

/// What an event comes to: [`rules::decide`].
pub(crate) fn decide(item: Item, event: RunEvent, holder: Who) -> Decided {
    DECISIONS.with_borrow_mut(|known| {
        *known.entry((item, event, holder)).or_insert_with(|| {
            let run = item.run();
            let change = Change { holder: holder.into(), ..Change::default() };
            let new_token = || Ok(token(item.attempt + 1));
            match rules::decide(&run, event, &change, DateTime::UNIX_EPOCH, new_token) {
                Ok(Decision::Write(written)) => {
                    assert!(written.condition.holds(Some(&run)), "it holds of what was read");
                    Decided::Write { item: Item::of(&written.run), counts: written.counts }
                }
                Ok(Decision::Repeated) => Decided::Repeated,
                Ok(Decision::Refused(Refusal::Task { .. })) => Decided::Held,
                Ok(Decision::Refused(_)) => Decided::Refused,
                Err(error) => unreachable!("there is a token: {error}"),
            }
        })
    })
}

/// Whether a write that was made out for `read` takes effect: [`rules::Unchanged`].
pub(crate) fn is_unchanged(read: Item, now: Item) -> bool {
    UNCHANGED.with_borrow_mut(|known| {
        *known
            .entry((read, now))
            .or_insert_with(|| rules::Unchanged::since(&read.run()).holds(Some(&now.run())))
    })
}

/// What a claim comes to: [`rules::decide_claim`].
pub(crate) fn decide_claim(item: Item, attempt: u8, task: TaskIx) -> DecidedClaim {
    CLAIMS.with_borrow_mut(|known| {
        *known.entry((item, attempt, task)).or_insert_with(|| {
            match rules::decide_claim(&item.run(), attempt.into(), &token(attempt), &arn(task)) {
                ClaimDecision::Bind(free) => {
                    assert!(free.holds(Some(&item.run())), "it holds of what was read");
                    DecidedClaim::Bind
                }
                ClaimDecision::Bound => DecidedClaim::Bound,
                ClaimDecision::Refuse(_) => DecidedClaim::Refused,
            }
        })
    })
}

/// Whether a claim takes effect: [`rules::Free`]. `claimed` is the run with the attempt and the
/// task that are claimed.
pub(crate) fn is_free(attempt: u8, task: TaskIx, now: Item) -> bool {
    let claimed = Item { attempt, holder: Some(task), ..Item::NEW };
    FREE.with_borrow_mut(|known| {
        *known.entry((claimed, now)).or_insert_with(|| {
            rules::Free { attempt: attempt.into(), task_arn: arn(task) }.holds(Some(&now.run()))
        })
    })
}

/// Whether report lets a task say that its engine starts.
pub(crate) fn may_speak(item: Item, attempt: u8, task: TaskIx) -> bool {
    MAY_SPEAK.with_borrow_mut(|known| {
        *known.entry((item, attempt, task)).or_insert_with(|| {
            let run = item.run();
            let request = ReportRequest {
                run_id: run.run_id,
                attempt: attempt.into(),
                token: token(attempt),
                task_arn: arn(task),
                action: ReportAction::Run { cmd: Vec::new(), start_time: DateTime::UNIX_EPOCH },
            };
            report_may_speak(&run, &request).is_ok()
        })
    })
}

/// What a submission comes to that was in another's way: [`rules::existing`].
pub(crate) fn existing(
    own: RunIx,
    item: Option<Item>,
    key: Option<RunIx>,
    unanswered: bool,
) -> Created {
    let id = |run: RunIx| RunId::from_uuid(Uuid::from_u128(run.into()));
    let new = NewRun {
        run_id: id(own),
        owner: String::new(),
        summary: RequestSummary::default(),
        resources: Resources::default(),
        destination: None,
        idempotency: Some(Idempotency {
            key: "key".to_owned(),
            fingerprint: String::new(),
            expires_at: DateTime::UNIX_EPOCH,
        }),
        trace: None,
        waits: false,
    };
    let run = item.map(|item| Run { run_id: id(own), ..item.run() });
    let used = key.map(|run| IdempotentRun { run_id: id(run), fingerprint: String::new() });
    match rules::existing(&new, run, used.as_ref(), unanswered) {
        Ok(Some(store::Created::New(_))) => Created::New,
        Ok(Some(store::Created::Existing(run_id))) => Created::Existing(
            (0..RunIx::MAX).find(|run| id(*run) == run_id).expect("one of the model's runs"),
        ),
        other => unreachable!("the same request under the same key: {other:?}"),
    }
}
