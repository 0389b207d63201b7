//! Step Functions: executions of the state machine, persisted at each step.

mod api;
mod driver;
mod integrations;
mod machine;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
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
    worker::Closed,
};

pub(crate) use self::{
    api::{call, operation},
    machine::{Definition, run_machine},
};

/// Told of each execution that ended, with EventBridge's event.
pub(crate) type EndedHook = Arc<dyn Fn(Value) + Send + Sync>;

/// The executions.
pub(crate) struct States {
    /// What new executions run.
    definition: Definition,
    ledger: Arc<Ledger>,
    ecs: Arc<Ecs>,
    functions: Arc<Functions>,
    calls: Arc<Calls>,
    life: Life,
    on_end: EndedHook,
    /// How to reach those that run.
    live: Mutex<HashMap<String, mpsc::UnboundedSender<Event>>>,
    /// Held from when an execution is recorded until it is driven.
    starting: tokio::sync::Mutex<()>,
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
        definition: Definition,
        ledger: Arc<Ledger>,
        ecs: Arc<Ecs>,
        functions: Arc<Functions>,
        calls: Arc<Calls>,
        life: Life,
        on_end: EndedHook,
    ) -> Result<Arc<Self>, LedgerError> {
        let states = Arc::new(Self {
            definition,
            ledger,
            ecs,
            functions,
            calls,
            life,
            on_end,
            live: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
        });
        let mut awaited = HashSet::new();
        let mut resumed = Vec::new();
        for row in states.ledger.running_executions().await? {
            match states.read(&row) {
                Ok((machine, execution)) => {
                    let tasks = execution.running_tasks();
                    awaited.extend(tasks.iter().map(|task| client_token(&row.name, task.id)));
                    resumed.push((row, machine, execution));
                }
                Err(error) => states.give_up(row, &error).await?,
            }
        }
        // Before any execution goes on: what it starts from then on is not an orphan.
        for task in states.ecs.live() {
            let Some(token) = &task.client_token else { continue };
            if task.started_by.as_deref() == Some(integrations::STARTED_BY)
                && !awaited.contains(token)
            {
                states.ecs.stop(&task.id, integrations::STOP_REASON).await?;
            }
        }
        for (row, machine, execution) in resumed {
            states.drive(row, machine, execution, true);
        }
        Ok(states)
    }

    /// A running execution as it was recorded, with its machine.
    fn read(&self, row: &ExecutionRow) -> Result<(Arc<Machine>, Execution), Unreadable> {
        let execution = serde_json::from_str(row.state.as_deref().unwrap_or_default())?;
        let machine = match &row.definition {
            Some(text) if *text != self.definition.text => machine::load(Arc::clone(text))?.machine,
            _ => Arc::clone(&self.definition.machine),
        };
        Ok((machine, execution))
    }

    /// An execution whose state or machine an older or newer version wrote in another form.
    async fn give_up(&self, mut row: ExecutionRow, error: &Unreadable) -> Result<(), LedgerError> {
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
            &self.definition.machine,
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
            definition: Some(Arc::clone(&self.definition.text)),
        };
        let states = Arc::clone(self);
        // Not cut short: an execution that has been recorded runs.
        self.life.whole(async move { states.start_whole(row, execution).await }).await
    }

    async fn start_whole(
        self: &Arc<Self>,
        row: ExecutionRow,
        execution: Execution,
    ) -> Result<Started, LedgerError> {
        let _starting = self.starting.lock().await;
        match self.ledger.add_execution(row.clone()).await? {
            None => {
                let at = row.started_at;
                self.drive(row, Arc::clone(&self.definition.machine), execution, false);
                Ok(Started::At(at))
            }
            Some(there) if there.status == RUNNING && there.input == row.input => {
                Ok(Started::At(there.started_at))
            }
            Some(_) => Ok(Started::Exists),
        }
    }

    fn drive(
        self: &Arc<Self>,
        row: ExecutionRow,
        machine: Arc<Machine>,
        execution: Execution,
        resumed: bool,
    ) {
        let (events, mailbox) = mpsc::unbounded_channel();
        self.live().insert(row.name.clone(), events.clone());
        let driver = Driver::new(Arc::clone(self), machine, row, execution, events, mailbox);
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
            // One that is being started is driven when this is let go of.
            let starting = self.starting.lock().await;
            match self.ledger.execution(name.to_owned()).await? {
                None => return Ok(None),
                Some(row) if row.status != RUNNING => return Ok(row.stopped_at),
                Some(_) if self.live().get(name).is_some_and(|driver| !driver.is_closed()) => {
                    drop(starting);
                }
                // Nobody drives it any more, as the server goes down: the next one does.
                Some(_) => return Err(Closed.into()),
            }
        }
    }

    /// The execution of that name.
    pub(crate) async fn describe(&self, name: &str) -> Result<Option<ExecutionRow>, LedgerError> {
        self.ledger.execution(name.to_owned()).await
    }

    /// Forgets executions that ended long ago.
    pub(crate) async fn forget_old(&self, now: DateTime<Utc>) {
        if let Err(error) = self.ledger.forget_executions(now - REMEMBERED).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old executions are kept");
        }
    }

    /// The names of the executions that run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.live().keys().cloned().collect()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, mpsc::UnboundedSender<Event>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an execution that an earlier server recorded cannot go on.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    State(#[from] serde_json::Error),
    #[error(transparent)]
    Machine(#[from] machine::MachineError),
}

/// For how long an ended execution is remembered: as long as Step Functions does, which lets a name
/// be used again after that.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>
const REMEMBERED: TimeDelta = TimeDelta::days(90);
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
