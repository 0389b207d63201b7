//! Which workflow types and engines a service has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::ApiError,
    wes::{DefaultWorkflowEngineParameter, WorkflowEngineVersion, WorkflowTypeVersion},
};

/// The engines of a service, the default one of a workflow type before its others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Engines(Vec<Engine>);

/// One engine for one workflow type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The engine's name in `workflow_engine`, such as `cwltool`.
    pub name: String,
    /// The workflow type that it runs, such as `CWL`.
    pub workflow_type: String,
    /// The versions of the type that it runs.
    pub workflow_type_versions: Vec<String>,
    /// The versions of the engine that are installed; empty when none was found.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What the operator passes to it unless a request says otherwise.
    #[serde(default)]
    pub default_parameters: Vec<DefaultWorkflowEngineParameter>,
}

impl Engine {
    /// cwltool, the CWL reference implementation, in the `versions` that are installed.
    #[must_use]
    pub fn cwltool(versions: Vec<String>) -> Self {
        Self {
            name: "cwltool".to_owned(),
            workflow_type: "CWL".to_owned(),
            workflow_type_versions: ["v1.0", "v1.1", "v1.2"].map(str::to_owned).to_vec(),
            versions,
            default_parameters: Vec::new(),
        }
    }
}

impl Engines {
    /// A service with these engines.
    #[must_use]
    pub const fn new(engines: Vec<Engine>) -> Self {
        Self(engines)
    }

    /// The engine for a request: by type (without case and surrounding blanks), version, and the
    /// engine's name and version when they are given.
    ///
    /// # Errors
    /// 400 that lists what there is.
    pub fn select(
        &self,
        workflow_type: &str,
        workflow_type_version: &str,
        engine: Option<&str>,
        engine_version: Option<&str>,
    ) -> Result<&Engine, ApiError> {
        let bad = |message: String| Err(ApiError::BadRequest(message));
        let of_type: Vec<_> = self
            .0
            .iter()
            .filter(|known| known.workflow_type.eq_ignore_ascii_case(workflow_type.trim()))
            .collect();
        if of_type.is_empty() {
            return bad(format!(
                "workflow_type {workflow_type:?} is not supported; supported: {}",
                list(self.0.iter().map(|engine| &engine.workflow_type))
            ));
        }
        let of_version: Vec<_> = of_type
            .iter()
            .copied()
            .filter(|known| {
                known.workflow_type_versions.iter().any(|version| version == workflow_type_version)
            })
            .collect();
        if of_version.is_empty() {
            return bad(format!(
                "workflow_type_version {workflow_type_version:?} of {} is not supported; supported: {}",
                of_type[0].workflow_type,
                list(of_type.iter().flat_map(|engine| &engine.workflow_type_versions))
            ));
        }
        let Some(name) = engine else {
            if engine_version.is_some() {
                return bad(
                    "workflow_engine_version is given without workflow_engine; name the engine too"
                        .to_owned(),
                );
            }
            return Ok(of_version[0]);
        };
        let Some(chosen) =
            of_version.iter().copied().find(|known| known.name.eq_ignore_ascii_case(name.trim()))
        else {
            return bad(format!(
                "workflow_engine {name:?} does not run {} {workflow_type_version}; supported: {}",
                of_version[0].workflow_type,
                list(of_version.iter().map(|engine| &engine.name))
            ));
        };
        match engine_version {
            Some(version) if !chosen.versions.iter().any(|known| known == version) => bad(format!(
                "workflow_engine_version {version:?} of {} is not supported; supported: {}",
                chosen.name,
                list(&chosen.versions)
            )),
            _ => Ok(chosen),
        }
    }

    /// Service-info's `workflow_type_versions`.
    #[must_use]
    pub fn workflow_type_versions(&self) -> BTreeMap<String, WorkflowTypeVersion> {
        let mut types: BTreeMap<String, WorkflowTypeVersion> = BTreeMap::new();
        for engine in &self.0 {
            let known = types
                .entry(engine.workflow_type.clone())
                .or_insert_with(|| WorkflowTypeVersion { workflow_type_version: Vec::new() });
            for version in &engine.workflow_type_versions {
                if !known.workflow_type_version.contains(version) {
                    known.workflow_type_version.push(version.clone());
                }
            }
        }
        types
    }

    /// Service-info's `workflow_engine_versions`.
    #[must_use]
    pub fn workflow_engine_versions(&self) -> BTreeMap<String, WorkflowEngineVersion> {
        self.0
            .iter()
            .map(|engine| {
                let versions =
                    WorkflowEngineVersion { workflow_engine_version: engine.versions.clone() };
                (engine.name.clone(), versions)
            })
            .collect()
    }

    /// Service-info's `default_workflow_engine_parameters`.
    #[must_use]
    pub fn default_parameters(&self) -> Vec<DefaultWorkflowEngineParameter> {
        self.0.iter().flat_map(|engine| engine.default_parameters.clone()).collect()
    }
}

/// The distinct names, in their order.
fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name.as_str()) {
            distinct.push(name);
        }
    }
    if distinct.is_empty() { "none".to_owned() } else { distinct.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engines() -> Engines {
        let mut toil = Engine::cwltool(vec!["9.6.0".into()]);
        toil.name = "toil".into();
        toil.workflow_type_versions = vec!["v1.2".into()];
        Engines::new(vec![Engine::cwltool(vec!["3.3".into()]), toil])
    }

    #[test]
    fn the_type_is_matched_without_case_and_the_first_engine_is_the_default() {
        let engines = engines();
        assert_eq!(
            engines.select(" cwl ", "v1.0", None, None).map(|e| e.name.as_str()),
            Ok("cwltool")
        );
        assert_eq!(
            engines.select("CWL", "v1.2", Some("Toil"), Some("9.6.0")).map(|e| e.name.as_str()),
            Ok("toil")
        );
    }

    #[test]
    fn what_is_not_supported_is_named_with_what_is() {
        let engines = engines();
        let told = |args: (&str, &str, Option<&str>, Option<&str>)| {
            engines.select(args.0, args.1, args.2, args.3).expect_err("unsupported").to_string()
        };
        insta::assert_snapshot!(
            [
                told(("WDL", "1.0", None, None)),
                told(("CWL", "1.0", None, None)),
                told(("CWL", "v1.0", Some("toil"), None)),
                told(("CWL", "v1.0", Some("cwltool"), Some("1"))),
                told(("CWL", "v1.0", None, Some("3.3"))),
            ]
            .join("\n"),
            @r#"
        workflow_type "WDL" is not supported; supported: CWL
        workflow_type_version "1.0" of CWL is not supported; supported: v1.0, v1.1, v1.2
        workflow_engine "toil" does not run CWL v1.0; supported: cwltool
        workflow_engine_version "1" of cwltool is not supported; supported: 3.3
        workflow_engine_version is given without workflow_engine; name the engine too
        "#
        );
    }
}
