//! ECS: tasks as child processes that outlive the server.

mod api;
mod model;
mod process;

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    io,
    path::PathBuf,
    process::Child,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use stepwes_core::task::env;
use tokio::{sync::watch, task::spawn_blocking};

use self::{
    model::{Status, Stop, stop_code},
    process::{ProcessId, Program, file},
};
use crate::{
    boot,
    capacity::Capacity,
    ledger::{Ledger, LedgerError},
    life::Life,
};

pub(crate) use self::{
    api::{call, operation, pascal_case, run_task_request},
    model::Task,
    process::{Found, find as find_process},
};

/// For how long a stopped task is remembered.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);
/// The folder of the tasks' folders, in the server's.
const FOLDER: &str = "tasks";

/// A task's folder in the server's.
pub(crate) fn task_folder(dir: &std::path::Path, task: &Task) -> PathBuf {
    dir.join(FOLDER).join(&task.id)
}

/// What every task is started with: the task definition and the host.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    /// The server's folder, absolute.
    pub(crate) dir: PathBuf,
    /// The engine task's program.
    pub(crate) engine: PathBuf,
    /// The task definition's environment, but for what differs from task to task.
    pub(crate) environment: Vec<(String, OsString)>,
    /// Where the internal server is reached.
    pub(crate) internal_url: String,
    /// How many tasks may run at once.
    pub(crate) slots: usize,
    /// How much those that run at once may have asked for together.
    pub(crate) capacity: Capacity,
    /// How long a task that is told to stop has before it is killed.
    pub(crate) stop_timeout: Duration,
}

/// The tasks.
pub(crate) struct Ecs {
    ledger: Arc<Ledger>,
    definition: Definition,
    boot_id: String,
    life: Life,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    live: HashMap<String, Live>,
    /// The ids of those that wait for a slot, in their order.
    waiting: VecDeque<String>,
    /// How many slots are taken.
    running: usize,
    /// What those that have them asked for.
    reserved: Reservation,
    /// Set when the server goes down: nothing is started any more.
    closed: bool,
}

/// CPU units and MiB that are kept for tasks that asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reservation {
    cpu: u32,
    memory: u32,
}

impl Reservation {
    fn of(task: &Task) -> Self {
        Self { cpu: task.cpu.unwrap_or_default(), memory: task.memory.unwrap_or_default() }
    }

