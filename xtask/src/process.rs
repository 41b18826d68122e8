//! Running other programs: each is shown before it runs, and a failure names it.
use std::{
    ffi::OsStr,
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Makes a command from a program and its arguments.
pub(crate) fn command<I: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The cargo that runs us, so that a toolchain chosen by the caller stays chosen.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(&cargo, args)
}

/// Says something to the person or the log, on stderr.
pub(crate) fn say(text: &str) {
    // A closed stderr is no reason to stop the work.
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// Runs it with our own streams and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    say(&format!("$ {}", shown(command)));
    let status = command.status().with_context(|| format!("`{}` did not start", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs it without stdin and returns what it wrote to stdout; its stderr becomes part of the error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = quiet(command)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("`{}` ended with {}: {words}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` wrote no text", shown(command)))
}

/// Runs it without stdin and returns whether it succeeded; a program that is missing did not.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    quiet(command).is_ok_and(|output| output.status.success())
}

/// Runs it with `input` on stdin and returns what it wrote to stdout.
pub(crate) fn feed(command: &mut Command, input: Vec<u8>) -> Result<String> {
    say(&format!("$ {}", shown(command)));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{}` did not start", shown(command)))?;
    let stdin = child.stdin.take();
    // On a thread of its own: the program may write before it has read all.
    let writer = std::thread::spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    let written = writer.join();
    if !output.status.success() || !matches!(written, Ok(Ok(()))) {
        bail!("`{}` ended with {}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn quiet(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("`{}` did not start", shown(command)))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
