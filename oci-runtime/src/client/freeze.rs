//! Stops and continues all processes of a container, without taking part of its memory or state away.
//!
//! v2 tells by an event when the last process has stopped; v1 has to be asked, in short steps.

use super::error::FreezeError;
use crate::cgroup::Group;
use neap_sdk::limits;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;

/// Stops (or continues) every process in `group` and waits until that is so.
pub async fn set(group: &Group, frozen: bool) -> Result<(), FreezeError> {
    let change = async {
        if group.has_v2_core() {
            set_v2(group.core_dir(), frozen).await
        } else {
            set_v1(group.core_dir(), frozen).await
        }
    };
    let longest = Duration::from_millis(limits::CONTAINER_FREEZE_TIMEOUT_MS);
    match tokio::time::timeout(longest, change).await {
        Ok(result) => result.map_err(|error| match error.kind() {
            // The group is gone, or about to go.
            ErrorKind::NotFound => FreezeError::Exited,
            _ if error.raw_os_error() == Some(libc::ENODEV) => FreezeError::Exited,
            _ => FreezeError::Group(error),
        }),
        Err(_) => {
            thaw_now(group);
            Err(FreezeError::Timeout)
        }
    }
}

/// Continues without waiting for it.
pub fn thaw_now(group: &Group) {
    let (file, text) = if group.has_v2_core() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
    let _ = fs::write(group.core_dir().join(file), text);
}

async fn set_v2(dir: &Path, frozen: bool) -> io::Result<()> {
    // Opened and read before the change: the kernel wakes those who have seen the state before.
    let events = super::watch_fd(File::open(dir.join("cgroup.events"))?.into(), Interest::PRIORITY)?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    loop {
        let mut buffer = [0; 256];
        let count = rustix::io::pread(events.get_ref(), &mut buffer, 0)?;
        if String::from_utf8_lossy(&buffer[..count]).lines().any(|line| line == wanted) {
            return Ok(());
        }
        events.ready(Interest::PRIORITY).await?.clear_ready();
    }
}

async fn set_v1(dir: &Path, frozen: bool) -> io::Result<()> {
    let file = dir.join("freezer.state");
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    loop {
        // Written again each time: a process that forks meanwhile can keep the group at FREEZING.
        fs::write(&file, wanted)?;
        if fs::read_to_string(&file)?.trim() == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
