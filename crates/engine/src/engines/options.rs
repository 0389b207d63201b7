//! `workflow_engine_parameters` as command line options: Toil's rules (`sort_options`), held
//! against what the service lets a request decide.

use serde_json::{Map, Value};
use stepwes_core::resources::PREFIX;

use super::Order;

/// What becomes of one option of an engine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Passed on; it takes no value.
    Flag,
    /// Passed on with its value.
    Value,
    /// Passed on with its values, which blanks separate.
    Values,
    /// Left out without a word, as Toil does: the service decides it, and clients send it.
    Dropped,
    /// Refused, for this reason.
    Refused(&'static str),
}

pub(super) const RUNTIME: Rule = Rule::Refused("the service chooses the container runtime");
pub(super) const PLACES: Rule = Rule::Refused("the service decides where files go");
pub(super) const NO_RUN: Rule = Rule::Refused("a run has to execute the workflow");
pub(super) const ENVIRONMENT: Rule = Rule::Refused("tools do not see the service's environment");
pub(super) const FOREIGN: Rule =
    Rule::Refused("the service decides which code and configuration is loaded");
pub(super) const LISTENER: Rule = Rule::Refused("a run opens no network listener");
pub(super) const ELSEWHERE: Rule = Rule::Refused("a run's jobs run in its own task");
pub(super) const INPUTS: Rule = Rule::Refused("a run's inputs are its workflow_params");
pub(super) const AFRESH: Rule = Rule::Refused("a run starts afresh");

/// An engine's options, by its own help text.
#[derive(Debug)]
pub(super) struct Rules {
    engine: &'static str,
    tables: &'static [&'static [(&'static str, Rule)]],
    others: Others,
    values: Values,
}

/// What becomes of options that no table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// They are refused.
    Refused,
    /// They are passed on, since a workflow may have options of its own; abbreviations of what is
    /// refused are not.
    Passed,
}

/// How an engine is given an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Joined to it, by `=` to a long option.
    Joined,
    /// As the next word.
    Apart,
}

