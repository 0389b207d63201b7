//! What the environment tells the task, and the limits that it keeps.

use std::{path::PathBuf, time::Duration};

use stepwes_core::{RunId, drs_tokens::DrsTokens, task::env, token::AttemptToken};

use crate::hosts::Hosts;

/// The one attempt to execute and where its things are.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) run_id: RunId,
    pub(crate) attempt: u32,
    pub(crate) token: AttemptToken,
    pub(crate) bucket: String,
    pub(crate) report_function: String,
    pub(crate) work_dir: PathBuf,
    pub(crate) work_link: Option<PathBuf>,
    pub(crate) container: String,
    pub(crate) sandbox: String,
    /// What an engine in a sandbox does not see.
    pub(crate) sandbox_hides: Option<PathBuf>,
    pub(crate) s3_path_style: bool,
    pub(crate) metadata_uri: String,
    pub(crate) limits: Limits,
    pub(crate) sources: Sources,
}

/// Where files may come from, beside the internet and S3.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The hosts that requests may name.
    pub(crate) hosts: Hosts,
    /// The folders, as they really are, below which `file://` URLs may lead.
    pub(crate) file_roots: Vec<PathBuf>,
    /// What DRS servers are shown.
    pub(crate) drs_tokens: DrsTokens,
}

/// Times and sizes, with one default each.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// How long a stopped engine may take to end by itself.
    pub(crate) stop_grace: Duration,
    /// How long uploading the logs of a stopped engine may take: ECS kills the task soon after.
    pub(crate) stop_upload: Duration,
    /// For how long the report function, S3 and the metadata endpoint are tried: on one machine,
    /// whoever serves them may be restarting, or be away overnight.
    pub(crate) patience: Duration,
    /// How long a server of workflows may take to accept a connection.
    pub(crate) fetch_connect: Duration,
    /// How long a server of workflows may say nothing.
    pub(crate) fetch_idle: Duration,
    /// How long fetching a workflow may take in all.
    pub(crate) fetch_total: Duration,
    /// How often a file is asked for, without coming any further.
    pub(crate) fetch_tries: u32,
    /// The pause before the second try, doubled before each one after that.
    pub(crate) fetch_pause: Duration,
    /// The largest workflow, in bytes.
    pub(crate) fetch_bytes: u64,
    /// How much of its engine's state an attempt may store in all, in bytes.
    pub(crate) state_bytes: u64,
    /// How much is fetched of a run's inputs, in bytes.
    pub(crate) input_bytes: u64,
}

/// The longest time that finished work has to be uploaded once the task has been told to stop: ECS
/// kills it after 120 s, and what is left of them is for saying that it was stopped.
const MAX_FINISH: Duration = Duration::from_secs(80);

impl Limits {
    /// How long the outputs of an engine that ended by itself may still be uploaded once the task
    /// has been told to stop.
    pub(crate) fn finish(&self) -> Duration {
        (self.stop_upload * 3).min(MAX_FINISH)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stop_grace: Duration::from_secs(20),
            stop_upload: Duration::from_secs(20),
            patience: Duration::from_secs(600),
            fetch_connect: Duration::from_secs(10),
            fetch_idle: Duration::from_secs(30),
            fetch_total: Duration::from_secs(600),
            fetch_tries: 3,
            fetch_pause: Duration::from_secs(1),
            fetch_bytes: 1 << 30,
            state_bytes: 64 << 30,
            input_bytes: 100 << 30,
        }
    }
}

