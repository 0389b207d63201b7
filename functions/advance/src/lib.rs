//! advance: one transition of one run, for the state machine.
