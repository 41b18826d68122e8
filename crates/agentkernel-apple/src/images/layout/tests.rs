//! Archives of every form, whole and damaged.
use std::io::Write;

use proptest::prelude::*;

use super::*;

const NAME: &str = "docker.io/library/agentkernel-a:latest";

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn all(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The name and the config that a layout has.
fn read(file: File) -> (String, Value) {
    let mut archive = Archive::open(file).unwrap();
    let mut document = archive.json::<Value>("index.json").unwrap();
    let name = document["manifests"][0]["annotations"]["com.apple.containerization.image.name"].clone();
    for _ in 0..2 {
        let digest = document["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        document = archive.json(&format!("blobs/{digest}")).unwrap();
    }
    let digest = document["config"]["digest"].as_str().unwrap().replace(':', "/");
    (name.as_str().unwrap().to_owned(), archive.json(&format!("blobs/{digest}")).unwrap())
}

fn root() -> Vec<u8> {
    tar(&[("./etc/passwd", b"root:x:0:0::/:/bin/sh\n"), ("bin/sh", b"#!")])
}

fn docker(arch: &str) -> Vec<u8> {
    let layer = root();
    let diff = Blob::of_bytes("", layer.clone()).digest();
    let config = json!({"os": "linux", "architecture": arch, "config": {"Env": ["A=1"]}, "rootfs": {"diff_ids": [diff]}});
    let manifest = json!([{"Config": "abc.json", "RepoTags": ["x:1"], "Layers": ["1/layer.tar"]}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    tar(&[("abc.json", config.as_bytes()), ("1/layer.tar", &layer), ("manifest.json", manifest.as_bytes())])
}

#[test]
fn a_root_file_system_is_one_layer() {
    let made = from_archive(file(&root()), NAME, "arm64").unwrap();
    let (name, config) = read(made);
    assert_eq!(name, NAME);
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["rootfs"]["diff_ids"][0], Blob::of_bytes("", root()).digest());
}

#[test]
fn what_gzip_has_made_is_inflated() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&root()).unwrap();
    let (_, config) = read(from_archive(file(&gzip.finish().unwrap()), NAME, "arm64").unwrap());
    assert_eq!(config["rootfs"]["diff_ids"][0], Blob::of_bytes("", root()).digest());
}

#[test]
fn the_old_form_of_docker_is_converted() {
    let (name, config) = read(from_archive(file(&docker("arm64")), NAME, "arm64").unwrap());
    assert_eq!((name.as_str(), &config["config"]["Env"][0]), (NAME, &json!("A=1")));
}

#[test]
fn a_layout_gets_the_name_that_is_asked_for() {
    let first = from_archive(file(&docker("arm64")), "docker.io/library/other:1", "arm64").unwrap();
    let (name, config) = read(from_archive(first, NAME, "arm64").unwrap());
    assert_eq!((name.as_str(), &config["config"]["Env"][0]), (NAME, &json!("A=1")));
}

#[test]
fn another_architecture_is_refused_by_name() {
    for archive in [docker("amd64"), all(from_archive(file(&docker("amd64")), NAME, "amd64").unwrap())] {
        let error = from_archive(file(&archive), NAME, "arm64").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("architecture: arm64"), "{error}");
    }
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let bytes = docker("arm64");
    let at = bytes.windows(6).position(|window| window == b"root:x").unwrap();
    let mut damaged = bytes;
    damaged[at] = b'R';
    let error = from_archive(file(&damaged), NAME, "arm64").unwrap_err();
    assert!(error.to_string().contains("a digest is wrong"), "{error}");
}

#[test]
fn what_is_no_tar_or_compressed_otherwise_is_refused() {
    for bytes in [&b""[..], b"BZh9aaaaaa", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0]] {
        assert_eq!(from_archive(file(bytes), NAME, "arm64").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}

#[test]
fn a_link_leads_to_a_layer_and_never_out_of_the_archive() {
    let mut tar = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_size(2);
    tar.append_data(&mut header, "1/layer.tar", &b"ab"[..]).unwrap();
    for (path, target) in [("2/layer.tar", "../1/layer.tar"), ("3/layer.tar", "../../etc/passwd"), ("4", "4")]
    {
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, path, target).unwrap();
    }
    let archive = Archive::open(file(&tar.into_inner().unwrap())).unwrap();
    assert_eq!(archive.find("2/layer.tar"), archive.find("1/layer.tar"));
    assert!(!archive.has("3/layer.tar") && !archive.has("4"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_archive_never_panics(at in 0..4096usize, byte in any::<u8>(), length in 0..8192usize) {
        let mut bytes = docker("arm64");
        if let Some(it) = bytes.get_mut(at) {
            *it = byte;
        }
        bytes.truncate(length);
        let _made = from_archive(file(&bytes), NAME, "arm64");
    }
}
