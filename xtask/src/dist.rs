//! What packagers ship: an archive with everything where it belongs, its checksum, and a Debian package.
mod debian;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::process::{cargo, command, read, run, say};

/// How it is made.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also makes a Debian package; its maintainer is DEBFULLNAME and DEBEMAIL, as for Debian's own tools.
    #[arg(long)]
    deb: bool,
    /// Where it is put; by default `dist` in the target directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Features of the command beside the default ones.
    #[arg(long, value_name = "FEATURES")]
    features: Option<String>,
}

/// What is made of.
struct Tree {
    /// A directory with `bin`, `libexec` and `share`.
    root: PathBuf,
    name: String,
    version: String,
    /// In seconds since 1970: the commit's, so that the same commit gives the same bytes.
    time: u64,
}

pub(crate) fn dist(options: &Options) -> Result<()> {
    let maintainer = if options.deb { Some(debian::maintainer()?) } else { None };
    let metadata = MetadataCommand::new().no_deps().exec()?;
    let cli = metadata.packages.iter().find(|package| package.name.as_str() == "agentkernel-cli");
    let version = cli.context("the workspace has no agentkernel-cli")?.version.to_string();
    let target = host()?;
    let out = options.out.clone().unwrap_or_else(|| metadata.target_directory.join("dist").into());
    let name = format!("agentkernel-{version}-{target}");
    let tree = Tree { root: out.join(&name), name, version, time: commit_time()? };
    if tree.root.exists() {
        fs::remove_dir_all(&tree.root)?;
    }
    let programs =
        build(options, &metadata.target_directory.join(&target).join("release").into_std_path_buf())?;
    stage(&tree, &programs, metadata.workspace_root.as_std_path())?;
    let mut made = vec![archive(&tree, &out)?];
    if let Some(maintainer) = maintainer {
        made.push(debian::package(&tree, &out, &maintainer)?);
    }
    checksums(&out, &made)?;
    for file in &made {
        say(&format!("made {}", file.display()));
    }
    Ok(())
}

fn host() -> Result<String> {
    let told = read(&mut command("rustc", ["--version", "--verbose"]))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it builds for")
}

fn commit_time() -> Result<u64> {
    let told = read(&mut command("git", ["log", "-1", "--format=%ct"]))?;
    told.trim().parse().context("git does not say when the commit was made")
}

/// Builds the command and the guest; returns their directory.
fn build(options: &Options, programs: &Path) -> Result<PathBuf> {
    let mut build = cargo(["build", "--release", "--locked", "--package", "agentkernel-cli"]);
    build.args(options.features.iter().flat_map(|features| ["--features", features]));
    run(&mut build)?;
    // On its own, so that the command's features are none of its.
    run(&mut cargo(["build", "--release", "--locked", "--package", "agentkernel-guest"]))?;
    if !programs.join("agentkernel").is_file() {
        bail!("the build is not in {}: is `build.target` set otherwise?", programs.display());
    }
    Ok(programs.to_owned())
}

/// Puts everything where a prefix like `/usr` has it.
fn stage(tree: &Tree, programs: &Path, workspace: &Path) -> Result<()> {
    let bin = tree.root.join("bin");
    let libexec = tree.root.join("libexec/agentkernel");
    let man = tree.root.join("share/man/man1");
    let doc = tree.root.join("share/doc/agentkernel");
    for directory in [&bin, &libexec, &man, &doc] {
        fs::create_dir_all(directory)?;
    }
    let agentkernel = bin.join("agentkernel");
    fs::copy(programs.join("agentkernel"), &agentkernel)?;
    fs::copy(programs.join("agentkernel-guest"), libexec.join("agentkernel-guest"))?;
    run(command(&agentkernel.to_string_lossy(), ["man"]).arg(&man))?;
    for page in fs::read_dir(&man)? {
        let page = page?.path();
        compress(&fs::read(&page)?, &page.with_extension("1.gz"))?;
        fs::remove_file(&page)?;
    }
    for (shell, file) in [
        ("bash", "share/bash-completion/completions/agentkernel"),
        ("zsh", "share/zsh/vendor-completions/_agentkernel"),
        ("fish", "share/fish/vendor_completions.d/agentkernel.fish"),
    ] {
        let file = tree.root.join(file);
        fs::create_dir_all(file.parent().unwrap_or(&tree.root))?;
        fs::write(file, read(&mut command(&agentkernel.to_string_lossy(), ["completions", shell]))?)?;
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(workspace.join(file), doc.join(file)).with_context(|| format!("{file} cannot be copied"))?;
    }
    Ok(())
}

/// Compresses without a name and a time in the header.
fn compress(content: &[u8], to: &Path) -> Result<()> {
    let mut encoder = GzBuilder::new().write(File::create(to)?, Compression::best());
    encoder.write_all(content)?;
    encoder.finish()?;
    Ok(())
}

/// Packs the tree: sorted, owned by root, with the commit's time.
fn archive(tree: &Tree, out: &Path) -> Result<PathBuf> {
    let file = out.join(format!("{}.tar.gz", tree.name));
    let encoder = GzBuilder::new().write(File::create(&file)?, Compression::best());
    let mut archive = tar::Builder::new(encoder);
    for path in files(&tree.root)? {
        let content = fs::read(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode(&tree.root, &path));
        header.set_mtime(tree.time);
        header.set_size(content.len() as u64);
        let inside = Path::new(&tree.name).join(path.strip_prefix(&tree.root)?);
        archive.append_data(&mut header, inside, content.as_slice())?;
    }
    archive.into_inner()?.finish()?;
    Ok(file)
}

/// Programs can be executed, nothing else.
fn mode(root: &Path, path: &Path) -> u32 {
    let is_program = ["bin", "libexec"].iter().any(|directory| path.starts_with(root.join(directory)));
    if is_program { 0o755 } else { 0o644 }
}

/// All files below a directory, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes SHA256SUMS, as `sha256sum --check` reads it.
fn checksums(out: &Path, made: &[PathBuf]) -> Result<()> {
    let mut sums = String::new();
    for file in made {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sums += &format!("{}  {name}\n", digest(file)?);
    }
    fs::write(out.join("SHA256SUMS"), sums)?;
    Ok(())
}

fn digest(file: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(file)?, Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
