//! What the machine has, as an ECS container instance registers it.

use std::{io, path::Path};

/// What a machine has for tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// CPU units, 1024 a processor.
    pub(crate) cpu: u32,
    /// MiB of memory.
    pub(crate) memory: u32,
    /// GiB of the disk that the folder is on, taken or not.
    pub(crate) disk: u32,
}

impl Capacity {
    /// Of this machine, with the disk that `dir` is on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let system = rustix::system::sysinfo();
        let memory = system.totalram.saturating_mul(u64::from(system.mem_unit));
        let disk = rustix::fs::statvfs(dir)?;
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Self {
            cpu: number(cores as u64).saturating_mul(1024),
            memory: number(memory >> 20),
            disk: number(disk.f_blocks.saturating_mul(disk.f_frsize) >> 30),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_of_everything() {
        let capacity = Capacity::of(&std::env::temp_dir()).expect("a machine");
        assert!(capacity.cpu >= 1024 && capacity.cpu.is_multiple_of(1024), "{capacity:?}");
        assert!(capacity.memory > 0 && capacity.disk > 0, "{capacity:?}");
    }
}
