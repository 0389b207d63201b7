//! How much may happen in a model, and what may be wrong with it.

/// How much may happen. Within it, everything does, in every order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many POSTs are sent, all under one idempotency key.
    pub posts: u8,
    /// How often a caller asks to cancel.
    pub cancels: u8,
    /// How many attempts a run has (`STEPWES_MAX_ATTEMPTS`); 3 at most.
    pub attempts: u8,
    /// How many faults there are: a process that dies, an answer that is lost or late, a step that is
    /// given up, a task that is killed, an execution that is stopped.
    pub faults: u8,
    /// How many invocations of reconcile are under way at once; how many there are in all has no
    /// bound.
    pub reconciles: u8,
    /// Whether ended runs are removed from the table.
    pub removal: bool,
}

/// One rule that is broken, to show that breaking it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The state table lets a run that has ended take a system error.
    TerminalChanges,
    /// The state table lets a run that is being cancelled complete.
    CancelingCompletes,
    /// A write's condition does not name the version that was read, nor that the event is new.
    VersionForgotten,
    /// reconcile does not start the execution of a QUEUED run that has none.
    QueuedForgotten,
    /// A claim does not look at who holds the attempt.
    TwinAccepted,
    /// preempt does not say which task the attempt was lost by.
    HolderForgotten,
    /// collect gives a run up without saying which task it saw.
    GivenUpUnseen,
    /// advance ends a run whose step failed, whoever holds its attempt.
    FailedStepUnseen,
    /// collect does not look whether the task of a cancelled run is gone.
    CanceledAtOnce,
    /// collect does not look for the result of a task whose host the cloud took.
    ResultIgnored,
    /// collect does not look for the result again once it has seen that the task is gone.
    ResultNotLookedForAgain,
    /// The counts do not move when a run becomes RUNNING.
    CountForgotten,
    /// The idempotency item is written without a condition.
    KeyForgotten,
    /// No event item is written when a run is cancelled.
    EventForgotten,
}
