//! The command line: every argument of every command.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use stepwes_local::faults::Seeded;

/// Run workflows through the GA4GH Workflow Execution Service API.
#[derive(Debug, Parser)]
#[command(name = "stepwes", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve WES on this machine
    Serve(ServeArgs),
    /// Run a workflow and wait for its outputs
    Run(Box<RunArgs>),
    /// Submit a workflow and print the run's id
    Submit(SubmitArgs),
    /// List runs, newest first
    List(ListArgs),
    /// Show a run
    Status(StatusArgs),
    /// Print a run's log
    Logs(LogsArgs),
    /// Cancel a run
    Cancel(CancelArgs),
    /// Go on, as a new run, where a run has failed or was stopped
    Resume(ResumeArgs),
    /// Delete runs that have ended, with their files
    Delete(DeleteArgs),
    /// List or download a run's output files
    Outputs(OutputsArgs),
    /// Show how a run's outputs came about, as an RO-Crate, or write it with the run's files
    #[command(name = "ro-crate")]
    RoCrate(RoCrateArgs),
    /// Show what a service is and what it runs
    Info(InfoArgs),
    /// Say who may call a service: make, list and revoke tokens
    Token(TokenArgs),
    /// List the workflow engines of this machine, or install some
    Engines(EnginesArgs),
    /// Say which objects that land in a bucket start which run
    Trigger(TriggerArgs),
    /// Say what is wrong with an installation, here or on AWS, and what to do about it
    Doctor(DoctorArgs),
}

/// Which WES server, and as whom.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server, with or without /ga4gh/wes/v1 [env: STEPWES_URL]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) url: Option<String>,
    /// Send this bearer token [env: STEPWES_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Server", conflicts_with = "user")]
    pub(crate) token: Option<String>,
    /// Send this name and password (basic authentication) [env: STEPWES_USER]
    #[arg(long, value_name = "NAME:PASSWORD", help_heading = "Server")]
    pub(crate) user: Option<String>,
    /// Sign requests with the AWS credentials of the environment, for a deployed stack whose
    /// AuthMode is iam
    #[arg(long, help_heading = "Server", conflicts_with_all = ["token", "user"])]
    pub(crate) aws: bool,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

// The variables are not read by clap: to it, one that is set conflicts with a flag as another flag
// does, and an empty one is set.
impl ServerArgs {
    /// The server's URL: the flag's, else the environment's.
    pub(crate) fn url(&self) -> Option<String> {
        self.url.clone().or_else(|| environment("STEPWES_URL"))
    }
}

/// An environment variable that is set to something.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The embedded server.
#[derive(Clone, Debug, Args)]
pub(crate) struct EmbeddedArgs {
    /// Where the embedded server keeps its runs and files
    #[arg(long, value_name = "DIR", default_value = ".stepwes", help_heading = "Embedded server")]
    pub(crate) dir: PathBuf,
    /// How steps get containers
    #[arg(long, value_enum, default_value_t = Container::Auto, help_heading = "Embedded server")]
    pub(crate) container: Container,
    /// Whether engines run in a sandbox, in which they write their own run's folder alone
    #[arg(long, value_enum, default_value_t = Sandbox::Auto, help_heading = "Embedded server")]
    pub(crate) sandbox: Sandbox,
    /// An option for an engine unless a run says otherwise, such as toil:--maxCores=2; may be given
    /// again
    #[arg(
        long = "engine-default",
        value_name = "ENGINE:OPTION[=VALUE]",
        help_heading = "Embedded server"
    )]
    pub(crate) engine_defaults: Vec<String>,
    /// A bucket of the embedded S3, a folder beside the runs', that a run may have its outputs put
    /// into (stepwes.dest); may be given again
    #[arg(long = "output-bucket", value_name = "BUCKET", help_heading = "Embedded server")]
    pub(crate) output_buckets: Vec<String>,
    /// Put outputs into a folder of the run's id below this, unless the run says otherwise, such as
    /// s3://results/project [default: into the runs' own bucket]
    #[arg(long, value_name = "URL", help_heading = "Embedded server")]
    pub(crate) dest_bucket_base: Option<String>,
    /// How many engines may work at once [default: the number of processors]
    #[arg(long, value_name = "N", help_heading = "Embedded server")]
    pub(crate) max_engines: Option<usize>,
    /// A host that is not the internet's and that runs may name in URLs: a name, *.NAME, an address
    /// or a network; may be given again [default: this machine, unless callers need tokens]
    #[arg(long = "allow-host", value_name = "HOST", help_heading = "Embedded server")]
    pub(crate) allowed_hosts: Vec<String>,
    /// A bucket that runs may read s3:// inputs from: the folder s3/BUCKET of the server's; may be
    /// given again
    #[arg(long = "input-bucket", value_name = "BUCKET", help_heading = "Embedded server")]
    pub(crate) input_buckets: Vec<String>,
    /// A JSON file of DRS servers and the bearer tokens that they want, {"drs.example.org": "TOKEN"}
    #[arg(long, value_name = "FILE", help_heading = "Embedded server")]
    pub(crate) drs_tokens: Option<PathBuf>,
    /// A folder below which the workflow of a run may be a file:// URL; may be given again
    #[arg(long = "workflow-dir", value_name = "DIR", help_heading = "Embedded server")]
    pub(crate) workflow_dirs: Vec<PathBuf>,
    /// How much is fetched of a run's inputs, in MiB
    #[arg(
        long,
        value_name = "N",
        default_value_t = 102_400,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Embedded server"
    )]
    pub(crate) max_input_mib: u32,
}

