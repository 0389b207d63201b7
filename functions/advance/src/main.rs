//! The function that the state machine asks for a run's next attempt.

use stepwes_advance::{Settings, State, handle};
use stepwes_cloud::{Aws, lambda};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::init_tracing()?;
    let state = State::new(Settings::from_env()?, &Aws::from_env().await?);
    lambda::run_step(|input| Box::pin(handle(&state, input))).await
}
