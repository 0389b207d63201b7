//! The Lambda authorizer of the API.

use stepwes_authorize::{Settings, State, handle};
use stepwes_cloud::{Aws, lambda};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::init_tracing()?;
    let state = State::new(&Aws::from_env().await?, &Settings::from_env()?);
    lambda::run_step(|event| Box::pin(handle(&state, event))).await
}
