//! The functions, set up as the template does it, for the embedded AWS.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::Router;
use chrono::TimeDelta;
use stepwes_cloud::{Aws, http::frame};
use stepwes_core::{
    Clock, SystemClock,
    engines::Engines,
    resources::{Bound, LONGEST_TIME, ResourceBounds, Sizes},
};

use crate::{
    arn,
    capacity::Capacity,
    faults::{Injector, SkewedClock},
    lambda::{Functions, handler, name},
    options::{ServeError, ServeOptions},
};

/// submit, whose engines become known while the server is there already.
pub(crate) type Submit = Arc<RwLock<stepwes_submit::State>>;

/// submit with these engines.
pub(crate) fn submit(
    aws: &Aws,
    options: &ServeOptions,
    resources: ResourceBounds,
    engines: Engines,
    max_runs: u32,
) -> stepwes_submit::State {
    let state = stepwes_submit::State::new(
        aws,
        stepwes_submit::Settings {
            table: arn::TABLE.to_owned(),
            bucket: arn::BUCKET.to_owned(),
            state_machine_arn: arn::STATE_MACHINE.to_owned(),
            engines,
            schemes: options.schemes(),
            resources,
            destinations: options.destinations.clone(),
            limits: stepwes_submit::Limits {
                max_request_bytes: options.max_request_bytes,
                ..stepwes_submit::Limits::default()
            },
            idempotency: TimeDelta::days(stepwes_submit::Settings::IDEMPOTENCY_DAYS.into()),
            max_runs: Some(max_runs),
            callers: options.callers(),
            trigger_buckets: vec![arn::BUCKET.to_owned()],
        },
    );
    stepwes_submit::State { clock: clock(options, name::SUBMIT), ..state }
}

/// The clock of a function: wrong, where faults are asked for.
fn clock(options: &ServeOptions, function: &str) -> Arc<dyn Clock> {
    match &options.faults {
        None => Arc::new(SystemClock),
        Some(plan) => Arc::new(SkewedClock(plan.skew(function))),
    }
}

/// The functions that are invoked: by the state machine, by engine tasks, by the schedule, by
/// objects that land.
pub(crate) fn invoked(
    aws: &Aws,
    options: &ServeOptions,
    resources: ResourceBounds,
    submit: &Submit,
    faults: Option<&Arc<Injector>>,
    max_runs: u32,
) -> Result<Functions, ServeError> {
    let submit = Arc::clone(submit);
    let internal = |error: Box<dyn std::error::Error + Send + Sync>| ServeError::Internal(error);
    let advance = stepwes_advance::State::new(
        stepwes_advance::Settings {
            table: arn::TABLE.to_owned(),
            max_attempts: options.max_attempts,
            resources,
        },
        aws,
    );
    let report = stepwes_report::State::new(
        stepwes_report::Settings {
            table: arn::TABLE.to_owned(),
            bucket: arn::BUCKET.to_owned(),
            data_role_arn: arn::DATA_ROLE.to_owned(),
            input_buckets: options.input_buckets.clone(),
            output_buckets: options.destinations.buckets.clone(),
            trigger_buckets: vec![arn::BUCKET.to_owned()],
        },
        aws,
    )
    .map_err(|error| internal(error.into()))?;
    let collect = stepwes_collect::State::with_clock(
        stepwes_collect::Settings {
            table: arn::TABLE.to_owned(),
            bucket: arn::BUCKET.to_owned(),
            cluster: arn::CLUSTER.to_owned(),
            max_attempts: options.max_attempts,
            run_timeout_seconds: resources.time,
        },
        aws,
        clock(options, name::COLLECT),
    );
    let reconcile = stepwes_reconcile::State::with_clock(
        stepwes_reconcile::Settings {
            table: arn::TABLE.to_owned(),
            bucket: arn::BUCKET.to_owned(),
            cluster: arn::CLUSTER.to_owned(),
            state_machine_arn: arn::STATE_MACHINE.to_owned(),
            grace_seconds: seconds(options.reconcile_grace, MAX_GRACE_SECONDS),
            retention_days: options.retention_days,
            // Whoever frees a disk means the outputs, too.
            retention_files: stepwes_reconcile::ExpiredFiles::Remove,
            max_runs: Some(max_runs),
        },
        aws,
        clock(options, name::RECONCILE),
    )
    .map_err(|error| internal(error.into()))?;
    Ok(Functions::default()
        .with_faults(faults.cloned())
        .with(
            name::ADVANCE,
            handler(move |input| {
                let state = advance.clone();
                async move { stepwes_advance::handle(&state, input).await }
            }),
        )
        .with(
            name::COLLECT,
            handler(move |input| {
                let state = collect.clone();
                async move { stepwes_collect::handle(&state, input).await }
            }),
        )
        .with(
            name::RECONCILE,
            handler(move |event| {
                let state = reconcile.clone();
                async move { stepwes_reconcile::handle(&state, event).await }
            }),
        )
        .with(
            name::SUBMIT,
            handler(move |event| {
                let state = submit.read().unwrap_or_else(PoisonError::into_inner).clone();
                async move { stepwes_submit::events::handle(&state, event).await }
            }),
        )
        .with(
            name::REPORT,
            handler(move |request| {
                let state = report.clone();
                async move { stepwes_report::handle(&state, request).await }
            }),
        ))
}

/// The longest that reconcile may wait, in seconds: a day.
const MAX_GRACE_SECONDS: u32 = 86_400;

/// Whole seconds, at least one and at most `max`.
fn seconds(duration: Duration, max: u32) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).clamp(1, max)
}

/// What a run may ask for where a machine has that much: engines run without limits unless they
/// ask.
pub(crate) fn bounds(options: &ServeOptions, machine: Capacity) -> ResourceBounds {
    let up_to = |max| Bound { default: None, max };
    ResourceBounds {
        sizes: Sizes::Any,
        cpu: up_to(machine.cpu),
        memory: up_to(machine.memory),
        disk: up_to(machine.disk),
        time: seconds(options.run_timeout, LONGEST_TIME),
    }
}

/// The routes of the API functions, in their frame.
pub(crate) fn api(
    aws: &Aws,
    options: &ServeOptions,
    resources: ResourceBounds,
    submit: &Submit,
    presign_url: &str,
) -> Router {
    let submit = submit.read().unwrap_or_else(PoisonError::into_inner).clone();
    let engines = submit.settings.engines.clone();
    let callers = options.callers();
    let mut settings =
        stepwes_status::Settings::new(arn::TABLE.to_owned(), arn::BUCKET.to_owned(), engines);
    settings.resources = resources;
    settings.schemes = options.schemes();
    settings.callers = callers.clone();
    settings.public_url.clone_from(&options.public_url);
    settings.presign_url = Some(presign_url.to_owned());
    let status = stepwes_status::State::new(aws, settings);
    let cancel = stepwes_cancel::State::new(
        aws,
        stepwes_cancel::Settings {
            table: arn::TABLE.to_owned(),
            bucket: arn::BUCKET.to_owned(),
            state_machine_arn: arn::STATE_MACHINE.to_owned(),
            cluster: arn::CLUSTER.to_owned(),
            callers: callers.clone(),
        },
    );
    frame(
        stepwes_submit::router(submit)
            .merge(stepwes_status::router(status))
            .merge(stepwes_cancel::router(cancel)),
    )
}
