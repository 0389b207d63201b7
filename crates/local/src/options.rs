//! What a server is started with, and why it may not start.

use std::{io, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use stepwes_cloud::http::Callers;
use stepwes_core::{destination::Destinations, drs_tokens::DrsTokens};
use thiserror::Error;

use crate::{
    faults::FaultPlan,
    state_changes::{Delivery, StateChangeReceiver},
};

/// By what a server knows its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By nothing: whoever reaches it may do everything.
    None,
    /// By tokens, which are kept in its folder ([`crate::FolderTokens`]).
    Token,
}

/// What a server is started with. [`ServeOptions::default`] is `stepwes serve` without flags.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The folder that everything is kept in; made when it is not there.
    pub dir: PathBuf,
    /// The address or name that the public port is on.
    pub host: String,
    /// The public port; 0 for any that is free.
    pub port: u16,
    /// The URL under which others reach the server, when it is not the one they ask for.
    pub public_url: Option<String>,
    /// By what callers are known; when none, by nothing where only this machine reaches the
    /// server, and by tokens elsewhere.
    pub auth: Option<Auth>,
    /// The group of those who see and cancel everybody's runs.
    pub admin_group: Option<String>,
    /// The program of the engine task; `stepwes-engine` beside the running program when none.
    pub engine_path: Option<PathBuf>,
    /// Where workflow engines are looked for before `PATH`, after `<dir>/engines/bin`.
    pub engines_path_dirs: Vec<PathBuf>,
    /// Options that are passed to engines unless a request says otherwise: the engine's name, the
    /// option, and its value when it takes one.
    pub engine_defaults: Vec<(String, String, Option<String>)>,
    /// How many runs are at work at once, the others wait, QUEUED; the number of cores, at least 2,
    /// when none.
    pub max_engines: Option<NonZeroUsize>,
    /// How engines get containers: `auto`, `docker`, `singularity`, `podman` or `none`.
    pub container: String,
    /// Whether engines run in a sandbox: `auto`, `bwrap` or `none`.
    pub sandbox: String,
    /// Hosts that are not the internet's and that requests may name all the same: names, `*.` and a
    /// name, addresses, networks. Where callers are known by nothing, this machine's own are, too.
    pub allowed_hosts: Vec<String>,
    /// Buckets beside the runs' own, folders in the S3's, that every run may read its inputs from.
    pub input_buckets: Vec<String>,
    /// Folders below which a `file://` workflow may lie.
    pub workflow_dirs: Vec<PathBuf>,
    /// How much is fetched of a run's inputs, in MiB.
    pub max_input_mib: u32,
    /// How long a task that is told to stop has before every process of it is killed.
    pub stop_timeout: Duration,
    /// How long an engine that is told to stop has before its task kills it; shorter than
    /// `stop_timeout`.
    pub stop_grace: Duration,
    /// How often runs are looked after that something went wrong with.
    pub reconcile_interval: Duration,
    /// How long a run may be without a sign of life before it is looked after.
    pub reconcile_grace: Duration,
    /// What DRS servers are shown.
    pub drs_tokens: DrsTokens,
    /// How many days runs that have ended are kept with their files, and why requests were refused;
    /// 0 for ever.
    pub retention_days: u32,
    /// Where runs may put their outputs: buckets of the embedded S3.
    pub destinations: Destinations,
    /// How large a request may be, in bytes.
    pub max_request_bytes: u64,
    /// How long one attempt may take.
    pub run_timeout: Duration,
    /// How many attempts a run has.
    pub max_attempts: u32,
    /// Who is told of every state change of a run.
    pub on_state_change: Option<StateChangeReceiver>,
    /// How patiently that is done.
    pub delivery: Delivery,
    /// What goes wrong with the calls of the embedded AWS, for tests; nothing when none.
    pub faults: Option<Arc<dyn FaultPlan>>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::from(".stepwes"),
            host: "127.0.0.1".to_owned(),
            port: 8080,
            public_url: None,
            auth: None,
            admin_group: None,
            engine_path: None,
            engines_path_dirs: Vec::new(),
            engine_defaults: Vec::new(),
            max_engines: None,
            container: "auto".to_owned(),
            sandbox: "auto".to_owned(),
            allowed_hosts: Vec::new(),
            input_buckets: Vec::new(),
            workflow_dirs: Vec::new(),
            max_input_mib: 100 << 10,
            stop_timeout: Duration::from_secs(120),
            stop_grace: Duration::from_secs(20),
            reconcile_interval: Duration::from_secs(15),
            reconcile_grace: Duration::from_secs(10),
            drs_tokens: DrsTokens::default(),
            retention_days: 0,
            destinations: Destinations::default(),
            max_request_bytes: 256 << 20,
            run_timeout: Duration::from_secs(10 * 24 * 3600),
            max_attempts: 3,
            on_state_change: None,
            delivery: Delivery::default(),
            faults: None,
        }
    }
}

