//! The store through the real SDK, against an embedded DynamoDB on a loopback port.

mod claims;
mod creation;
mod faults;
mod filters;
mod lists;
mod model;
mod queue;
mod races;
mod removal;
mod requests;
mod rules;
mod scale;
mod support;
mod table;
mod tokens;
mod told;
mod transitions;
