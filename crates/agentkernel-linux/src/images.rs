//! Images: directories of ours, each the root of a file system.
//!
//! ```text
//! <data>/images/<name, in base64url>/root
//! <data>/images/<name, in base64url>/id
//! ```
//! An archive is unpacked inside a sandbox: nothing of it is read by this process.
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use agentkernel_core::{
    BackendType, Error, ErrorKind, Events, ImageInfo, ImageRef, ImageStore, Progress, Pruned, Result,
    SandboxName, Source, async_trait,
};
use agentkernel_host::{
    Configure, GuestSandbox, RunDir, make_private,
    setup::{IdMap, MountPlan, MountSource, Root, Setup},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    error,
    helper::Helper,
    host_image::{HOST, Place},
    machine::Machine,
    plan::{BASE, COUNT, GUEST},
    state::{self, remove_tree},
};

/// Where the image is while it is unpacked.
const TARGET: &str = "/image";

/// The images of a data directory.
#[derive(Debug)]
pub(crate) struct LinuxImages {
    data: PathBuf,
    machine: Machine,
    helper: Arc<Helper>,
}

impl LinuxImages {
    pub(crate) fn new(data: PathBuf, machine: Machine, helper: Arc<Helper>) -> Self {
        Self { data, machine, helper }
    }

    fn all(&self) -> PathBuf {
        self.data.join("images")
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.all().join(URL_SAFE_NO_PAD.encode(name))
    }

    /// Returns the root of an image.
    pub(crate) fn root(&self, name: &str) -> Result<PathBuf> {
        let root = self.directory(name).join("root");
        if root.is_dir() {
            return Ok(root);
        }
        Err(Error::new(ErrorKind::NotFound, "create sandbox", "image not found")
            .with_context("backend", BackendType::Linux)
            .with_context("image", name)
            .with_hint("this backend pulls no images: use `host`, import one, or `--backend docker`"))
    }

    fn info(&self, name: &str) -> Option<ImageInfo> {
        let directory = self.directory(name);
        let created = fs::metadata(directory.join("root")).ok()?.mtime();
        let id = fs::read_to_string(directory.join("id")).ok()?;
        let mut info = ImageInfo::new(name, id.trim());
        info.created = created;
        info.size = size(&directory.join("root"));
        Some(info)
    }

    /// Unpacks an archive into an empty directory, inside a sandbox that has nothing else.
    async fn unpack(&self, archive: Source<'_>, root: &Path, work: &Path) -> Result<()> {
        let place = Place::find(root).map_err(|source| error::file("import image", root, source))?;
        let strict = self.machine.is_root();
        let map = |own: u32| match strict {
            true => IdMap { inside: 0, outside: BASE, count: COUNT },
            false => IdMap { inside: 0, outside: own, count: 1 },
        };
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let source = MountSource::Path {
            path: bytes(&place.path),
            device: place.device,
            inode: place.inode,
            owner: None,
        };
        let setup = Setup {
            hostname: b"import".to_vec(),
            uids: map(self.machine.uid),
            gids: map(self.machine.gid),
            shifted: strict,
            root: Root::Memory(1 << 20),
            mounts: vec![MountPlan { source, target: TARGET.as_bytes().to_vec(), read_only: false }],
            filter: true,
            capabilities: if strict { GUEST } else { 0 },
            no_new_privileges: true,
            lock: bytes(&work.join("lock")),
            ..Setup::default()
        };
        let configure = Configure {
            lease: true,
            deadline_ms: None,
            user: Some(b"0".to_vec()),
            cwd: None,
            env: Vec::new(),
            keep_capabilities: 0,
            no_new_privileges: true,
            drop_privileges: strict,
            log_output: false,
            listener: false,
        };
        let (client, _) = self.helper.boot(&setup.encode(), configure, None).await?;
        let guest = GuestSandbox::new(client, "import".parse()?, BackendType::Linux);
        let unpacked = guest.unpack(&TARGET.parse()?, archive).await;
        guest.client().close();
        unpacked
    }
}