impl Rules {
    /// An engine with this table.
    pub(super) const fn new(
        engine: &'static str,
        table: &'static [&'static [(&'static str, Rule)]],
    ) -> Self {
        Self { engine, tables: table, others: Others::Refused, values: Values::Joined }
    }

    /// The same, whose workflows have options of their own.
    pub(super) const fn with_workflow_options(self) -> Self {
        Self { others: Others::Passed, ..self }
    }

    /// The same, which takes an option's value as the next word.
    pub(super) const fn with_values_apart(self) -> Self {
        Self { values: Values::Apart, ..self }
    }

    fn table(&self) -> impl Iterator<Item = &'static (&'static str, Rule)> + use<> {
        self.tables.iter().copied().flatten()
    }

    fn rule(&self, name: &str) -> Option<Rule> {
        self.table().find(|(known, _)| *known == name).map(|(_, rule)| *rule)
    }

    fn allowed(&self) -> String {
        let names: Vec<_> = self
            .table()
            .filter(|(_, rule)| matches!(rule, Rule::Flag | Rule::Value | Rule::Values))
            .map(|(name, _)| *name)
            .collect();
        names.join(", ")
    }

    /// An option with its value.
    fn valued(&self, name: &str, value: &str) -> Vec<String> {
        match self.values {
            Values::Apart => vec![name.to_owned(), value.to_owned()],
            Values::Joined if name.starts_with("--") => vec![format!("{name}={value}")],
            // A short option's `=` would be a part of the value.
            Values::Joined => vec![format!("{name}{value}")],
        }
    }
}

/// Turns the parameters into options: the operator's, then the request's in its order, which win
/// over the operator's of the same name.
///
/// A key is an option's name (`--debug`), or the option with its value behind `=`. A flag's value
/// may be null, `""` or `true`, and it is left out when `false`. Names are taken exactly: engines
/// that understand abbreviations must not be reached by them. The operator may set what a request
/// may not, save what the service decides in any case.
///
/// # Errors
/// A sentence naming the parameter.
pub(super) fn sort(rules: &Rules, order: &Order<'_>) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    let asked: Vec<_> = order.parameters.iter().map(|(key, value)| split(key, value).0).collect();
    for (key, value) in order.defaults {
        let (name, value) = split(key, value);
        if !asked.contains(&name) {
            options.extend(of_operator(rules, name, value.as_deref()));
        }
    }
    of_request(rules, order.parameters, &mut options)?;
    Ok(options)
}

/// An option of the operator's, as it is.
fn of_operator(rules: &Rules, name: &str, value: Option<&str>) -> Vec<String> {
    match (rules.rule(name), value) {
        (Some(Rule::Dropped), _) | (Some(Rule::Flag), Some("false")) => Vec::new(),
        (Some(Rule::Flag), _) | (_, None | Some("")) => vec![name.to_owned()],
        (Some(Rule::Values), Some(value)) => words(name, value),
        (_, Some(value)) => rules.valued(name, value),
    }
}

fn of_request(
    rules: &Rules,
    parameters: &Map<String, Value>,
    options: &mut Vec<String>,
) -> Result<(), String> {
    // Ours are the service's to read, and have been.
    for (key, value) in parameters.iter().filter(|(key, _)| !key.starts_with(PREFIX)) {
        let wrong = |what: &str| format!("workflow_engine_parameters: {key:?} {what}");
        if !key.starts_with('-') {
            return Err(wrong("is not an option: options start with -"));
        }
        let (name, value) = split(key, value);
        if value.as_ref().is_some_and(|value| value.contains('\0')) || name.contains('\0') {
            return Err(wrong("must not have a NUL in it"));
        }
        let Some(rule) = rules.rule(name) else {
            options
                .extend(of_workflow(rules, name, value.as_deref()).map_err(|what| wrong(&what))?);
            continue;
        };
        match (rule, value.as_deref()) {
            (Rule::Dropped, _) | (Rule::Flag, Some("false")) => {}
            (Rule::Refused(reason), _) => return Err(wrong(&format!("is not allowed: {reason}"))),
            (Rule::Flag, None | Some("" | "true")) => options.push(name.to_owned()),
            (Rule::Flag, Some(value)) => {
                return Err(wrong(&format!("takes no value, but is given {value:?}")));
            }
            (Rule::Value | Rule::Values, None | Some("")) => return Err(wrong("needs a value")),
            // Without one the option would take what comes behind it.
            (Rule::Values, Some(value)) if value.trim().is_empty() => {
                return Err(wrong("needs a value"));
            }
            // It would be the next option.
            (Rule::Value, Some(value))
                if rules.values == Values::Apart && value.starts_with('-') =>
            {
                return Err(wrong("must not have a value that starts with -"));
            }
            (Rule::Value, Some(value)) => options.extend(rules.valued(name, value)),
            (Rule::Values, Some(value)) => {
                if value.split_whitespace().any(|word| word.starts_with('-')) {
                    return Err(wrong("must not have a value that starts with -"));
                }
                options.extend(words(name, value));
            }
        }
    }
    Ok(())
}

/// An option that is none of the engine's.
fn of_workflow(rules: &Rules, name: &str, value: Option<&str>) -> Result<Vec<String>, String> {
    let abbreviated = || {
        rules.table().find(|(known, _)| name.len() > 2 && known.starts_with(name)).map(|(k, _)| k)
    };
    match rules.others {
        Others::Refused => Err(format!(
            "is not an option of {} that a request may set; it may set: {}",
            rules.engine,
            rules.allowed()
        )),
        Others::Passed => match (abbreviated(), value) {
            (Some(known), _) => Err(format!("is short for {known}; options are written in full")),
            // A bare `--` would end the options, a short one could stand for several.
            (None, _) if !name.starts_with("--") || name.len() < 3 => Err(format!(
                "is not an option of {} that a request may set, and a workflow's own start with --",
                rules.engine
            )),
            (None, None | Some("")) => Ok(vec![name.to_owned()]),
            (None, Some(value)) => Ok(vec![format!("{name}={value}")]),
        },
    }
}

/// An option and its values, a word each.
fn words(name: &str, value: &str) -> Vec<String> {
    std::iter::once(name).chain(value.split_whitespace()).map(str::to_owned).collect()
}

/// The option's name, and its value from behind the name or beside it.
fn split<'a>(key: &'a str, value: &Value) -> (&'a str, Option<String>) {
    match key.split_once('=') {
        Some((name, joined)) => (name, Some(joined.to_owned())),
        None => (key, text(value)),
    }
}

