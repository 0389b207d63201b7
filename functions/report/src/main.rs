//! The function that an engine task reports to.

use stepwes_cloud::{Aws, lambda};
use stepwes_report::{Settings, State, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::init_tracing()?;
    let state = State::new(Settings::from_env()?, &Aws::from_env().await?)?;
    lambda::run_step(|request| Box::pin(handle(&state, request))).await
}
