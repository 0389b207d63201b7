//! Reasons in words, for a run's `system_logs`.

use serde::Deserialize;
use stepwes_cloud::step::quote;

/// What a Lambda function's failure looks like in a cause
/// (<https://docs.aws.amazon.com/lambda/latest/dg/rust-handler.html>, "errorType").
#[derive(Deserialize)]
struct FunctionError {
    #[serde(rename = "errorMessage")]
    message: String,
}

/// Why a step of the state machine failed: by the error's name and, when there is one, the message
/// in its cause.
#[must_use]
pub fn of_step(error: &str, cause: &str) -> String {
    let name = quote(error);
    let what = match error {
        "States.Timeout" | "Sandbox.Timedout" => {
            format!("a step of the service took longer than it may ({name})")
        }
        "Lambda.TooManyRequestsException" => {
            format!("the service's functions were throttled for too long ({name})")
        }
        _ => format!("a step of the service failed ({name})"),
    };
    let message = serde_json::from_str::<FunctionError>(cause)
        .map_or_else(|_| cause.to_owned(), |error| error.message);
    let message = quote(&message);
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("{what}{said}. Submit the run again; if it fails again, tell the operator.")
}

/// That the service gave what a run asked for when it was submitted, and does not any more.
#[must_use]
pub fn of_smaller_service(refusal: &str) -> String {
    format!(
        "the service's bounds were changed since the run was submitted: {refusal}. Submit the run \
         again and ask for less, or tell the operator."
    )
}

/// That an attempt was lost, and what comes of it.
#[must_use]
pub fn of_lost_attempt(attempt: u32, max_attempts: u32, reason: &str) -> String {
    let then = if attempt < max_attempts { "trying again" } else { "no attempt is left" };
    format!("attempt {attempt} of {max_attempts} was lost: {reason}; {then}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_tells_the_functions_message_not_its_json() {
        let cause =
            r#"{"errorMessage":"the run table does not answer","errorType":"Stepwes.Unavailable"}"#;
        assert_eq!(
            of_step("Stepwes.Unavailable", cause),
            "a step of the service failed (Stepwes.Unavailable): the run table does not answer. \
             Submit the run again; if it fails again, tell the operator."
        );
    }

    #[test]
    fn a_reason_needs_no_cause_and_stays_short() {
        let reason = of_step("States.Timeout", "");
        assert!(
            reason.starts_with("a step of the service took longer than it may (States.Timeout). ")
        );
        assert!(of_step(&"E".repeat(9000), &"c".repeat(40_000)).len() < 2000);
    }

    #[test]
    fn a_lost_attempt_says_whether_another_follows() {
        assert!(of_lost_attempt(1, 3, "x").ends_with("trying again"));
        assert!(of_lost_attempt(3, 3, "x").ends_with("no attempt is left"));
    }
}
