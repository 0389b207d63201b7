//! report: what an engine task may tell of its attempt.
