//! An interpreter for the Amazon States Language in JSONata mode, without IO of its own.
//!
//! [`Machine::load`] reads a definition and refuses, naming state and field, whatever is not
//! implemented. [`Execution`] is the whole persistable state of one execution: the host reports
//! events to it (a task ended, time went by, somebody stopped it), calls [`Execution::poll`], stores
//! it, and then carries out the [`Command`]s that came back. Time is passed in and randomness comes
//! from a seed that is part of the execution, so the same events always give the same outcome.
//!
//! What each construct means follows the [Amazon States Language][asl] and the AWS Step Functions
//! developer guide; where those are silent, the behaviour of the service as recorded in public
//! execution histories.
//!
//! ```
//! use chrono::{TimeZone, Utc};
//! use serde_json::json;
//! use stepwes_asl::{Command, Execution, Input, Machine, Status};
//!
//! let machine = Machine::load(
//!     r#"{
//!         "QueryLanguage": "JSONata",
//!         "StartAt": "Add",
//!         "States": {"Add": {
//!             "Type": "Task",
//!             "Resource": "arn:aws:states:::lambda:invoke",
//!             "Arguments": {"n": "{% $states.input.n + 1 %}"},
//!             "Output": "{% $states.result.sum %}",
//!             "End": true
//!         }}
//!     }"#,
//! )?;
//! let now = Utc.with_ymd_and_hms(2025, 1, 1, 0, 0, 0).unwrap();
//! let mut execution = Execution::start(&machine, Input::new("run-1", json!({"n": 1})), now);
//! let commands = execution.poll(&machine, now);
//! let [Command::StartTask { id, arguments, .. }] = commands.as_slice() else { panic!() };
//! assert_eq!(arguments, &json!({"n": 2}));
//! execution.task_succeeded(*id, json!({"sum": 2}), now);
//! execution.poll(&machine, now);
//! assert_eq!(execution.status(), &Status::Succeeded { output: json!(2) });
//! # Ok::<(), stepwes_asl::LoadError>(())
//! ```
//!
//! [asl]: https://states-language.net/spec.html

mod assign;
mod execution;
mod expression;
mod failure;
mod functions;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod history;
mod load;
mod machine;
mod random;
mod retry;
mod states;
mod strict_json;

pub use execution::{Command, Execution, Input, Receipt, RunningTask, Status, TaskId};
pub use history::{Event, EventKind, Payload};
pub use load::LoadError;
pub use machine::Machine;
pub use states::StateType;

/// The most bytes a state's input, output, arguments or result may have as JSON (256 KiB, the
/// payload quota of Step Functions). Beyond it the error is `States.DataLimitExceeded`; a host
/// refuses such an input before it starts an execution, as `StartExecution` does.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The most events an execution may have in its history (a quota of Step Functions); beyond it the
/// execution fails with `States.Runtime`. It is also what ends a loop that never waits.
pub const MAX_EVENTS: u64 = 25_000;
