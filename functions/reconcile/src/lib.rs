//! reconcile: repairs what was cut off.
