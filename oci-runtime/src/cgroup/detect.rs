//! Which cgroup trees this machine has.
//!
//! Reads `/proc/self/mountinfo` and the v2 root's list of controllers; it must change nothing.

use super::{Freezer, Group, Split};
use std::path::{Path, PathBuf};

/// The controllers that containers need.
pub const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Why this machine cannot limit containers.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A controller is in no mounted tree.
    #[error(
        "the cgroup controller {0:?} is not available; mount it or enable it in the kernel's command line"
    )]
    Missing(&'static str),
    /// No way to stop processes.
    #[error("neither a cgroup v2 tree nor the v1 freezer is mounted")]
    NoFreezer,
    /// `/proc` is not as it should be.
    #[error("cannot read /proc/self/mountinfo")]
    MountInfo(#[source] std::io::Error),
}

/// One cgroup mount.
#[derive(Debug, PartialEq, Eq)]
struct Tree {
    mount: PathBuf,
    v2: bool,
    /// The options of the super block; in v1 the controllers are among them.
    options: Vec<String>,
}

/// The root group of this machine.
pub fn detect() -> Result<Group, DetectError> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").map_err(DetectError::MountInfo)?;
    choose(&trees(&mountinfo), |mount| {
        std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    })
}

/// The cgroup mounts in a mountinfo file. Source: `proc_pid_mountinfo(5)`.
fn trees(mountinfo: &str) -> Vec<Tree> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let v2 = match right.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let options = right.nth(1)?.split(',').map(str::to_owned).collect();
            // Paths of cgroup mounts have no blanks or other bytes that the kernel escapes.
            Some(Tree { mount: left.split(' ').nth(4)?.into(), v2, options })
        })
        .collect()
}

fn choose(trees: &[Tree], controllers: impl Fn(&Path) -> String) -> Result<Group, DetectError> {
    let unified = trees.iter().find(|tree| tree.v2);
    if let Some(tree) = unified {
        let offered = controllers(&tree.mount);
        if CONTROLLERS.iter().all(|name| offered.split_whitespace().any(|offer| offer == *name)) {
            return Ok(Group::Unified(tree.mount.clone()));
        }
    }
    let v1 = |name: &'static str| {
        let tree = trees.iter().find(|tree| !tree.v2 && tree.options.iter().any(|option| option == name));
        tree.map(|tree| tree.mount.clone()).ok_or(DetectError::Missing(name))
    };
    let freezer = match unified {
        Some(tree) => Freezer::V2(tree.mount.clone()),
        None => Freezer::V1(v1("freezer").map_err(|_| DetectError::NoFreezer)?),
    };
    Ok(Group::Split(Split {
        memory: v1("memory")?,
        pids: v1("pids")?,
        cpu: v1("cpu")?,
        cpuacct: v1("cpuacct")?,
        freezer,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
    const BARE_V2: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn chosen(mountinfo: &str, controllers: &str) -> Result<Group, DetectError> {
        choose(&trees(mountinfo), |_| controllers.into())
    }

    #[test]
    fn v1_hybrid_and_v2() {
        let Ok(Group::Split(v1)) = chosen(HYBRID, "") else { panic!("v1 not found") };
        assert_eq!(v1.freezer, Freezer::V1("/sys/fs/cgroup/freezer".into()));
        assert_eq!(v1.cpu, v1.cpuacct);
        let Ok(Group::Split(hybrid)) = chosen(&format!("{HYBRID}{BARE_V2}"), "hugetlb") else {
            panic!("hybrid not found")
        };
        assert_eq!(hybrid.freezer, Freezer::V2("/sys/fs/cgroup/unified".into()));
        let unified = chosen(&format!("{HYBRID}{BARE_V2}"), "cpuset cpu io memory pids").unwrap();
        assert_eq!(unified, Group::Unified("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn says_what_is_missing() {
        let text = |mountinfo: &str| chosen(mountinfo, "").unwrap_err().to_string();
        assert!(text("").contains("freezer"));
        assert!(text(BARE_V2).contains("\"memory\""));
        let without_pids: String =
            HYBRID.lines().filter(|line| !line.contains("pids")).map(|l| format!("{l}\n")).collect();
        assert!(text(&without_pids).contains("\"pids\""));
    }
}
