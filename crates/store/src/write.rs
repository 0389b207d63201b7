//! Transactions: how they are put together, sent, and tried again.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};
use stepwes_core::run_state::RunState;
use uuid::Uuid;

use crate::{
    RunStore,
    codec::{Item, key, number},
    error::StoreError,
    schema::{self as at, PK},
};

/// The operation behind every state change, as errors name it.
pub(crate) const TRANSACT: &str = "TransactWriteItems";

/// What became of a transaction that DynamoDB answered.
pub(crate) enum Outcome {
    /// It took effect.
    Done,
    /// A condition did not hold; one entry an item of the transaction, in its order.
    Refused(Vec<Refused>),
    /// Another transaction was at the same items, or they were throttled; nothing took effect.
    Contended,
}

/// What a refused transaction says of one of its items.
pub(crate) struct Refused {
    /// Whether it was this item's condition that did not hold.
    pub(crate) condition: bool,
    /// The item as it is, where there is one and the condition did not hold.
    pub(crate) item: Option<Item>,
}

/// A transaction that can never take effect. Only codes and messages of DynamoDB's answer are
/// kept: it also holds items, and they hold tokens.
#[derive(Debug, thiserror::Error)]
#[error("the transaction was cancelled: {0}")]
pub(crate) struct Cancelled(pub(crate) String);

