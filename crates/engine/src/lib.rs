//! The engine task: stages a run, executes its workflow engine, uploads logs and outputs.
