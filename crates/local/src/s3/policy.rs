//! Session policies: the subset of IAM policy documents that the embedded S3 evaluates, and nothing it would have to guess at.
//!
//! Follows the IAM JSON policy reference
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies.html>): an explicit deny
//! wins, then an allow, and without either the answer is no. A document that uses anything else
//! than what is listed at [`Policy::parse`] is refused when it is loaded.

use serde_json::{Map, Value};

/// A parsed session policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// Why a policy document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The document is not JSON.
    #[error("the policy is not valid JSON: {0}")]
    Json(String),
    /// A part of the document is missing, misspelt or not supported.
    #[error("the policy cannot be used, at {at}: {problem}")]
    Unsupported {
        /// Where in the document, such as `Statement[1].Action`.
        at: String,
        /// What is wrong, and what is accepted there.
        problem: String,
    },
}

/// One request, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// The IAM action, such as `s3:GetObject`.
    pub(super) action: &'a str,
    /// The resource's ARN.
    pub(super) resource: &'a str,
    /// The `prefix` parameter of a listing: the condition key `s3:prefix`.
    pub(super) prefix: Option<&'a str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    allow: bool,
    actions: Vec<Pattern>,
    resources: Vec<Pattern>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    PrefixEquals(Vec<String>),
    PrefixLike(Vec<Pattern>),
}

impl Policy {
    /// Reads a policy document: `Version` `2012-10-17`; `Statement` (one, or a list) with `Sid`,
    /// `Effect`, `Action` (`s3:…` with `*` and `?`, or `*`), `Resource` (`arn:aws:s3:::…` with `*`
    /// and `?`, or `*`), and `Condition` with `StringLike` or `StringEquals` on `s3:prefix`.
    ///
    /// `${*}`, `${?}` and `${$}` in a resource or pattern stand for the characters themselves, as
    /// in IAM; other policy variables are refused.
    ///
    /// # Errors
    /// [`PolicyError`] names the first element that is not in this list.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        let value: Value =
            serde_json::from_str(document).map_err(|error| PolicyError::Json(error.to_string()))?;
        let top = object(&value, "the document")?;
        only_keys(top, "the document", &["Version", "Statement"])?;
        match top.get("Version").and_then(Value::as_str) {
            Some("2012-10-17") => {}
            _ => return Err(unsupported("Version", "it must be \"2012-10-17\"")),
        }
        let statements = match top.get("Statement") {
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(index, value)| Statement::parse(value, &format!("Statement[{index}]")))
                .collect::<Result<Vec<_>, _>>()?,
            Some(one @ Value::Object(_)) => vec![Statement::parse(one, "Statement")?],
            _ => {
                return Err(unsupported("Statement", "it must be a statement or a list of them"));
            }
        };
        Ok(Self { statements })
    }

    /// Whether the policy allows the request; what it does not mention is denied.
    pub(super) fn allows(&self, question: Question<'_>) -> bool {
        let mut allowed = false;
        for statement in &self.statements {
            if statement.applies(question) {
                if !statement.allow {
                    return false;
                }
                allowed = true;
            }
        }
        allowed
    }
}

