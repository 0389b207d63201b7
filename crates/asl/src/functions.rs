//! The functions that Step Functions adds to JSONata, and the ones of JSONata that must not look at
//! the host's clock or dice.
//!
//! Added ([developer guide][guide], "JSONata functions provided by Step Functions"): `$partition`,
//! `$range`, `$hash`, `$random` with a seed, `$uuid`, `$parse`. Removed: `$eval`, which is refused
//! when a machine is loaded.
//!
//! [guide]: https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html

use std::cell::RefCell;
use std::rc::Rc;

use chrono::{DateTime, SecondsFormat, Utc};
use jsonata_core::evaluator::{Context, Evaluator, EvaluatorError};
use jsonata_core::value::JValue;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::random::{self, Random};

/// The most items `$range` gives, as `States.ArrayRange`.
const MAX_RANGE: f64 = 1000.0;

type Answer = Result<JValue, EvaluatorError>;

/// Makes the functions known to `evaluator`; `$now` and `$millis` answer `now`.
pub(crate) fn register(
    evaluator: &mut Evaluator,
    now: DateTime<Utc>,
    random: &Rc<RefCell<Random>>,
) {
    let dice = Rc::clone(random);
    let ids = Rc::clone(random);
    let cards = Rc::clone(random);
    let registered = [
        evaluator.register_fn("partition", partition),
        evaluator.register_fn("range", range),
        evaluator.register_fn("hash", hash),
        evaluator.register_fn("parse", parse),
        evaluator.register_fn("uuid", move |args: &[JValue]| {
            no_arguments("uuid", args)?;
            Ok(JValue::string(ids.borrow_mut().uuid()))
        }),
        evaluator.register_fn_override("random", move |args: &[JValue]| match args {
            [] => Ok(JValue::from_f64(dice.borrow_mut().unit())),
            [JValue::Number(seed)] => Ok(JValue::from_f64(random::seeded(*seed))),
            _ => Err(wrong("$random takes a number as its seed, or nothing")),
        }),
        evaluator.register_fn_override("shuffle", move |args: &[JValue]| {
            let [JValue::Array(items)] = args else {
                return args.first().map_or_else(
                    || Err(wrong("$shuffle takes an array")),
                    |one| {
                        Ok(if one.is_undefined() {
                            JValue::Undefined
                        } else {
                            JValue::array(vec![one.clone()])
                        })
                    },
                );
            };
            let mut items = items.to_vec();
            for last in (1..items.len()).rev() {
                items.swap(last, cards.borrow_mut().below(last + 1));
            }
            Ok(JValue::array(items))
        }),
        evaluator.register_fn_override("millis", move |args: &[JValue]| {
            no_arguments("millis", args)?;
            Ok(JValue::from_i64(now.timestamp_millis()))
        }),
        evaluator.register_fn_override("now", move |args: &[JValue]| time(now, args)),
    ];
    debug_assert!(
        registered.iter().all(Result::is_ok),
        "no name collides with a compiled built-in"
    );
}

fn wrong(message: &str) -> EvaluatorError {
    EvaluatorError::EvaluationError(message.to_owned())
}

fn no_arguments(name: &str, args: &[JValue]) -> Result<(), EvaluatorError> {
    if args.is_empty() { Ok(()) } else { Err(wrong(&format!("${name} takes no arguments"))) }
}

/// `$now([picture [, timezone]])`: the formats of `$fromMillis`, which does the work.
fn time(now: DateTime<Utc>, args: &[JValue]) -> Answer {
    if args.is_empty() {
        return Ok(JValue::string(now.to_rfc3339_opts(SecondsFormat::Millis, true)));
    }
    let mut context = Context::new();
    context.bind("at".to_owned(), JValue::from_i64(now.timestamp_millis()));
    context.bind("picture".to_owned(), args.first().cloned().unwrap_or(JValue::Undefined));
    context.bind("zone".to_owned(), args.get(1).cloned().unwrap_or(JValue::Undefined));
    let call = jsonata_core::parser::parse("$fromMillis($at, $picture, $zone)")
        .map_err(|error| wrong(&error.to_string()))?;
    Evaluator::with_context(context).evaluate(&call, &JValue::Undefined)
}

/// `$partition(array, size)`: the array in pieces of `size` items, the last one possibly shorter.
fn partition(args: &[JValue]) -> Answer {
    let [array, size] = args else {
        return Err(wrong("$partition takes an array and a size"));
    };
    if array.is_undefined() {
        return Ok(JValue::Undefined);
    }
    let size = size
        .as_f64()
        .map(f64::trunc)
        .filter(|size| *size >= 1.0)
        .ok_or_else(|| wrong("$partition takes a size of 1 or more"))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 1; saturates"
    )]
    let size = size as usize;
    let pieces = match array.as_array() {
        Some(items) => items.chunks(size).map(|piece| JValue::array(piece.to_vec())).collect(),
        None => vec![JValue::array(vec![array.clone()])],
    };
    Ok(JValue::array(pieces))
}

/// `$range(first, last, step)`: both ends included.
fn range(args: &[JValue]) -> Answer {
    let [Some(first), Some(last), Some(step)] =
        [0, 1, 2].map(|index| args.get(index).and_then(JValue::as_f64))
    else {
        return Err(wrong("$range takes three numbers: first, last, step"));
    };
    let (first, last, step) = (first.trunc(), last.trunc(), step.trunc());
    if step == 0.0 {
        return Err(wrong("$range takes a step other than 0"));
    }
    let steps = ((last - first) / step).floor();
    if steps < 0.0 {
        return Ok(JValue::array(Vec::new()));
    }
    if steps >= MAX_RANGE {
        return Err(wrong("$range gives at most 1000 items"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 999")]
    let steps = steps as u32;
    let items = (0..=steps).map(|n| JValue::from_f64(first + f64::from(n) * step)).collect();
    Ok(JValue::array(items))
}

/// `$hash(text, algorithm)`: the digest as lower-case hexadecimal digits.
fn hash(args: &[JValue]) -> Answer {
    let [text, algorithm] = args else {
        return Err(wrong("$hash takes a string and an algorithm"));
    };
    if text.is_undefined() {
        return Ok(JValue::Undefined);
    }
    let (Some(text), Some(algorithm)) = (text.as_str(), algorithm.as_str()) else {
        return Err(wrong("$hash takes a string and the name of an algorithm"));
    };
    Ok(JValue::string(match algorithm {
        "MD5" => hex::encode(Md5::digest(text)),
        "SHA-1" => hex::encode(Sha1::digest(text)),
        "SHA-256" => hex::encode(Sha256::digest(text)),
        "SHA-384" => hex::encode(Sha384::digest(text)),
        "SHA-512" => hex::encode(Sha512::digest(text)),
        other => {
            return Err(wrong(&format!(
                "$hash knows MD5, SHA-1, SHA-256, SHA-384 and SHA-512, not {other:?}"
            )));
        }
    }))
}

/// `$parse(text)`: the JSON value that `text` says.
fn parse(args: &[JValue]) -> Answer {
    match args {
        [text] if text.is_undefined() => Ok(JValue::Undefined),
        [JValue::String(text)] => JValue::from_json_str(text)
            .map_err(|error| wrong(&format!("$parse was given what is not JSON: {error}"))),
        _ => Err(wrong("$parse takes a string")),
    }
}
