//! Reading fields of a definition so that nothing unknown, missing or of a wrong type gets by.

use serde_json::{Map, Value};
use thiserror::Error;

/// Why a definition was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// The text is not JSON, or an object in it has a key twice.
    #[error("the definition is not valid JSON: {0}")]
    Json(String),
    /// A field is missing, wrong, or not implemented.
    #[error("{}{field}: {problem}", state.as_ref().map(|s| format!("state {s:?}, ")).unwrap_or_default())]
    Refused {
        /// The state it is in; `None` for a field of the machine itself.
        state: Option<String>,
        /// The path of the field in the state (or in the machine), such as `Retry[0]/ErrorEquals`.
        field: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// Where in a definition we are: a state (or the machine itself) and a path in it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    state: Option<String>,
    path: String,
}

impl Place {
    pub(crate) fn machine() -> Self {
        Self { state: None, path: String::new() }
    }

    pub(crate) fn state(name: &str) -> Self {
        Self { state: Some(name.to_owned()), path: String::new() }
    }

    pub(crate) fn field(&self, name: &str) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        };
        Self { state: self.state.clone(), path }
    }

    pub(crate) fn item(&self, index: usize) -> Self {
        Self { state: self.state.clone(), path: format!("{}[{index}]", self.path) }
    }

    /// The path as it is shown in a run-time `Cause`: `Output/list[0]`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn refuse(&self, problem: impl Into<String>) -> LoadError {
        let field = if self.path.is_empty() { "(whole)".to_owned() } else { self.path.clone() };
        LoadError::Refused { state: self.state.clone(), field, problem: problem.into() }
    }
}

/// Fields that exist in JSONPath mode only, with what JSONata mode has in their stead.
const JSONPATH_FIELDS: [(&str, &str); 23] = [
    ("InputPath", "use $states.input in expressions"),
    ("OutputPath", "use Output"),
    ("Parameters", "use Arguments (or ItemSelector in a Map)"),
    ("Result", "use Output"),
    ("ResultPath", "use Output or Assign"),
    ("ResultSelector", "use Output"),
    ("ItemsPath", "use Items"),
    ("Iterator", "use ItemProcessor"),
    ("SecondsPath", "use Seconds with an expression"),
    ("TimestampPath", "use Timestamp with an expression"),
    ("TimeoutSecondsPath", "use TimeoutSeconds with an expression"),
    ("HeartbeatSecondsPath", "use HeartbeatSeconds with an expression"),
    ("MaxConcurrencyPath", "use MaxConcurrency with an expression"),
    ("ToleratedFailureCountPath", "use ToleratedFailureCount with an expression"),
    ("ToleratedFailurePercentagePath", "use ToleratedFailurePercentage with an expression"),
    ("ErrorPath", "use Error with an expression"),
    ("CausePath", "use Cause with an expression"),
    ("Variable", "use Condition"),
    ("And", "use Condition"),
    ("Or", "use Condition"),
    ("Not", "use Condition"),
    ("StringEquals", "use Condition"),
    ("IsPresent", "use Condition"),
];

/// The fields of one object of a definition.
pub(crate) struct Fields<'a> {
    pub(crate) place: Place,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Takes `value` as an object whose fields are among `known`; everything else is refused.
    pub(crate) fn of(place: Place, value: &'a Value, known: &[&str]) -> Result<Self, LoadError> {
        let Value::Object(map) = value else {
            return Err(place.refuse(format!("must be an object, but is {}", type_name(value))));
        };
        for name in map.keys() {
            if !known.contains(&name.as_str()) {
                let place = place.field(name);
                let hint = JSONPATH_FIELDS.iter().find(|(field, _)| field == name);
                return Err(match hint {
                    Some((_, hint)) => place.refuse(format!(
                        "belongs to JSONPath mode, which is not implemented; {hint}"
                    )),
                    None => place.refuse(format!(
                        "is not implemented here; the fields are {}",
                        known.join(", ")
                    )),
                });
            }
        }
        Ok(Self { place, map })
    }

    pub(crate) fn at(&self, name: &str) -> Place {
        self.place.field(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&'a Value, LoadError> {
        self.get(name).ok_or_else(|| self.at(name).refuse("is required"))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, LoadError> {
        self.get(name).map(|value| string(&self.at(name), value)).transpose()
    }

    pub(crate) fn required_string(&self, name: &str) -> Result<&'a str, LoadError> {
        string(&self.at(name), self.required(name)?)
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value {
            Value::Array(items) => Ok(Some(items)),
            other => {
                Err(self.at(name).refuse(format!("must be an array, but is {}", type_name(other))))
            }
        }
    }

    /// A whole number within `range`, when the field is there.
    pub(crate) fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, LoadError> {
        self.get(name).map(|value| integer(&self.at(name), value, range)).transpose()
    }
}

pub(crate) fn string<'a>(place: &Place, value: &'a Value) -> Result<&'a str, LoadError> {
    value
        .as_str()
        .ok_or_else(|| place.refuse(format!("must be a string, but is {}", type_name(value))))
}

pub(crate) fn integer(
    place: &Place,
    value: &Value,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, LoadError> {
    whole(value).filter(|n| range.contains(n)).ok_or_else(|| {
        place.refuse(format!(
            "must be a whole number from {} to {}, but is {value}",
            range.start(),
            range.end()
        ))
    })
}

/// `value` as a whole number that is not negative: `3`, and `3.0` too, as in JSONata.
pub(crate) fn whole(value: &Value) -> Option<u32> {
    let number = value.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    fits.then_some(number as u32)
}

/// The JSON type of `value`, named as JSONata and the Step Functions messages name it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
