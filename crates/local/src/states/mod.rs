//! Step Functions: executions of the state machine, persisted at each step.

mod api;
mod driver;
mod integrations;
mod machine;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use stepwes_asl::{Execution, Input, Machine, Status};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use self::driver::{Driver, Event};
use crate::{
    arn,
    calls::Calls,
    ecs::Ecs,
    lambda::Functions,
    ledger::{ExecutionRow, Ledger, LedgerError},
    life::Life,
};

pub(crate) use self::{
    api::{call, operation},
    machine::run_machine,
};

/// Told of each execution that ended FAILED, TIMED_OUT or ABORTED, with EventBridge's event.
pub(crate) type EndedHook = Arc<dyn Fn(Value) + Send + Sync>;

/// The executions.
pub(crate) struct States {
    machine: Machine,
    ledger: Arc<Ledger>,
    ecs: Arc<Ecs>,
    functions: Arc<Functions>,
    calls: Arc<Calls>,
    life: Life,
    on_end: EndedHook,
    /// How to reach those that run.
    live: Mutex<HashMap<String, mpsc::UnboundedSender<Event>>>,
}

/// The outcome of asking for an execution.
pub(crate) enum Started {
    /// It was started, now or by the same request before.
    At(DateTime<Utc>),
    /// There is or was another of that name.
    Exists,
}

impl States {
    /// Takes up the executions that an earlier server left running, and stops the tasks that none
    /// of them waits for any more.
    pub(crate) async fn load(
        machine: Machine,
        ledger: Arc<Ledger>,
        ecs: Arc<Ecs>,
        functions: Arc<Functions>,
        calls: Arc<Calls>,
        life: Life,
        on_end: EndedHook,
    ) -> Result<Arc<Self>, LedgerError> {
        let states = Arc::new(Self {
            machine,
            ledger,
            ecs,
            functions,
            calls,
            life,
            on_end,
            live: Mutex::default(),
        });
        let mut awaited = Vec::new();
        for row in states.ledger.running_executions().await? {
            let state = row.state.as_deref().unwrap_or_default();
            match serde_json::from_str::<Execution>(state) {
                Ok(execution) => {
                    let tasks = execution.running_tasks();
                    awaited.extend(tasks.iter().map(|task| client_token(&row.name, task.id)));
                    states.drive(row, execution, true);
                }
                Err(error) => states.give_up(row, &error).await?,
            }
        }
        for task in states.ecs.live() {
            let Some(token) = &task.client_token else { continue };
            if task.started_by.as_deref() == Some(integrations::STARTED_BY)
                && !awaited.contains(token)
            {
                states.ecs.stop(&task.id, integrations::STOP_REASON).await?;
            }
        }
        Ok(states)
    }

    /// An execution whose state an older or newer version wrote in another form.
    async fn give_up(
        &self,
        mut row: ExecutionRow,
        error: &serde_json::Error,
    ) -> Result<(), LedgerError> {
        tracing::error!(
            error = error as &dyn std::error::Error,
            execution = row.name,
            "an execution cannot be read and fails"
        );
        row.status = "FAILED".to_owned();
        row.stopped_at = Some(Utc::now());
        row.error = Some("States.Runtime".to_owned());
        row.cause = Some(format!("the stored execution cannot be read: {error}"));
        self.ledger.end_execution(row.clone()).await?;
        (self.on_end)(ended_event(&row));
        Ok(())
    }