/// This machine's own addresses. Whoever may run programs here without saying who they are reaches
/// them anyway.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

impl ServeOptions {
    /// The hosts that requests may name beside the internet's, as the engine task reads them.
    pub(crate) fn hosts(&self) -> String {
        let own: &[&str] = match self.auth {
            Some(Auth::Token) => &[],
            Some(Auth::None) | None => &LOOPBACK,
        };
        let allowed = self.allowed_hosts.iter().map(String::as_str);
        allowed.chain(own.iter().copied()).collect::<Vec<_>>().join(",")
    }

    /// The schemes that a `workflow_url` may have.
    pub(crate) fn schemes(&self) -> Vec<String> {
        let file = (!self.workflow_dirs.is_empty()).then_some("file");
        stepwes_submit::Settings::SCHEMES.into_iter().chain(file).map(str::to_owned).collect()
    }

    /// How the API functions know their callers.
    pub(crate) fn callers(&self) -> Callers {
        match self.auth {
            Some(Auth::Token) => Callers::by_token(self.admin_group.clone()),
            Some(Auth::None) | None => Callers::anonymous(),
        }
    }
}

/// Why a server does not start: what is wrong, then what to do.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The folder cannot be made or written.
    #[error(
        "cannot write to {}: {source}\nUse --dir to name a folder that you may write to",
        dir.display()
    )]
    Dir {
        /// The folder.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder is another user's, and others can read it.
    #[error(
        "{} is another user's and not closed to others, but is to hold credentials\nUse --dir to \
         name a folder of your own",
        dir.display()
    )]
    Exposed {
        /// The folder.
        dir: PathBuf,
    },
    /// Another server uses the folder.
    #[error(
        "another stepwes server{} uses {}\nStop it first, or give this one a folder of its own with --dir",
        pid.as_deref().map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        dir.display()
    )]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The other server's pid, when it is known.
        pid: Option<String>,
    },
    /// The public port cannot be listened on.
    #[error(
        "cannot listen on {host}:{port}: {source}\nUse --port to choose another port, or --port 0 for any"
    )]
    Port {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the operating system said.
        source: io::Error,
    },
    /// The internal port, which living engines know, is taken by another program.
    #[error(
        "cannot listen on the internal port {port}: {source}\nEngines that still run report to this \
         port. Stop the program that took it; or, if you can do without what those engines do, \
         delete {}",
        file.display()
    )]
    InternalPort {
        /// The port.
        port: u16,
        /// The file that it is kept in.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The host is one that others reach, and there is no token by which one of them could be let
    /// in.
    #[error(
        "{host} can be reached by others, and no token says who of them may run programs here\n\
         Make one with `stepwes token create NAME --dir {}`; or listen on 127.0.0.1; or let in \
         whoever reaches it with --auth none",
        dir.display()
    )]
    NoToken {
        /// The host.
        host: String,
        /// The folder.
        dir: PathBuf,
    },
    /// There is no server's folder of that name.
    #[error(
        "{} is no folder of a stepwes server\nUse --dir to name the one that `stepwes serve` uses",
        dir.display()
    )]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The program of the engine task is not there.
    #[error("cannot find the engine task's program {}\nThe programs stepwes-engine and stepwes must lie in the same folder: install both there", path.display())]
    NoEngine {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An option for an engine that there is not.
    #[error("there is no engine {name:?} to pass an option to\nThe engines are {known}")]
    UnknownEngine {
        /// What was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// `public_url` is not a URL.
    #[error(
        "{url:?} is not an http or https URL with a host\nUse --public-url https://wes.example.org"
    )]
    PublicUrl {
        /// What was given.
        url: String,
    },
    /// A file in the folder cannot be used.
    #[error(
        "cannot open {}: {source}\nIt may be damaged, or from another version; move {} away to \
         start afresh",
        file.display(),
        file.display()
    )]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something that should not go wrong.
    #[error("the embedded AWS does not start: {0}")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_allowed_where_callers_need_no_token() {
        let mut options =
            ServeOptions { allowed_hosts: vec!["10.0.0.1".to_owned()], ..ServeOptions::default() };
        assert_eq!(options.hosts(), "10.0.0.1,127.0.0.0/8,::1");
        options.auth = Some(Auth::Token);
        assert_eq!(options.hosts(), "10.0.0.1");
    }

    #[test]
    fn file_urls_are_taken_where_a_folder_is_named() {
        let mut options = ServeOptions::default();
        assert_eq!(options.schemes(), ["http", "https", "s3"]);
        options.workflow_dirs.push(PathBuf::from("/shared"));
        assert_eq!(options.schemes(), ["http", "https", "s3", "file"]);
    }
}
