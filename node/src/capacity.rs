//! How much memory this machine has to give to instances, and how much of it is given. Pure: whoever starts and
//! ends instances reports here. Must not know what an instance is.

use std::{fs, io};

/// The account of the node's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    total_bytes: u64,
    given_bytes: u64,
}

/// There is not enough memory left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance of {wanted_bytes} bytes does not fit: {given_bytes} of {total_bytes} bytes are given to others; \
     lower memory_bytes or max_instances, or give the node more memory"
)]
pub struct NoCapacity {
    /// What was asked for.
    pub wanted_bytes: u64,
    /// What others have.
    pub given_bytes: u64,
    /// What there is.
    pub total_bytes: u64,
}

impl Capacity {
    /// An account over so much memory, none of it given.
    pub fn new(total_bytes: u64) -> Self {
        Self { total_bytes, given_bytes: 0 }
    }

    /// Gives memory to an instance.
    ///
    /// # Errors
    /// It would be more than there is; nothing was given.
    pub fn reserve(&mut self, wanted_bytes: u64) -> Result<(), NoCapacity> {
        let given_bytes = self.given_bytes.saturating_add(wanted_bytes);
        if given_bytes > self.total_bytes {
            return Err(NoCapacity {
                wanted_bytes,
                given_bytes: self.given_bytes,
                total_bytes: self.total_bytes,
            });
        }
        self.given_bytes = given_bytes;
        Ok(())
    }

    /// Takes back what an instance was given.
    pub fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.given_bytes, "more memory came back than was given");
        self.given_bytes = self.given_bytes.saturating_sub(bytes);
    }

    /// What there is to give, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What instances were given, in bytes.
    pub fn given_bytes(&self) -> u64 {
        self.given_bytes
    }

    /// What is left to give, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes - self.given_bytes
    }
}

/// The memory of this machine, in bytes.
///
/// # Errors
/// `/proc/meminfo` cannot be read or has no `MemTotal`.
pub fn machine_memory_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    total_of(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no MemTotal in kB"))
}

/// `MemTotal` of `proc_meminfo(5)`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn meminfo_is_in_kilobytes() {
        let text = "MemTotal:        8039088 kB\nMemFree:          100 kB\n";
        assert_eq!(total_of(text), Some(8_039_088 * 1024));
        assert_eq!(total_of("MemFree: 100 kB\n"), None);
        assert!(machine_memory_bytes().expect("this is Linux") > 1 << 20);
    }

    proptest! {
        /// Never more is given than there is, and all of it comes back.
        #[test]
        fn given_and_taken_back(wanted in proptest::collection::vec(0_u64..400, 1..50)) {
            let mut capacity = Capacity::new(1_000);
            let mut given = Vec::new();
            for bytes in wanted {
                let fits = given.iter().sum::<u64>() + bytes <= 1_000;
                prop_assert_eq!(capacity.reserve(bytes).is_ok(), fits);
                if fits { given.push(bytes); }
            }
            given.into_iter().for_each(|bytes| capacity.release(bytes));
            prop_assert_eq!(capacity.free_bytes(), 1_000);
        }
    }
}
