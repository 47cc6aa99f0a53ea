//! Control groups: find the trees of this machine, make a group per container, limit, freeze, kill, measure, remove.
//!
//! libcontainer's own manager is not used: it writes the pid into every v1 tree on the start path (each write can wait
//! 8 ms for RCU), and its freezer sleeps 10 ms at a time. Here a group is made and entered while a sandbox is parked.
//! It must touch nothing but `/neap/<owner>/…` in each tree, and, in v2, the list of delegated controllers above it.
//! Sources: kernel `admin-guide/cgroup-v1/*`, `admin-guide/cgroup-v2.rst`.

mod detect;

pub use detect::detect;

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The directories that one group consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// One v2 directory for everything.
    Unified(PathBuf),
    /// v1 controllers; several may be one directory.
    Split(Split),
}

/// The directories of a group on a machine with v1 controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Controller `memory`.
    pub memory: PathBuf,
    /// Controller `pids`.
    pub pids: PathBuf,
    /// Controller `cpu`.
    pub cpu: PathBuf,
    /// Controller `cpuacct`.
    pub cpuacct: PathBuf,
    /// What stops the processes.
    pub freezer: Freezer,
}

/// What stops the processes of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freezer {
    /// The v1 controller.
    V1(PathBuf),
    /// `cgroup.freeze` of a v2 tree without controllers, as systemd calls it: hybrid. Needs no waiting loop.
    V2(PathBuf),
}

/// What a group used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all processes, in microseconds.
    pub cpu_us: u64,
    /// Memory now.
    pub memory_bytes: u64,
    /// Most memory so far.
    pub memory_peak_bytes: u64,
}

/// How long a quota of CPU lasts; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

