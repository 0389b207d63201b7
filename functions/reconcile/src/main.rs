//! The function that the schedule, and the end of an execution, invoke.

use stepwes_cloud::{Aws, lambda};
use stepwes_reconcile::{Settings, State, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::init_tracing()?;
    let state = State::new(Settings::from_env()?, &Aws::from_env().await?)?;
    lambda::run_step(|event| Box::pin(handle(&state, event))).await
}
