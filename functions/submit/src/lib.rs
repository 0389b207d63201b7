//! submit: takes a RunRequest, creates the run exactly once and starts its execution.
