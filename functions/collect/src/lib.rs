//! collect: output collection, and the run's terminal state.
