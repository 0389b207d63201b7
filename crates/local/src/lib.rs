//! The embedded AWS: what stepwes uses of DynamoDB, S3, Step Functions, Lambda, ECS and STS, on one
//! machine, with the WES API in front of it.
//!
//! [`start`] opens a folder and serves it: the public port has the API (the routers of submit,
//! status and cancel) and the presigned S3 URLs that it hands out; an internal loopback port has
//! every AWS service for the engine tasks, and the functions reach the same within the process.
//! Engine tasks are child processes in sessions of their own. They outlive the server and report to
//! the next one of the same folder; whatever was under way when a server was killed goes on when
//! the next one starts.
//!
//! Of EventBridge, S3's `Object Created` events are embedded: what lands in the runs bucket, by S3 or
//! by hand, is told to submit.
//!
//! Only what stepwes uses is embedded. Anything else is refused, naming operation and field, as is
//! a state machine that would need it.

pub mod arn;
mod aws_error;
mod boot;
mod calls;
mod capacity;
mod credentials;
mod dynamodb;
mod ecs;
mod engines;
mod events;
pub mod faults;
mod folder;
mod functions;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod in_process;
mod installation;
mod lambda;
mod ledger;
mod life;
mod listener;
mod options;
mod patience;
mod process_limits;
mod public;
mod retention;
pub mod s3;
mod server;
pub mod sigv4;
mod state_changes;
mod states;
mod strays;
mod sts;
mod tokens;
mod worker;

pub use calls::{STATE_TRANSITION, Service};
pub use engines::{FoundEngine, find_engines};
pub use installation::{Disk, Installation, Rights, RunningServer};
pub use options::{Auth, ServeError, ServeOptions};
pub use server::{LeftRunning, LeftTask, Server, start, stop_runs};
pub use state_changes::{DEAD_LETTERS, Delivery, NoReceiver, StateChangeReceiver};
pub use tokens::FolderTokens;
