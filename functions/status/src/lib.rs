//! status: every read of the WES API.
