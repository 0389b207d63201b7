//! `workflow_engine_parameters` as command line options: Toil's rules (`sort_options`), held
//! against what the service lets a request decide.

use serde_json::{Map, Value};
use stepwes_core::resources::PREFIX;

/// What becomes of one option of an engine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Passed on; it takes no value.
    Flag,
    /// Passed on with its value.
    Value,
    /// Left out without a word, as Toil does: the service decides it, and clients send it.
    Dropped,
    /// Refused, for this reason.
    Refused(&'static str),
}

/// Turns the parameters into options, in the request's order.
///
/// A key is an option's name (`--debug`), or the option with its value behind `=`. A value is
/// joined with `=`; a flag's value may be null, `""` or `true`, and is left out when `false`.
/// Names are taken exactly: engines that understand abbreviations must not be reached by them.
///
/// # Errors
/// A sentence naming the parameter.
pub(super) fn sort(
    engine: &str,
    rules: &[(&str, Rule)],
    parameters: &Map<String, Value>,
) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    // Ours are the service's to read, and have been.
    for (key, value) in parameters.iter().filter(|(key, _)| !key.starts_with(PREFIX)) {
        let wrong = |what: &str| format!("workflow_engine_parameters: {key:?} {what}");
        if !key.starts_with('-') {
            return Err(wrong("is not an option: options start with -"));
        }
        let (name, value) = match key.split_once('=') {
            Some((name, joined)) => (name, Some(joined.to_owned())),
            None => (key.as_str(), text(value)),
        };
        let Some((_, rule)) = rules.iter().find(|(known, _)| *known == name) else {
            return Err(wrong(&format!(
                "is not an option of {engine} that a request may set; it may set: {}",
                allowed(rules)
            )));
        };
        match (rule, value.as_deref()) {
            (Rule::Dropped, _) | (Rule::Flag, Some("false")) => {}
            (Rule::Refused(reason), _) => return Err(wrong(&format!("is not allowed: {reason}"))),
            (Rule::Flag, None | Some("" | "true")) => options.push(name.to_owned()),
            (Rule::Flag, Some(value)) => {
                return Err(wrong(&format!("takes no value, but is given {value:?}")));
            }
            (Rule::Value, None | Some("")) => return Err(wrong("needs a value")),
            (Rule::Value, Some(value)) if value.contains('\0') => {
                return Err(wrong("must not have a NUL in its value"));
            }
            // A short option's `=` would be a part of the value.
            (Rule::Value, Some(value)) if !name.starts_with("--") => {
                options.push(format!("{name}{value}"));
            }
            (Rule::Value, Some(value)) => options.push(format!("{name}={value}")),
        }
    }
    Ok(options)
}

/// A parameter's value as text; null is none. Requests with other values are not accepted.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn allowed(rules: &[(&str, Rule)]) -> String {
    let names: Vec<_> = rules
        .iter()
        .filter(|(_, rule)| matches!(rule, Rule::Flag | Rule::Value))
        .map(|(name, _)| *name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: [(&str, Rule); 5] = [
        ("--debug", Rule::Flag),
        ("--target", Rule::Value),
        ("-t", Rule::Value),
        ("--outdir", Rule::Dropped),
        ("--cachedir", Rule::Refused("the service keeps the cache")),
    ];

    fn sorted(parameters: Value) -> Result<Vec<String>, String> {
        let Value::Object(map) = parameters else { panic!("an object") };
        sort("anengine", &RULES, &map)
    }

    #[test]
    fn values_are_joined_and_null_is_a_bare_flag() {
        let options = sorted(json!({
            "--target": "a b; $(c)", "--debug": null, "--outdir": "/x", "-t": 7,
        }));
        assert_eq!(
            options,
            Ok(["--target=a b; $(c)", "--debug", "-t7"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn clients_write_flags_and_values_in_many_ways() {
        for (given, options) in [
            (json!({"--debug": ""}), vec!["--debug"]),
            (json!({"--debug": true}), vec!["--debug"]),
            (json!({"--debug": "false"}), vec![]),
            (json!({"--target=a=b": null}), vec!["--target=a=b"]),
            (json!({"--outdir=/x": null}), vec![]),
        ] {
            let expected = options.into_iter().map(str::to_owned).collect();
            assert_eq!(sorted(given.clone()), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_is_for_the_service_is_no_option_of_the_engine() {
        let options = sorted(json!({"stepwes.cpu": 2, "--debug": null, "stepwes.time": "2h"}));
        assert_eq!(options, Ok(vec!["--debug".to_owned()]));
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let told = |parameters| sorted(parameters).expect_err("not allowed");
        insta::assert_snapshot!(
            [
                told(json!({"debug": null})),
                told(json!({"--debugger": null})),
                told(json!({"--cach": "/x"})),
                told(json!({"--cachedir": "/x"})),
                told(json!({"--cachedir=/x": null})),
                told(json!({"--debug": "yes"})),
                told(json!({"--target": null})),
                told(json!({"--target": "a\0b"})),
                told(json!({"-tx": null})),
            ]
            .join("\n"),
            @r#"
        workflow_engine_parameters: "debug" is not an option: options start with -
        workflow_engine_parameters: "--debugger" is not an option of anengine that a request may set; it may set: --debug, --target, -t
        workflow_engine_parameters: "--cach" is not an option of anengine that a request may set; it may set: --debug, --target, -t
        workflow_engine_parameters: "--cachedir" is not allowed: the service keeps the cache
        workflow_engine_parameters: "--cachedir=/x" is not allowed: the service keeps the cache
        workflow_engine_parameters: "--debug" takes no value, but is given "yes"
        workflow_engine_parameters: "--target" needs a value
        workflow_engine_parameters: "--target" must not have a NUL in its value
        workflow_engine_parameters: "-tx" is not an option of anengine that a request may set; it may set: --debug, --target, -t
        "#
        );
    }
}
