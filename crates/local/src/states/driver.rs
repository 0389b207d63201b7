//! One running execution: polls the interpreter, records where it is, then does what it asks for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use stepwes_asl::{Command, Execution, Machine, Status, TaskId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    States, client_token, ended_event,
    integrations::{self, Call},
    machine, status_name,
};
use crate::{
    calls::{STATE_TRANSITION, Service},
    ledger::{ExecutionRow, LedgerError},
};

/// How long to wait before something is recorded again, when the disk is full.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What may happen to an execution besides the passing of time.
pub(super) enum Event {
    /// A task ended: with its output, or with an error's name and cause.
    Task { id: TaskId, outcome: Result<Value, integrations::Failure> },
    /// A task that waited for a slot has begun.
    Begun { id: TaskId, at: DateTime<Utc> },
    /// Somebody stops the execution.
    Abort { error: Option<String>, cause: Option<String>, stopped: oneshot::Sender<DateTime<Utc>> },
}

/// An execution and what it waits for.
pub(super) struct Driver {
    states: Arc<States>,
    machine: Arc<Machine>,
    row: ExecutionRow,
    execution: Execution,
    events: mpsc::UnboundedSender<Event>,
    mailbox: mpsc::UnboundedReceiver<Event>,
    /// How to cancel the tasks that run.
    tasks: HashMap<TaskId, CancellationToken>,
    /// Who waits for the execution to have been stopped.
    stoppers: Vec<oneshot::Sender<DateTime<Utc>>>,
}

impl Driver {
    pub(super) fn new(
        states: Arc<States>,
        machine: Arc<Machine>,
        row: ExecutionRow,
        execution: Execution,
        events: mpsc::UnboundedSender<Event>,
        mailbox: mpsc::UnboundedReceiver<Event>,
    ) -> Self {
        let (tasks, stoppers) = (HashMap::new(), Vec::new());
        Self { states, machine, row, execution, events, mailbox, tasks, stoppers }
    }

    /// Drives the execution to its end. When it is resumed, the tasks that it waits for are asked
    /// for again: a function is invoked once more, an ECS task is found by its client token.
    pub(super) async fn run(mut self, resumed: bool) {
        if resumed {
            for task in self.execution.running_tasks() {
                self.start_task(task.id, task.resource, task.arguments);
            }
        }
        loop {
            let before = self.execution.transitions();
            let commands = self.execution.poll(&self.machine, Utc::now());
            let entered = self.execution.transitions() - before;
            self.states.calls.add(Service::States, STATE_TRANSITION, entered);
            if self.execution.is_ended() {
                self.end(commands).await;
                return;
            }
            for command in &commands {
                if let Command::StartTask { id, resource, .. } = command
                    && resource == machine::ECS_RUN_TASK_SYNC
                {
                    // The time that it waits for a slot here is nothing that AWS has.
                    let receipt = self.execution.task_queued(*id);
                    tracing::trace!(execution = self.row.name, %id, ?receipt, "a task waits");
                }
            }
            self.save().await;
            for command in commands {
                self.carry_out(command);
            }
            self.wait().await;
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::StartTask { id, resource, arguments, .. } => {
                self.start_task(id, resource, arguments);
            }
            Command::CancelTask { id } => {
                if let Some(task) = self.tasks.remove(&id) {
                    task.cancel();
                }
            }
        }
    }

    fn start_task(&mut self, id: TaskId, resource: String, arguments: Value) {
        let canceled = CancellationToken::new();
        self.tasks.insert(id, canceled.clone());
        let states = Arc::clone(&self.states);
        let events = self.events.clone();
        let token = client_token(&self.row.name, id);
        self.states.life.spawn(async move {
            let begun = |at| {
                // The execution may have ended without it.
                let _ = events.send(Event::Begun { id, at });
            };
            let call = Call { resource: &resource, arguments: &arguments, client_token: token };
            let outcome = integrations::run(&states, call, begun, &canceled).await;
            // The execution may have ended without it.
            let _ = events.send(Event::Task { id, outcome });
        });
    }

    /// Waits for an event, or until the interpreter's next timer; takes in every event that is
    /// there.
    async fn wait(&mut self) {
        let event = match self.execution.next_wake() {
            None => self.mailbox.recv().await,
            Some(at) => {
                let left = (at - Utc::now()).to_std().unwrap_or_default();
                // In parts, as the clock may be set or the machine may sleep.
                let left = left.min(Duration::from_secs(60));
                tokio::time::timeout(left, self.mailbox.recv()).await.unwrap_or_default()
            }
        };
        if let Some(event) = event {
            self.take_in(event);
        }
        while let Ok(event) = self.mailbox.try_recv() {
            self.take_in(event);
        }
    }

    fn take_in(&mut self, event: Event) {
        let now = Utc::now();
        match event {
            Event::Task { id, outcome } => {
                self.tasks.remove(&id);
                let receipt = match outcome {
                    Ok(output) => self.execution.task_succeeded(id, output, now),
                    Err(failure) => {
                        self.execution.task_failed(id, &failure.error, &failure.cause, now)
                    }
                };
                tracing::trace!(execution = self.row.name, %id, ?receipt, "a task ended");
            }
            Event::Begun { id, at } => {
                let receipt = self.execution.task_begun(id, at);
                tracing::trace!(execution = self.row.name, %id, ?receipt, "a task began");
            }
            Event::Abort { error, cause, stopped } => {
                self.execution.abort(error, cause, now);
                self.stoppers.push(stopped);
            }
        }
    }

    async fn save(&self) {
        loop {
            let saved = match serde_json::to_string(&self.execution) {
                Ok(state) => self.states.ledger.save_execution(self.row.name.clone(), state).await,
                Err(error) => Err(LedgerError::from(error)),
            };
            let Err(error) = saved else { return };
            self.could_not_save(&error).await;
        }
    }

    async fn could_not_save(&self, error: &LedgerError) {
        tracing::error!(
            error = error as &dyn std::error::Error,
            execution = self.row.name,
            "an execution was not recorded; trying again"
        );
        tokio::time::sleep(SAVE_AGAIN_AFTER).await;
    }

    async fn end(mut self, commands: Vec<Command>) {
        let status = self.execution.status();
        self.row.status = status_name(status).to_owned();
        let stopped_at = self.execution.stopped_at().unwrap_or_else(Utc::now);
        self.row.stopped_at = Some(stopped_at);
        match status {
            Status::Running | Status::TimedOut => {}
            Status::Succeeded { output } => self.row.output = Some(output.to_string()),
            Status::Failed { error, cause } | Status::Aborted { error, cause } => {
                self.row.error.clone_from(error);
                self.row.cause.clone_from(cause);
            }
        }
        while let Err(error) = self.states.ledger.end_execution(self.row.clone()).await {
            self.could_not_save(&error).await;
        }
        for command in commands {
            self.carry_out(command);
        }
        self.states.live().remove(&self.row.name);
        self.mailbox.close();
        while let Ok(event) = self.mailbox.try_recv() {
            if let Event::Abort { stopped, .. } = event {
                self.stoppers.push(stopped);
            }
        }
        for stopper in self.stoppers {
            // Whoever asked may have hung up.
            let _ = stopper.send(stopped_at);
        }
        (self.states.on_end)(ended_event(&self.row));
    }
}
