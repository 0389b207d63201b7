//! The binary `stepwes-engine`: the container's command in the engine task.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

// One thread: the task waits for the network and for the engine, which needs the cores.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr))
        .with(
            Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("stepwes_engine", LevelFilter::INFO),
        )
        .init();
    let code = stepwes_engine::run().await;
    std::process::exit(code);
}
