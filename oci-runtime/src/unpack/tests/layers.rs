//! What good layers become.

use super::*;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn files_with_their_owners_modes_times_and_links() {
    let Some(fixture) = Fixture::new() else { return };
    let mut set_id = header("usr/bin/tool", EntryType::Regular, 4);
    set_id.set_mode(0o4755);
    set_id.set_uid(12);
    set_id.set_gid(34);
    set_id.set_mtime(1_000_000_000);
    let root = fixture.unpack(vec![
        Layer::default()
            .directory("./")
            .directory("usr/")
            .raw(set_id, b"tool")
            .hard_link("usr/bin/same", "usr/bin/tool")
            .symlink("bin", "usr/bin")
            .symlink("absolute", "/usr/bin")
            .pax(&[("path", "a/long/name/from/pax"), ("uid", "70000"), ("SCHILY.xattr.user.note", "kept")])
            .file("short", "pax")
            .raw(header("null", EntryType::Char, 0), b"")
            .raw(header("pipe", EntryType::Fifo, 0), b""),
        // Through links that stay inside, relative and absolute, as images with merged /usr do it.
        Layer::default().file("bin/second", "2").file("absolute/third", "3"),
    ]);
    let tool = std::fs::metadata(root.join("usr/bin/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.mtime()), (12, 34, 0o4755, 1_000_000_000));
    assert_eq!(std::fs::metadata(root.join("usr/bin/same")).unwrap().ino(), tool.ino());
    assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(read(&root, "usr/bin/second").as_deref(), Some("2"));
    assert_eq!(read(&root, "usr/bin/third").as_deref(), Some("3"));
    let long = root.join("a/long/name/from/pax");
    assert_eq!(std::fs::metadata(&long).unwrap().uid(), 70_000);
    let mut note = [0; 16];
    match rustix::fs::getxattr(&long, "user.note", &mut note) {
        Ok(length) => assert_eq!(&note[..length], b"kept"),
        Err(error) => println!("skipped: no extended attributes here ({error})"),
    }
    assert!(!root.join("null").exists() && !root.join("short").exists());
    assert!(std::fs::symlink_metadata(root.join("pipe")).is_ok());
    // What every container needs, though the image lacks it.
    assert_eq!(std::fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert!(read(&root, "etc/hosts").unwrap().contains("localhost"));
    assert!(["dev", "proc", "sys"].iter().all(|name| root.join(name).is_dir()));
}

#[test]
fn whiteouts_hide_lower_layers_and_only_those() {
    let Some(fixture) = Fixture::new() else { return };
    let root = fixture.unpack(vec![
        Layer::default()
            .file("gone", "1")
            .file("kept", "1")
            .file("dir/old", "1")
            .file("dir/sub/old", "1")
            .file("opaque/old", "1")
            .file("opaque/sub/old", "1")
            .file("replaced/inner", "1")
            .file("renamed", "1"),
        Layer::default()
            .file(".wh.gone", "")
            .file(".wh.dir", "")
            .file("dir/new", "2")
            // The order within a layer means nothing: what it brings stays.
            .file("opaque/sub/new", "2")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/new", "2")
            .file(".wh.never", "")
            .file("missing/.wh.too", "")
            .file("replaced", "a file now")
            .hard_link("renamed-to", "renamed")
            .file(".wh.renamed", "")
            .file(".wh..wh.plnk", ""),
    ]);
    assert_eq!(read(&root, "gone"), None);
    assert_eq!(read(&root, "kept").as_deref(), Some("1"));
    assert_eq!(read(&root, "dir/new").as_deref(), Some("2"));
    assert!(!root.join("dir/old").exists() && !root.join("dir/sub").exists());
    assert_eq!(read(&root, "opaque/new").as_deref(), Some("2"));
    assert_eq!(read(&root, "opaque/sub/new").as_deref(), Some("2"));
    assert!(!root.join("opaque/old").exists() && !root.join("opaque/sub/old").exists());
    assert_eq!(read(&root, "replaced").as_deref(), Some("a file now"));
    assert_eq!(read(&root, "renamed-to").as_deref(), Some("1"));
    assert!(!root.join("renamed").exists() && !root.join("missing").exists());
    let left = std::fs::read_dir(&root).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".wh.")));
}

#[test]
fn every_compression_and_docker_media_type() {
    let Some(fixture) = Fixture::new() else { return };
    let layer = |name: &str| Layer::default().file(name, name).finish();
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |plain: &[u8]| zstd::encode_all(plain, 1).unwrap();
    let (a, b, c, d) = (layer("a"), layer("b"), layer("c"), layer("d"));
    let image = fixture.image_of(&[
        (TAR, a.clone(), a),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip(&b), b),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&c), c),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&d), d),
    ]);
    let image_read = fixture.store.unpack(&image).unwrap();
    let root = fixture.store.rootfs(&image.digest);
    assert!(["a", "b", "c", "d"].iter().all(|name| read(&root, name).as_deref() == Some(*name)));
    // Again costs nothing: not even the layers are needed any more.
    image.layers.iter().for_each(|layer| std::fs::remove_file(&layer.path).unwrap());
    assert_eq!(fixture.store.unpack(&image).unwrap(), image_read);
}

#[test]
fn many_at_once_make_one() {
    let Some(fixture) = Fixture::new() else { return };
    let image = fixture.plain(vec![Layer::default().file("file", "content")]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.store.unpack(&image).unwrap())).collect();
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(std::fs::read_dir(fixture.dir.path().join("images")).unwrap().count(), 1);
    // What a crash left under a temporary name goes with the next start.
    std::fs::create_dir(fixture.dir.path().join("images").join(".unpacking-left")).unwrap();
    ImageStore::open(fixture.dir.path().join("images")).unwrap();
    assert_eq!(std::fs::read_dir(fixture.dir.path().join("images")).unwrap().count(), 1);
}