impl RunStore {
    /// Sends a transaction. The SDK gives it a token that its own retries repeat, so that one
    /// whose answer was lost is not carried out again (`ClientRequestToken`).
    pub(crate) async fn transact(
        &self,
        items: Vec<TransactWriteItem>,
    ) -> Result<Outcome, StoreError> {
        let sent = self.client.transact_write_items().set_transact_items(Some(items)).send().await;
        let Err(error) = sent else {
            return Ok(Outcome::Done);
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        else {
            return Err(StoreError::from_sdk(TRANSACT, error));
        };
        outcome(cancelled.cancellation_reasons())
    }

    /// Writes `item`, where there is none with its key.
    pub(crate) fn put_new(&self, item: Item) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", PK)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// The item on which a condition did not hold, as it is; `None` when the condition held, or
    /// when there is no such item. It comes with the refusal; where it does not, it is read.
    pub(crate) async fn winner(
        &self,
        refused: Option<&Refused>,
        pk: String,
        sk: &str,
    ) -> Result<Option<Item>, StoreError> {
        match refused {
            Some(Refused { condition: true, item: Some(item) }) => Ok(Some(item.clone())),
            Some(Refused { condition: true, item: None }) => self.item(pk, sk).await,
            _ => Ok(None),
        }
    }

    /// Moves one run from a state (none for a new run) to another (none for one that is removed) in
    /// the counts, in a shard taken at random: two transactions at the same shard would be in each
    /// other's way.
    pub(crate) fn count(
        &self,
        from: Option<RunState>,
        to: Option<RunState>,
    ) -> Result<TransactWriteItem, StoreError> {
        let shard = u8::try_from(random_below(u64::from(at::COUNT_SHARDS))).unwrap_or_default();
        let mut update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(key(at::COUNTS_PK, at::counts_sk(shard))));
        let mut added = Vec::new();
        for (state, name, value, change) in [(to, "#to", ":one", 1), (from, "#from", ":less", -1)] {
            let Some(state) = state else { continue };
            added.push(format!("{name} {value}"));
            update = update
                .expression_attribute_names(name, state.as_str())
                .expression_attribute_values(value, number(change));
        }
        let update = update.update_expression(format!("ADD {}", added.join(", ")));
        let update = update.build().map_err(StoreError::from_build(TRANSACT))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// Reads why a transaction was cancelled.
fn outcome(reasons: &[CancellationReason]) -> Result<Outcome, StoreError> {
    let is = |reason: &CancellationReason, code: &str| reason.code() == Some(code);
    if reasons.iter().any(|reason| is(reason, "ConditionalCheckFailed")) {
        let refused = reasons.iter().map(|reason| Refused {
            condition: is(reason, "ConditionalCheckFailed"),
            item: reason.item().filter(|item| !item.is_empty()).cloned(),
        });
        return Ok(Outcome::Refused(refused.collect()));
    }
    let passing = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    if reasons.iter().any(|reason| passing.iter().any(|code| is(reason, code))) {
        return Ok(Outcome::Contended);
    }
    let said: Vec<_> = reasons
        .iter()
        .map(|reason| {
            format!("{}: {}", reason.code().unwrap_or("?"), reason.message().unwrap_or("-"))
        })
        .collect();
    Err(StoreError::Rejected { operation: TRANSACT, source: Cancelled(said.join("; ")).into() })
}

/// What turns `old` into `new`: SET for what changed, REMOVE for what is gone, and nothing else.
pub(crate) struct Difference {
    /// The update expression.
    pub(crate) expression: String,
    /// Its names.
    pub(crate) names: HashMap<String, String>,
    /// Its values.
    pub(crate) values: Item,
}

impl Difference {
    /// Compares two items of the same key.
    pub(crate) fn between(old: &Item, new: &Item) -> Self {
        let mut fields: Vec<_> = old.keys().chain(new.keys()).collect();
        fields.sort_unstable();
        fields.dedup();
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        let (mut names, mut values) = (HashMap::new(), Item::new());
        for field in fields {
            match (old.get(field), new.get(field)) {
                (before, Some(after)) if before != Some(after) => {
                    set.push(format!("#{field} = :{field}"));
                    values.insert(format!(":{field}"), after.clone());
                }
                (Some(_), None) => remove.push(format!("#{field}")),
                _ => continue,
            }
            names.insert(format!("#{field}"), field.clone());
        }
        let clause = |word: &str, parts: &[String]| match parts {
            [] => None,
            parts => Some(format!("{word} {}", parts.join(", "))),
        };
        let clauses = [clause("SET", &set), clause("REMOVE", &remove)];
        let expression = clauses.into_iter().flatten().collect::<Vec<_>>().join(" ");
        Self { expression, names, values }
    }
}

/// How often a call gives way to others before it says so.
const MAX_TRIES: u32 = 25;
/// How often a call goes on after DynamoDB did not answer, on top of the SDK's own retries.
const MAX_UNANSWERED: u32 = 2;
/// The longest first pause; each further one may be twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// One call's patience.
pub(crate) struct Tries {
    operation: &'static str,
    tries: u32,
    pauses: u32,
    first_pause: Duration,
    unanswered: u32,
}

impl Tries {
    /// For a call of `operation`.
    pub(crate) const fn of(operation: &'static str) -> Self {
        Self { operation, tries: 0, pauses: 0, first_pause: FIRST_PAUSE, unanswered: 0 }
    }

    /// After a lost race: the winner is known, so it goes on at once.
    pub(crate) const fn lost(&mut self) -> Result<(), StoreError> {
        self.tries += 1;
        if self.tries < MAX_TRIES {
            Ok(())
        } else {
            Err(StoreError::Contended { operation: self.operation, tries: self.tries })
        }
    }

    /// After a conflict or throttling: it goes on after a pause of random length.
    pub(crate) async fn contended(&mut self) -> Result<(), StoreError> {
        self.lost()?;
        self.pause().await;
        Ok(())
    }

    /// After an error: it goes on after a pause if the error passes.
    pub(crate) async fn failed(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.unanswered += 1;
        if !error.is_retryable() || self.unanswered > MAX_UNANSWERED {
            return Err(error);
        }
        tracing::warn!(operation = self.operation, %error, "trying again");
        self.pause().await;
        Ok(())
    }

    async fn pause(&mut self) {
        let longest = self.first_pause.saturating_mul(1 << self.pauses.min(10)).min(LONGEST_PAUSE);
        self.pauses += 1;
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(random_below(micros))).await;
    }
}

/// A random number below `bound`, for spreading load; the low bits of a version 4 UUID are random.
fn random_below(bound: u64) -> u64 {
    (Uuid::new_v4().as_u64_pair().1 & (u64::MAX >> 8)) % bound.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text;

    fn reason(code: &str) -> CancellationReason {
        CancellationReason::builder().code(code).message("why").build()
    }

    #[test]
    fn a_condition_that_failed_counts_more_than_a_conflict_beside_it() {
        let reasons = [reason("ConditionalCheckFailed"), reason("TransactionConflict")];
        let Ok(Outcome::Refused(refused)) = outcome(&reasons) else { panic!("not refused") };
        assert_eq!(refused.iter().map(|item| item.condition).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn conflicts_and_throttling_are_tried_again_and_the_rest_is_final() {
        for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
            assert!(matches!(outcome(&[reason("None"), reason(code)]), Ok(Outcome::Contended)));
        }
        let Err(error) = outcome(&[reason("None"), reason("ValidationError")]) else {
            panic!("not an error")
        };
        assert!(!error.is_retryable());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(source.is_some_and(|source| source.contains("ValidationError: why")));
    }

    #[test]
    fn only_what_changed_is_written() {
        let old =
            Item::from([("a".into(), text("1")), ("b".into(), text("2")), ("c".into(), text("3"))]);
        let new =
            Item::from([("a".into(), text("1")), ("b".into(), text("x")), ("d".into(), text("4"))]);
        let difference = Difference::between(&old, &new);
        assert_eq!(difference.expression, "SET #b = :b, #d = :d REMOVE #c");
        assert_eq!(difference.names.len(), 3);
        assert_eq!(
            difference.values,
            Item::from([(":b".into(), text("x")), (":d".into(), text("4"))])
        );
    }

    #[tokio::test]
    async fn patience_ends() {
        let of_no_time = || Tries { first_pause: Duration::ZERO, ..Tries::of(TRANSACT) };
        let mut tries = of_no_time();
        let mut given_way = 0;
        let error = loop {
            match tries.contended().await {
                Ok(()) => given_way += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(given_way, MAX_TRIES - 1);
        assert!(error.is_retryable());

        let mut tries = of_no_time();
        let gone = || StoreError::Unavailable { operation: TRANSACT, source: "gone".into() };
        assert!(tries.failed(gone()).await.is_ok());
        assert!(tries.failed(gone()).await.is_ok());
        assert!(tries.failed(gone()).await.is_err());
        let stays = StoreError::Rejected { operation: TRANSACT, source: "no".into() };
        assert!(Tries::of(TRANSACT).failed(stays).await.is_err());
    }
}
