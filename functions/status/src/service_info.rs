//! What the service is, and that it is there.

use axum::{Json, extract::State as FromState};
use stepwes_cloud::http::HttpError;
use stepwes_core::wes::{ServiceInfo, ServiceType};

use crate::State;

/// The version of WES that is served.
const WES_VERSION: &str = "1.1.0";

/// WES `GetServiceInfo`. The counts are exact, of all owners' runs, and cost one query.
pub(crate) async fn get_service_info(
    FromState(state): FromState<State>,
) -> Result<Json<ServiceInfo>, HttpError> {
    let counts = state.store.counts().await?;
    let settings = &state.settings;
    let service = settings.service.clone();
    Ok(Json(ServiceInfo {
        id: service.id,
        name: service.name,
        service_type: ServiceType {
            group: "org.ga4gh".to_owned(),
            artifact: "wes".to_owned(),
            version: WES_VERSION.to_owned(),
        },
        description: service.description,
        organization: service.organization,
        contact_url: service.contact_url,
        documentation_url: service.documentation_url,
        environment: service.environment,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workflow_type_versions: settings.engines.workflow_type_versions(),
        supported_wes_versions: vec![WES_VERSION.to_owned()],
        supported_filesystem_protocols: settings.schemes.clone(),
        workflow_engine_versions: settings.engines.workflow_engine_versions(),
        default_workflow_engine_parameters: [
            settings.engines.default_parameters(),
            settings.resources.default_parameters(),
        ]
        .concat(),
        system_state_counts: counts
            .into_iter()
            .map(|(state, count)| (state.as_str().to_owned(), count))
            .collect(),
        auth_instructions_url: service.auth_instructions_url,
        tags: settings.resources.most().into_iter().chain(service.tags).collect(),
    }))
}

/// Answers `OK` where Toil's server has its health check.
pub(crate) async fn health() -> &'static str {
    "OK"
}
