//! The real binary against a small AWS in this process, with a stub of cwltool.

mod aws;
mod bad;
mod good;
mod lend;
mod real;
mod sandbox;
mod sources;
mod stop;
mod world;
