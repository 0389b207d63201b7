//! The function that the state machine asks what became of an attempt.

use stepwes_cloud::{Aws, lambda};
use stepwes_collect::{Settings, State, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::init_tracing()?;
    let state = State::new(Settings::from_env()?, &Aws::from_env().await?);
    lambda::run_step(|input| Box::pin(handle(&state, input))).await
}
