//! What collect makes of a task that is gone: its own functions, asked once for each case.

use std::collections::HashMap;

use stepwes_collect::loss::{Loss, classify, ended_task};
use stepwes_core::{
    run::RunId,
    step::{CollectInput, StepError},
    task::EcsTask,
};
use uuid::Uuid;

use crate::{
    call::Input,
    task::{Exit, Gone, How, StopReason, arn},
};

/// The kinds of [`Input`], less the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Task,
    Failed,
    TimedOut,
    NotStarted,
    Refused,
}

/// [`classify`] and [`ended_task`] by what they go by.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    classes: HashMap<(Told, Option<Gone>), Loss>,
}

impl Losses {
    pub(crate) fn new() -> Self {
        let hows = [
            How::Exit(Exit::Done),
            How::Exit(Exit::Refused),
            How::Exit(Exit::Failed),
            How::Exit(Exit::Stopped),
            How::Spot,
            How::Killed,
            How::OutOfMemory,
        ];
        let reasons = [None, Some(StopReason::Over), Some(StopReason::Overdue)];
        let ends = hows
            .into_iter()
            .flat_map(|how| reasons.map(|told_to_stop| Some(Gone { how, told_to_stop })))
            .chain([None]);
        let told = [Told::Task, Told::Failed, Told::TimedOut, Told::NotStarted, Told::Refused];
        let mut classes = HashMap::new();
        for gone in ends {
            let task = gone.map(|gone| gone.as_ecs(0));
            for told in told {
                let input = input_of(told, task.clone());
                if let (Some(gone), Told::Task | Told::Failed) = (gone, told) {
                    let ended = ended_task(&input).and_then(|task| task.task_arn);
                    assert_eq!(ended, Some(arn(0)), "collect does not see whose end {gone:?} is");
                }
                classes.insert((told, gone), classify(input.error.as_ref(), task.as_ref()));
            }
        }
        Self { classes }
    }

    /// Why the attempt was lost.
    pub(crate) fn classify(&self, input: Input, gone: Option<Gone>) -> &Loss {
        let told = match input {
            Input::Ended(_, gone) if gone.is_success() => Told::Task,
            Input::Ended(..) => Told::Failed,
            Input::TimedOut => Told::TimedOut,
            Input::NotStarted => Told::NotStarted,
            Input::Refused => Told::Refused,
        };
        &self.classes[&(told, gone)]
    }
}

/// What collect is sent.
fn input_of(told: Told, task: Option<EcsTask>) -> CollectInput {
    let error = |error: &str, cause: String| Some(StepError { error: error.to_owned(), cause });
    let (task, error) = match told {
        Told::Task => (task, None),
        Told::Failed => {
            let cause = serde_json::to_string(&task).expect("a task is JSON");
            (None, error("States.TaskFailed", cause))
        }
        Told::TimedOut => (None, error("States.Timeout", String::new())),
        Told::NotStarted => (None, error("ECS.ServerException", "no answer".to_owned())),
        Told::Refused => (None, error("ECS.AccessDeniedException", "not allowed".to_owned())),
    };
    CollectInput { run_id: RunId::from_uuid(Uuid::nil()), attempt: 1, task, error }
}
