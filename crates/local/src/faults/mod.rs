//! Fault injection: what may go wrong between our code and an AWS service, brought about on purpose.
//!
//! Every call of the embedded AWS passes one place (`Injector`), which asks a [`FaultPlan`] what
//! goes wrong with it. A fault is an error as the service has it, or no answer, or half of one:
//! nothing is ever answered that looks like success unless it happened.
//!
//! Calls are told apart by service, operation and run, and numbered among those that are alike in
//! all three. A plan that decides by these alone decides the same when everything is played again,
//! however the calls of different runs come to follow each other.

mod answers;
mod injector;
mod seeded;

use std::{fmt, time::Duration};

use chrono::TimeDelta;

pub use self::{
    answers::INJECTED,
    seeded::{NotSeeded, Seeded},
};
pub(crate) use self::{
    answers::is_unanswered,
    injector::{Injector, SkewedClock, s3_operation},
};

/// On which side of a call's effect something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// There is no effect.
    Before,
    /// The effect is there, and the caller is not told.
    After,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused for the rate of calls, or for another writer of the same items.
    Throttled,
    /// The service fails: 500, or 503.
    Failed(When),
    /// No answer comes, as when the connection breaks or time runs out.
    Unanswered(When),
    /// No answer comes, and the effect only after this long, when the caller may have done something
    /// else about it.
    Late(Duration),
    /// It takes this much longer.
    Slow(Duration),
    /// The connection breaks in the middle of the answer.
    TornAnswer,
    /// The connection breaks in the middle of the request, which has no effect.
    TornRequest,
    /// The caller's clock is said to be wrong.
    Skewed,
    /// The function that makes the call is killed; a call that no function makes is not answered.
    /// Of an invocation: the function is killed before it does anything, or after everything.
    Dies(When),
    /// An invocation takes place twice. Of no other call.
    Twice,
}

impl Fault {
    /// The fault's name, for counting.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Failed(When::Before) => "failed before",
            Self::Failed(When::After) => "failed after",
            Self::Unanswered(When::Before) => "unanswered before",
            Self::Unanswered(When::After) => "unanswered after",
            Self::Late(_) => "late",
            Self::Slow(_) => "slow",
            Self::TornAnswer => "torn answer",
            Self::TornRequest => "torn request",
            Self::Skewed => "skewed",
            Self::Dies(When::Before) => "dies before",
            Self::Dies(When::After) => "dies after",
            Self::Twice => "twice",
        }
    }
}

/// A call, as a plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyCall<'a> {
    /// The service: the name that its requests are signed for; `apigateway` for the API's own
    /// callers, `metadata` for the task metadata endpoint.
    pub service: &'a str,
    /// The operation, such as `PutObject`. Of an invocation the function's name, of the API the
    /// method and the route.
    pub operation: &'a str,
    /// The function that makes the call; none for engine tasks, the state machine and callers.
    pub function: Option<&'a str>,
    /// The run that it is about, by its idempotency key where it has one, else by the order in which
    /// the runs were seen; empty for a call about none, or about several.
    pub run: &'a str,
    /// The how manieth it is, from 0, of those with this service, operation and run.
    pub nth: u64,
}

impl fmt::Display for FaultyCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {} of {:?}", self.service, self.operation, self.nth, self.run)
    }
}

/// Decides what goes wrong.
pub trait FaultPlan: fmt::Debug + Send + Sync + 'static {
    /// What goes wrong with this call. Asked once for each.
    fn fault(&self, call: &FaultyCall<'_>) -> Option<Fault>;

    /// By how much that function's clock is wrong.
    fn skew(&self, function: &str) -> TimeDelta {
        let _ = function;
        TimeDelta::zero()
    }
}