impl Statement {
    fn parse(value: &Value, at: &str) -> Result<Self, PolicyError> {
        let map = object(value, at)?;
        only_keys(map, at, &["Sid", "Effect", "Action", "Resource", "Condition"])?;
        if map.get("Sid").is_some_and(|sid| !sid.is_string()) {
            return Err(unsupported(&format!("{at}.Sid"), "it must be a string"));
        }
        let allow = match map.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => {
                return Err(unsupported(
                    &format!("{at}.Effect"),
                    "it must be \"Allow\" or \"Deny\"",
                ));
            }
        };
        let actions_at = format!("{at}.Action");
        let actions = strings(map.get("Action"), &actions_at)?
            .into_iter()
            .map(|action| {
                // Action names are case-insensitive in IAM.
                let lower = action.to_ascii_lowercase();
                let known_form = lower == "*"
                    || lower.strip_prefix("s3:").is_some_and(|name| {
                        !name.is_empty()
                            && name
                                .bytes()
                                .all(|b| b.is_ascii_alphanumeric() || b == b'*' || b == b'?')
                    });
                if known_form {
                    Pattern::parse(&lower, &actions_at)
                } else {
                    Err(unsupported(
                        &actions_at,
                        &format!("{action:?} is not an action of S3, such as \"s3:GetObject\""),
                    ))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let resources_at = format!("{at}.Resource");
        let resources = strings(map.get("Resource"), &resources_at)?
            .into_iter()
            .map(|resource| {
                if resource == "*" || resource.starts_with("arn:aws:s3:::") {
                    Pattern::parse(resource, &resources_at)
                } else {
                    Err(unsupported(
                        &resources_at,
                        &format!("{resource:?} must be \"*\" or begin with \"arn:aws:s3:::\""),
                    ))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let conditions = match map.get("Condition") {
            None => Vec::new(),
            Some(value) => conditions(value, &format!("{at}.Condition"))?,
        };
        Ok(Self { allow, actions, resources, conditions })
    }

    fn applies(&self, question: Question<'_>) -> bool {
        let action = question.action.to_ascii_lowercase();
        self.actions.iter().any(|p| p.matches(&action))
            && self.resources.iter().any(|p| p.matches(question.resource))
            && self.conditions.iter().all(|c| c.holds(question.prefix))
    }
}

impl Condition {
    /// A condition on a key that the request does not have is false.
    fn holds(&self, prefix: Option<&str>) -> bool {
        let Some(prefix) = prefix else { return false };
        match self {
            Self::PrefixEquals(values) => values.iter().any(|value| value == prefix),
            Self::PrefixLike(patterns) => patterns.iter().any(|p| p.matches(prefix)),
        }
    }
}

fn conditions(value: &Value, at: &str) -> Result<Vec<Condition>, PolicyError> {
    let mut parsed = Vec::new();
    for (operator, keys) in object(value, at)? {
        let at = format!("{at}.{operator}");
        if operator != "StringLike" && operator != "StringEquals" {
            return Err(unsupported(&at, "only StringLike and StringEquals are supported"));
        }
        for (key, values) in object(keys, &at)? {
            let at = format!("{at}.{key}");
            if !key.eq_ignore_ascii_case("s3:prefix") {
                return Err(unsupported(&at, "only the key s3:prefix is supported"));
            }
            let values = strings(Some(values), &at)?;
            parsed.push(if operator == "StringLike" {
                Condition::PrefixLike(
                    values
                        .into_iter()
                        .map(|value| Pattern::parse(value, &at))
                        .collect::<Result<_, _>>()?,
                )
            } else {
                if values.iter().any(|value| value.contains("${")) {
                    return Err(unsupported(&at, "policy variables are not supported"));
                }
                Condition::PrefixEquals(values.into_iter().map(str::to_owned).collect())
            });
        }
    }
    Ok(parsed)
}

/// A string with the wildcards `*` (any run of characters, `/` too) and `?` (one character).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    One(char),
    AnyOne,
    Any,
}

impl Pattern {
    fn parse(text: &str, at: &str) -> Result<Self, PolicyError> {
        let mut pieces = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if rest.starts_with("${") {
                let literal = ['*', '?', '$']
                    .into_iter()
                    .find(|c| rest[2..].starts_with(*c) && rest[3..].starts_with('}'))
                    .ok_or_else(|| {
                        unsupported(
                            at,
                            &format!("{text:?} has a policy variable, which is not supported"),
                        )
                    })?;
                pieces.push(Piece::One(literal));
                rest = &rest[4..];
                continue;
            }
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::AnyOne,
                other => Piece::One(other),
            });
            rest = &rest[c.len_utf8()..];
        }
        Ok(Self(pieces))
    }

    /// Linear in practice: only the last `*` seen is ever tried again.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut piece, mut at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    star = Some((piece, at));
                    piece += 1;
                    continue;
                }
                Some(Piece::AnyOne) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                Some(Piece::One(c)) if *c == text[at] => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let Some((star_piece, star_at)) = star else {
                return false;
            };
            star = Some((star_piece, star_at + 1));
            piece = star_piece + 1;
            at = star_at + 1;
        }
        self.0[piece..].iter().all(|p| *p == Piece::Any)
    }
}

