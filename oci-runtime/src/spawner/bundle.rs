//! The OCI runtime spec of a container: all namespaces, no capabilities, masked kernel files.
//!
//! Pure. It must leave out cgroups (the sandbox is already in its group) and seccomp (libcontainer would need a C
//! library; the filter is installed by [`super::workload`]).
//! Sources: OCI runtime-spec 1.2 `config-linux.md`; the lists of paths are those of Docker's default.

use crate::protocol::Order;
use neap_sdk::limits;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The spec of `order` with the root at `rootfs` and two namespaces that exist already.
pub fn spec(
    order: &Order,
    rootfs: &Path,
    user_ns: Option<PathBuf>,
    network_ns: PathBuf,
) -> Result<Spec, OciSpecError> {
    SpecBuilder::default()
        .version("1.2.0")
        .hostname(order.name.clone())
        .root(RootBuilder::default().path(rootfs).readonly(false).build()?)
        .process(process(order)?)
        .mounts(mounts()?)
        .linux(linux(user_ns, network_ns)?)
        .build()
}

/// With a `HOME`, as other runtimes set it: many tools do not start without one.
fn environment(order: &Order) -> Vec<String> {
    let mut env = order.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = if order.user.home.is_empty() { "/" } else { &order.user.home };
        env.push(format!("HOME={home}"));
    }
    env
}

fn process(order: &Order) -> Result<Process, OciSpecError> {
    let none = HashSet::new;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none())
        .effective(none())
        .inheritable(none())
        .permitted(none())
        .ambient(none())
        .build()?;
    let user = UserBuilder::default()
        .uid(order.user.uid)
        .gid(order.user.gid)
        .additional_gids(order.user.groups.clone())
        .umask(0o022_u32)
        .build()?;
    ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(order.args.clone())
        .env(environment(order))
        .cwd(&order.working_dir)
        .capabilities(capabilities)
        .no_new_privileges(true)
        .rlimits(rlimits()?)
        .build()
}

fn rlimits() -> Result<Vec<PosixRlimit>, OciSpecError> {
    let limit = |typ, value: u64| PosixRlimitBuilder::default().typ(typ).soft(value).hard(value).build();
    // A hard limit can only go down without a capability that even root may lack.
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    Ok(vec![
        limit(PosixRlimitType::RlimitNofile, hard.min(limits::CONTAINER_OPEN_FILES_MAX))?,
        limit(PosixRlimitType::RlimitCore, 0)?,
    ])
}

fn mounts() -> Result<Vec<Mount>, OciSpecError> {
    let mount = |destination: &str, typ: &str, options: &[&str]| {
        MountBuilder::default()
            .destination(destination)
            .typ(typ)
            .source(typ)
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
    };
    Ok(vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"])?,
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])?,
        // Counts as memory of the container, which bounds it.
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"])?,
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
    ])
}

fn linux(user_ns: Option<PathBuf>, network_ns: PathBuf) -> Result<Linux, OciSpecError> {
    let mut namespaces = Vec::new();
    for typ in [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ] {
        namespaces.push(LinuxNamespaceBuilder::default().typ(typ).build()?);
    }
    let joined = |typ, path: PathBuf| -> Result<LinuxNamespace, OciSpecError> {
        LinuxNamespaceBuilder::default().typ(typ).path(path).build()
    };
    namespaces.push(joined(LinuxNamespaceType::Network, network_ns)?);
    if let Some(path) = user_ns {
        namespaces.push(joined(LinuxNamespaceType::User, path)?);
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(MASKED.map(str::to_owned))
        .readonly_paths(READ_ONLY.map(str::to_owned))
        .build()?;
    // The default would have libcontainer set up the device controller.
    linux.set_resources(None);
    Ok(linux)
}