impl Config {
    /// Reads the process' environment.
    ///
    /// # Errors
    /// A sentence naming the variable that is missing or wrong.
    pub(crate) fn from_env() -> Result<Self, String> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let optional = |name: &str| variable(name).filter(|value| !value.is_empty());
        let required = |name: &str| {
            optional(name)
                .ok_or_else(|| format!("{name} is not set: this program is started as an ECS task"))
        };
        let wrong = |name: &str, value: &str, what: &str| format!("{name}={value:?} is not {what}");
        let run_id = required(env::RUN_ID)?;
        let attempt = required(env::ATTEMPT)?;
        // 32 bits: no clock overflows with a century more.
        let seconds = |name: &str| {
            optional(name)
                .map(|value| {
                    let number = value.parse::<u32>();
                    number
                        .map(|number| Duration::from_secs(number.into()))
                        .map_err(|_| wrong(name, &value, "a number of seconds"))
                })
                .transpose()
        };
        let mut limits = Limits::default();
        if let Some(grace) = seconds(env::STOP_GRACE)? {
            limits.stop_grace = grace;
            limits.stop_upload = grace;
        }
        if let Some(patience) = seconds(env::PATIENCE)? {
            limits.patience = patience;
        }
        if let Some(value) = optional(env::STATE_GIB) {
            let gib = value.parse::<u32>();
            let gib = gib.map_err(|_| wrong(env::STATE_GIB, &value, "a number of GiB"))?;
            limits.state_bytes = u64::from(gib) << 30;
        }
        if let Some(text) = optional(env::MAX_INPUT_MIB) {
            let mib = text.parse::<u32>();
            let mib = mib.map_err(|_| wrong(env::MAX_INPUT_MIB, &text, "a number of MiB"))?;
            limits.input_bytes = u64::from(mib) << 20;
        }
        let hosts = Hosts::allowing(&optional(env::ALLOWED_HOSTS).unwrap_or_default())
            .map_err(|what| format!("{}: {what}", env::ALLOWED_HOSTS))?;
        let mut file_roots = Vec::new();
        for root in optional(env::FILE_ROOTS).iter().flat_map(std::env::split_paths) {
            let real = root.canonicalize().map_err(|error| {
                format!("{}: {} cannot be read: {error}", env::FILE_ROOTS, root.display())
            })?;
            file_roots.push(real);
        }
        let drs_tokens = optional(env::DRS_TOKENS)
            .map_or_else(|| Ok(DrsTokens::default()), |text| DrsTokens::parse(&text))
            .map_err(|what| format!("{}: {what}", env::DRS_TOKENS))?;
        let hosts = hosts.behind_proxies(&variable);
        Ok(Self {
            run_id: run_id.parse().map_err(|_| wrong(env::RUN_ID, &run_id, "a run id"))?,
            attempt: attempt
                .parse()
                .map_err(|_| wrong(env::ATTEMPT, &attempt, "an attempt's number"))?,
            token: AttemptToken::from_secret(required(env::TOKEN)?),
            bucket: required(env::BUCKET)?,
            report_function: required(env::REPORT_FUNCTION)?,
            work_dir: optional(env::WORK_DIR).map_or_else(std::env::temp_dir, PathBuf::from),
            work_link: optional(env::WORK_LINK).map(PathBuf::from),
            container: optional(env::CONTAINER).unwrap_or_else(|| "auto".to_owned()),
            sandbox: optional(env::SANDBOX).unwrap_or_else(|| "none".to_owned()),
            sandbox_hides: optional(env::SANDBOX_HIDES).map(PathBuf::from),
            s3_path_style: match optional(env::S3_PATH_STYLE).as_deref() {
                None | Some("0" | "false") => false,
                Some("1" | "true") => true,
                Some(other) => return Err(wrong(env::S3_PATH_STYLE, other, "true or false")),
            },
            metadata_uri: required("ECS_CONTAINER_METADATA_URI_V4")?,
            limits,
            sources: Sources { hosts, file_roots, drs_tokens },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn variables() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            (env::RUN_ID, "01890000-0000-7000-8000-000000000000"),
            (env::ATTEMPT, "2"),
            (env::TOKEN, "secret"),
            (env::BUCKET, "runs"),
            (env::REPORT_FUNCTION, "report"),
            ("ECS_CONTAINER_METADATA_URI_V4", "http://127.0.0.1:1/v4/x"),
        ])
    }

    fn read(variables: &BTreeMap<&str, &str>) -> Result<Config, String> {
        Config::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn what_the_state_machine_sets_is_enough() {
        let config = read(&variables()).expect("complete");
        assert_eq!((config.attempt, config.container.as_str()), (2, "auto"));
        assert_eq!((config.sandbox.as_str(), config.sandbox_hides), ("none", None));
        assert_eq!(config.limits.stop_grace, Duration::from_secs(20));
        assert_eq!(config.limits.patience, Duration::from_secs(600));
        assert_eq!(config.limits.finish(), Duration::from_secs(60));
        assert!(!config.s3_path_style);
        assert_eq!((config.limits.state_bytes, config.work_link), (64 << 30, None));
    }

    #[test]
    fn the_operator_decides_how_long_a_service_may_be_away() {
        let mut variables = variables();
        variables.insert(env::PATIENCE, "604800");
        let config = read(&variables).expect("complete");
        assert_eq!(config.limits.patience, Duration::from_secs(7 * 24 * 3600));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_the_token_is_not_shown() {
        for name in variables().into_keys() {
            let mut without = variables();
            without.remove(name);
            assert!(read(&without).expect_err(name).contains(name));
        }
        for (name, value) in [
            (env::RUN_ID, "x"),
            (env::ATTEMPT, "-1"),
            (env::STOP_GRACE, "soon"),
            (env::PATIENCE, "for ever"),
            (env::PATIENCE, "18446744073709551615"),
            (env::S3_PATH_STYLE, "maybe"),
            (env::STATE_GIB, "-1"),
            (env::ALLOWED_HOSTS, "http://x"),
            (env::FILE_ROOTS, "/no such folder"),
            (env::MAX_INPUT_MIB, "100 GiB"),
        ] {
            let mut wrong = variables();
            wrong.insert(name, value);
            let message = read(&wrong).expect_err(name);
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
        let mut variables = variables();
        assert!(!format!("{:?}", read(&variables)).contains("secret"));
        variables.insert(env::DRS_TOKENS, r#"{"drs.example.org": "secret"}"#);
        let good = format!("{:?}", read(&variables).expect("complete"));
        assert!(good.contains("drs.example.org") && !good.contains("secret"), "{good}");
        variables.insert(env::DRS_TOKENS, "secret");
        let message = read(&variables).expect_err("no JSON");
        assert!(message.contains(env::DRS_TOKENS) && !message.contains("secret"), "{message}");
    }
}
