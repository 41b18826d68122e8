//! From flags to what core takes: the config of a sandbox and the options of a command.
pub(crate) mod file;
pub(crate) mod inputs;
pub(crate) mod merge;
pub(crate) mod trust;

use std::{
    ffi::{OsStr, OsString},
    hash::{BuildHasher, RandomState},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use agentkernel_core::{
    EnvVar, Error, ErrorKind, ExecOptions, ExecSpec, Network, Result, SandboxConfig, SandboxName, SandboxPath,
};

use crate::args::{ExecArgs, LimitFlags, SandboxFlags};
use inputs::Inputs;

/// Reads the flags of a sandbox, the files that they name, and the config file.
pub(crate) async fn sandbox(flags: &SandboxFlags) -> Result<(SandboxConfig, ExecOptions)> {
    let (config, options) = from_flags(flags, inputs::read(flags).await?)?;
    let mut config = file::merged(config, flags.config.as_deref()).await?;
    config.pull = flags.pull.unwrap_or(config.pull);
    // A variable of the flags that is no text wins too.
    config.env.retain(|name, _| !options.env.iter().any(|var| var.name() == name));
    Ok((config, options))
}

/// What a config cannot carry, because it is not UTF-8, is returned for the command alone.
fn from_flags(flags: &SandboxFlags, inputs: Inputs) -> Result<(SandboxConfig, ExecOptions)> {
    let mut options = ExecOptions::default();
    let mut config = SandboxConfig::default();
    config.files = inputs.files;
    for var in inputs.variables.into_iter().chain(variables(&flags.env)?) {
        match str::from_utf8(var.value()) {
            Ok(value) => {
                options.env.retain(|earlier: &EnvVar| earlier.name() != var.name());
                config.env.insert(var.name().to_owned(), value.to_owned());
            }
            Err(_) => options.env.push(var),
        }
    }
    if let Some(directory) = &flags.workdir {
        let path = SandboxPath::new(directory.as_bytes())?;
        match directory.to_str() {
            Some(text) => config.cwd = Some(text.to_owned()),
            None => options.cwd = Some(path),
        }
    }
    config.image = flags.image.as_ref().map(ToString::to_string);
    config.pull = flags.pull.unwrap_or_default();
    config.vcpus = flags.cpus;
    config.memory_mb = flags.memory;
    config.pids = flags.pids;
    config.open_files = flags.open_files;
    config.disk_mb = flags.disk;
    config.mount_cwd = flags.workspace.is_some();
    config.work_dir.clone_from(&flags.workspace);
    config.mounts.clone_from(&flags.mounts);
    config.volumes.clone_from(&flags.volumes);
    config.tmpfs.clone_from(&flags.tmpfs);
    config.user = flags.user.as_ref().map(ToString::to_string);
    config.network = if flags.no_network { Some(Network::None) } else { flags.network.clone() };
    config.ports.clone_from(&flags.publish);
    config.read_only = flags.read_only.then_some(true);
    config.isolation = flags.isolation;
    config.cap_add.clone_from(&flags.cap_add);
    config.profile = flags.profile;
    config.allow_weaker.clone_from(&flags.allow_weaker);
    config.labels = flags.labels.iter().cloned().collect();
    config.time_to_live = flags.ttl;
    Ok((config, options))
}

/// Reads the flags of `exec`.
pub(crate) fn exec(args: &ExecArgs) -> Result<ExecOptions> {
    let mut options = ExecOptions::default().with_env(variables(&args.env)?);
    options.cwd = args.workdir.as_deref().map(|path| SandboxPath::new(path.as_bytes())).transpose()?;
    options.user.clone_from(&args.user);
    Ok(limited(options, &args.limits))
}

/// Adds what bounds a command.
pub(crate) fn limited(mut options: ExecOptions, limits: &LimitFlags) -> ExecOptions {
    options.timeout = limits.timeout;
    options.with_output_limit(limits.output_limit)
}

/// Makes the command; its words are bytes and stay as they are.
pub(crate) fn command(words: &[OsString], options: ExecOptions) -> Result<ExecSpec> {
    ExecSpec::new(words.iter().map(|word| word.clone().into_vec()), options)
}

/// Gives the terminal inside our terminal's kind, unless the caller sets it.
pub(crate) fn with_terminal_kind(mut options: ExecOptions) -> ExecOptions {
    let is_set = options.env.iter().any(|var| var.name() == "TERM");
    if let Some(kind) = std::env::var_os("TERM").filter(|_| !is_set)
        && let Ok(var) = EnvVar::new("TERM", kind.into_vec())
    {
        options.env.push(var);
    }
    options
}

fn variables(flags: &[OsString]) -> Result<Vec<EnvVar>> {
    flags.iter().map(|text| EnvVar::parse(text.as_bytes())).collect()
}

/// Makes up a name for a sandbox that got none.
pub(crate) fn made_up_name() -> Result<SandboxName> {
    format!("run-{:08x}", random()).parse()
}

/// The standard library's hash seed is the one source of randomness that it offers, and unique is all that is needed.
pub(crate) fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(std::process::id()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Points at `--image` if the program that was not found was meant as an image.
pub(crate) fn hint_at_image(error: Error, words: &[OsString], has_image: bool) -> Error {
    let is_about_it = error.kind() == ErrorKind::CommandNotFound || !has_image;
    match words.first().filter(|word| is_about_it && looks_like_image(word)) {
        Some(word) => error.with_hint(format!(
            "`run` takes no image before the command: write `--image {} -- COMMAND`",
            word.display()
        )),
        None => error,
    }
}

fn looks_like_image(word: &OsStr) -> bool {
    word.to_str()
        .is_some_and(|word| word.contains([':', '/']) && word.parse::<agentkernel_core::ImageRef>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, SandboxVerb, Verb};
    use clap::Parser;

    fn run(words: &[&[u8]]) -> Result<(SandboxConfig, ExecOptions)> {
        let words = [b"agentkernel".as_slice(), b"run"].into_iter().chain(words.iter().copied());
        let cli = Cli::try_parse_from(words.chain([b"true".as_slice()]).map(OsStr::from_bytes)).unwrap();
        let Verb::Sandbox(SandboxVerb::Run(args)) = cli.verb else { panic!("not run") };
        from_flags(&args.sandbox, Inputs::default())
    }

    #[test]
    fn values_that_are_no_text_go_to_the_command_alone() {
        let (config, options) = run(&[b"-e", b"A=1", b"-e", b"B=\xff", b"-w", b"/\xff"]).unwrap();
        assert_eq!(config.env.keys().collect::<Vec<_>>(), ["A"]);
        assert_eq!((options.env.len(), options.env[0].value()), (1, b"\xff".as_slice()));
        assert_eq!(options.cwd.unwrap().as_bytes(), b"/\xff");
    }

    #[test]
    fn a_variable_by_its_name_alone_is_refused() {
        assert!(run(&[b"-e", b"HOME"]).unwrap_err().hint().unwrap().contains("NAME=value"));
    }

    #[test]
    fn only_words_that_could_be_images_are_taken_for_them() {
        let looks = ["alpine:3.20", "ghcr.io/a/b", "ls", "/bin/ls", "./a", "../a"]
            .map(|word| looks_like_image(word.as_ref()));
        assert_eq!(looks, [true, true, false, false, false, false]);
    }

    #[test]
    fn from_the_first_word_everything_is_the_command() {
        for (line, command) in [
            (vec!["run", "echo", "--json", "--", "-x"], vec!["echo", "--json", "--", "-x"]),
            (vec!["run", "--", "--", "a"], vec!["--", "a"]),
            (vec!["run", "--image", "i", "--", "-c"], vec!["-c"]),
            (vec!["exec", "n", "-e", "A=1", "sh", "-c", "x"], vec!["sh", "-c", "x"]),
        ] {
            let cli = Cli::try_parse_from(std::iter::once("agentkernel").chain(line)).unwrap();
            assert!(!cli.global.json);
            let words = match cli.verb {
                Verb::Sandbox(SandboxVerb::Run(args)) => args.command,
                Verb::Sandbox(SandboxVerb::Exec(args)) => args.command,
                other => panic!("{other:?}"),
            };
            assert_eq!(words, command);
        }
    }

    #[test]
    fn unknown_flags_before_the_command_are_refused() {
        assert!(Cli::try_parse_from(["agentkernel", "run", "--nope", "true"]).is_err());
    }
}
