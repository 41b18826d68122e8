//! Finding the guest's program, and laying it out so that it can be mounted.
//!
//! The program is looked for as: the caller's path, `AGENTKERNEL_GUEST`, `agentkernel-guest` beside this executable or in
//! `../libexec`, and last this executable itself if it [said](offer_own_executable) that it can be one. It is copied
//! once, by digest, to the user's data directory, so that a rebuild or an upgrade never changes what a running sandbox
//! has mounted. A dynamic program gets its loader and libraries beside it.
use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use agentkernel_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{BOOT_TARGET, Machine, elf, run_dir::make_private};

/// Where the guest's directory is to be mounted, read-only.
pub const GUEST_BIN_DIR: &str = "/.agentkernel/bin";

/// How long a loader may take to list a program's libraries.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// The largest guest, in bytes: a bound against a path that names something else.
const MAX_PROGRAM: u64 = 512 << 20;

/// The hint where there is no program, or one that cannot be used.
const NAME_IT: &str =
    "build it with `cargo build -p agentkernel-guest` and set AGENTKERNEL_GUEST to its path";

static OWN_EXECUTABLE: AtomicBool = AtomicBool::new(false);

/// Says that this executable is a guest when its first argument is `__guest`: it must then call
/// `agentkernel_guest::program::main` before anything else.
pub fn offer_own_executable() {
    OWN_EXECUTABLE.store(true, Ordering::Relaxed);
}

/// The guest's program, laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestProgram {
    /// The directory to be mounted read-only at [`GUEST_BIN_DIR`].
    pub directory: PathBuf,
    /// The command line of the sandbox's first process.
    pub argv: Vec<String>,
}

impl GuestProgram {
    /// Returns the command line of the program on this machine itself, with a verb.
    pub fn here(&self, verb: &str) -> Vec<PathBuf> {
        let here = |word: String| match word.strip_prefix(GUEST_BIN_DIR) {
            Some(rest) => self.directory.join(rest.trim_start_matches('/')),
            None => PathBuf::from(word),
        };
        self.with_verb(verb).into_iter().map(here).collect()
    }

    /// Returns the command line of the program with another verb than that of [`argv`](Self::argv).
    pub fn with_verb(&self, verb: &str) -> Vec<String> {
        let program = self.argv.iter().take_while(|word| *word != "__guest");
        program.cloned().chain(["__guest".to_owned(), verb.to_owned()]).collect()
    }
}

/// Finds the guest's program and lays it out.
///
/// # Errors
/// `Unavailable` if there is none, if it is not for this machine, or if it cannot be copied; the error lists where it
/// was looked for.
pub async fn find_guest(explicit: Option<&Path>) -> Result<GuestProgram> {
    find_guest_for(explicit, None).await
}

/// As [`find_guest`], for an engine's machine; `None` is this one.
///
/// # Errors
/// As [`find_guest`].
pub async fn find_guest_for(explicit: Option<&Path>, machine: Option<Machine>) -> Result<GuestProgram> {
    let program = choose(explicit)?;
    let failed = |source: io::Error| {
        Error::new(ErrorKind::Unavailable, "prepare the guest", "its program cannot be used")
            .with_source(source)
            .with_context("path", program.display())
            .with_hint(NAME_IT)
    };
    let data = data_dir()?.join("guest");
    let key = {
        let metadata = fs::metadata(&program).map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_PROGRAM {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no file, or far too large",
            )));
        }
        // The path is not part of the key: the same file by another name is the same program.
        format!(
            "{}-{}-{}-{}.{}",
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec()
        )
    };
    let index = data.join("index");
    if let Ok(target) = fs::read_link(index.join(&key))
        && let Some(found) = laid_out(&data.join(target.file_name().unwrap_or_default()))
    {
        check_machine(&found.directory.join("guest"), machine).map_err(failed)?;
        return Ok(found);
    }
    make_private(&data)?;
    make_private(&index)?;
    check_machine(&program, machine).map_err(failed)?;
    let directory = lay_out(&program, &data).await?;
    let temporary = index.join(temporary_name());
    let link = || {
        let _gone = fs::remove_file(&temporary);
        symlink(Path::new("..").join(directory.file_name().unwrap_or_default()), &temporary)?;
        fs::rename(&temporary, index.join(&key))
    };
    link().map_err(failed)?;
    laid_out(&directory).ok_or_else(|| failed(io::Error::other("its copy is gone")))
}

fn choose(explicit: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    if let Some(path) = env::var_os("AGENTKERNEL_GUEST").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let own = env::current_exe().map_err(|source| {
        Error::new(ErrorKind::Unavailable, "find the guest", "this executable's path is not known")
            .with_source(source)
    })?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = [
        beside.join("agentkernel-guest"),
        beside.join("../libexec/agentkernel-guest"),
        beside.join("../libexec/agentkernel/agentkernel-guest"),
    ];
    if OWN_EXECUTABLE.load(Ordering::Relaxed) {
        // An upgrade may have replaced the file: the running one is still there.
        let own = if own.exists() { own } else { PathBuf::from("/proc/self/exe") };
        return Ok(places.into_iter().find(|path| path.is_file()).unwrap_or(own));
    }
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let tried = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        Error::new(
            ErrorKind::Unavailable,
            "find the guest",
            "the program `agentkernel-guest` is not installed",
        )
        .with_context("looked at", tried)
        .with_hint(NAME_IT)
    })
}

