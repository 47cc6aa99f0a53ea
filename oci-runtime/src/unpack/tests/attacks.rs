//! Layers that try to leave their image, or to exhaust the machine. Each must be refused with layer and entry named,
//! and nothing may be left of it.

use super::*;
use std::io::Write as _;

#[test]
fn no_path_leaves_the_image() {
    let Some(fixture) = Fixture::new() else { return };
    let new = Layer::default;
    let up = "../".repeat(30);
    for (layer, entry, reason) in [
        (new().file("/outside", "evil"), "/outside", "absolute"),
        (new().file("../outside", "evil"), "../outside", "\"..\""),
        (new().file("a/../../outside", "evil"), "a/../../outside", "\"..\""),
        (new().directory("../../"), "../../", "\"..\""),
        // Symbolic links that climb, as a parent: in one layer, in a chain, from a folder, through a loop.
        (new().symlink("a", "../..").file("a/outside", "evil"), "a/outside", "leads out"),
        (new().symlink("a", &up).file("a/outside", "evil"), "a/outside", "leads out"),
        (new().symlink("a", "b").symlink("b", "..").file("a/outside", ""), "a/outside", "leads out"),
        (new().directory("d/").symlink("d/a", "../..").file("d/a/outside", ""), "d/a/outside", "leads out"),
        (new().symlink("a", "/d/../../x").file("a/outside", ""), "a/outside", "leads out"),
        (new().symlink("a", "b").symlink("b", "a").file("a/x", ""), "a/x", "symbolic links"),
        (new().symlink("a", "../..").directory("a/new/"), "a/new/", "leads out"),
        (new().symlink("a", "../..").file("a/.wh.outside", ""), "a/.wh.outside", "leads out"),
        (new().symlink("a", "..").file("a/.wh..wh..opq", ""), "a/.wh..wh..opq", "leads out"),
        (new().symlink("a", "../..").symlink("a/l", "x"), "a/l", "leads out"),
        (new().file("f", "").file("f/x", ""), "f/x", "not a directory"),
        // Hard links to what is outside.
        (new().hard_link("h", "/outside"), "h", "absolute"),
        (new().hard_link("h", "../../outside"), "h", "\"..\""),
        (new().symlink("a", "../..").hard_link("h", "a/outside"), "h", "leads out"),
        (new().hard_link("h", "nowhere"), "h", "does not exist"),
        (new().directory("d/").hard_link("h", "d"), "h", "a directory"),
        // Whiteouts that name nothing, or the folder itself.
        (new().file(".wh.", ""), ".wh.", "whiteout"),
        (new().file("d/.wh..", ""), "d/.wh..", "whiteout"),
        (new().file("d/.wh...", ""), "d/.wh...", "whiteout"),
        // The same by PAX, where the path in the header looks harmless.
        (new().pax(&[("path", "../../outside")]).file("x", "evil"), "../../outside", "\"..\""),
        (new().pax(&[("linkpath", "../../outside")]).hard_link("h", "x"), "h", "\"..\""),
        (new().pax(&[("path", "a\0b")]).file("x", ""), "a\\0b", "NUL"),
    ] {
        // In the second of two layers, so that the error has to name the right one.
        let text = fixture.refused(vec![new().file("innocent", ""), layer]);
        assert!(text.starts_with("layer 2 (sha256:"), "{text}");
        assert!(text.contains(&format!("entry \"{entry}\"")) && text.contains(reason), "{entry}: {text}");
    }
}

#[test]
fn links_are_replaced_and_never_written_through() {
    let Some(fixture) = Fixture::new() else { return };
    let outside = fixture.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    // The last component: the link itself goes, whatever it points to.
    let root = fixture.unpack(vec![
        Layer::default().symlink("a", outside).file("a", "inside"),
        Layer::default().symlink("b", outside).hard_link("c", "b").file("c", "inside"),
        // An absolute link is absolute in the image.
        Layer::default().symlink("etc", "/etc2").file("etc/passwd", "inside"),
    ]);
    assert_eq!(read(&root, "a").as_deref(), Some("inside"));
    assert_eq!(read(&root, "c").as_deref(), Some("inside"));
    assert_eq!(read(&root, "etc2/passwd").as_deref(), Some("inside"));
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
}

#[test]
fn mount_points_must_be_folders() {
    let Some(fixture) = Fixture::new() else { return };
    for name in ["dev", "proc", "sys"] {
        let text = fixture.refused(vec![Layer::default().symlink(name, "/tmp")]);
        assert!(text.contains(&format!("/{name} cannot be used")), "{text}");
    }
}

