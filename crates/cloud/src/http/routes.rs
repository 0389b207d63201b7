//! Every path of the API and its methods, whichever function serves them.
//!
//! In AWS each function sees its own routes only, and `$default` sends the rest to status. The
//! table lets any of them answer 405 with a complete `Allow`, as one server with every route would.

/// Service-info, as Toil's server answers it.
pub const HOME: &str = "/";
/// Health, where Toil's server has it.
pub const HEALTH: &str = "/engine/v1/status";
/// WES `GetServiceInfo`.
pub const SERVICE_INFO: &str = "/ga4gh/wes/v1/service-info";
/// WES `ListRuns` and `RunWorkflow`.
pub const RUNS: &str = "/ga4gh/wes/v1/runs";
/// WES `GetRunLog`.
pub const RUN: &str = "/ga4gh/wes/v1/runs/{run_id}";
/// WES `GetRunStatus`.
pub const RUN_STATUS: &str = "/ga4gh/wes/v1/runs/{run_id}/status";
/// WES `CancelRun`.
pub const RUN_CANCEL: &str = "/ga4gh/wes/v1/runs/{run_id}/cancel";
/// A new run that goes on where that one ended; no part of WES.
pub const RUN_RESUME: &str = "/ga4gh/wes/v1/runs/{run_id}/resume";
/// WES `ListTasks`.
pub const TASKS: &str = "/ga4gh/wes/v1/runs/{run_id}/tasks";
/// WES `GetTask`. The rest of the path is the id: API Gateway decodes `%2F` before we see it.
pub const TASK: &str = "/ga4gh/wes/v1/runs/{run_id}/tasks/{*task_id}";
/// One stream of the engine's log.
pub const LOG: &str = "/ga4gh/wes/v1/runs/{run_id}/logs/{stream}";
/// The same, where Toil's server has it.
pub const TOIL_LOG: &str = "/toil/wes/v1/logs/{run_id}/{stream}";
/// The output files.
pub const OUTPUTS: &str = "/ga4gh/wes/v1/runs/{run_id}/outputs";
/// One output file.
pub const OUTPUT: &str = "/ga4gh/wes/v1/runs/{run_id}/outputs/{*path}";
/// The whole outputs object, as collect wrote it.
pub const OUTPUTS_JSON: &str = "/ga4gh/wes/v1/runs/{run_id}/outputs.json";
/// What came with the request.
pub const ATTACHMENTS: &str = "/ga4gh/wes/v1/runs/{run_id}/attachments";
/// One attachment.
pub const ATTACHMENT: &str = "/ga4gh/wes/v1/runs/{run_id}/attachments/{*name}";
/// The run's provenance.
pub const RO_CRATE: &str = "/ga4gh/wes/v1/runs/{run_id}/ro-crate";

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

/// The paths that ask for no caller: what the service is, and that it is there.
pub const OPEN: [&str; 3] = [HOME, HEALTH, SERVICE_INFO];

/// Every path with the methods that `Allow` names.
pub const TABLE: [(&str, &str); 18] = [
    (HOME, READ),
    (HEALTH, READ),
    (SERVICE_INFO, READ),
    (RUNS, "GET, HEAD, POST"),
    (RUN, "GET, HEAD, DELETE"),
    (RUN_STATUS, READ),
    (RUN_CANCEL, WRITE),
    (RUN_RESUME, WRITE),
    (TASKS, READ),
    (TASK, READ),
    (LOG, READ),
    (TOIL_LOG, READ),
    (OUTPUTS, READ),
    (OUTPUT, READ),
    (OUTPUTS_JSON, READ),
    (ATTACHMENTS, READ),
    (ATTACHMENT, READ),
    (RO_CRATE, READ),
];

/// The methods of a path as `Allow` names them; `None` when the API has no such path.
#[must_use]
pub fn allowed(path: &str) -> Option<&'static str> {
    TABLE.iter().find(|(pattern, _)| matches(pattern, path)).map(|(_, methods)| *methods)
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        let Some(part) = parts.next() else { return false };
        if expected.starts_with("{*") {
            return !part.is_empty() || parts.next().is_some();
        }
        let fits = if expected.starts_with('{') { !part.is_empty() } else { part == expected };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwes_core::wes::BASE_PATH;

    #[test]
    fn wes_paths_lie_below_the_base_path() {
        for (path, _) in TABLE {
            let ours = [HOME, HEALTH, TOIL_LOG].contains(&path);
            assert!(ours || path.starts_with(&format!("{BASE_PATH}/")), "{path}");
        }
    }

    #[test]
    fn the_contract_has_every_path_and_no_other() {
        let contract = include_str!("../../../../docs/openapi.yaml");
        let declared: Vec<_> = contract
            .lines()
            .filter(|line| line.starts_with("  /") && line.ends_with(':'))
            .collect();
        let served: Vec<_> = TABLE
            .iter()
            .filter_map(|(path, _)| path.strip_prefix(BASE_PATH))
            .map(|path| format!("  {}:", path.replace("{*", "{")))
            .collect();
        for path in &served {
            assert!(declared.contains(&path.as_str()), "{path} is not in the contract");
        }
        assert_eq!(declared.len(), served.len());
    }

    #[test]
    fn every_path_that_has_a_name_is_in_the_table() {
        let named = include_str!("routes.rs")
            .lines()
            .filter(|line| line.starts_with("pub const ") && line.contains(": &str = "))
            .count();
        assert_eq!(named, TABLE.len());
    }

    #[test]
    fn a_path_knows_its_methods() {
        for (path, methods) in [
            ("/", Some(READ)),
            ("/ga4gh/wes/v1/runs", Some("GET, HEAD, POST")),
            ("/ga4gh/wes/v1/runs/x", Some("GET, HEAD, DELETE")),
            ("/ga4gh/wes/v1/runs/x/cancel", Some(WRITE)),
            ("/ga4gh/wes/v1/runs/x/resume", Some(WRITE)),
            ("/ga4gh/wes/v1/runs/x/tasks/a/b", Some(READ)),
            ("/ga4gh/wes/v1/runs/x/outputs/", None),
            ("/ga4gh/wes/v1/runs/", None),
            ("/ga4gh/wes/v1/nothing", None),
            ("", None),
        ] {
            assert_eq!(allowed(path), methods, "{path}");
        }
    }
}
