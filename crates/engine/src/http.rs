//! The one way in which this crate makes HTTP clients of its own.

use reqwest::{Client, ClientBuilder};

/// A builder of clients over the same TLS as the AWS SDK's.
pub(crate) fn builder() -> ClientBuilder {
    // Fails only when it was done before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().user_agent(concat!("stepwes/", env!("CARGO_PKG_VERSION")))
}
