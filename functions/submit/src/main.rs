//! The Lambda function submit.

use stepwes_cloud::{Aws, lambda};
use stepwes_submit::{Settings, State, router};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda::init_tracing()?;
    let state = State::new(&Aws::from_env().await?, Settings::from_env()?);
    lambda::run_api(router(state)).await
}