/// Bytes of a tree of ours.
fn size(at: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(at) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(at).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

#[async_trait]
impl ImageStore for LinuxImages {
    fn pulls(&self) -> bool {
        false
    }

    async fn inspect(&self, image: &ImageRef) -> Result<Option<ImageInfo>> {
        if image.as_str() == HOST {
            return Ok(Some(ImageInfo::new(HOST, HOST)));
        }
        Ok(self.info(image.as_str()))
    }

    async fn pull(&self, image: &ImageRef) -> Result<Events<Progress>> {
        Err(Error::new(ErrorKind::Unsupported, "pull image", "this backend pulls no images")
            .with_context("image", image)
            .with_hint("use the image `host`, or `--backend docker`"))
    }

    async fn import(&self, archive: Source<'_>, name: &ImageRef) -> Result<ImageInfo> {
        if name.as_str() == HOST {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "import image",
                "the name `host` is this machine's own",
            ));
        }
        make_private(&self.all())?;
        // A run directory lends a name that nobody else has.
        let run = RunDir::create("linux-import")?;
        let work = self.all().join(format!(".new-{}-{}", std::process::id(), run.run_id()));
        let done = async {
            let root = work.join("root");
            let make = || -> std::io::Result<()> {
                fs::DirBuilder::new().mode(0o700).create(&work)?;
                fs::DirBuilder::new().mode(0o755).create(&root)?;
                let owner = if self.machine.is_root() { BASE } else { self.machine.uid };
                chown(&root, Some(owner), Some(owner))?;
                fs::write(work.join("id"), run.run_id())
            };
            make().map_err(|source| error::file("import image", &work, source))?;
            self.unpack(archive, &root, &work).await?;
            let directory = self.directory(name.as_str());
            let old = self.all().join(format!(".gone-{}-{}", std::process::id(), run.run_id()));
            let _first = fs::rename(&directory, &old);
            fs::rename(&work, &directory)
                .map_err(|source| error::file("import image", &directory, source))?;
            let _gone = remove_tree(&old);
            self.info(name.as_str())
                .ok_or_else(|| error::file("import image", &directory, std::io::ErrorKind::NotFound.into()))
        };
        let imported = done.await;
        let _gone = remove_tree(&work);
        run.remove(&"x".parse::<SandboxName>()?);
        imported
    }

    async fn list(&self) -> Result<Vec<ImageInfo>> {
        let entries = fs::read_dir(self.all()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            String::from_utf8(URL_SAFE_NO_PAD.decode(entry.file_name().as_encoded_bytes()).ok()?).ok()
        });
        let mut all = names.filter_map(|name| self.info(&name)).collect::<Vec<_>>();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn remove(&self, image: &ImageRef) -> Result<()> {
        let directory = self.directory(image.as_str());
        if !directory.exists() {
            return Err(Error::new(ErrorKind::NotFound, "remove image", "there is no such image")
                .with_context("image", image));
        }
        let user = state::list(&self.data)
            .into_iter()
            .find(|found| found.labels.config.image.as_deref() == Some(image.as_str()));
        if let Some(user) = user {
            return Err(Error::new(ErrorKind::Conflict, "remove image", "a sandbox uses it")
                .with_context("image", image)
                .with_context("sandbox", &user.labels.name));
        }
        remove_tree(&directory).map_err(|source| error::file("remove image", &directory, source))
    }

    async fn commit(&self, sandbox: &SandboxName, _name: &ImageRef) -> Result<ImageInfo> {
        Err(error::about(sandbox, ErrorKind::Unsupported, "take snapshot", "this backend takes no snapshots"))
    }

    async fn prune(&self) -> Result<Pruned> {
        // An image that lost its name was removed at once.
        Ok(Pruned::default())
    }
}