#[cfg(any(test, fuzzing))]
impl Policy {
    /// [`Policy::allows`], every statement looked at, and every way to read a pattern.
    pub(super) fn allows_read_in_another_way(
        &self,
        action: &str,
        resource: &str,
        prefix: Option<&str>,
    ) -> bool {
        let fits = |pattern: &Pattern, text: &str| {
            let text: Vec<char> = text.chars().collect();
            pattern.fits(&text)
        };
        let any = |patterns: &[Pattern], text: &str| patterns.iter().any(|p| fits(p, text));
        let applies = |statement: &&Statement| {
            any(&statement.actions, &action.to_ascii_lowercase())
                && any(&statement.resources, resource)
                && statement.conditions.iter().all(|condition| match (condition, prefix) {
                    (_, None) => false,
                    (Condition::PrefixEquals(values), Some(prefix)) => {
                        values.iter().any(|value| value == prefix)
                    }
                    (Condition::PrefixLike(patterns), Some(prefix)) => any(patterns, prefix),
                })
        };
        let applying: Vec<_> = self.statements.iter().filter(applies).collect();
        !applying.is_empty() && applying.iter().all(|statement| statement.allow)
    }
}

#[cfg(any(test, fuzzing))]
impl Pattern {
    /// Which beginnings of the text the pieces so far can stand for.
    fn fits(&self, text: &[char]) -> bool {
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for piece in &self.0 {
            let before = ends.clone();
            for (at, end) in ends.iter_mut().enumerate() {
                *end = match piece {
                    Piece::Any => before[..=at].contains(&true),
                    Piece::AnyOne => at > 0 && before[at - 1],
                    Piece::One(c) => at > 0 && before[at - 1] && text[at - 1] == *c,
                };
            }
        }
        ends[text.len()]
    }
}

fn unsupported(at: &str, problem: &str) -> PolicyError {
    PolicyError::Unsupported { at: at.to_owned(), problem: problem.to_owned() }
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, PolicyError> {
    value.as_object().ok_or_else(|| unsupported(at, "it must be a JSON object"))
}

fn only_keys(map: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), PolicyError> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(unsupported(
            at,
            &format!("{key:?} is not supported; known are {}", known.join(", ")),
        )),
    }
}

