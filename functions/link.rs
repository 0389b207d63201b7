//! Build script of every function: a release is linked at a fixed address.
//!
//! Lambda starts a process for each cold start, and a position-independent function spends a tenth
//! of its start on the tens of thousands of addresses, most of them in tables of the SDK, which the
//! loader has to write (`tests/bench/cold_start.py`).

fn main() {
    println!("cargo:rerun-if-changed=../link.rs");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
