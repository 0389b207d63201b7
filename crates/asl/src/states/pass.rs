//! Pass: hands its input on, or another value.

use serde_json::Value;

use super::{Kind, State, fields, load_exit};
use crate::expression::Available;
use crate::load::{LoadError, Place};

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields = fields(place, value, &["Next", "End", "Output", "Assign"])?;
    Ok(State::plain(Kind::Pass, load_exit(&fields, Available::Entry)?))
}