/// How the steps of a workflow get containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Container {
    /// The first runtime that works; none when there is none
    Auto,
    /// Docker
    Docker,
    /// Podman
    Podman,
    /// Singularity or Apptainer
    Singularity,
    /// No containers: steps run on this machine
    None,
}

impl Container {
    /// The name that the engine task reads.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Singularity => "singularity",
            Self::None => "none",
        }
    }
}

/// Whether engines run in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// In bubblewrap where it works and steps get no containers; without one elsewhere
    Auto,
    /// In bubblewrap, or not at all
    Bwrap,
    /// Without one: a workflow can do what you can
    None,
}

impl Sandbox {
    /// The name that the engine task reads.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bwrap => "bwrap",
            Self::None => "none",
        }
    }
}

/// How callers of `stepwes serve` say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthArg {
    /// By a token of `stepwes token create`
    Token,
    /// Not at all: whoever reaches the server can run programs on this machine
    None,
}

/// `stepwes serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The port to listen on
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// The URL under which callers reach this server, when it is not http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// How callers say who they are [default: not at all on a loopback address, by tokens
    /// elsewhere]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) auth: Option<AuthArg>,
    /// Members of this group see and cancel everybody's runs
    #[arg(long, value_name = "GROUP")]
    pub(crate) admin_group: Option<String>,
    /// Tell every state change of a run to this: an http(s):// URL gets it by POST, anything else
    /// is a shell command that gets it as JSON on its standard input [env: STEPWES_ON_STATE_CHANGE]
    #[arg(long, value_name = "COMMAND|URL")]
    pub(crate) on_state_change: Option<String>,
    /// Remove runs, with all of their files in the folder, this many days after they have ended; 0
    /// keeps them for ever. Outputs in an output bucket stay
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=36_500)
    )]
    pub(crate) retention_days: u32,
    /// Cancel every run that is still going on, wait until it is gone, and end
    #[arg(long)]
    pub(crate) stop_runs: bool,
    /// Let calls of the embedded AWS go wrong, as this seed says (docs/testing.md)
    #[arg(long, value_name = "SEED[:PERCENT][,SERVICE=PERCENT]", hide = true)]
    pub(crate) chaos: Option<Seeded>,
    /// The embedded server's settings.
    #[command(flatten)]
    pub(crate) embedded: EmbeddedArgs,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// What to run.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// The workflow: a file, or an http(s):// or s3:// URL
    pub(crate) workflow: String,
    /// The workflow's inputs: a JSON or YAML file
    pub(crate) inputs: Option<PathBuf>,
    /// Attach a file or folder that the workflow needs; what the workflow and its inputs name is
    /// attached by itself, save what only an expression tells
    #[arg(long, value_name = "PATH")]
    pub(crate) attach: Vec<PathBuf>,
    /// The workflow's type [default: by the file's name]
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) workflow_type: Option<String>,
    /// The version of its type [default: what the workflow says]
    #[arg(long, value_name = "VERSION")]
    pub(crate) type_version: Option<String>,
    /// The engine [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub(crate) engine: Option<String>,
    /// The engine's version
    #[arg(long, value_name = "VERSION", requires = "engine")]
    pub(crate) engine_version: Option<String>,
    /// An option for the engine, such as --debug or --parallel=true, or what the run asks for, such
    /// as stepwes.memory=16GiB; may be given again
    #[arg(long = "engine-option", value_name = "OPTION[=VALUE]", allow_hyphen_values = true)]
    pub(crate) engine_options: Vec<String>,
    /// A tag for the run; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) tag: Vec<String>,
    /// Submitting again with the same key gives the same run
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// `stepwes run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to run.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Where to put the output files
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) outdir: PathBuf,
    /// Leave the output files on the server
    #[arg(long, conflicts_with = "outdir")]
    pub(crate) no_download: bool,
    /// Print the engine's log while it is written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The embedded server, used when no --url is given.
    #[command(flatten)]
    pub(crate) embedded: EmbeddedArgs,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// What to run.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many runs to show at most
    #[arg(short = 'n', long, default_value_t = 20)]
    pub(crate) limit: usize,
    /// List this owner's runs, as a member of the service's admin group
    #[arg(long, value_name = "OWNER")]
    pub(crate) owner: Option<String>,
    /// Only runs in this state; once more for each further state
    #[arg(long, value_name = "STATE", help_heading = "Filters")]
    pub(crate) state: Vec<String>,
    /// Only runs with this tag; once more for each further tag that they must have
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Filters")]
    pub(crate) tag: Vec<String>,
    /// Only runs of this workflow type: CWL, WDL, …
    #[arg(long = "type", value_name = "TYPE", help_heading = "Filters")]
    pub(crate) workflow_type: Option<String>,
    /// Only runs of this engine
    #[arg(long, value_name = "ENGINE", help_heading = "Filters")]
    pub(crate) engine: Option<String>,
    /// Only runs submitted then or later: a time (2026-01-31T12:00:00+01:00), or the beginning of a
    /// day in UTC (2026-01-31)
    #[arg(long, value_name = "TIME", help_heading = "Filters")]
    pub(crate) after: Option<String>,
    /// Only runs submitted before then
    #[arg(long, value_name = "TIME", help_heading = "Filters")]
    pub(crate) before: Option<String>,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The run
    pub(crate) run_id: String,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The run
    pub(crate) run_id: String,
    /// Go on until the run has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The engine's standard output instead of its standard error
    #[arg(long)]
    pub(crate) stdout: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The runs
    #[arg(required = true)]
    pub(crate) run_ids: Vec<String>,
    /// Wait until they have ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run: one that has ended, but not COMPLETE, and whose engine can go on
    pub(crate) run_id: String,
    /// Wait until the new run has ended, and fail if it does
    #[arg(long)]
    pub(crate) wait: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The runs
    #[arg(required = true)]
    pub(crate) run_ids: Vec<String>,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes outputs`.
#[derive(Debug, Args)]
pub(crate) struct OutputsArgs {
    /// The run
    pub(crate) run_id: String,
    /// Download the files into this folder; what is there already is not downloaded again
    #[arg(long, value_name = "DIR", visible_alias = "outdir")]
    pub(crate) download: Option<PathBuf>,
    /// Download the files into this zip archive
    #[arg(long, value_name = "FILE", conflicts_with = "download")]
    pub(crate) zip: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes ro-crate`.
