//! The engine's jobs.

use axum::{
    Json,
    extract::{RawQuery, State as FromState},
};
use stepwes_cloud::{
    http::{Caller, HttpError, Params},
    objects::ObjectError,
};
use stepwes_core::{
    ApiError, Run,
    clock::wes_time,
    keys,
    task::{Task, Tasks},
    wes::{TaskListResponse, TaskLog},
};

use crate::{
    State,
    paging::{PageRequest, fit, next_offset},
};

/// WES `ListTasks`: the jobs of the present attempt, in the order in which they started. They are
/// only ever added to, so a page token is the number of jobs before the page.
pub(crate) async fn list_tasks(
    FromState(state): FromState<State>,
    caller: Caller,
    Params(run_id): Params<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<TaskListResponse>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    let limits = &state.settings.limits;
    let page = PageRequest::read(query.as_deref(), limits)?;
    let offset = page.offset()?;
    let tasks = tasks(&state, &run).await?;
    let total = tasks.len();
    let mut task_logs: Vec<_> =
        tasks.into_iter().skip(offset).take(page.size as usize).map(task_log).collect();
    fit(&mut task_logs, limits.max_page_bytes);
    let next_page_token = next_offset(offset, task_logs.len(), total);
    Ok(Json(TaskListResponse { task_logs, next_page_token }))
}

/// WES `GetTask`.
pub(crate) async fn get_task(
    FromState(state): FromState<State>,
    caller: Caller,
    Params((run_id, task_id)): Params<(String, String)>,
) -> Result<Json<TaskLog>, HttpError> {
    let run = caller.run(&state.store, &run_id).await?;
    match tasks(&state, &run).await?.into_iter().find(|task| task.id == task_id) {
        Some(task) => Ok(Json(task_log(task))),
        None => {
            let shown: String = task_id.chars().take(64).collect();
            Err(ApiError::NotFound(format!("run {} has no task {shown:?}", run.run_id)).into())
        }
    }
}

/// The jobs of the present attempt as the API tells of them.
pub(crate) async fn task_logs(state: &State, run: &Run) -> Result<Vec<TaskLog>, ObjectError> {
    Ok(tasks(state, run).await?.into_iter().map(task_log).collect())
}

async fn tasks(state: &State, run: &Run) -> Result<Vec<Task>, ObjectError> {
    if run.attempt == 0 {
        return Ok(Vec::new());
    }
    let tasks = state.objects.get_json::<Tasks>(&keys::tasks(run.run_id, run.attempt)).await?;
    Ok(tasks.unwrap_or_default().tasks)
}

fn task_log(task: Task) -> TaskLog {
    TaskLog {
        id: task.id,
        name: task.name,
        cmd: (!task.cmd.is_empty()).then_some(task.cmd),
        start_time: task.start_time.map(wes_time),
        end_time: task.end_time.map(wes_time),
        // The engines write their jobs' streams into their own log.
        stdout: None,
        stderr: None,
        exit_code: task.exit_code,
        system_logs: task.system_logs,
    }
}
