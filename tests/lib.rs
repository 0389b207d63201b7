//! What the end-to-end suites share: a server under test and clients to it.
