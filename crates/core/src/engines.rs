//! Which workflow types and engines a service has.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// An engine that stepwes knows how to run, for one workflow type.
#[derive(Debug)]
pub struct Known {
    /// Its name in `workflow_engine`. One engine may run several types.
    pub name: &'static str,
    /// The workflow type.
    pub workflow_type: &'static str,
    /// The versions of the type that it runs.
    pub workflow_type_versions: &'static [&'static str],
    /// The program that is looked for on `PATH`.
    pub program: &'static str,
    /// Whether it can go on where it was cut off.
    pub resumes: bool,
}

/// Every engine, the default one of a workflow type before its others. Types and versions are
/// Toil's (`toil.server.wes.toil_backend`) where Toil has them.
pub const KNOWN: [Known; 7] = [
    Known {
        name: "cwltool",
        workflow_type: "CWL",
        workflow_type_versions: CWL_VERSIONS,
        program: "cwltool",
        resumes: false,
    },
    Known {
        name: "toil",
        workflow_type: "CWL",
        workflow_type_versions: CWL_VERSIONS,
        program: "toil-cwl-runner",
        resumes: true,
    },
    Known {
        name: "miniwdl",
        workflow_type: "WDL",
        workflow_type_versions: WDL_VERSIONS,
        program: "miniwdl",
        resumes: true,
    },
    Known {
        name: "toil",
        workflow_type: "WDL",
        workflow_type_versions: WDL_VERSIONS,
        program: "toil-wdl-runner",
        resumes: true,
    },
    Known {
        name: "toil",
        workflow_type: "PY",
        workflow_type_versions: &["3.10", "3.11", "3.12", "3.13", "3.14"],
        program: "toil",
        resumes: true,
    },
    Known {
        name: "snakemake",
        workflow_type: "SMK",
        workflow_type_versions: &["7", "8", "9"],
        program: "snakemake",
        resumes: true,
    },
    Known {
        name: "nextflow",
        workflow_type: "NFL",
        workflow_type_versions: &["DSL2"],
        program: "nextflow",
        resumes: true,
    },
];

/// Whether an engine of ours can go on where it was cut off, with a workflow of that type.
#[must_use]
pub fn resumes(name: &str, workflow_type: &str) -> bool {
    KNOWN.iter().any(|known| {
        known.resumes
            && known.name == name
            && known.workflow_type.eq_ignore_ascii_case(workflow_type.trim())
    })
}

const CWL_VERSIONS: &[&str] = &["v1.0", "v1.1", "v1.2"];
const WDL_VERSIONS: &[&str] = &["draft-2", "1.0", "1.1"];

impl Known {
    /// What a service says of it, in the `versions` that are installed.
    #[must_use]
    pub fn engine(&self, versions: Vec<String>) -> Engine {
        Engine {
            name: self.name.to_owned(),
            workflow_type: self.workflow_type.to_owned(),
            workflow_type_versions: self
                .workflow_type_versions
                .iter()
                .map(|&version| version.to_owned())
                .collect(),
            versions,
            default_parameters: Vec::new(),
        }
    }
}

impl Engine {
    /// cwltool, the CWL reference implementation, in the `versions` that are installed.
    #[must_use]
    pub fn cwltool(versions: Vec<String>) -> Self {
        KNOWN[0].engine(versions)
    }
}

impl Engine {
    /// The operator's parameters as a request would have them: an empty value is a bare flag.
    #[must_use]
    pub fn parameters(&self) -> Map<String, Value> {
        let value = |text: &str| match text {
            "" => Value::Null,
            text => text.into(),
        };
        self.default_parameters
            .iter()
            .map(|parameter| (parameter.name.clone(), value(&parameter.default_value)))
            .collect()
    }
}

impl Engines {
    /// A service with these engines.
    #[must_use]
    pub const fn new(engines: Vec<Engine>) -> Self {
        Self(engines)
    }

    /// Adds an option that the operator passes to an engine, whatever it runs: with a value, or as
    /// a bare flag.
    ///
    /// # Errors
    /// The engines that there are, when none has that name.
    pub fn add_default(
        &mut self,
        engine: &str,
        option: &str,
        value: Option<&str>,
    ) -> Result<(), String> {
        let mut found = false;
        for known in self.0.iter_mut().filter(|known| known.name == engine) {
            found = true;
            known.default_parameters.push(DefaultWorkflowEngineParameter {
                name: option.to_owned(),
                parameter_type: if value.is_some() { "string" } else { "boolean" }.to_owned(),
                default_value: value.unwrap_or_default().to_owned(),
            });
        }
        if found { Ok(()) } else { Err(list(self.0.iter().map(|engine| &engine.name))) }
    }