/// A string, or a list of at least one.
fn strings<'a>(value: Option<&'a Value>, at: &str) -> Result<Vec<&'a str>, PolicyError> {
    let wrong = || unsupported(at, "it must be a string or a list of strings, not empty");
    match value {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(list)) if !list.is_empty() => {
            list.iter().map(|value| value.as_str().ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(document: &Value) -> Policy {
        Policy::parse(&document.to_string()).expect("the policy is valid")
    }

    fn refused(document: &Value) -> String {
        Policy::parse(&document.to_string()).expect_err("the policy must be refused").to_string()
    }

    fn asks(policy: &Policy, action: &str, resource: &str) -> bool {
        policy.allows(Question { action, resource, prefix: None })
    }

    fn statement(statement: &Value) -> Value {
        serde_json::json!({"Version": "2012-10-17", "Statement": [statement]})
    }

    #[test]
    fn nothing_is_allowed_unless_a_statement_says_so() {
        let empty = policy(&serde_json::json!({"Version": "2012-10-17", "Statement": []}));
        assert!(!asks(&empty, "s3:GetObject", "arn:aws:s3:::b/k"));
        let read = policy(&statement(&serde_json::json!({
            "Sid": "Read", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/in/*"
        })));
        assert!(asks(&read, "s3:GetObject", "arn:aws:s3:::b/in/a/b"));
        assert!(asks(&read, "s3:getobject", "arn:aws:s3:::b/in/"));
        assert!(!asks(&read, "s3:GetObject", "arn:aws:s3:::b/other/a"));
        assert!(!asks(&read, "s3:GetObject", "arn:aws:s3:::bb/in/a"));
        assert!(!asks(&read, "s3:PutObject", "arn:aws:s3:::b/in/a"));
    }

    #[test]
    fn an_explicit_deny_wins_wherever_it_stands() {
        for order in [[0, 1], [1, 0]] {
            let parts = [
                serde_json::json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}),
                serde_json::json!({"Effect": "Deny", "Action": ["s3:Put*", "s3:Delete?bject"], "Resource": "arn:aws:s3:::b/locked/*"}),
            ];
            let both = policy(&serde_json::json!({
                "Version": "2012-10-17",
                "Statement": [parts[order[0]], parts[order[1]]],
            }));
            assert!(asks(&both, "s3:PutObject", "arn:aws:s3:::b/free"));
            assert!(!asks(&both, "s3:PutObject", "arn:aws:s3:::b/locked/x"));
            assert!(!asks(&both, "s3:DeleteObject", "arn:aws:s3:::b/locked/x"));
            assert!(asks(&both, "s3:GetObject", "arn:aws:s3:::b/locked/x"));
        }
    }

    #[test]
    fn a_listing_can_be_held_to_prefixes() {
        let list = policy(&statement(&serde_json::json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b",
            "Condition": {"StringLike": {"s3:prefix": ["work/1/*", "in/?"]}}
        })));
        let ask = |prefix| {
            list.allows(Question { action: "s3:ListBucket", resource: "arn:aws:s3:::b", prefix })
        };
        assert!(ask(Some("work/1/")));
        assert!(ask(Some("work/1/logs/x")));
        assert!(ask(Some("in/a")));
        assert!(!ask(Some("in/ab")));
        assert!(!ask(Some("work/2/")));
        assert!(!ask(Some("")));
        assert!(!ask(None));
        let exact = policy(&statement(&serde_json::json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*",
            "Condition": {"StringEquals": {"S3:Prefix": "a*"}}
        })));
        assert!(exact.allows(Question {
            action: "s3:ListBucket",
            resource: "arn:aws:s3:::b",
            prefix: Some("a*")
        }));
        assert!(!exact.allows(Question {
            action: "s3:ListBucket",
            resource: "arn:aws:s3:::b",
            prefix: Some("ab")
        }));
    }

    #[test]
    fn all_conditions_of_a_statement_must_hold() {
        let both = policy(&statement(&serde_json::json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*",
            "Condition": {
                "StringLike": {"s3:prefix": "a*"},
                "StringEquals": {"s3:prefix": ["ab", "cd"]},
            }
        })));
        let ask = |prefix| {
            both.allows(Question {
                action: "s3:ListBucket",
                resource: "arn:aws:s3:::b",
                prefix: Some(prefix),
            })
        };
        assert!(ask("ab"));
        assert!(!ask("ac"));
        assert!(!ask("cd"));
    }

    #[test]
    fn escaped_wildcards_are_the_characters_themselves() {
        let star = policy(&statement(&serde_json::json!({
            "Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::b/${*}/${?}/${$}*"
        })));
        assert!(asks(&star, "s3:GetObject", "arn:aws:s3:::b/*/?/$x"));
        assert!(!asks(&star, "s3:GetObject", "arn:aws:s3:::b/a/?/$x"));
        assert!(!asks(&star, "s3:GetObject", "arn:aws:s3:::b/*/b/$x"));
    }

    #[test]
    fn wildcards_match_any_run_and_any_one_character() {
        let cases = [
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("**x", "yx", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("abc", "abcd", false),
            ("a*", "a/b/c", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            let parsed = Pattern::parse(pattern, "test").expect("a pattern");
            assert_eq!(parsed.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn whatever_is_not_evaluated_is_refused_when_the_policy_is_loaded() {
        let good =
            serde_json::json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            statement(&changed)
        };
        let cases = [
            (with("Effect", "Perhaps".into()), "Statement[0].Effect"),
            (with("Principal", "*".into()), "\"Principal\""),
            (with("NotAction", "s3:*".into()), "\"NotAction\""),
            (with("Action", "kms:Decrypt".into()), "kms:Decrypt"),
            (with("Action", "s3:".into()), "Statement[0].Action"),
            (with("Action", serde_json::json!([])), "not empty"),
            (with("Resource", "arn:aws:sns:::x".into()), "arn:aws:s3:::"),
            (with("Resource", "arn:aws:s3:::b/${aws:username}/*".into()), "policy variable"),
            (
                with("Condition", serde_json::json!({"Bool": {"aws:SecureTransport": "true"}})),
                "Condition.Bool",
            ),
            (
                with("Condition", serde_json::json!({"StringLike": {"s3:delimiter": "/"}})),
                "s3:delimiter",
            ),
            (with("Sid", 3.into()), "Sid"),
            (serde_json::json!({"Version": "2008-10-17", "Statement": [good]}), "Version"),
            (serde_json::json!({"Statement": [good]}), "Version"),
            (serde_json::json!({"Version": "2012-10-17"}), "Statement"),
            (
                serde_json::json!({"Version": "2012-10-17", "Id": "x", "Statement": [good]}),
                "\"Id\"",
            ),
            (serde_json::json!([]), "JSON object"),
        ];
        for (document, expected) in cases {
            let message = refused(&document);
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
        assert!(matches!(Policy::parse("{"), Err(PolicyError::Json(_))));
    }
}
