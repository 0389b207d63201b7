//! The WES types, the run state table, request validation and the wire formats between the
//! functions. No IO: everything here is a value or a pure function.

pub mod attachment;
pub mod caller_token;
pub mod clock;
pub mod destination;
pub mod drs_tokens;
pub mod endpoint;
pub mod engines;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod keys;
pub mod request;
pub mod request_file;
pub mod resources;
pub mod ro_crate;
pub mod run;
pub mod run_state;
pub mod saved;
pub mod secondary_files;
pub mod state_change;
pub mod step;
pub mod task;
pub mod token;
pub mod trace;
pub mod trigger;
pub mod wes;

pub use clock::{Clock, IdGenerator, RandomIds, SystemClock};
pub use error::ApiError;
pub use run::{Run, RunId};
pub use run_state::{RunEvent, RunState};
pub use trace::TraceParent;