#[test]
fn lies_about_size_and_type() {
    let Some(fixture) = Fixture::new() else { return };
    let new = Layer::default;
    let huge_name = header("name", EntryType::GNULongName, 3 << 30);
    let sparse = header("sparse", EntryType::GNUSparse, 0);
    let deep = "d/".repeat(200);
    for (layer, reason) in [
        (new().pax(&[("size", "9")]).file("x", "content"), "different sizes"),
        (new().pax(&[("uid", "4294967296")]).file("x", ""), "uid"),
        (new().pax(&[("GNU.sparse.major", "1")]).file("x", ""), "sparse"),
        (new().raw(sparse, b""), "sparse"),
        (new().raw(header("x", EntryType::new(b'M'), 0), b""), "unknown type"),
        // A long name of 3 GiB must not be read into memory before it is refused.
        (new().raw(huge_name, b"x"), "extension headers"),
        (new().pax(&[("path", &deep.repeat(2))]).directory("x/"), "folders"),
        (new().pax(&[("path", &"n".repeat(5_000))]).file("x", ""), "longer than"),
        (new().link("l", EntryType::Symlink, ""), "link target"),
    ] {
        let text = fixture.refused(vec![layer]);
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

#[test]
fn damaged_foreign_and_swapped_layers() {
    let Some(fixture) = Fixture::new() else { return };
    let good = Layer::default().file("file", "content").finish();
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let cut = Layer::default().raw(header("file", EntryType::Regular, 5_000), b"short").0;
    for (media_type, bytes, plain, reason) in [
        (TAR, good.clone(), b"other".to_vec(), "diff_id"),
        (TAR, cut.clone(), cut, "damaged"),
        (TAR, vec![b'x'; 2048], vec![b'x'; 2048], "damaged"),
        (gzip, good.clone(), good.clone(), "damaged"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", good.clone(), good.clone(), "damaged"),
        ("application/vnd.wasm.content.layer.v1+wasm", good.clone(), good.clone(), "media type"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", good.clone(), good.clone(), "media type"),
    ] {
        let image = fixture.image_of(&[(media_type, bytes, plain)]);
        let text = fixture.refused_image(&image);
        assert!(text.starts_with("layer 1 (sha256:") && text.contains(reason), "{text}");
    }
}

#[test]
fn bombs_stop_early() {
    let Some(fixture) = Fixture::new() else { return };
    // 1 GiB of zeros in about 1 MiB: more than the ratio allows.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&Layer::default().raw(header("zeros", EntryType::Regular, 1 << 30), b"").0).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1 << 10 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 2 << 20);
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let text = fixture.refused_image(&fixture.image_of(&[(gzip, bomb, Vec::new())]));
    assert!(text.contains("times its size"), "{text}");

    // The limits themselves, without writing gigabytes: what is left of the image counts, and entries do.
    assert_eq!(stream::limit(1_000, 500), 500);
    assert_eq!(stream::limit(1_000, u64::MAX), limits::IMAGE_RATIO_FREE_BYTES);
    assert_eq!(stream::limit(1 << 30, u64::MAX), limits::IMAGE_COMPRESSION_RATIO_MAX << 30);
    let tar = Layer::default().file("a", "").file("b", "").file("c", "").finish();
    let path = fixture.dir.path().join("three");
    std::fs::write(&path, &tar).unwrap();
    let target = fixture.dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let root = Root::open(&target).unwrap();
    let stream = LayerStream::new(File::open(path).unwrap(), Compression::None, u64::MAX).unwrap();
    assert!(matches!(layer::apply(&root, stream, &mut 2), Err(LayerError::TooManyEntries)));
}

#[test]
fn images_that_do_not_fit() {
    let Some(fixture) = Fixture::new() else { return };
    let tar = Layer::default().file("file", "").finish();
    let diff_id = Digest::of(&tar).to_string();
    let layer = |count| vec![(TAR, tar.clone(), tar.clone()); count];
    let config = |architecture: &str, os: &str, count: usize| {
        json!({"architecture": architecture, "os": os, "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": vec![diff_id.clone(); count]}})
    };
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let max = limits::IMAGE_LAYERS_MAX;
    for (layers, config, reason) in [
        (layer(1), config("s390x", "linux", 1), "is for linux/s390x, this machine is linux/"),
        (layer(1), config(host, "windows", 1), "is for windows/"),
        (layer(2), config(host, "linux", 1), "2 layers, the config's rootfs.diff_ids has 1"),
        (layer(max + 1), config(host, "linux", max + 1), "129 layers"),
        (layer(1), json!({"architecture": host}), "cannot be used"),
        (layer(1), json!([]), "cannot be used"),
    ] {
        let text = fixture.refused_image(&fixture.image_with(&layers, &config));
        assert!(text.contains(reason), "{text}");
    }
}
