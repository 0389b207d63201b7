//! The binary `stepwes-engine`: the container's command in the engine task.

use stepwes_log::Lines;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

// One thread: the task waits for the network and for the engine, which needs the cores.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        println!("stepwes-engine {}", env!("CARGO_PKG_VERSION"));
        return;
    }
    tracing_subscriber::registry()
        .with(Lines::new(std::io::stderr))
        .with(
            Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("stepwes_engine", LevelFilter::INFO),
        )
        .init();
    let code = stepwes_engine::run().await;
    std::process::exit(code);
}