    /// Starts an execution, or finds it started by the same request.
    pub(crate) async fn start(
        self: &Arc<Self>,
        name: String,
        input: String,
        value: Value,
    ) -> Result<Started, LedgerError> {
        // As it is stored, and thus the same when it is asked for again.
        let now =
            DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap_or_else(Utc::now);
        let seed = Uuid::new_v4().as_u64_pair().0;
        let execution = Execution::start(
            &self.machine,
            Input {
                input: value,
                execution_arn: format!("{}{name}", arn::EXECUTION_PREFIX),
                name: name.clone(),
                role_arn: "arn:aws:iam::000000000000:role/stepwes-state-machine".to_owned(),
                state_machine_arn: arn::STATE_MACHINE.to_owned(),
                state_machine_name: arn::STATE_MACHINE_NAME.to_owned(),
                seed,
            },
            now,
        );
        let row = ExecutionRow {
            name,
            input,
            status: RUNNING.to_owned(),
            started_at: now,
            stopped_at: None,
            output: None,
            error: None,
            cause: None,
            state: Some(serde_json::to_string(&execution)?),
        };
        match self.ledger.add_execution(row.clone()).await? {
            None => {
                self.drive(row, execution, false);
                Ok(Started::At(now))
            }
            Some(there) if there.status == RUNNING && there.input == row.input => {
                Ok(Started::At(there.started_at))
            }
            Some(_) => Ok(Started::Exists),
        }
    }

    fn drive(self: &Arc<Self>, row: ExecutionRow, execution: Execution, resumed: bool) {
        let (events, mailbox) = mpsc::unbounded_channel();
        self.live().insert(row.name.clone(), events.clone());
        let driver = Driver::new(Arc::clone(self), row, execution, events, mailbox);
        self.life.spawn(driver.run(resumed));
    }

    /// Stops an execution; when it ended, or `None` when there is none of that name.
    pub(crate) async fn stop(
        &self,
        name: &str,
        error: Option<String>,
        cause: Option<String>,
    ) -> Result<Option<DateTime<Utc>>, LedgerError> {
        loop {
            let driver = self.live().get(name).cloned();
            if let Some(driver) = driver {
                let (stopped, told) = oneshot::channel();
                let (error, cause) = (error.clone(), cause.clone());
                // It may be ending at this moment; its row then says when.
                if driver.send(Event::Abort { error, cause, stopped }).is_ok()
                    && let Ok(at) = told.await
                {
                    return Ok(Some(at));
                }
            }
            match self.ledger.execution(name.to_owned()).await? {
                None => return Ok(None),
                Some(row) if row.status != RUNNING => return Ok(row.stopped_at),
                // It is being started, or has just ended.
                Some(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    }

    /// The execution of that name.
    pub(crate) async fn describe(&self, name: &str) -> Result<Option<ExecutionRow>, LedgerError> {
        self.ledger.execution(name.to_owned()).await
    }

    /// The names of the executions that run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.live().keys().cloned().collect()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Event>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait for an execution that is neither quite there nor quite gone.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Step Functions' name for an execution that has not ended.
pub(crate) const RUNNING: &str = "RUNNING";

/// The token by which a task of an execution is started once, however often it is asked for.
fn client_token(execution: &str, task: stepwes_asl::TaskId) -> String {
    format!("{execution}:{task}")
}

/// Step Functions' name for a status.
fn status_name(status: &Status) -> &'static str {
    match status {
        Status::Running => RUNNING,
        Status::Succeeded { .. } => "SUCCEEDED",
        Status::Failed { .. } => "FAILED",
        Status::TimedOut => "TIMED_OUT",
        Status::Aborted { .. } => "ABORTED",
    }
}

/// What EventBridge tells of an execution that ended.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html>
fn ended_event(row: &ExecutionRow) -> Value {
    let execution = format!("{}{}", arn::EXECUTION_PREFIX, row.name);
    json!({
        "version": "0",
        "id": Uuid::new_v4().to_string(),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": arn::ACCOUNT,
        "time": stepwes_core::clock::wes_time(Utc::now()),
        "region": arn::REGION,
        "resources": [execution],
        "detail": {
            "executionArn": execution,
            "stateMachineArn": arn::STATE_MACHINE,
            "name": row.name,
            "status": row.status,
            "startDate": row.started_at.timestamp_millis(),
            "stopDate": row.stopped_at.map(|at| at.timestamp_millis()),
            "input": row.input,
            "output": row.output,
            "error": row.error,
            "cause": row.cause,
        },
    })
}
