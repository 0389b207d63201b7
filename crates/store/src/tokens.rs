//! Callers' tokens: made, looked up by name, listed, revoked.

use aws_sdk_dynamodb::{
    operation::put_item::PutItemError, types::ReturnValuesOnConditionCheckFailure,
};
use chrono::SubsecRound as _;
use stepwes_core::caller_token::TokenName;

use crate::{
    RunStore,
    codec::{decode_token, encode_token, key, number},
    error::StoreError,
    model::StoredToken,
    schema as at,
    write::Tries,
};

const PUT: &str = "PutItem";
const DELETE: &str = "DeleteItem";

impl RunStore {
    /// Keeps a new token. `false` when there is one of its name that has not expired; nothing is
    /// changed then.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item that is there cannot be read.
    pub async fn create_token(&self, token: &StoredToken) -> Result<bool, StoreError> {
        let token = StoredToken {
            created_at: token.created_at.trunc_subsecs(3),
            expires_at: token.expires_at.map(|end| end.trunc_subsecs(0)),
            ..token.clone()
        };
        let mut tries = Tries::of(PUT);
        loop {
            let sent = self
                .client
                .put_item()
                .table_name(&self.table)
                .set_item(Some(encode_token(&token)))
                .condition_expression("attribute_not_exists(#pk) OR #expires_at <= :now")
                .expression_attribute_names("#pk", at::PK)
                .expression_attribute_names("#expires_at", at::EXPIRES_AT)
                .expression_attribute_values(":now", number(self.clock.now().timestamp()))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .send()
                .await;
            let Err(error) = sent else { return Ok(true) };
            if let Some(PutItemError::ConditionalCheckFailedException(failed)) =
                error.as_service_error()
            {
                let existing = match failed.item() {
                    Some(item) => Some(decode_token(item)?),
                    None => self.token(&token.name).await?,
                };
                // The SDK may have sent it twice: what is there is this token if the digest is.
                return Ok(existing.is_some_and(|existing| existing.digest == token.digest));
            }
            tries.failed(StoreError::from_sdk(PUT, error)).await?;
        }
    }

    /// The token of that name, expired or not (strongly consistent); `None` when there is none.
    ///
    /// # Errors
    /// As DynamoDB fails, or when the item cannot be read.
    pub async fn token(&self, name: &TokenName) -> Result<Option<StoredToken>, StoreError> {
        let item = self.item(at::TOKENS_PK.to_owned(), name.as_str()).await?;
        item.as_ref().map(decode_token).transpose()
    }

    /// Every token, by name, also those that have expired and are not removed yet (strongly
    /// consistent).
    ///
    /// # Errors
    /// As DynamoDB fails, or when an item cannot be read.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.partition(at::TOKENS_PK).await?.iter().map(decode_token).collect()
    }

    /// Removes the token of that name. `false` when there was none.
    ///
    /// # Errors
    /// As DynamoDB fails. After a retryable error it may be gone.
    pub async fn revoke_token(&self, name: &TokenName) -> Result<bool, StoreError> {
        // Read before: whether a deletion that was sent again found anything says nothing.
        let pk = at::TOKENS_PK.to_owned();
        if self.item(pk, name.as_str()).await?.is_none() {
            return Ok(false);
        }
        let mut tries = Tries::of(DELETE);
        loop {
            let sent = self
                .client
                .delete_item()
                .table_name(&self.table)
                .set_key(Some(key(at::TOKENS_PK, name.as_str())))
                .send()
                .await;
            match sent {
                Ok(_) => return Ok(true),
                Err(error) => tries.failed(StoreError::from_sdk(DELETE, error)).await?,
            }
        }
    }
}
