//! Images: OCI blobs by digest, references over them, and their trees unpacked once.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::call::{
    Host,
    failure::{Failure, Outcome, failed, gap},
    reference::normalise,
    state::{lock, read, write},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BUILT_IN: &str = "docker.io/library/busybox:latest";

/// One platform of an image.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) platform: Value,
    pub(crate) config: Value,
    layers: Vec<Value>,
}

fn digest_of(descriptor: &Value) -> &str {
    descriptor.get("digest").and_then(Value::as_str).unwrap_or_default()
}

impl Host {
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("images/blobs").join(digest.replace(':', "/"))
    }

    /// Stores bytes; their descriptor.
    fn put(&self, media: &str, bytes: &[u8]) -> Outcome<Value> {
        let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let digest = format!("sha256:{hex}");
        let path = self.blob(&digest);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&beside, bytes)?;
        fs::rename(beside, path)?;
        Ok(json!({"mediaType": media, "digest": digest, "size": bytes.len()}))
    }

    fn json_blob(&self, digest: &str) -> Outcome<Value> {
        let bytes = fs::read(self.blob(digest))
            .map_err(|_| Failure::Failed(format!("content with digest {digest} not found")))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Reference to descriptor; the built-in image is there from the start.
    pub(crate) fn images(&self) -> Outcome<BTreeMap<String, Value>> {
        let file = self.root.join("images/references.json");
        if let Some(images) = read(&file)? {
            return Ok(images);
        }
        // A lock of its own: the caller may hold that over everything. Another call may have been faster, and have loaded.
        let _lock = lock(&self.root.join("first-image.lock"))?;
        if let Some(images) = read(&file)? {
            return Ok(images);
        }
        let images = BTreeMap::from([(BUILT_IN.to_owned(), self.built_in()?)]);
        write(&file, &images)?;
        Ok(images)
    }

    pub(crate) fn set_images(&self, images: &BTreeMap<String, Value>) -> Outcome<()> {
        write(&self.root.join("images/references.json"), images)
    }

    /// The stored reference and descriptor of what was asked for: as it was written, else made whole.
    pub(crate) fn image(&self, asked: &str) -> Outcome<Option<(String, Value)>> {
        let mut images = self.images()?;
        let whole = normalise(asked);
        let found = images.keys().find(|stored| *stored == asked || normalise(stored) == whole).cloned();
        Ok(found.and_then(|stored| images.remove(&stored).map(|descriptor| (stored, descriptor))))
    }

    /// The platforms of an image.
    pub(crate) fn variants(&self, descriptor: &Value) -> Outcome<Vec<Variant>> {
        let top = self.json_blob(digest_of(descriptor))?;
        let Some(manifests) = top.get("manifests").and_then(Value::as_array) else {
            return Ok(vec![self.variant(descriptor)?]);
        };
        manifests.iter().map(|manifest| self.variant(manifest)).collect()
    }

    fn variant(&self, descriptor: &Value) -> Outcome<Variant> {
        let manifest = self.json_blob(digest_of(descriptor))?;
        let config = manifest.get("config").map(digest_of).unwrap_or_default();
        let config = self.json_blob(config)?;
        let layers = manifest.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
        let field = |name: &str| config.get(name).cloned().unwrap_or(Value::Null);
        let built =
            json!({"os": field("os"), "architecture": field("architecture"), "variant": field("variant")});
        let platform = descriptor.get("platform").cloned().unwrap_or(built);
        let size = layers.iter().filter_map(|layer| layer.get("size")?.as_u64()).sum();
        Ok(Variant {
            digest: digest_of(descriptor).to_owned(),
            size,
            platform: crate::call::foundation::without_nulls(platform),
            config,
            layers,
        })
    }

    /// The variant for a platform; what the image lacks is `unsupported`, and never pulled (reference 0.2).
    pub(crate) fn variant_for(&self, descriptor: &Value, arch: &str) -> Outcome<Variant> {
        let variants = self.variants(descriptor)?;
        let fits = |variant: &Variant| {
            variant.platform.get("architecture").and_then(Value::as_str) == Some(arch)
                && variant.platform.get("os").and_then(Value::as_str) == Some("linux")
        };
        match variants.into_iter().find(fits) {
            Some(variant) => Ok(variant),
            None => failed(format!("unsupported: \"platform linux/{arch}\"")),
        }
    }

    /// A new copy of the tree of a variant.
    pub(crate) fn clone_tree(&self, variant: &Variant, to: &Path) -> Outcome<()> {
        let tree = self.root.join("images/trees").join(variant.digest.replace(':', "-"));
        if !tree.exists() {
            let beside = tree.with_extension(format!("new-{}", std::process::id()));
            fs::create_dir_all(&beside)?;
            for layer in &variant.layers {
                self.unpack(layer, &beside)?;
            }
            // Another call may have been faster: its tree is the same.
            if fs::rename(&beside, &tree).is_err() {
                fs::remove_dir_all(&beside)?;
            }
        }
        let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(&tree).arg(to).status()?;
        if status.success() { Ok(()) } else { gap(format!("cp -a ended with {status}")) }
    }

    fn unpack(&self, layer: &Value, tree: &Path) -> Outcome<()> {
        let path = self.blob(digest_of(layer));
        let mut start = [0; 4];
        File::open(&path)?.read_exact(&mut start)?;
        if start == [0x28, 0xb5, 0x2f, 0xfd] {
            return gap("a layer in zstd");
        }
        if start.starts_with(&[0x1f, 0x8b]) {
            let mut child = Command::new("gzip").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn()?;
            if let Some(stdout) = child.stdout.take() {
                unpack_layer(stdout, tree)?;
            }
            child.wait()?;
            return Ok(());
        }
        unpack_layer(File::open(path)?, tree)
    }

    /// Installs the built-in busybox: an image like any other.
    pub(crate) fn built_in(&self) -> Outcome<Value> {
        let layer = busybox_layer(&self.root)?;
        let diff = self.put("application/vnd.oci.image.layer.v1.tar", &layer)?;
        let arch = self.control.arch();
        let config = json!({
            "architecture": arch, "os": "linux", "created": "2025-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(&diff)]},
            "history": [{"created": "2025-01-01T00:00:00Z", "created_by": "busybox"}],
        });
        let config = self.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [diff]});
        let mut manifest = self.put(MANIFEST, manifest.to_string().as_bytes())?;
        if let Some(manifest) = manifest.as_object_mut() {
            manifest.insert("platform".to_owned(), json!({"os": "linux", "architecture": arch}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
        self.put(INDEX, index.to_string().as_bytes())
    }
}

/// Unpacks one layer over what is there, with the white-outs of OCI.
fn unpack_layer(layer: impl Read, tree: &Path) -> Outcome<()> {
    let mut archive = tar::Archive::new(layer);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_overwrite(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = tree.join(path.parent().unwrap_or(Path::new("")));
        if name == ".wh..wh..opq" {
            for inner in fs::read_dir(&parent).into_iter().flatten() {
                remove(&inner?.path())?;
            }
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(&parent.join(hidden))?;
        } else {
            let target = tree.join(&path);
            let is_directory = entry.header().entry_type().is_dir();
            if fs::symlink_metadata(&target).is_ok_and(|there| !(there.is_dir() && is_directory)) {
                remove(&target)?;
            }
            entry.unpack_in(tree)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Outcome<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(_) => Ok(()),
    }
}

/// A tar of /bin/busybox, its names, and the few files that programs expect.
fn busybox_layer(root: &Path) -> Outcome<Vec<u8>> {
    const BUSYBOX: &str = "/bin/busybox";
    let tree = root.join(format!("images/busybox-{}", std::process::id()));
    for directory in
        ["bin", "dev", "etc", "home/user", "proc", "root", "run", "sys", "usr/bin", "var/tmp", "tmp"]
    {
        fs::create_dir_all(tree.join(directory))?;
    }
    let copied = fs::copy(BUSYBOX, tree.join("bin/busybox"));
    if copied.is_err() {
        return gap("the built-in image needs /bin/busybox (Debian: busybox-static)");
    }
    let names = Command::new(BUSYBOX).arg("--list").output()?;
    for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(name))?;
    }
    symlink("/bin/env", tree.join("usr/bin/env"))?;
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(tree.join("etc/group"), "root:x:0:\nuser:x:1000:\nvideo:x:44:user\nnogroup:x:65534:\n")?;
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.mode(tar::HeaderMode::Deterministic);
    builder.append_dir_all("", &tree)?;
    for (path, mode, owner) in
        [("tmp", 0o1777, 0), ("var/tmp", 0o1777, 0), ("root", 0o700, 0), ("home/user", 0o755, 1000)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(0);
        header.set_size(0);
        builder.append_data(&mut header, path, std::io::empty())?;
    }
    let bytes = builder.into_inner()?;
    fs::remove_dir_all(tree)?;
    Ok(bytes)
}

