//! The Lambda function submit.

use stepwes_cloud::{Aws, lambda, lambda_events};
use stepwes_submit::{Settings, State, events, router};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda::init_tracing()?;
    let state = State::new(&Aws::from_env().await?, Settings::from_env()?);
    let of_events = |event| Box::pin(events::handle(&state, event));
    lambda_events::run_api_and_events(router(state.clone()), of_events).await
}
