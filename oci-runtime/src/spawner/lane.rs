//! One sandbox: a process that has everything of a container but its image, waits for an order, and becomes it.
//!
//! Forked by the spawner. Parked, it is already in its control group (entering can wait 8 ms for RCU), has its
//! namespaces and a private mount table. With the order it mounts the image and has libcontainer start the first
//! process as a *sibling*, so that the container is the spawner's child and this process can go.
//!
//! All mounts stand in this process's own mount namespace: the host never sees one, and nobody has to unmount them.
//! Its working folder is a tmpfs over `/sys/fs/cgroup`: every user may walk there, unlike through the state folder,
//! and libcontainer, finding no cgroup tree, leaves cgroups alone (its manager is slow, see [`crate::cgroup`]).

use super::namespaces::{self, Namespaces};
use super::seccomp::Filters;
use super::workload::Workload;
use super::{bundle, text};
use crate::cgroup::{Group, MemoryFiles};
use crate::protocol::{self, FromLane, Order, Receiver};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use neap_sdk::limits;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{self as rfs, CWD, Gid, Mode, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a sandbox is made from.
pub struct Lane {
    /// Its end of the socket to the spawner.
    pub socket: OwnedFd,
    /// Its control group, made and limited.
    pub group: Group,
    /// Its first id on the host; `None` without user namespaces.
    pub first_id: Option<u32>,
    /// For the program.
    pub filters: Arc<Filters>,
}

/// See the module's text.
const WORK: &str = "/sys/fs/cgroup";
/// Containers go first when the machine runs out of memory.
const OOM_SCORE_ADJ: &str = "500";
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

impl Lane {
    /// Lives the life of a sandbox; the number is the exit status of its process.
    pub fn run(self) -> i32 {
        let socket = self.socket.as_fd();
        match self.park_and_launch(socket) {
            Ok(()) => 0,
            Err(reason) => {
                let _ = protocol::send(socket, &FromLane::Failed(reason), &[]);
                1
            }
        }
    }

    fn park_and_launch(&self, socket: BorrowedFd<'_>) -> Result<(), String> {
        self.group.enter().map_err(|error| error.to_string())?;
        let memory = MemoryFiles::open(&self.group).map_err(said("open the memory cgroup"))?;
        std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ).map_err(said("set oom_score_adj"))?;
        let namespaces = namespaces::create(self.first_id).map_err(said("make its namespaces"))?;
        prepare_mounts().map_err(said("prepare its mounts"))?;
        protocol::send(socket, &FromLane::Parked, &[namespaces.network.as_fd()])
            .map_err(said("talk to the spawner"))?;

        let order = Receiver::default().receive::<Order>(socket, true).map_err(said("read its order"))?;
        let Some((order, output)) = order else { return Ok(()) };
        mount_image(&order, namespaces.user.as_ref()).map_err(said("mount the image"))?;
        let mut container = self.build(&order, &namespaces, output)?;
        let pid = container.pid().ok_or("libcontainer started no process")?;
        let memory_bytes = order.memory_bytes.max(limits::CONTAINER_MEMORY_BYTES_MIN);
        memory.begin(memory_bytes).map_err(|error| {
            format!("the container's memory cannot be limited to {memory_bytes} bytes: {error}")
        })?;
        protocol::send(socket, &FromLane::Built { pid: pid.as_raw() }, &[])
            .map_err(said("talk to the spawner"))?;
        container.start().map_err(|error| text(&error))
    }

    fn build(
        &self,
        order: &Order,
        namespaces: &Namespaces,
        output: Vec<OwnedFd>,
    ) -> Result<Container, String> {
        let mut output = output.into_iter();
        let (Some(stdout), Some(stderr)) = (output.next(), output.next()) else {
            return Err("the order came without output descriptors".into());
        };
        // So that the program may open /dev/stdout, which is the pipe again.
        let own = |id: u32| self.first_id.unwrap_or(0) + id;
        for pipe in [&stdout, &stderr] {
            let (uid, gid) = (Uid::from_raw(own(order.user.uid)), Gid::from_raw(own(order.user.gid)));
            rfs::fchown(pipe, Some(uid), Some(gid)).map_err(said("hand over the output"))?;
        }
        let stdin = rfs::open("/dev/null", rfs::OFlags::RDONLY | rfs::OFlags::CLOEXEC, Mode::empty())
            .map_err(said("open /dev/null"))?;
        let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let user_ns = namespaces.user.as_ref().map(path);
        let spec = bundle::spec(order, &Path::new(WORK).join("merged"), user_ns, path(&namespaces.network))
            .map_err(|error| text(&error))?;
        let bundle = Path::new(WORK).join("bundle");
        spec.save(bundle.join("config.json")).map_err(|error| text(&error))?;
        ContainerBuilder::new("c".into(), SyscallType::default())
            .with_root_path(Path::new(WORK).join("state"))
            .map_err(|error| text(&error))?
            .with_executor(Workload { filters: self.filters.clone() })
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr)
            .as_init(bundle)
            .with_systemd(false)
            .as_sibling(true)
            .build()
            .map_err(|error| text(&error))
    }
}

fn said<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> String {
    move |error| format!("the sandbox cannot {action}: {}", error.into())
}

/// A mount namespace of its own, with the working folder in it.
fn prepare_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Mounts can be stacked there; a handful is more than any machine has.
    for _ in 0..8 {
        if unmount(WORK, UnmountFlags::DETACH).is_err() {
            break;
        }
    }
    mount("tmpfs", WORK, "tmpfs", FLAGS, c"mode=0755")?;
    ["lower", "upper", "work", "merged", "bundle", "state"]
        .iter()
        .try_for_each(|name| std::fs::create_dir(Path::new(WORK).join(name)))
}

/// Mounts the image at `merged`: an overlay over the flattened image, what the container writes lands in its memory.
fn mount_image(order: &Order, user_ns: Option<&OwnedFd>) -> io::Result<()> {
    // Half of the memory, as the kernel does it for a whole machine: a full disk, not a killed container.
    let size = std::ffi::CString::new(format!("size={}", order.memory_bytes / 2))?;
    mount_remount(WORK, FLAGS, size.as_c_str())?;
    // Relative names: a state folder may hold characters that mean something in mount options.
    std::env::set_current_dir(WORK)?;
    let image = mapped_tree(&order.rootfs, user_ns)?;
    move_mount(&image, "", CWD, "lower", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // The root of an overlay looks like its upper folder.
    let root = rfs::stat("lower")?;
    rfs::chown("upper", Some(Uid::from_raw(root.st_uid)), Some(Gid::from_raw(root.st_gid)))?;
    rfs::chmod("upper", Mode::from_raw_mode(root.st_mode & 0o7777))?;
    let options = c"lowerdir=lower,upperdir=upper,workdir=work";
    Ok(mount("overlay", "merged", "overlay", FLAGS, options)?)
}

/// A detached, read-only copy of the mount at `path`, its owners shifted into `user_ns`.
/// Source: mount_setattr(2), "ID-mapped mounts".
pub fn mapped_tree(path: &Path, user_ns: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let attributes = libc::mount_attr {
        attr_set: read_only | user_ns.map_or(0, |_| libc::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_ns.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: both descriptors are open, the path is an empty C string, and the size is that of the struct behind
    // the pointer, which the call only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
}
