//! What the functions share: AWS clients, settings from the environment, the frame of a Lambda
//! step and the frame of the HTTP API.

pub mod aws;
pub mod ecs;
pub mod env;
pub mod erase;
pub mod executions;
pub mod http;
pub mod invocation;
pub mod lambda;
pub mod lambda_events;
pub mod object_version;
pub mod objects;
pub mod queue;
pub mod sdk;
pub mod step;

pub use aws::{Aws, OnUse};