#[derive(Debug, Args)]
pub(crate) struct RoCrateArgs {
    /// The run
    pub(crate) run_id: String,
    /// Write the crate, with the run's files, into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Write the crate, with the run's files, into this zip archive
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub(crate) zip: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// `stepwes token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and show it, once
    Create(TokenCreateArgs),
    /// List the tokens that there are, without their secrets
    List(TokenListArgs),
    /// Remove a token, so that it lets nobody in
    Revoke(TokenRevokeArgs),
}

/// Where a service keeps its tokens.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenPlace {
    /// The folder of `stepwes serve`, whether a server runs there or not [default: .stepwes]
    #[arg(long, value_name = "DIR", help_heading = "Service", conflicts_with = "table")]
    pub(crate) dir: Option<PathBuf>,
    /// The run table of a deployed stack, reached with the AWS credentials of the environment
    #[arg(long, value_name = "TABLE", help_heading = "Service")]
    pub(crate) table: Option<String>,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `stepwes token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The token's name: lower-case letters, digits and hyphens
    pub(crate) name: String,
    /// Whose runs it makes and sees [default: the token's name]
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// A group that its owner is in; may be given again
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// After how many days it lets nobody in any more [default: never]
    #[arg(long, value_name = "N")]
    pub(crate) expires_days: Option<u32>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The service.
    #[command(flatten)]
    pub(crate) place: TokenPlace,
}

/// `stepwes token list`.
#[derive(Debug, Args)]
pub(crate) struct TokenListArgs {
    /// The service.
    #[command(flatten)]
    pub(crate) place: TokenPlace,
}

/// `stepwes token revoke`.
#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArgs {
    /// The token's name
    pub(crate) name: String,
    /// The service.
    #[command(flatten)]
    pub(crate) place: TokenPlace,
}

/// `stepwes engines`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EnginesArgs {
    /// What to do; to list them when nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<EnginesCommand>,
    /// Where to look.
    #[command(flatten)]
    pub(crate) place: EnginesPlace,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// What can be done with engines.
#[derive(Debug, Subcommand)]
pub(crate) enum EnginesCommand {
    /// Install engines in the versions that stepwes is tested with, in Python environments of their
    /// own
    Install(EnginesInstallArgs),
}

/// Where engines of stepwes's own are.
#[derive(Clone, Debug, Args)]
pub(crate) struct EnginesPlace {
    /// The folder of a server that they are for alone [default: for all servers of this user]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `stepwes engines install`.
#[derive(Debug, Args)]
pub(crate) struct EnginesInstallArgs {
    /// The engines
    #[arg(required = true, value_enum, value_name = "ENGINE")]
    pub(crate) engines: Vec<Installable>,
    /// Where to put them.
    #[command(flatten)]
    pub(crate) place: EnginesPlace,
    /// The Python, 3.11 or later, that they are installed for
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// An engine that `stepwes engines install` can install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Installable {
    /// CWL
    Cwltool,
    /// WDL, also without containers
    Miniwdl,
    /// CWL, WDL, and workflows in Python
    Toil,
    /// Snakemake
    Snakemake,
}

/// `stepwes trigger`.
#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TriggerCommand,
}

/// What can be done with triggers.
#[derive(Debug, Subcommand)]
pub(crate) enum TriggerCommand {
    /// Check a trigger's file and put it where the service reads it
    Add(TriggerAddArgs),
    /// List the triggers that there are
    List(TriggerListArgs),
    /// Remove a trigger
    Remove(TriggerRemoveArgs),
    /// Show what an object would start
    Test(TriggerTestArgs),
}

/// Where a service keeps its triggers.
#[derive(Clone, Debug, Args)]
pub(crate) struct TriggerPlace {
    /// The folder of `stepwes serve`, whether a server runs there or not [default: .stepwes]
    #[arg(long, value_name = "DIR", help_heading = "Service", conflicts_with = "bucket")]
    pub(crate) dir: Option<PathBuf>,
    /// The runs bucket of a deployed stack, reached with the AWS credentials of the environment
    #[arg(long, value_name = "BUCKET", help_heading = "Service")]
    pub(crate) bucket: Option<String>,
    /// Print JSON instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `stepwes trigger add`.
#[derive(Debug, Args)]
pub(crate) struct TriggerAddArgs {
    /// The trigger: a YAML or JSON file
    pub(crate) file: PathBuf,
    /// The trigger's name [default: the file's, without its extension]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Put it in the place of the trigger that has its name
    #[arg(long)]
    pub(crate) replace: bool,
    /// The service.
    #[command(flatten)]
    pub(crate) place: TriggerPlace,
}

/// `stepwes trigger list`.
#[derive(Debug, Args)]
pub(crate) struct TriggerListArgs {
    /// The service.
    #[command(flatten)]
    pub(crate) place: TriggerPlace,
}

/// `stepwes trigger remove`.
#[derive(Debug, Args)]
pub(crate) struct TriggerRemoveArgs {
    /// The trigger's name
    pub(crate) name: String,
    /// The service.
    #[command(flatten)]
    pub(crate) place: TriggerPlace,
}

/// `stepwes trigger test`.
#[derive(Debug, Args)]
pub(crate) struct TriggerTestArgs {
    /// The object, there or not: s3://BUCKET/KEY, or a key of the runs bucket
    pub(crate) object: String,
    /// Ask this trigger's file instead of those that there are
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The service.
    #[command(flatten)]
    pub(crate) place: TriggerPlace,
}

/// `stepwes doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at this folder of `stepwes serve`, and at this machine [default: .stepwes, unless a
    /// server or a stack is named]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["stack", "url"])]
    pub(crate) dir: Option<PathBuf>,
    /// The port that `stepwes serve` is to listen on; 0 for any
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// How steps are to get containers
    #[arg(long, value_enum, default_value_t = Container::Auto)]
    pub(crate) container: Container,
    /// Look at this deployed stack, with the AWS credentials of the environment
    #[arg(long, value_name = "NAME")]
    pub(crate) stack: Option<String>,
    /// The server.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
