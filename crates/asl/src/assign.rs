//! `Output` and `Assign`: what a state hands on and which variables it sets when it is left.

use serde_json::{Map, Value};

use crate::expression::{Available, STATES, Template};
use crate::load::{Fields, LoadError, Place};

/// `Output`, when it is there.
pub(crate) fn load_output(
    fields: &Fields<'_>,
    available: Available,
) -> Result<Option<Template>, LoadError> {
    fields
        .get("Output")
        .map(|value| Template::load(&fields.at("Output"), value, available))
        .transpose()
}

/// `Assign`: the variables that a state sets when it is left.
#[derive(Debug, Default)]
pub(crate) struct Assign(pub(crate) Vec<(String, Template)>);

impl Assign {
    pub(crate) fn load(fields: &Fields<'_>, available: Available) -> Result<Self, LoadError> {
        let Some(value) = fields.get("Assign") else { return Ok(Self::default()) };
        let place = fields.at("Assign");
        let Value::Object(entries) = value else {
            return Err(place.refuse("must be an object of variable names and values"));
        };
        check_names(&place, entries)?;
        Ok(Self(
            entries
                .iter()
                .map(|(name, value)| {
                    Ok((name.clone(), Template::load(&place.field(name), value, available)?))
                })
                .collect::<Result<_, LoadError>>()?,
        ))
    }
}

/// Variable names are Unicode identifiers of at most 80 characters, and not `states`.
fn check_names(place: &Place, entries: &Map<String, Value>) -> Result<(), LoadError> {
    for name in entries.keys() {
        let mut letters = name.chars();
        let identifier = letters.next().is_some_and(char::is_alphabetic)
            && letters.all(|c| c.is_alphanumeric() || c == '_');
        if !identifier || name.chars().count() > 80 {
            return Err(place.field(name).refuse(
                "a variable name starts with a letter, goes on with letters, digits and _, \
                 and has at most 80 characters",
            ));
        }
        if name == STATES {
            return Err(place.field(name).refuse("$states is reserved; use another name"));
        }
    }
    Ok(())
}
