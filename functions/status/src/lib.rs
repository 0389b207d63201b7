//! status: every read of the WES API, and nothing but reads.

mod attachments;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod logs;
mod outputs;
mod paging;
mod range;
mod ro_crate;
mod runs;
mod service_info;
mod settings;
mod tasks;

use std::sync::Arc;

use axum::{Router, routing::get};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use stepwes_cloud::{
    Aws,
    http::{Callers, HasCallers, HasPublicUrl, routes},
    objects::Objects,
};
use stepwes_store::RunStore;

pub use settings::{Limits, ServiceSettings, Settings};

/// What the function works with.
#[derive(Clone)]
pub struct State {
    /// The run table.
    pub store: RunStore,
    /// The runs bucket.
    pub objects: Objects,
    /// The settings.
    pub settings: Arc<Settings>,
}

impl State {
    /// With the clients of `aws`.
    #[must_use]
    pub fn new(aws: &Aws, settings: Settings) -> Self {
        let presigner = aws.s3_presigner(settings.presign_url.as_deref());
        Self {
            store: aws.store(&settings.table),
            objects: Objects::new(aws.s3(), &settings.bucket).presigned_by(presigner),
            settings: Arc::new(settings),
        }
    }
}

impl HasPublicUrl for State {
    fn public_url(&self) -> Option<&str> {
        self.settings.public_url.as_deref()
    }
}

impl HasCallers for State {
    fn callers(&self) -> &Callers {
        &self.settings.callers
    }
}

/// The routes: every GET of the API. Without [`stepwes_cloud::http::frame`], which is put once
/// around the routes of all functions that one server has, and which answers unknown paths.
pub fn router(state: State) -> Router {
    Router::new()
        .route(routes::HOME, get(service_info::get_service_info))
        .route(routes::HEALTH, get(service_info::health))
        .route(routes::SERVICE_INFO, get(service_info::get_service_info))
        .route(routes::RUNS, get(runs::list_runs))
        .route(routes::RUN, get(runs::get_run_log))
        .route(routes::RUN_STATUS, get(runs::get_run_status))
        .route(routes::TASKS, get(tasks::list_tasks))
        .route(routes::TASK, get(tasks::get_task))
        .route(routes::LOG, get(logs::get_log))
        .route(routes::TOIL_LOG, get(logs::get_log))
        .route(routes::OUTPUTS, get(outputs::list_outputs))
        .route(routes::OUTPUT, get(outputs::download))
        .route(routes::OUTPUTS_JSON, get(outputs::download_object))
        .route(routes::ATTACHMENTS, get(attachments::list_attachments))
        .route(routes::ATTACHMENT, get(attachments::download))
        .route(routes::RO_CRATE, get(ro_crate::get_ro_crate))
        .with_state(state)
}

/// What is escaped in one part of a URL's path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
