//! JSONata expressions and the JSON templates that hold them: checked when a machine is loaded,
//! parsed once, evaluated with the variables of the moment.

use std::cell::RefCell;
use std::rc::Rc;

use chrono::{DateTime, Utc};
use jsonata_core::ast::AstNode;
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorOptions};
use jsonata_core::parser::{self, Lexer, Token};
use jsonata_core::value::JValue;
use serde_json::{Map, Value};

use crate::functions;
use crate::load::{self, LoadError, Place, type_name};
use crate::random::Random;

/// The reserved variable of Step Functions.
pub(crate) const STATES: &str = "states";

/// An expression that runs longer than this many milliseconds is stopped with an error, so that an
/// endless recursion in a definition cannot hang its host.
const EVALUATION_LIMIT_MS: u64 = 10_000;

/// What of `$states` a field may use besides `input` and `context`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Available {
    /// Nothing more.
    Entry,
    /// `result`: `Output` and `Assign` of a Task, a Parallel or a Map.
    Result,
    /// `errorOutput`: `Output` and `Assign` of a catcher.
    ErrorOutput,
}

impl Available {
    fn has(self, part: &str) -> bool {
        match part {
            "input" | "context" => true,
            "result" => self == Self::Result,
            "errorOutput" => self == Self::ErrorOutput,
            _ => false,
        }
    }
}

/// Why an expression gave no usable value.
#[derive(Debug)]
pub(crate) struct EvaluationError {
    /// The path of the field; absent when no single field is at fault.
    pub(crate) location: Option<String>,
    pub(crate) message: String,
}

/// One `{% … %}`.
#[derive(Debug)]
pub(crate) struct Expression {
    source: String,
    location: String,
    ast: AstNode,
}

impl Expression {
    /// The expression in `text`, or `None` when `text` is an ordinary string.
    pub(crate) fn load(
        place: &Place,
        text: &str,
        available: Available,
    ) -> Result<Option<Self>, LoadError> {
        let source = match (text.strip_prefix("{%"), text.ends_with("%}")) {
            (None, false) => return Ok(None),
            (Some(rest), true) if rest.len() >= 2 => rest[..rest.len() - 2].trim(),
            _ => {
                return Err(place.refuse(format!(
                    "an expression starts with {{% and ends with %}}, without blanks around it, \
                     but this is {text:?}"
                )));
            }
        };
        let ast = parser::parse(source).map_err(|error| {
            place.refuse(format!("{source:?} is not valid JSONata: {}", error.display_message()))
        })?;
        check(place, source, available)?;
        Ok(Some(Self { source: source.to_owned(), location: place.path().to_owned(), ast }))
    }

    fn fail(&self, what: &str) -> EvaluationError {
        EvaluationError {
            location: Some(self.location.clone()),
            message: format!(
                "The JSONata expression '{}' specified for the field '{}' {what}",
                self.source, self.location
            ),
        }
    }
}

/// Refuses what parses but cannot work: `$eval`, and parts of `$states` that this field lacks.
///
/// It looks at tokens, not at the tree, which may be nested deeper than the stack of its caller.
fn check(place: &Place, source: &str, available: Available) -> Result<(), LoadError> {
    let mut lexer = Lexer::new(source.to_owned());
    let mut before = [Token::Eof, Token::Eof];
    loop {
        let token = lexer
            .next_token()
            .map_err(|error| place.refuse(format!("{source:?} is not valid JSONata: {error}")))?;
        match (&before, &token) {
            (_, Token::Eof) => return Ok(()),
            (_, Token::Variable(name)) if name == "eval" => {
                return Err(place.refuse("$eval is not available; use $parse to read JSON"));
            }
            ([Token::Variable(states), Token::Dot], Token::Identifier(part))
                if states == STATES && !available.has(part) =>
            {
                return Err(place.refuse(format!(
                    "$states.{part} is not available here; result is there in Output and Assign \
                     of Task, Parallel and Map, errorOutput in those of a catcher"
                )));
            }
            _ => {}
        }
        let [_, last] = before;
        before = [last, token];
    }
}

/// A JSON value whose strings may be expressions.
#[derive(Debug)]
pub(crate) enum Template {
    Literal(Value),
    Expression(Box<Expression>),
    Array(Vec<Template>),
    Object(Vec<(String, Template)>),
}

impl Template {
    pub(crate) fn load(
        place: &Place,
        value: &Value,
        available: Available,
    ) -> Result<Self, LoadError> {
        Ok(match value {
            Value::String(text) => match Expression::load(place, text, available)? {
                Some(expression) => Self::Expression(Box::new(expression)),
                None => Self::Literal(value.clone()),
            },
            Value::Array(items) => Self::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| Self::load(&place.item(index), item, available))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(key, field)| {
                        let place = place.field(key);
                        if key.ends_with(".$") {
                            return Err(place.refuse(
                                "a key that ends with .$ belongs to JSONPath mode; \
                                 drop the .$ and write {% … %} in the value",
                            ));
                        }
                        Ok((key.clone(), Self::load(&place, field, available)?))
                    })
                    .collect::<Result<_, _>>()?,
            ),
            other => Self::Literal(other.clone()),
        })
    }

    /// Where the value came from, for messages: the expression and its field.
    fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Expression(expression) => Some(expression),
            _ => None,
        }
    }
}

