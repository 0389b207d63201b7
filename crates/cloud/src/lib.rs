//! AWS clients, configuration, tracing and the HTTP frame that the functions share.
