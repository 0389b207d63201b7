//! cwltool, the CWL reference implementation.

use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use stepwes_core::task::EngineOutputs;

use super::{
    Engine, Order, TaskLog, TaskParser, because,
    cwltool_log::{self, CwltoolTasks},
    ended,
    options::{self, ENVIRONMENT, FOREIGN, NO_RUN, PLACES, RUNTIME, Rule, Rules},
    python_is_broken,
};
use crate::{container::Container, cwl, outputs::Outputs, process::Exit};

/// `cwltool` (<https://github.com/common-workflow-language/cwltool>).
pub(super) struct Cwltool;

/// cwltool's exit code for a workflow that asks for what it has not got.
const UNSUPPORTED: i32 = 33;

pub(super) const NETWORK: Rule = Rule::Refused("the service chooses the containers' network");
pub(super) const ROOT: Rule = Rule::Refused("containers do not run as root");
pub(super) const LEFT: Rule = Rule::Refused("containers end with their run");
pub(super) const PROVENANCE: Rule = Rule::Refused("the service does not keep research objects");

/// cwltool's options (`cwltool --help`, 3.3), sorted by what a request may decide.
const RULES: &[(&str, Rule)] = &[
    // What is run, and how strictly.
    ("--target", Rule::Value),
    ("-t", Rule::Value),
    ("--single-step", Rule::Value),
    ("--single-process", Rule::Value),
    ("--parallel", Rule::Flag),
    ("--parallel-max", Rule::Value),
    ("--on-error", Rule::Value),
    ("--skip-schemas", Rule::Flag),
    ("--enable-dev", Rule::Flag),
    ("--enable-ext", Rule::Flag),
    ("--relax-path-checks", Rule::Flag),
    ("--overrides", Rule::Value),
    ("--strict", Rule::Flag),
    ("--non-strict", Rule::Flag),
    ("--no-doc-cache", Rule::Flag),
    ("--doc-cache", Rule::Flag),
    ("--compute-checksum", Rule::Flag),
    ("--no-compute-checksum", Rule::Flag),
    ("--eval-timeout", Rule::Value),
    ("--js-console", Rule::Flag),
    ("--disable-js-validation", Rule::Flag),
    ("--js-hint-options-file", Rule::Value),
    // What it says.
    ("--verbose", Rule::Flag),
    // Without its informational lines there would be no tasks; Toil's client always sends --quiet.
    ("--no-warnings", Rule::Dropped),
    ("--quiet", Rule::Dropped),
    ("--debug", Rule::Flag),
    ("--timestamps", Rule::Flag),
    ("--enable-color", Rule::Flag),
    ("--disable-color", Rule::Flag),
    // Files on the way.
    ("--rm-tmpdir", Rule::Flag),
    ("--leave-tmpdir", Rule::Flag),
    ("--move-outputs", Rule::Flag),
    ("--copy-outputs", Rule::Flag),
    // Containers.
    ("--no-container", Rule::Flag),
    ("--default-container", Rule::Value),
    ("--enable-pull", Rule::Flag),
    ("--disable-pull", Rule::Flag),
    ("--force-docker-pull", Rule::Flag),
    ("--no-read-only", Rule::Flag),
    ("--strict-memory-limit", Rule::Flag),
    ("--strict-cpu-limit", Rule::Flag),
    ("--rm-container", Rule::Flag),
    ("--singularity", RUNTIME),
    ("--podman", RUNTIME),
    ("--udocker", RUNTIME),
    ("--user-space-docker-cmd", RUNTIME),
    ("--singularity-sandbox-path", RUNTIME),
    ("--custom-net", NETWORK),
    ("--no-match-user", ROOT),
    ("--leave-container", LEFT),
    // What the service decides.
    ("--outdir", Rule::Dropped),
    ("-o", Rule::Dropped),
    ("--basedir", PLACES),
    ("--write-summary", PLACES),
    ("-w", PLACES),
    ("--log-dir", PLACES),
    ("--tmpdir-prefix", PLACES),
    ("--tmp-outdir-prefix", PLACES),
    ("--cachedir", PLACES),
    ("--leave-outputs", PLACES),
    ("--cidfile-dir", PLACES),
    ("--cidfile-prefix", PLACES),
    ("--record-container-id", PLACES),
    ("--print-rdf", NO_RUN),
    ("--print-dot", NO_RUN),
    ("--print-pre", NO_RUN),
    ("--print-deps", NO_RUN),
    ("--print-input-deps", NO_RUN),
    ("--print-supported-versions", NO_RUN),
    ("--print-subgraph", NO_RUN),
    ("--print-targets", NO_RUN),
    ("--pack", NO_RUN),
    ("--version", NO_RUN),
    ("--validate", NO_RUN),
    ("--make-template", NO_RUN),
    ("--relative-deps", NO_RUN),
    ("--rdf-serializer", NO_RUN),
    ("--tool-help", NO_RUN),
    ("--help", NO_RUN),
    ("-h", NO_RUN),
    ("--preserve-environment", ENVIRONMENT),
    ("--preserve-entire-environment", ENVIRONMENT),
    ("--provenance", PROVENANCE),
    ("--enable-user-provenance", PROVENANCE),
    ("--disable-user-provenance", PROVENANCE),
    ("--enable-host-provenance", PROVENANCE),
    ("--disable-host-provenance", PROVENANCE),
    ("--orcid", PROVENANCE),
    ("--full-name", PROVENANCE),
    ("--mpi-config-file", FOREIGN),
    ("--enable-ga4gh-tool-registry", FOREIGN),
    ("--disable-ga4gh-tool-registry", FOREIGN),
    ("--add-ga4gh-tool-registry", FOREIGN),
    ("--beta-dependency-resolvers-configuration", FOREIGN),
    ("--beta-dependencies-directory", FOREIGN),
    ("--beta-use-biocontainers", FOREIGN),
    ("--beta-conda-dependencies", FOREIGN),
];