/// A parameter's value as text; null is none. Requests with other values are not accepted.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Reads what is passed on for a request as the engine does, and finds nothing in it that the
/// request may not say: whole names alone, as some engines understand abbreviations.
#[cfg(any(test, fuzzing))]
pub(super) fn check(rules: &Rules, parameters: &Map<String, Value>) {
    let mut options = Vec::new();
    if of_request(rules, parameters, &mut options).is_err() {
        return;
    }
    let mut words = options.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        assert!(!word.contains('\0'), "{word:?}");
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value)),
            _ if rules.rule(word).is_none() && !word.starts_with("--") => {
                let at = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
                (&word[..at], Some(&word[at..]))
            }
            _ => (word, None),
        };
        match rules.rule(name) {
            Some(Rule::Flag) => assert_eq!(joined, None, "{word:?}"),
            Some(Rule::Value) if rules.values == Values::Apart => {
                let value = words.next().expect("a value");
                assert!(joined.is_none() && !value.starts_with('-'), "{word:?} {value:?}");
            }
            Some(Rule::Value) => assert!(joined.is_some_and(|value| !value.is_empty()), "{word:?}"),
            Some(Rule::Values) => {
                assert_eq!(joined, None, "{word:?}");
                let values = std::iter::from_fn(|| words.next_if(|word| !word.starts_with('-')));
                assert!(values.count() > 0, "{word:?} takes what comes behind it");
            }
            Some(Rule::Dropped | Rule::Refused(_)) => panic!("{word:?} is not the request's"),
            None => {
                assert!(rules.others == Others::Passed && name.starts_with("--"), "{word:?}");
                let of_engine = rules.table().any(|(known, _)| known.starts_with(name));
                assert!(name.len() > 2 && !of_engine, "{word:?} may be taken for the engine's");
            }
        }
    }
}