    fn with(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    /// Whether a machine has room for it beside what is kept for others. Where nothing is kept it
    /// always has: it may have had more when it was asked.
    fn fits_beside(self, others: Self, capacity: Capacity) -> bool {
        let all = self.with(others);
        let nothing = Self::default();
        self == nothing
            || others == nothing
            || (all.cpu <= capacity.cpu && all.memory <= capacity.memory)
    }
}

/// A task that has not stopped.
struct Live {
    task: Task,
    /// Whether it has one of the slots.
    has_slot: bool,
    /// Why it is to stop, once it is.
    stop: watch::Sender<Option<Stop>>,
    /// When its process was started, once it has been.
    started: watch::Sender<Option<DateTime<Utc>>>,
    /// Whether it has stopped.
    stopped: watch::Sender<bool>,
}

impl Live {
    fn new(task: Task, has_slot: bool) -> Self {
        let stop = watch::Sender::new(task.stopping_at.and(task.stop.clone()));
        let started = watch::Sender::new(task.started_at);
        Self { task, has_slot, stop, started, stopped: watch::Sender::new(false) }
    }
}

/// The outcome of asking for a task.
pub(crate) enum Asked {
    /// It was made.
    New(Task),
    /// The same request made it before.
    Existing(Task),
    /// Its client token belongs to another request.
    Conflict,
}

impl Ecs {
    /// Takes up the tasks that an earlier server left: those that live on are watched again, those
    /// that ended are recorded, those that wait get their turn.
    pub(crate) async fn load(
        ledger: Arc<Ledger>,
        definition: Definition,
        life: Life,
    ) -> Result<Arc<Self>, LedgerError> {
        let ecs = Arc::new(Self {
            life,
            boot_id: boot::id(),
            tasks: Mutex::default(),
            definition,
            ledger,
        });
        for (id, task) in ecs.ledger.live_tasks().await? {
            match task {
                Ok(task) => ecs.take_up(task).await?,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        task = id,
                        "a task cannot be read, and is none any more"
                    );
                    ecs.kill_all(&id, None).await;
                    ecs.ledger.forget_task(id).await?;
                }
            }
        }
        let removing = Arc::clone(&ecs);
        ecs.life.spawn(async move { removing.remove_strays().await });
        ecs.fill_slots();
        Ok(ecs)
    }

    async fn take_up(self: &Arc<Self>, mut task: Task) -> Result<(), LedgerError> {
        let found = self.look_for(&task).await;
        let id = task.id.clone();
        match found {
            Found::NeverStarted => {
                task.status = Status::Provisioning;
                let to_stop = task.stopping_at.and(task.stop.clone());
                self.tasks().live.insert(id.clone(), Live::new(task, false));
                match to_stop {
                    None => self.tasks().waiting.push_back(id),
                    Some(stop) => self.finish(&id, None, stop).await,
                }
            }
            Found::Alive(process) => {
                task.status = Status::Running;
                task.started_at = task.started_at.or_else(|| Some(Utc::now()));
                task.process = Some(process);
                self.ledger.save_task(&task).await?;
                tracing::info!(task = %id, pid = process.pid, "found a task that lives on");
                let mut tasks = self.tasks();
                tasks.running += 1;
                tasks.reserved = tasks.reserved.with(Reservation::of(&task));
                tasks.live.insert(id.clone(), Live::new(task, true));
                drop(tasks);
                let ecs = Arc::clone(self);
                self.life.spawn(async move { ecs.watch(id, process, None).await });
            }
            Found::Ended => {
                tracing::info!(task = %id, "a task ended while no server was there");
                // Its number alone says nothing any more: it may be another's by now.
                let leader = task.process.filter(|process| process.start_time.is_some());
                let same_boot = task.boot_id.as_deref() == Some(&self.boot_id);
                let mut tasks = self.tasks();
                tasks.running += 1;
                tasks.reserved = tasks.reserved.with(Reservation::of(&task));
                tasks.live.insert(id.clone(), Live::new(task, true));
                drop(tasks);
                let ecs = Arc::clone(self);
                self.life.spawn(async move {
                    if same_boot {
                        ecs.kill_all(&id, leader).await;
                    }
                    ecs.ended(&id, None).await;
                });
            }
        }
        Ok(())
    }

    /// What became of a task that an earlier server left.
    async fn look_for(&self, task: &Task) -> Found {
        let folder = self.folder(&task.id);
        let known = task.process;
        let found = match spawn_blocking(move || process::find(&folder, known)).await {
            Ok(found) => found,
            Err(panicked) => Err(io::Error::other(panicked)),
        };
        match (found, known) {
            // Somebody removed its files; it was started all the same.
            (Ok(Found::NeverStarted), Some(_)) => Found::Ended,
            (Ok(found), _) => found,
            (Err(error), _) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    task = task.id,
                    "what became of a task cannot be read; it counts as ended"
                );
                Found::Ended
            }
        }
    }

    /// Makes a task, which is started when a slot is free.
    pub(crate) async fn run(self: &Arc<Self>, task: Task) -> Result<Asked, LedgerError> {
        let ecs = Arc::clone(self);
        // Not cut short: a task that has been recorded gets its turn.
        self.life.whole(async move { ecs.run_whole(task).await }).await
    }

    async fn run_whole(self: &Arc<Self>, task: Task) -> Result<Asked, LedgerError> {
        if let Some(existing) = self.ledger.add_task(task.clone()).await? {
            return Ok(if existing.is_of(&task) {
                Asked::Existing(self.get(&existing.id).await?.unwrap_or(existing))
            } else {
                Asked::Conflict
            });
        }
        {
            let mut tasks = self.tasks();
            tasks.waiting.push_back(task.id.clone());
            tasks.live.insert(task.id.clone(), Live::new(task.clone(), false));
        }
        self.fill_slots();
        Ok(Asked::New(task))
    }

    /// The task of that id, as it is now.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<Task>, LedgerError> {
        if let Some(live) = self.tasks().live.get(id) {
            return Ok(Some(live.task.clone()));
        }
        self.ledger.task(id.to_owned()).await
    }

    /// The ids of the tasks that have not stopped (in no order), or of the newest that have.
    pub(crate) async fn list(
        &self,
        stopped: bool,
        limit: usize,
    ) -> Result<Vec<String>, LedgerError> {
        if stopped {
            return self.ledger.stopped_tasks(limit).await;
        }
        let tasks = self.tasks();
        let running = tasks.live.values().filter(|live| live.task.stopping_at.is_none());
        Ok(running.map(|live| live.task.id.clone()).take(limit).collect())
    }

    /// The ARN of the task whose metadata endpoint has this id.
    pub(crate) fn by_metadata_id(&self, id: &str) -> Option<Task> {
        let tasks = self.tasks();
        tasks.live.values().find(|live| live.task.metadata_id == id).map(|live| live.task.clone())
    }

    /// Every task that has not stopped.
    pub(crate) fn live(&self) -> Vec<Task> {
        self.tasks().live.values().map(|live| live.task.clone()).collect()
    }

    /// Tells a task to stop, and does not wait until it has; gives the task. One that waits for a
    /// slot has stopped at once. Asked again, it does again what has not been done.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        id: &str,
        reason: &str,
    ) -> Result<Option<Task>, LedgerError> {
        let stop = Stop { code: stop_code::USER_INITIATED.to_owned(), reason: reason.to_owned() };
        let (ecs, id) = (Arc::clone(self), id.to_owned());
        // Not cut short: what has been recorded is done too.
        self.life.whole(async move { ecs.stop_whole(&id, stop).await }).await
    }

    async fn stop_whole(
        self: &Arc<Self>,
        id: &str,
        stop: Stop,
    ) -> Result<Option<Task>, LedgerError> {
        let Some((task, saved, has_slot)) = self.mark_to_stop(id, &stop) else {
            return self.ledger.task(id.to_owned()).await;
        };
        // Known for good before anything is done, so that a later server goes on with it.
        saved.await?;
        if !has_slot {
            self.finish(id, None, stop).await;
            return self.get(id).await;
        }
        if let Some(live) = self.tasks().live.get(id) {
            live.stop.send_replace(Some(stop));
        }
        Ok(Some(task))
    }

    /// Stops the tasks of a run that wait for a slot: only here does a task wait, so nobody else
    /// looks for one that cannot claim its attempt yet.
    pub(crate) async fn stop_waiting(
        self: &Arc<Self>,
        run_id: &str,
        reason: &str,
    ) -> Result<(), LedgerError> {
        let is_of_run = |live: &&Live| !live.has_slot && live.task.run_id() == Some(run_id);
        let waiting: Vec<_> = {
            let tasks = self.tasks();
            tasks.live.values().filter(is_of_run).map(|live| live.task.id.clone()).collect()
        };
        for id in waiting {
            self.stop(&id, reason).await?;
        }
        Ok(())
    }

    /// Takes a task that is to stop out of the queue, and begins to record that it is to stop; gives
    /// the task, its recording, and whether it has a slot. `None` when there is none of that id that
    /// has not stopped.
    fn mark_to_stop(
        &self,
        id: &str,
        stop: &Stop,
    ) -> Option<(Task, impl Future<Output = Result<(), LedgerError>> + use<>, bool)> {
        let mut tasks = self.tasks();
        tasks.waiting.retain(|waiting| waiting != id);
        let live = tasks.live.get_mut(id)?;
        live.task.stopping_at.get_or_insert_with(Utc::now);
        live.task.stop.get_or_insert_with(|| stop.clone());
        Some((live.task.clone(), self.ledger.save_task(&live.task), live.has_slot))
    }

    /// Returns when the task's process has been started, with when that was; `None` when it has
    /// stopped without.
    pub(crate) async fn started(&self, id: &str) -> Option<DateTime<Utc>> {
        let mut started = self.tasks().live.get(id)?.started.subscribe();
        // An error says that the sender is gone, which it is when the task has stopped.
        *started.wait_for(Option::is_some).await.ok()?
    }

    /// Returns when the task has stopped, with the task; `None` when there is none of that id.
    pub(crate) async fn stopped(&self, id: &str) -> Result<Option<Task>, LedgerError> {
        let stopped = self.tasks().live.get(id).map(|live| live.stopped.subscribe());
        if let Some(mut stopped) = stopped {
            // An error says that the sender is gone, which it is when the task has stopped.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
        self.ledger.task(id.to_owned()).await
    }

    /// Starts nothing any more; what runs, runs on.
    pub(crate) fn close(&self) {
        self.tasks().closed = true;
    }

    /// Forgets tasks that stopped long ago, and removes their folders.
    pub(crate) async fn forget_old(&self, now: DateTime<Utc>) {
        let forgotten = match self.ledger.forget_tasks(now - REMEMBERED).await {
            Ok(forgotten) => forgotten,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old tasks are kept");
                return;
            }
        };
        let folders: Vec<_> = forgotten.iter().map(|id| self.folder(id)).collect();
        // The folders are nobody's any more; one that cannot be removed is only lost space.
        let _ = spawn_blocking(move || {
            for folder in folders {
                remove_tree(&folder);
            }
        })
        .await;
    }

    /// Removes the folders that belong to no task, as a server that was killed may leave them, with
    /// the processes that may still work there.
    async fn remove_strays(&self) {
        let all = self.definition.dir.join(FOLDER);
        let found = spawn_blocking(move || {
            let entries = std::fs::read_dir(all).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
        });
        // Asked after the folders were seen: a task is recorded before it has one.
        let (Ok(found), Ok(known)) = (found.await, self.ledger.task_ids().await) else { return };
        for id in found.into_iter().filter(|id| !known.contains(id)) {
            self.kill_all(&id, None).await;
            let folder = self.folder(&id);
            // What cannot be removed is only lost space.
            let _ = spawn_blocking(move || {
                remove_work(&folder);
                remove_tree(&folder);
            })
            .await;
        }
    }

    /// Starts waiting tasks while slots are free.
    fn fill_slots(self: &Arc<Self>) {
        let mut tasks = self.tasks();
        while !tasks.closed && tasks.running < self.definition.slots {
            let Some(id) = tasks.waiting.front().cloned() else { break };
            let asked = tasks.live.get(&id).map(|live| Reservation::of(&live.task));
            let asked = asked.unwrap_or_default();
            // In their order: a large task is not overtaken by small ones for ever.
            if !asked.fits_beside(tasks.reserved, self.definition.capacity) {
                break;
            }
            tasks.waiting.pop_front();
            tasks.running += 1;
            tasks.reserved = tasks.reserved.with(asked);
            if let Some(live) = tasks.live.get_mut(&id) {
                live.has_slot = true;
            }
            let ecs = Arc::clone(self);
            // Not cut short: a process that has been started is recorded.
            self.life.spawn_whole(async move { ecs.start(id).await });
        }
    }

    async fn start(self: &Arc<Self>, id: String) {
        let child = loop {
            let error = match self.try_to_start(&id).await {
                Ok(Some(child)) => break child,
                Ok(None) => return,
                Err(error) => error,
            };
            if !process::is_passing(&error) {
                self.failed_to_start(&id, &error).await;
                return;
            }
            tracing::warn!(error = &error as &dyn std::error::Error, task = %id, "a task cannot be started yet");
            if !self.life.pause(START_AGAIN_AFTER).await {
                // The next server starts it.
                return;
            }
            let to_stop = self.tasks().live.get(&id).and_then(|live| live.stop.borrow().clone());
            if let Some(stop) = to_stop {
                self.release(&id, None, stop).await;
                return;
            }
        };
        let process = ProcessId::of(&child);
        let running = self.change(&id, |task| {
            task.status = Status::Running;
            task.started_at = Some(Utc::now());
            task.process = Some(process);
        });
        if let Err(error) = running.await {
            // Its `alive` file tells a later server as much.
            tracing::error!(error = &error as &dyn std::error::Error, task = %id, "a task's process was not recorded");
        }
        let ecs = Arc::clone(self);
        self.life.spawn(async move { ecs.watch(id, process, Some(child)).await });
    }

    /// Starts the process of a task; `None` when there is none of that id any more.
    async fn try_to_start(&self, id: &str) -> io::Result<Option<Child>> {
        // Known for good before the process is there: from now on its `alive` file tells.
        let pending = self.change(id, |task| {
            task.status = Status::Pending;
            task.boot_id = Some(self.boot_id.clone());
        });
        pending.await.map_err(io::Error::other)?;
        let Some(task) = self.tasks().live.get(id).map(|live| live.task.clone()) else {
            return Ok(None);
        };
        let program = self.program(&task);
        let started = spawn_blocking(move || process::start(&program)).await;
        Ok(Some(started.map_err(io::Error::other)??))
    }

    /// Sees a process through to its end, stopping it when that is asked for.
    async fn watch(self: &Arc<Self>, id: String, process: ProcessId, child: Option<Child>) {
        let stop = self.tasks().live.get(&id).map(|live| live.stop.subscribe());
        let Some(mut stop) = stop else { return };
        let asked = async {
            // The sender lives as long as the task does.
            if stop.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = process::ended(process);
        tokio::pin!(ended);
        let stopped_in_time = tokio::select! {
            () = &mut ended => true,
            () = asked => {
                process::terminate(process);
                // From now on, and not from when it was asked for: an engine may have had no server
                // that told it.
                tokio::time::timeout(self.definition.stop_timeout, &mut ended).await.is_ok()
            }
        };
        if !stopped_in_time {
            tracing::warn!(task = %id, "a task did not stop in time and is killed");
        }
        // Kills the leader too, should it still be there.
        self.kill_all(&id, Some(process)).await;
        let exit_code = match child {
            None => None,
            Some(child) => reap(child).await,
        };
        self.ended(&id, exit_code).await;
    }

    async fn kill_all(&self, id: &str, leader: Option<ProcessId>) {
        let folder = self.folder(id);
        if let Err(panicked) = spawn_blocking(move || process::kill_all(&folder, leader)).await {
            tracing::error!(error = &panicked as &dyn std::error::Error, "a task was not swept");
        }
    }

    async fn failed_to_start(
        self: &Arc<Self>,
        id: &str,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) {
        let program = self.definition.engine.display();
        tracing::error!(error = error as &dyn std::error::Error, task = %id, %program, "a task cannot be started");
        let reason = format!("ResourceInitializationError: cannot start {program}: {error}");
        let stop = Stop { code: stop_code::TASK_FAILED_TO_START.to_owned(), reason };
        self.release(id, None, stop).await;
    }

    /// The process has ended and nothing of its session is left.
    async fn ended(self: &Arc<Self>, id: &str, exit_code: Option<i32>) {
        let folder = self.folder(id);
        let recorded = spawn_blocking(move || {
            let recorded = process::recorded_exit(&folder);
            remove_work(&folder);
            recorded
        });
        // Without a record the process was killed, as far as anybody can tell.
        let exit_code = match (exit_code, recorded.await) {
            (Some(code), _) | (None, Ok(Some(code))) => code,
            _ => KILLED,
        };
        let stop = Stop {
            code: stop_code::ESSENTIAL_CONTAINER_EXITED.to_owned(),
            reason: "Essential container in task exited".to_owned(),
        };
        self.release(id, Some(exit_code), stop).await;
    }

    /// Records the end of a task that had a slot, and gives the slot to the next.
    async fn release(self: &Arc<Self>, id: &str, exit_code: Option<i32>, stop: Stop) {
        let asked = self.tasks().live.get(id).map(|live| Reservation::of(&live.task));
        self.finish(id, exit_code, stop).await;
        let mut tasks = self.tasks();
        tasks.running = tasks.running.saturating_sub(1);
        tasks.reserved = tasks.reserved.without(asked.unwrap_or_default());
        drop(tasks);
        self.fill_slots();
    }

    /// Records that a task has stopped; `stop` is why, unless it was told to.
    async fn finish(&self, id: &str, exit_code: Option<i32>, stop: Stop) {
        let now = Utc::now();
        loop {
            let stop = stop.clone();
            let stopped = self.change(id, |task| {
                task.status = Status::Stopped;
                task.exit_code = exit_code;
                task.stopping_at.get_or_insert(now);
                task.stopped_at = Some(now);
                task.stop.get_or_insert(stop);
            });
            let Err(error) = stopped.await else { break };
            tracing::error!(error = &error as &dyn std::error::Error, task = %id, "a task's end was not recorded; trying again");
            if !self.life.pause(SAVE_AGAIN_AFTER).await {
                // The next server finds it ended.
                return;
            }
        }
        let live = self.tasks().live.remove(id);
        if let Some(live) = live {
            live.stopped.send_replace(true);
        }
    }

    /// Changes a task that has not stopped, and records it; `false` when there is none of that id.
    /// Changes are recorded in the order in which they are made.
    async fn change(&self, id: &str, change: impl FnOnce(&mut Task)) -> Result<bool, LedgerError> {
        let saved = {
            let mut tasks = self.tasks();
            let Some(live) = tasks.live.get_mut(id) else { return Ok(false) };
            change(&mut live.task);
            live.started.send_replace(live.task.started_at);
            self.ledger.save_task(&live.task)
        };
        saved.await?;
        Ok(true)
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.definition.dir.join(FOLDER).join(id)
    }

    fn program(&self, task: &Task) -> Program {
        let folder = self.folder(&task.id);
        let mut environment: Vec<(OsString, OsString)> = self
            .definition
            .environment
            .iter()
            .map(|(name, value)| (name.into(), value.clone()))
            .collect();
        let mut set = |name: &str, value: OsString| environment.push((name.into(), value));
        // Not below the task's folder: the attempts of a run, and those that go on from it, work in
        // one place, whichever task it is.
        set(env::WORK_DIR, self.definition.dir.join(file::WORK).into());
        set(env::WORK_LINK, folder.join(file::WORK).into());
        set(env::EXIT_FILE, folder.join(file::EXIT).into());
        // Among what is in it is the key to everything here.
        set(env::SANDBOX_HIDES, self.definition.dir.clone().into());
        set(
            "ECS_CONTAINER_METADATA_URI_V4",
            format!("{}/task/{}", self.definition.internal_url, task.metadata_id).into(),
        );
        for variable in &task.environment {
            set(&variable.name, variable.value.clone().into());
        }
        Program { path: self.definition.engine.clone(), environment, folder }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait before a task is started again that the machine had no room for.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before a task's end is recorded again, when the disk is full.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The exit code of a container that was killed: 128 + SIGKILL.
const KILLED: i32 = 137;

/// The exit code of a child that has ended.
async fn reap(mut child: Child) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = spawn_blocking(move || child.wait()).await;
    match status {
        Ok(Ok(status)) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
        Ok(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a task's exit code is not known"
            );
            None
        }
        Err(_) => None,
    }
}

/// Removes what a task that is gone worked in, unless another one has taken it over by now.
fn remove_work(folder: &std::path::Path) {
    let link = folder.join(file::WORK);
    let Some(work) = process::work_of(folder) else { return };
    // The engine task locks it for as long as it works there.
    let there = std::fs::File::open(&work).ok().filter(|there| there.try_lock().is_ok());
    if there.is_some() {
        remove_tree(&work);
    }
    if let Err(error) = std::fs::remove_file(&link) {
        tracing::warn!(error = &error as &dyn std::error::Error, link = %link.display(), "a task's link stays");
    }
}

/// Removes a folder whose owner may have taken its own rights away. What cannot be removed stays,
/// and is logged.
fn remove_tree(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fn open_up(folder: &std::path::Path) {
        if std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).is_err() {
            return;
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open_up(&entry.path());
            }
        }
    }
    if std::fs::remove_dir_all(folder).is_ok() || !folder.exists() {
        return;
    }
    open_up(folder);
    if let Err(error) = std::fs::remove_dir_all(folder) {
        tracing::warn!(error = &error as &dyn std::error::Error, folder = %folder.display(), "a task's folder stays");
    }
}