/// A field that is a whole number, written out or computed.
#[derive(Debug)]
pub(crate) struct Count {
    value: Template,
    location: String,
    range: std::ops::RangeInclusive<u32>,
}

impl Count {
    pub(crate) fn load(
        place: &Place,
        value: &Value,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<Self, LoadError> {
        let template = Template::load(place, value, Available::Entry)?;
        if template.expression().is_none() {
            load::integer(place, value, range.clone())?;
        }
        Ok(Self { value: template, location: place.path().to_owned(), range })
    }

    /// The number, when it is written out.
    pub(crate) fn literal(&self) -> Option<u32> {
        match &self.value {
            Template::Literal(value) => load::whole(value),
            _ => None,
        }
    }
}

/// Everything that an expression of one state can see at one moment.
pub(crate) struct Scope<'a> {
    /// Makes the evaluator once an expression needs it.
    make: Box<dyn Fn() -> Evaluator + 'a>,
    evaluator: Option<Evaluator>,
    random: Rc<RefCell<Random>>,
}

impl<'a> Scope<'a> {
    /// `states` gives the value of `$states`; `variables` come outermost scope first. Neither is
    /// looked at when there is nothing to evaluate, which is the common case.
    pub(crate) fn new(
        states: impl Fn() -> Value + 'a,
        variables: &'a [&'a Map<String, Value>],
        now: DateTime<Utc>,
        random: Random,
    ) -> Self {
        let random = Rc::new(RefCell::new(random));
        let dice = Rc::clone(&random);
        let make = move || {
            let mut context = Context::new();
            for (name, value) in variables.iter().copied().flatten() {
                context.bind(name.clone(), JValue::from(value.clone()));
            }
            context.bind(STATES.to_owned(), JValue::from(states()));
            let options =
                EvaluatorOptions { timeout_ms: Some(EVALUATION_LIMIT_MS), ..Default::default() };
            let mut evaluator = Evaluator::with_options(context, options);
            functions::register(&mut evaluator, now, &dice);
            evaluator
        };
        Self { make: Box::new(make), evaluator: None, random }
    }

    /// The generator as the evaluations left it.
    pub(crate) fn into_random(self) -> Random {
        self.random.borrow().clone()
    }

    pub(crate) fn value(&mut self, template: &Template) -> Result<Value, EvaluationError> {
        Ok(match template {
            Template::Literal(value) => value.clone(),
            Template::Expression(expression) => self.evaluate(expression)?,
            Template::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Template::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(key, field)| Ok((key.clone(), self.value(field)?)))
                    .collect::<Result<_, EvaluationError>>()?,
            ),
        })
    }

    fn evaluate(&mut self, expression: &Expression) -> Result<Value, EvaluationError> {
        let evaluator = self.evaluator.get_or_insert_with(&self.make);
        let value = evaluator.evaluate(&expression.ast, &JValue::Undefined).map_err(|e| {
            expression.fail(&format!("threw an error during evaluation. {}", e.message()))
        })?;
        if value.is_undefined() {
            return Err(expression.fail("returned nothing (undefined)."));
        }
        if has_function(&value) {
            return Err(expression.fail("returned an unsupported result type."));
        }
        serde_json::to_value(&value)
            .map_err(|error| expression.fail(&format!("returned what is not JSON: {error}.")))
    }

    /// The value of `template`, which must be of the JSON type `expected`.
    pub(crate) fn typed(
        &mut self,
        template: &Template,
        expected: &str,
    ) -> Result<Value, EvaluationError> {
        let value = self.value(template)?;
        if type_name(&value) == expected {
            return Ok(value);
        }
        Err(wrong_type(template.expression(), None, expected, &value))
    }

    pub(crate) fn boolean(&mut self, template: &Template) -> Result<bool, EvaluationError> {
        Ok(self.typed(template, "boolean")? == Value::Bool(true))
    }

    pub(crate) fn string(&mut self, template: &Template) -> Result<String, EvaluationError> {
        Ok(match self.typed(template, "string")? {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    pub(crate) fn count(&mut self, count: &Count) -> Result<u32, EvaluationError> {
        let value = self.value(&count.value)?;
        load::whole(&value).filter(|n| count.range.contains(n)).ok_or_else(|| {
            let expected =
                format!("whole number from {} to {}", count.range.start(), count.range.end());
            wrong_type(count.value.expression(), Some(&count.location), &expected, &value)
        })
    }
}

fn wrong_type(
    expression: Option<&Expression>,
    location: Option<&str>,
    expected: &str,
    value: &Value,
) -> EvaluationError {
    let what = format!(
        "returned an unexpected result type. Expected '{expected}', but was '{}' for value: {value}",
        type_name(value)
    );
    match expression {
        Some(expression) => expression.fail(&what),
        None => EvaluationError {
            location: location.map(str::to_owned),
            message: format!("The field {what}"),
        },
    }
}

/// Whether a function is in `value`, which JSON cannot say.
fn has_function(value: &JValue) -> bool {
    match value {
        JValue::Array(items) => items.iter().any(has_function),
        JValue::Object(fields) => fields.values().any(has_function),
        other => other.is_function() || other.is_regex(),
    }
}