pub(super) const OPTIONS: Rules = Rules::new("cwltool", &[RULES]);

/// What has to be encoded in a path that becomes a file URL.
const FILE_URL: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

impl Engine for Cwltool {
    fn name(&self) -> &'static str {
        "cwltool"
    }

    fn workflow_type(&self) -> &'static str {
        "CWL"
    }

    fn installation(&self) -> &'static str {
        "run `stepwes engines install cwltool`, or `pip install cwltool` and put it on the service's PATH; `stepwes engines` shows which engines are found"
    }

    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        let chosen = options::sort(&OPTIONS, order)?;
        let has = |names: &[&str]| chosen.iter().any(|option| names.contains(&option.as_str()));
        let mut command = vec![self.program().to_owned()];
        let bare = has(&["--no-container"]) || order.container == Container::None;
        if !has(&["--no-container"]) {
            command.extend(container_option(order.container));
        }
        // A log is no terminal.
        if !has(&["--enable-color", "--disable-color"]) {
            command.push("--disable-color".to_owned());
        }
        command.extend(chosen);
        if bare {
            for name in order.aws {
                command.extend(["--preserve-environment".to_owned(), name.clone()]);
            }
        }
        command.extend([
            "--outdir".to_owned(),
            order.outdir.to_string_lossy().into_owned(),
            workflow_argument(order),
            Order::INPUTS.to_owned(),
        ]);
        Ok(command)
    }

    fn failure(&self, exit: Exit, stderr: &str) -> String {
        because(ended_as_cwltool(self.name(), exit), cwltool_log::cause(stderr))
    }

    fn is_broken(&self, exit: Exit, stderr: &str) -> bool {
        python_is_broken(exit, stderr)
    }

    fn outputs(
        &self,
        stdout: &[u8],
        outdir: &Path,
        uploaded: &Outputs,
    ) -> Result<EngineOutputs, String> {
        cwl::outputs(self.name(), stdout, outdir, uploaded)
    }

    fn tasks(&self, _order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>) {
        (TaskLog::Stderr, Box::<CwltoolTasks>::default())
    }
}

/// The option by which cwltool, and Toil as well, runs containers so; Docker is its default.
pub(super) fn container_option(container: Container) -> Option<String> {
    let option = match container {
        Container::Docker => return None,
        Container::Podman => "--podman",
        Container::Singularity => "--singularity",
        Container::None => "--no-container",
    };
    Some(option.to_owned())
}

/// How a runner ended whose exit codes are cwltool's.
pub(super) fn ended_as_cwltool(runner: &str, exit: Exit) -> String {
    match exit {
        Exit { signal: None, code: UNSUPPORTED } => {
            format!("{runner} exited with code {UNSUPPORTED} (unsupported feature)")
        }
        exit => ended(runner, exit),
    }
}

