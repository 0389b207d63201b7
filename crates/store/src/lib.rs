//! The run table in DynamoDB: one conditional transaction a state change.
