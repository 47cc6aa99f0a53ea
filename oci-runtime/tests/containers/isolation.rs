//! What a program inside can see and do.

use crate::support::{MEMORY_BYTES, fixture, get};
use neap_sdk::limits;

#[tokio::test]
async fn powerless_and_alone() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let status = get(&container, "/read?/proc/self/status").await.unwrap();
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{capabilities}:\t0000000000000000\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
    assert!(status.contains("NSpid:\t1\n") && status.contains("Groups:\t \n"), "{status}");
    assert!(status.contains("SigBlk:\t0000000000000000\n"), "{status}");
    assert!(get(&container, "/unshare").await.unwrap().contains("not permitted"));

    let processes = get(&container, "/list?/proc").await.unwrap();
    let processes: Vec<&str> = processes.lines().filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(processes, ["1"]);
    let devices = get(&container, "/read?/proc/net/dev").await.unwrap();
    assert_eq!(devices.lines().skip(2).count(), 1, "{devices}");
    assert!(devices.contains("lo:"), "{devices}");
    assert_eq!(get(&container, "/read?/proc/sys/kernel/hostname").await.unwrap(), "test\n");
    assert_eq!(get(&container, "/read?/proc/self/oom_score_adj").await.unwrap(), "500\n");
    fixture.finish().await;
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let Some(fixture) = fixture().await else { return };
    let first = fixture.run(&[]).await.unwrap();
    let second = fixture.run(&[]).await.unwrap();
    let mut first_ids = Vec::new();
    for container in [&first, &second] {
        assert!(get(container, "/read?/proc/self/status").await.unwrap().contains("Uid:\t0\t0\t0\t0\n"));
        let map = get(container, "/read?/proc/self/uid_map").await.unwrap();
        let fields: Vec<u32> = map.split_whitespace().map(|field| field.parse().unwrap()).collect();
        if fields == [0, 0, u32::MAX] {
            println!("skipped: this machine has no user namespaces for containers");
            return;
        }
        assert_eq!((fields[0], fields[2]), (0, limits::CONTAINER_IDS_MAX));
        first_ids.push(fields[1]);
        // The image's own files belong to the root inside.
        assert_eq!(get(container, "/read?/root-only").await.unwrap(), "secret of root");
    }
    assert!(first_ids[0] > 0 && first_ids[0] != first_ids[1], "{first_ids:?}");
    let outside = std::fs::read_to_string(format!("/proc/{}/status", first.pid())).unwrap();
    assert!(outside.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", first_ids[0])), "{outside}");
    drop((first, second));
    fixture.finish().await;
}

#[tokio::test]
async fn files_are_writable_private_and_gone_with_the_container() {
    let Some(fixture) = fixture().await else { return };
    let first = fixture.run(&[]).await.unwrap();
    for path in ["/new", "/tmp/new", "/etc/passwd", "/dev/shm/new"] {
        assert_eq!(get(&first, &format!("/write?{path}")).await.unwrap(), "", "{path}");
    }
    for path in ["/proc/sys/kernel/hostname", "/sys/new", "/proc/sysrq-trigger"] {
        assert!(get(&first, &format!("/write?{path}")).await.unwrap().starts_with("error"), "{path}");
    }
    assert_eq!(get(&first, "/read?/etc/passwd").await.unwrap(), "");
    let second = fixture.run(&[]).await.unwrap();
    assert!(get(&second, "/read?/etc/passwd").await.unwrap().contains("web:x:1000"));
    assert!(get(&second, "/read?/new").await.unwrap().contains("No such file"));

    // Nothing of the host: not its mounts, not its kernel's secrets.
    let mounts = get(&second, "/read?/proc/self/mountinfo").await.unwrap();
    assert!(!mounts.contains(" - ext4") && !mounts.contains(" - cgroup"), "{mounts}");
    // Masked, or not in this kernel.
    let kcore = get(&second, "/read?/proc/kcore").await.unwrap();
    assert!(kcore.is_empty() || kcore.contains("No such file"), "{} bytes", kcore.len());
    assert_eq!(get(&second, "/list?/sys/firmware").await.unwrap(), "");
    drop((first, second));
    fixture.finish().await;
}

#[tokio::test]
async fn processes_and_memory_are_limited() {
    let Some(fixture) = fixture().await else { return };
    let container = fixture.run(&[]).await.unwrap();
    let forked: i64 = get(&container, "/fork").await.unwrap().parse().unwrap();
    assert!((200..limits::CONTAINER_PIDS_MAX).contains(&forked), "{forked}");
    // The bomb ends with its container.
    container.stop(std::time::Duration::ZERO).await;

    let usage = {
        let container = fixture.run(&[]).await.unwrap();
        assert_eq!(get(&container, "/eat?20000000").await.unwrap(), "19");
        container.usage()
    };
    assert!((19 << 20..MEMORY_BYTES).contains(&usage.memory_peak_bytes), "{usage:?}");

    // As little as a function may ask for is still enough to come up.
    let mut spec = fixture.spec(&[]);
    spec.memory_bytes = limits::MEMORY_BYTES_MIN;
    let container = fixture.runtime.run(spec).await.unwrap();
    assert_eq!(get(&container, "/").await.unwrap(), "hello from a container\n");
    assert!(get(&container, "/eat?20000000").await.is_err());
    drop(container);
    fixture.finish().await;
}