/// Holds a table of options against docs/engines.md.
#[cfg(test)]
pub(super) fn assert_documented(table: &[(&str, Rule)]) {
    let documentation = include_str!("../../../../docs/engines.md");
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for (name, rule) in table {
        let title = match rule {
            Rule::Flag | Rule::Value | Rule::Values => "may be set".to_owned(),
            Rule::Dropped => "left out".to_owned(),
            Rule::Refused(reason) => format!("refused: {reason}"),
        };
        let name = format!("`{name}`");
        match rows.iter_mut().find(|(known, _)| *known == title) {
            Some((_, names)) => names.push(name),
            None => rows.push((title, vec![name])),
        }
    }
    for (title, names) in rows {
        let row = format!("| {title} | {} |\n", names.join(", "));
        assert!(documentation.contains(&row), "docs/engines.md lacks this row:\n{row}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    use crate::container::Container;

    const TABLE: [(&str, Rule); 6] = [
        ("--debug", Rule::Flag),
        ("--target", Rule::Value),
        ("-t", Rule::Value),
        ("--set", Rule::Values),
        ("--outdir", Rule::Dropped),
        ("--cachedir", Rule::Refused("the service keeps the cache")),
    ];
    const STRICT: Rules = Rules::new("anengine", &[&TABLE]);
    const OPEN: Rules = Rules::new("anengine", &[&TABLE]).with_workflow_options();
    const APART: Rules = Rules::new("anengine", &[&TABLE]).with_values_apart();

    fn sorted_by(rules: &Rules, defaults: Value, parameters: Value) -> Result<Vec<String>, String> {
        let (Value::Object(defaults), Value::Object(parameters)) = (defaults, parameters) else {
            panic!("objects")
        };
        let here = Path::new("/w");
        let order = Order {
            defaults: &defaults,
            parameters: &parameters,
            workflow: "w",
            fragment: None,
            execution: here,
            outdir: here,
            state: here,
            resumed: false,
            container: Container::None,
            aws: &[],
        };
        sort(rules, &order)
    }

    fn sorted(parameters: Value) -> Result<Vec<String>, String> {
        sorted_by(&STRICT, json!({}), parameters)
    }

    #[test]
    fn values_are_joined_and_null_is_a_bare_flag() {
        let options = sorted(json!({
            "--target": "a b; $(c)", "--debug": null, "--outdir": "/x", "-t": 7, "--set": "a=1 b=2",
        }));
        let expected = ["--target=a b; $(c)", "--debug", "-t7", "--set", "a=1", "b=2"];
        assert_eq!(options, Ok(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn the_operator_s_options_come_first_and_give_way_to_the_request_s() {
        let defaults = json!({"--cachedir": "/cache", "--target": "a", "--debug": null, "--own": 1, "--outdir": "/x"});
        let options = sorted_by(&STRICT, defaults.clone(), json!({"--target=b": null}));
        let expected = ["--cachedir=/cache", "--debug", "--own=1", "--target=b"];
        assert_eq!(options, Ok(expected.map(str::to_owned).to_vec()));
        let options = sorted_by(&STRICT, defaults, json!({"--debug": "false"}));
        assert!(!options.expect("good").contains(&"--debug".to_owned()));
    }

    #[test]
    fn a_workflow_s_own_options_are_passed_on_where_it_has_any() {
        let own = json!({"--who": "a b", "--flag": null, "--cachedir-of-mine": "x"});
        let expected = ["--who=a b", "--flag", "--cachedir-of-mine=x"];
        let options = sorted_by(&OPEN, json!({}), own.clone());
        assert_eq!(options, Ok(expected.map(str::to_owned).to_vec()));
        assert!(sorted(own).is_err());
    }

    #[test]
    fn an_engine_may_want_values_apart() {
        let options = sorted_by(&APART, json!({}), json!({"--target": "a b", "-t": 1}));
        let expected = ["--target", "a b", "-t", "1"];
        assert_eq!(options, Ok(expected.map(str::to_owned).to_vec()));
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
                told(json!({"--set": " "})),
                told(json!({"--target": "a\0b"})),
                told(json!({"-tx": null})),
                told(json!({"--set": "a=1 --cachedir"})),
                sorted_by(&APART, json!({}), json!({"--target": "-x"})).expect_err("an option"),
                sorted_by(&OPEN, json!({}), json!({"--cached": "/x"})).expect_err("short"),
                sorted_by(&OPEN, json!({}), json!({"-x": null})).expect_err("short"),
                sorted_by(&OPEN, json!({}), json!({"--": null})).expect_err("an end"),
            ]
            .join("\n"),
            @r#"
        workflow_engine_parameters: "debug" is not an option: options start with -
        workflow_engine_parameters: "--debugger" is not an option of anengine that a request may set; it may set: --debug, --target, -t, --set
        workflow_engine_parameters: "--cach" is not an option of anengine that a request may set; it may set: --debug, --target, -t, --set
        workflow_engine_parameters: "--cachedir" is not allowed: the service keeps the cache
        workflow_engine_parameters: "--cachedir=/x" is not allowed: the service keeps the cache
        workflow_engine_parameters: "--debug" takes no value, but is given "yes"
        workflow_engine_parameters: "--target" needs a value
        workflow_engine_parameters: "--set" needs a value
        workflow_engine_parameters: "--target" must not have a NUL in it
        workflow_engine_parameters: "-tx" is not an option of anengine that a request may set; it may set: --debug, --target, -t, --set
        workflow_engine_parameters: "--set" must not have a value that starts with -
        workflow_engine_parameters: "--target" must not have a value that starts with -
        workflow_engine_parameters: "--cached" is short for --cachedir; options are written in full
        workflow_engine_parameters: "-x" is not an option of anengine that a request may set, and a workflow's own start with --
        workflow_engine_parameters: "--" is not an option of anengine that a request may set, and a workflow's own start with --
        "#
        );
    }
}