/// Writes the tar of an OCI layout with these images.
pub(crate) fn save(host: &Host, images: &[(String, Value)], out: &mut dyn Write) -> Outcome<()> {
    let mut builder = tar::Builder::new(out);
    let mut manifests = Vec::new();
    let mut digests = Vec::new();
    for (reference, descriptor) in images {
        let mut named = descriptor.clone();
        named["annotations"] = json!({
            "com.apple.containerization.image.name": reference,
            "org.opencontainers.image.ref.name": reference,
        });
        manifests.push(named);
        let top = host.json_blob(digest_of(descriptor))?;
        digests.push(digest_of(descriptor).to_owned());
        let single = vec![descriptor.clone()];
        for manifest in top.get("manifests").and_then(Value::as_array).unwrap_or(&single) {
            let document = host.json_blob(digest_of(manifest))?;
            digests.push(digest_of(manifest).to_owned());
            digests.extend(document.get("config").map(digest_of).map(str::to_owned));
            let layers = document.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
            digests.extend(layers.iter().map(|layer| digest_of(layer).to_owned()));
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    for (path, bytes) in [("oci-layout", layout.to_string()), ("index.json", index.to_string())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, bytes.as_bytes())?;
    }
    digests.sort();
    digests.dedup();
    for digest in digests {
        builder.append_path_with_name(host.blob(&digest), format!("blobs/{}", digest.replace(':', "/")))?;
    }
    builder.into_inner()?.flush()?;
    Ok(())
}
