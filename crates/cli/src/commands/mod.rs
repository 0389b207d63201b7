//! One file a command.

pub(crate) mod cancel;
pub(crate) mod delete;
pub(crate) mod engines;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod outputs;
pub(crate) mod resume;
pub(crate) mod ro_crate;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod token;
pub(crate) mod trigger;
