//! Choice: goes on as the first rule says whose condition holds.

use serde_json::Value;

use super::{Exit, Kind, State, fields};
use crate::assign::{Assign, load_output};
use crate::execution::{Begun, Here, Leaving, Run};
use crate::expression::{Available, Template};
use crate::failure::{Failure, NO_CHOICE_MATCHED, Trouble};
use crate::load::{Fields, LoadError, Place};

#[derive(Debug)]
pub(crate) struct Choice {
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    condition: Template,
    pub(super) exit: Exit,
}

pub(super) fn load(place: Place, value: &Value) -> Result<State, LoadError> {
    let fields = fields(place, value, &["Choices", "Default", "Output", "Assign"])?;
    let place = fields.at("Choices");
    let rules = fields
        .array("Choices")?
        .ok_or_else(|| place.refuse("is required"))?
        .iter()
        .enumerate()
        .map(|(index, rule)| load_rule(place.item(index), rule))
        .collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() {
        return Err(place.refuse("must have at least one rule"));
    }
    let exit = Exit {
        next: fields.string("Default")?.map(str::to_owned),
        output: load_output(&fields, Available::Entry)?,
        assign: Assign::load(&fields, Available::Entry)?,
    };
    Ok(State::plain(Kind::Choice(Choice { rules }), exit))
}

fn load_rule(place: Place, value: &Value) -> Result<Rule, LoadError> {
    let fields = Fields::of(place, value, &["Condition", "Next", "Output", "Assign", "Comment"])?;
    fields.string("Comment")?;
    let place = fields.at("Condition");
    let condition = Template::load(&place, fields.required("Condition")?, Available::Entry)?;
    if !matches!(condition, Template::Expression(_) | Template::Literal(Value::Bool(_))) {
        return Err(place.refuse("must be an expression {% … %}, or true or false"));
    }
    Ok(Rule {
        condition,
        exit: Exit {
            next: Some(fields.required_string("Next")?.to_owned()),
            output: load_output(&fields, Available::Entry)?,
            assign: Assign::load(&fields, Available::Entry)?,
        },
    })
}

impl Choice {
    pub(super) fn begin<'m>(
        &'m self,
        run: &mut Run<'_>,
        here: &Here<'_>,
        default: &'m Exit,
    ) -> Result<Begun<'m>, Trouble> {
        let matched = run.evaluate(here, None, |scope| {
            for rule in &self.rules {
                if scope.boolean(&rule.condition)? {
                    return Ok(Some(&rule.exit));
                }
            }
            Ok(None)
        })?;
        match matched {
            Some(exit) => Ok(Begun::Leaving(Leaving::unchanged(exit))),
            None if default.next.is_some() => Ok(Begun::Leaving(Leaving::unchanged(default))),
            None => Err(Failure::named(
                NO_CHOICE_MATCHED,
                here.cause("No choice rule matched, and there is no Default."),
            )
            .into()),
        }
    }
}