    /// The engine for a request: by type (without case and surrounding blanks), version, and the
    /// engine's name and version when they are given. Without a name, the first one that is
    /// installed; where none is, the first one, whose task then says how to install it.
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
            let installed = of_version.iter().copied().find(|known| !known.versions.is_empty());
            return Ok(installed.unwrap_or(of_version[0]));
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

    /// Service-info's `workflow_type_versions`: the types that an installed engine runs. While none
    /// is installed it is all that could be, as the schema allows no service without a type.
    #[must_use]
    pub fn workflow_type_versions(&self) -> BTreeMap<String, WorkflowTypeVersion> {
        let mut types: BTreeMap<String, WorkflowTypeVersion> = BTreeMap::new();
        let installed = |engine: &&Engine| !engine.versions.is_empty();
        let any = self.0.iter().any(|engine| installed(&engine));
        for engine in self.0.iter().filter(|engine| !any || installed(engine)) {
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
        let mut all: Vec<DefaultWorkflowEngineParameter> = Vec::new();
        // One engine may be there for several types.
        for parameter in self.0.iter().flat_map(|engine| &engine.default_parameters) {
            if !all.contains(parameter) {
                all.push(parameter.clone());
            }
        }
        all
    }
}

/// How much of a script [`python_of_script`] needs, in bytes: some are wrapped in a line of shell.
pub const SCRIPT_HEAD: u64 = 1024;

/// The interpreter that a Python script names in its first lines. Not resolved: a virtual
/// environment's interpreter is a link out of it.
#[must_use]
pub fn python_of_script(head: &[u8]) -> Option<PathBuf> {
    let head = String::from_utf8_lossy(head);
    let mut words = head
        .strip_prefix("#!")?
        .lines()
        .take(3)
        .flat_map(str::split_whitespace)
        .map(|word| Path::new(word.trim_matches(['"', '\''])));
    words.find(|path| path.is_absolute() && names_python(path)).map(Path::to_owned)
}

fn names_python(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python"))
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
    fn without_a_name_the_first_engine_that_is_installed_is_taken() {
        let with = |installed: &[&str]| {
            let versions = |name| {
                if installed.contains(&name) { vec!["1".to_owned()] } else { Vec::new() }
            };
            Engines::new(KNOWN.iter().map(|known| known.engine(versions(known.name))).collect())
        };
        for (installed, chosen) in
            [(&["miniwdl", "toil"][..], "miniwdl"), (&["toil"], "toil"), (&[], "miniwdl")]
        {
            let engines = with(installed);
            let engine = engines.select("WDL", "1.0", None, None).map(|e| e.name.clone());
            assert_eq!(engine, Ok(chosen.to_owned()), "{installed:?}");
        }
    }

    #[test]
    fn types_without_an_installed_engine_are_not_offered() {
        let engines = |installed: &str| {
            let versions = |name| if name == installed { vec!["1".to_owned()] } else { Vec::new() };
            Engines::new(KNOWN.iter().map(|known| known.engine(versions(known.name))).collect())
        };
        let types = |engines: &Engines| {
            engines.workflow_type_versions().into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(types(&engines("snakemake")), "SMK");
        assert_eq!(types(&engines("toil")), "CWL PY WDL");
        assert_eq!(types(&engines("")), "CWL NFL PY SMK WDL");
        let shown = engines("toil").workflow_engine_versions();
        assert_eq!(shown["toil"].workflow_engine_version, ["1"]);
        assert!(shown["nextflow"].workflow_engine_version.is_empty());
    }

    #[test]
    fn the_operator_s_options_are_an_engine_s_whatever_it_runs() {
        let mut engines =
            Engines::new(KNOWN.iter().map(|known| known.engine(Vec::new())).collect());
        engines.add_default("toil", "--logDebug", None).expect("an engine");
        engines.add_default("toil", "--maxCores", Some("2")).expect("an engine");
        for (kind, engine, count) in [("CWL", "toil", 2), ("PY", "toil", 2), ("CWL", "cwltool", 0)]
        {
            let version = if kind == "CWL" { "v1.2" } else { "3.11" };
            let chosen = engines.select(kind, version, Some(engine), None).expect("known");
            assert_eq!(chosen.parameters().len(), count);
        }
        let chosen = engines.select("WDL", "1.0", Some("toil"), None).expect("known");
        let expected = serde_json::json!({"--logDebug": null, "--maxCores": "2"});
        assert_eq!(Value::Object(chosen.parameters()), expected);
        let told = engines.add_default("cromwell", "-x", None).expect_err("unknown");
        assert_eq!(told, "cwltool, toil, miniwdl, snakemake, nextflow");
    }

    #[test]
    fn no_engine_is_known_twice_for_a_type() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(KNOWN.iter().all(|known| seen.insert((known.name, known.workflow_type))));
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
