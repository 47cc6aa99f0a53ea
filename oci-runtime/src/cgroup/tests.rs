//! The v2 side, which not every machine has, on a folder that looks like a v2 tree.

use super::*;

#[test]
fn v2_limits_and_usage() {
    let dir = tempfile::tempdir().unwrap();
    let root = Group::Unified(dir.path().to_owned());
    let group = root.join("neap").join("c0");
    group.create().unwrap();
    for part in ["", "neap", "neap/c0"] {
        fs::write(dir.path().join(part).join("cgroup.subtree_control"), "memory").unwrap();
    }
    root.join("neap").delegate(&root).unwrap();
    // A real tree adds to the list; a folder keeps what was written last.
    assert_eq!(read(&dir.path().join("neap/cgroup.subtree_control")).unwrap(), "+pids");

    let file = |name: &str| dir.path().join("neap/c0").join(name);
    group.limit(64, 500).unwrap();
    assert_eq!(read(&file("pids.max")).unwrap(), "64");
    assert_eq!(read(&file("cpu.max")).unwrap(), "50000 100000");
    fs::write(file("memory.max"), "max").unwrap();
    MemoryFiles::open(&group).unwrap().begin(1 << 25).unwrap();
    assert_eq!(read(&file("memory.max")).unwrap(), (1 << 25).to_string());

    fs::write(file("cpu.stat"), "usage_usec 1234\nuser_usec 1000\n").unwrap();
    fs::write(file("memory.current"), "4096\n").unwrap();
    fs::write(file("memory.events"), "low 0\noom 2\noom_kill 1\noom_group_kill 0\n").unwrap();
    let usage = Usage { cpu_us: 1234, memory_bytes: 4096, memory_peak_bytes: 4096 };
    assert_eq!(group.usage().unwrap(), usage);
    fs::write(file("memory.peak"), "8192\n").unwrap();
    assert_eq!(group.usage().unwrap().memory_peak_bytes, 8192);
    assert_eq!(group.oom_kills(), 1);
}
