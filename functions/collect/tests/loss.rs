//! How losses are told apart, beyond the sample events.

use stepwes_collect::loss::{Loss, classify, duration, ended_task};
use stepwes_core::{
    step::{CollectInput, StepError},
    task::{EcsContainer, EcsTask},
};

fn failed(error: &str, cause: &str) -> CollectInput {
    CollectInput {
        run_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a run id"),
        attempt: 1,
        task: None,
        error: Some(StepError { error: error.to_owned(), cause: cause.to_owned() }),
    }
}

fn of(input: &CollectInput) -> Loss {
    classify(input.error.as_ref(), ended_task(input).as_ref())
}

#[test]
fn a_cause_that_was_cut_still_tells_its_task_and_reason() {
    let cause = r#"{"Attachments":[],"Containers":[{"ExitCode":137,"TaskArn":"arn:t"}],"StopCode": "SpotInterruption","StoppedReason":"Your Spot \"Task\" was interrupted.","Overrides":{"Cont"#;
    let input = failed("States.TaskFailed", cause);
    let task = ended_task(&input).expect("a task");
    assert_eq!(task.task_arn.as_deref(), Some("arn:t"));
    assert_eq!(task.containers[0].exit_code, Some(137));
    let Loss::Interrupted(reason) = of(&input) else { panic!("not interrupted") };
    assert!(reason.contains(r#"Your Spot "Task" was interrupted."#), "{reason}");
}

#[test]
fn a_cause_that_is_no_task_is_quoted_and_tried_again() {
    let input = failed("States.TaskFailed", "something new");
    assert_eq!(ended_task(&input), None);
    let Loss::Lost(reason) = of(&input) else { panic!("not lost") };
    assert!(reason.contains("something new"));
}

#[test]
fn what_is_not_known_is_tried_again() {
    assert!(matches!(of(&failed("Some.New", "")), Loss::Lost(_)));
    assert!(matches!(classify(None, None), Loss::Lost(_)));
    assert!(matches!(classify(None, Some(&EcsTask::default())), Loss::Lost(_)));
}

#[test]
fn a_broken_expression_of_the_machine_is_final() {
    let input = failed("States.QueryEvaluationError", "the expression returned nothing");
    assert!(matches!(of(&input), Loss::Final(_)));
}

#[test]
fn out_of_memory_is_found_in_any_container() {
    let container = |exit_code, reason: Option<&str>| EcsContainer {
        exit_code: Some(exit_code),
        reason: reason.map(str::to_owned),
    };
    let task = EcsTask {
        containers: vec![
            container(0, Some("something else")),
            container(137, Some("OutOfMemoryError: Container killed due to memory usage")),
        ],
        ..EcsTask::default()
    };
    assert!(matches!(classify(None, Some(&task)), Loss::Final(_)));
}

#[test]
fn a_signal_is_named_by_its_number() {
    let task = EcsTask {
        containers: vec![EcsContainer { exit_code: Some(139), reason: None }],
        ..EcsTask::default()
    };
    let Loss::Lost(reason) = classify(None, Some(&task)) else { panic!("not lost") };
    assert!(reason.contains("signal 11"), "{reason}");
}

#[test]
fn a_terminated_host_is_an_interruption() {
    let task = EcsTask {
        stopped_reason: Some("Host EC2 (instance i-0) terminated.".to_owned()),
        ..EcsTask::default()
    };
    assert!(matches!(classify(None, Some(&task)), Loss::Interrupted(_)));
}

#[test]
fn a_limit_is_told_in_its_largest_unit() {
    let told: Vec<_> = [3600, 86_400, 90, 60, 61].into_iter().map(duration).collect();
    assert_eq!(told, ["1 hour", "24 hours", "90 seconds", "1 minute", "61 seconds"]);
}