/// How cwltool, and Toil by its code, is told the workflow: by its path below the execution folder where it reads that
/// as a path, else as a URL.
pub(super) fn workflow_argument(order: &Order<'_>) -> String {
    let fragment = order.fragment.map_or_else(String::new, |fragment| format!("#{fragment}"));
    if order.workflow.contains('#') || order.workflow.contains(':') {
        let path = order.execution.join(order.workflow);
        let path = path.to_string_lossy();
        format!("file://{}{fragment}", utf8_percent_encode(&path, &FILE_URL))
    } else {
        format!("{}{fragment}", order.workflow_argument())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn command(workflow: &str, fragment: Option<&str>, parameters: &Value) -> Vec<String> {
        ordered(workflow, fragment, parameters, Container::None).expect("a command")
    }

    fn ordered(
        workflow: &str,
        fragment: Option<&str>,
        parameters: &Value,
        container: Container,
    ) -> Result<Vec<String>, String> {
        let none = Map::new();
        Cwltool.command(&Order {
            defaults: &none,
            parameters: parameters.as_object().unwrap_or(&none),
            workflow,
            fragment,
            execution: Path::new("/w/execution"),
            outdir: Path::new("/w/outputs"),
            state: Path::new("/w/state"),
            resumed: false,
            container,
            aws: &["AWS_REGION".to_owned()],
        })
    }

    #[test]
    fn the_options_are_documented() {
        options::assert_documented(RULES);
    }

    #[test]
    fn the_service_s_options_come_first_and_the_workflow_last() {
        let given =
            json!({"--outdir": "/home/me", "--quiet": null, "--debug": null, "--target": "a"});
        assert_eq!(
            command("a.cwl", Some("main"), &given).join(" "),
            "cwltool --no-container --disable-color --debug --target=a --preserve-environment AWS_REGION --outdir /w/outputs a.cwl#main wes_inputs.json"
        );
    }

    #[test]
    fn each_container_runtime_has_its_option() {
        for (container, start) in [
            (Container::Docker, "cwltool --disable-color --outdir"),
            (Container::Podman, "cwltool --podman --disable-color"),
            (Container::Singularity, "cwltool --singularity --disable-color"),
        ] {
            let command = ordered("a", None, &json!({}), container).expect("a command");
            assert!(command.join(" ").starts_with(start), "{command:?}");
        }
        let command = ordered("a", None, &json!({"--no-container": null}), Container::Podman);
        let command = command.expect("a command");
        assert!(!command.contains(&"--podman".to_owned()));
        assert!(command.contains(&"AWS_REGION".to_owned()), "credentials reach bare tools");
    }

    #[test]
    fn odd_names_are_still_one_file() {
        for (workflow, argument) in [
            ("dir/a b%20.cwl", "dir/a b%20.cwl"),
            ("-x.cwl", "./-x.cwl"),
            ("a b#c%20.cwl", "file:///w/execution/a%20b%23c%2520.cwl"),
            ("http:/x.cwl", "file:///w/execution/http:/x.cwl"),
        ] {
            assert_eq!(command(workflow, None, &json!({}))[7], argument);
        }
    }

    #[test]
    fn colour_is_the_request_s_choice() {
        let command = command("a", None, &json!({"--enable-color": null}));
        assert!(!command.contains(&"--disable-color".to_owned()));
    }

    #[test]
    fn no_option_leads_out_of_the_run() {
        for option in [
            "--basedir",
            "--outd",
            "--tmpdir-prefix",
            "--tmp-outdir-prefix",
            "--cachedir",
            "--log-dir",
            "--print-deps",
            "--pack",
            "--validate",
            "--make-template",
            "--version",
            "--user-space-docker-cmd",
            "--mpi-config-file",
            "--singularity",
            "--podman",
            "--udocker",
            "--preserve-environment",
            "--preserve-entire-environment",
            "-w/etc/x",
            "--beta-dependency-resolvers-configuration",
            "--custom-net",
            "--write-summary",
        ] {
            let refused = ordered("a", None, &json!({option: "x"}), Container::None);
            assert!(refused.expect_err(option).contains(option));
        }
    }

    #[test]
    fn every_option_has_one_rule() {
        let mut names: Vec<_> = RULES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }

    #[test]
    fn a_broken_installation_is_told_from_a_broken_workflow() {
        let is_broken = |code, stderr| Cwltool.is_broken(Exit { code, signal: None }, stderr);
        let import = "Traceback (most recent call last):\n  File \"/usr/bin/cwltool\", line 5\n\
                      ModuleNotFoundError: No module named 'schema_salad'\n";
        assert!(is_broken(1, import));
        assert!(is_broken(126, "") && is_broken(127, "env: python3: not found\n"));
        let of_a_tool = format!("INFO /usr/bin/cwltool 3.3\n{import}");
        assert!(!is_broken(1, &of_a_tool) && !is_broken(1, "Traceback of something else"));
        assert!(!is_broken(33, ""));
    }

    #[test]
    fn a_failure_says_how_and_why() {
        let told = |code, signal, stderr| Cwltool.failure(Exit { code, signal }, stderr);
        assert_eq!(told(1, None, "ERROR no\n"), "cwltool exited with code 1: no");
        assert_eq!(told(33, None, ""), "cwltool exited with code 33 (unsupported feature)");
        assert!(told(137, Some(9), "").contains("memory"));
        assert_eq!(told(143, Some(15), ""), "cwltool was ended by signal 15");
    }
}