/// Returns where what lives longer than a boot is kept: `/var/lib/agentkernel` for root, `$XDG_DATA_HOME/agentkernel` or
/// `~/.local/share/agentkernel` for others.
///
/// # Errors
/// `Unavailable` if neither is known.
pub fn data_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/agentkernel"));
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/share"));
    absolute("XDG_DATA_HOME").or_else(home).map(|data| data.join("agentkernel")).ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "find the data directory", "neither XDG_DATA_HOME nor HOME is set")
            .with_hint("set HOME to your home directory")
    })
}

/// Returns the program of a finished directory; `None` if it is not there or not ours alone.
fn laid_out(directory: &Path) -> Option<GuestProgram> {
    let metadata = fs::symlink_metadata(directory).ok()?;
    let ours = metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.permissions().mode() & 0o022 == 0
        && directory.join("guest").is_file();
    if !ours {
        return None;
    }
    let inside = |name: &str| format!("{GUEST_BIN_DIR}/{name}");
    let loader = fs::read_link(directory.join("loader")).ok();
    let mut argv = match loader.as_ref().and_then(|loader| loader.file_name()?.to_str()) {
        Some(loader) => vec![inside(loader), "--library-path".to_owned(), GUEST_BIN_DIR.to_owned()],
        None => Vec::new(),
    };
    argv.extend([inside("guest"), "__guest".to_owned(), "boot".to_owned(), BOOT_TARGET.to_owned()]);
    Some(GuestProgram { directory: directory.to_owned(), argv })
}

/// Copies the program, and what it needs, to a directory named by its digest.
async fn lay_out(program: &Path, data: &Path) -> Result<PathBuf> {
    let failed = |source: io::Error| {
        Error::new(ErrorKind::Unavailable, "prepare the guest", "its program cannot be copied")
            .with_source(source)
            .with_context("path", program.display())
            .with_hint(NAME_IT)
    };
    let elf = elf::read(program).map_err(failed)?;
    let libraries = match &elf.interpreter {
        Some(loader) => list_libraries(loader, program).await.map_err(failed)?,
        None => Vec::new(),
    };
    let work = new_directory_in(data).map_err(failed)?;
    let copy = || {
        let digest = copy_file(program, &work.join("guest"))?;
        for library in &libraries {
            let name = library.file_name().ok_or(io::ErrorKind::InvalidData)?;
            copy_file(library, &work.join(name))?;
        }
        if let Some(loader) = &elf.interpreter {
            let name = loader.file_name().ok_or(io::ErrorKind::InvalidData)?;
            copy_file(loader, &work.join(name))?;
            symlink(name, work.join("loader"))?;
        }
        fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
        let directory = data.join(digest);
        match fs::rename(&work, &directory) {
            // Another process was faster, with the same content.
            Err(_) if laid_out(&directory).is_some() => fs::remove_dir_all(&work)?,
            other => other?,
        }
        Ok(directory)
    };
    copy().map_err(|source| {
        let _gone = fs::remove_dir_all(&work);
        failed(source)
    })
}

fn check_machine(program: &Path, machine: Option<Machine>) -> io::Result<()> {
    let elf = elf::read(program)?;
    match machine.or_else(Machine::own) {
        Some(machine) if !machine.is_of(&elf) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is for another kind of machine"))
        }
        _ => Ok(()),
    }
}

/// Names what is not finished: several calls of one process may be at work at once.
fn temporary_name() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    format!(".new-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

/// Makes an empty directory; a process of the same number that died may have left its own.
fn new_directory_in(data: &Path) -> io::Result<PathBuf> {
    let path = data.join(temporary_name());
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&path)?;
    Ok(path)
}

/// Copies a file and returns its digest.
fn copy_file(from: &Path, to: &Path) -> io::Result<String> {
    let content = fs::read(from)?;
    fs::write(to, &content)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o555))?;
    Ok(Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Asks the loader which libraries it would load (ld.so(8), `--list`).
async fn list_libraries(loader: &Path, program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = tokio::process::Command::new(loader)
        .arg("--list")
        .arg(program)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        timeout(LIST_DEADLINE, output).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if !output.status.success() {
        return Err(io::Error::other("its loader does not list its libraries"));
    }
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `name => /path (address)`; the kernel's own library has no path.
fn parse_list(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| {
            line.split_once("=>")?.1.trim().split_once(" (").map(|(path, _)| PathBuf::from(path))
        })
        .filter(|path| path.is_absolute())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(parse_list(text), [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6")]);
    }

    #[tokio::test]
    async fn a_program_is_copied_by_digest_with_what_it_needs() {
        let data = tempfile::tempdir().unwrap();
        // Debian's `true` is dynamic.
        let directory = lay_out(Path::new("/bin/true"), data.path()).await.unwrap();
        let found = laid_out(&directory).unwrap();
        assert!(found.argv[0].starts_with("/.agentkernel/bin/ld-"), "{:?}", found.argv);
        let copied = fs::read(directory.join("guest")).unwrap();
        assert_eq!(copied, fs::read("/bin/true").unwrap());
    }

    #[tokio::test]
    async fn calls_at_once_do_not_disturb_each_other() {
        let data = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/true");
        let (first, second) = tokio::join!(lay_out(program, data.path()), lay_out(program, data.path()));
        assert_eq!(first.unwrap(), second.unwrap());
    }

    #[tokio::test]
    async fn a_copied_dynamic_program_runs_with_its_own_loader() {
        let data = tempfile::tempdir().unwrap();
        let directory = lay_out(Path::new("/bin/true"), data.path()).await.unwrap();
        let loader = fs::read_link(directory.join("loader")).unwrap();
        let status = tokio::process::Command::new(directory.join(loader))
            .arg("--library-path")
            .arg(&directory)
            .arg(directory.join("guest"))
            .env_clear()
            .status()
            .await
            .unwrap();
        assert!(status.success());
    }
}
