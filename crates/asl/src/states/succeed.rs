//! Succeed: ends its flow with a value.

use serde_json::Value;

use super::{Exit, Kind, State, fields};
use crate::assign::load_output;
use crate::expression::Available;
use crate::load::{LoadError, Place};

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields = fields(place, value, &["Output"])?;
    let output = load_output(&fields, Available::Entry)?;
    Ok(State::plain(Kind::Succeed, Exit { output, ..Exit::default() }))
}