impl Group {
    /// The group `name` below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Unified(dir) => Self::Unified(dir.join(name)),
            Self::Split(split) => Self::Split(Split {
                memory: split.memory.join(name),
                pids: split.pids.join(name),
                cpu: split.cpu.join(name),
                cpuacct: split.cpuacct.join(name),
                freezer: match &split.freezer {
                    Freezer::V1(dir) => Freezer::V1(dir.join(name)),
                    Freezer::V2(dir) => Freezer::V2(dir.join(name)),
                },
            }),
        }
    }

    /// Every directory, once.
    pub fn dirs(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> = match self {
            Self::Unified(dir) => vec![dir],
            Self::Split(split) => {
                let (Freezer::V1(freezer) | Freezer::V2(freezer)) = &split.freezer;
                vec![freezer, &split.memory, &split.pids, &split.cpu, &split.cpuacct]
            }
        };
        dirs.sort_unstable();
        dirs.dedup();
        dirs
    }

    /// The directory with `cgroup.procs` of exactly this container, and with the freezer's files.
    fn main_dir(&self) -> &Path {
        match self {
            Self::Unified(dir) => dir,
            Self::Split(split) => match &split.freezer {
                Freezer::V1(dir) | Freezer::V2(dir) => dir,
            },
        }
    }

    /// The directory with the memory controller.
    pub fn memory_dir(&self) -> &Path {
        match self {
            Self::Unified(dir) => dir,
            Self::Split(split) => &split.memory,
        }
    }

    /// True where the v2 files `cgroup.freeze`, `cgroup.events` and `cgroup.kill` exist.
    pub fn has_v2_core(&self) -> bool {
        match self {
            Self::Unified(_) => true,
            Self::Split(split) => matches!(split.freezer, Freezer::V2(_)),
        }
    }

    /// The directory that [`Group::has_v2_core`] speaks of.
    pub fn core_dir(&self) -> &Path {
        self.main_dir()
    }

    /// Makes the directories; parents too.
    pub fn create(&self) -> io::Result<()> {
        for dir in self.dirs() {
            // Another server may be removing the common parent, which it believes to be empty, at this moment.
            let mut attempts = (0..5).map(|_| fs::create_dir_all(dir));
            let last =
                attempts.find(|made| !matches!(made, Err(error) if error.kind() == ErrorKind::NotFound));
            last.unwrap_or(Err(ErrorKind::NotFound.into()))
                .map_err(|error| named(error, "create the cgroup", dir))?;
        }
        Ok(())
    }

    /// In v2, hands the controllers down from the root to this group, so that groups below it can have limits.
    pub fn delegate(&self, root: &Self) -> io::Result<()> {
        let (Self::Unified(dir), Self::Unified(root)) = (self, root) else { return Ok(()) };
        let mut path = root.clone();
        delegate_in(&path)?;
        for part in dir.strip_prefix(root).map_err(io::Error::other)? {
            path.push(part);
            delegate_in(&path)?;
        }
        Ok(())
    }

    /// Limits that hold from the beginning.
    pub fn limit(&self, pids_max: i64, cpu_millis: u32) -> io::Result<()> {
        let quota_us = CPU_PERIOD_US * u64::from(cpu_millis) / 1_000;
        match self {
            Self::Unified(dir) => {
                write(&dir.join("pids.max"), &pids_max.to_string())?;
                write(&dir.join("cpu.max"), &format!("{quota_us} {CPU_PERIOD_US}"))
            }
            Self::Split(split) => {
                write(&split.pids.join("pids.max"), &pids_max.to_string())?;
                write(&split.cpu.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                write(&split.cpu.join("cpu.cfs_quota_us"), &quota_us.to_string())
            }
        }
    }

    /// Puts the calling process in.
    pub fn enter(&self) -> io::Result<()> {
        self.dirs().into_iter().try_for_each(|dir| write(&dir.join("cgroup.procs"), "0"))
    }

    /// What was used so far. A peak counts from the last [`MemoryFiles::begin`] in v1, from the beginning in v2.
    pub fn usage(&self) -> io::Result<Usage> {
        match self {
            Self::Unified(dir) => Ok(Usage {
                cpu_us: field(&read(&dir.join("cpu.stat"))?, "usage_usec").unwrap_or(0),
                memory_bytes: number(&dir.join("memory.current"))?,
                // Since kernel 5.19; older ones have no peak.
                memory_peak_bytes: number(&dir.join("memory.peak"))
                    .or_else(|_| number(&dir.join("memory.current")))?,
            }),
            Self::Split(split) => Ok(Usage {
                cpu_us: number(&split.cpuacct.join("cpuacct.usage"))? / 1_000,
                memory_bytes: number(&split.memory.join("memory.usage_in_bytes"))?,
                memory_peak_bytes: number(&split.memory.join("memory.max_usage_in_bytes"))?,
            }),
        }
    }

    /// How many processes of the group the kernel ended for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = match self {
            Self::Unified(dir) => dir.join("memory.events"),
            Self::Split(split) => split.memory.join("memory.oom_control"),
        };
        read(&file).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    /// The processes in the group.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let text = match read(&self.main_dir().join("cgroup.procs")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends SIGKILL to every process in the group, frozen or not.
    pub fn kill(&self) {
        if self.has_v2_core() && fs::write(self.main_dir().join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in self.processes().unwrap_or_default() {
            // SAFETY: kill takes plain numbers; the pid was read from the group this instant.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        self.thaw();
    }

    /// Lets a frozen group run again; a running one is left alone.
    fn thaw(&self) {
        let (file, text) = match self {
            Self::Split(Split { freezer: Freezer::V1(dir), .. }) => (dir.join("freezer.state"), "THAWED"),
            _ => (self.main_dir().join("cgroup.freeze"), "0"),
        };
        let _ = fs::write(file, text);
    }

    /// Removes the directories; `WouldBlock` while a process is still in one of them.
    pub fn remove(&self) -> io::Result<()> {
        for dir in self.dirs() {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Err(error) => return Err(named(error, "remove the cgroup", dir)),
            }
        }
        Ok(())
    }

    /// The names of the groups below this one.
    pub fn children(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for dir in self.dirs() {
            let entries = match fs::read_dir(dir) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Kills what is left in the groups below this one and removes them. Only for a group that belongs to the caller.
    pub fn clear(&self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        for name in self.children()? {
            let group = self.join(&name);
            loop {
                group.kill();
                match group.remove() {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    result => break result?,
                }
            }
        }
        Ok(())
    }
}

/// The memory files of a group, held open so that they stay in reach where the trees are not mounted.
pub struct MemoryFiles {
    unified: bool,
    dir: std::os::fd::OwnedFd,
}

impl MemoryFiles {
    /// Opens them.
    pub fn open(group: &Group) -> io::Result<Self> {
        let dir = fs::File::open(group.memory_dir())?;
        Ok(Self { unified: matches!(group, Group::Unified(_)), dir: dir.into() })
    }

    /// Sets the limit and begins to count the peak anew.
    pub fn begin(&self, bytes: u64) -> io::Result<()> {
        if self.unified {
            self.write("memory.max", bytes)?;
            // Absent without swap support.
            let _ = self.write("memory.swap.max", 0);
        } else {
            self.write("memory.limit_in_bytes", bytes)?;
            let _ = self.write("memory.memsw.limit_in_bytes", bytes);
            self.write("memory.max_usage_in_bytes", 0)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, value: u64) -> io::Result<()> {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, rustix::fs::Mode::empty())?;
        io::Write::write_all(&mut fs::File::from(file), value.to_string().as_bytes())
    }
}

fn delegate_in(dir: &Path) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let given = read(&file)?;
    for controller in detect::CONTROLLERS {
        if !given.split_whitespace().any(|name| name == controller) {
            write(&file, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

fn named(error: io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| named(error, &format!("write {text:?} to"), path))
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| named(error, "read", path))
}

fn number(path: &Path) -> io::Result<u64> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds {text:?}", path.display())))
}

/// The number behind `name` in a file of `name number` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
