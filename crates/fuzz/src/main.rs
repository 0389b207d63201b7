//! Every property as a target of libFuzzer's: `STEPWES_FUZZ_TARGET` names one. `make fuzz` builds
//! and runs it (`scripts/fuzz`); without a target it prints their names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stepwes_fuzz::Property;

const TARGETS: [&[(&str, Property)]; 7] = [
    stepwes_asl::fuzz::TARGETS,
    stepwes_collect::fuzz::TARGETS,
    stepwes_core::fuzz::TARGETS,
    stepwes_engine::fuzz::TARGETS,
    stepwes_local::fuzz::TARGETS,
    stepwes_status::fuzz::TARGETS,
    stepwes_submit::fuzz::TARGETS,
];

static TARGET: LazyLock<Property> = LazyLock::new(|| {
    let wanted = std::env::var("STEPWES_FUZZ_TARGET").unwrap_or_default();
    let mut targets = TARGETS.into_iter().flatten();
    if let Some((_, property)) = targets.clone().find(|(name, _)| *name == wanted) {
        return *property;
    }
    for (name, _) in targets.by_ref() {
        println!("{name}");
    }
    std::process::exit(i32::from(!wanted.is_empty()));
});

fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| TARGET(input)
);
