//! Tells one boot of the machine from another.

/// The id of the machine's present boot; empty where the kernel does not tell it.
pub(crate) fn id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
