//! Fail: ends its flow with an error.

use serde_json::Value;

use super::{Exit, Kind, State, fields};
use crate::execution::{Begun, Here, Run};
use crate::expression::{Available, Template};
use crate::failure::{Failure, Trouble};
use crate::load::{Fields, LoadError, Place, string};

#[derive(Debug)]
pub(crate) struct Fail {
    error: Option<Template>,
    cause: Option<Template>,
}

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields = fields(place, value, &["Error", "Cause"])?;
    let fail = Fail { error: load_text(&fields, "Error")?, cause: load_text(&fields, "Cause")? };
    Ok(State::plain(Kind::Fail(fail), Exit::default()))
}

fn load_text(fields: &Fields<'_>, name: &str) -> Result<Option<Template>, LoadError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    string(&fields.at(name), value)?;
    Template::load(&fields.at(name), value, Available::Entry).map(Some)
}

impl Fail {
    pub(super) fn begin(
        &self,
        run: &mut Run<'_>,
        here: &Here<'_>,
    ) -> Result<Begun<'static>, Trouble> {
        let failure = run.evaluate(here, None, |scope| {
            let mut text =
                |field: &Option<Template>| field.as_ref().map(|t| scope.string(t)).transpose();
            Ok(Failure::new(text(&self.error)?, text(&self.cause)?))
        })?;
        Err(failure.into())
    }
}
