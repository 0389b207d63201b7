//! cancel: records CANCELING, then stops the task.
