//! The frame of the HTTP API: routes, errors, callers, absolute URLs and one log line a request.

mod base_url;
mod caller;
mod error;
mod frame;
pub mod routes;

pub use base_url::{BaseUrl, HasPublicUrl, StagePrefix};
pub use caller::{Caller, Callers, HasCallers, Params};
pub use error::{Behind, HttpError, api_error};
pub use frame::{LoggedRun, REQUEST_ID_HEADER, RequestId, frame};
