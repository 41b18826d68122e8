//! Finding a program in the tree and running it.
use std::{collections::BTreeMap, sync::Arc};

use agentkernel_core::{ErrorKind, ExitStatus};

use super::{
    applets,
    descriptor::Fds,
    image::MAGIC,
    interpreter::Shell,
    process::{Process, World, lock},
    tree::{Errno, Follow, Kind, Person, absolute},
};

/// What a program runs with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    pub(super) person: Person,
    pub(super) directory: Vec<u8>,
    pub(super) fds: Fds,
    pub(super) env: BTreeMap<String, Vec<u8>>,
    pub(super) argv: Vec<Vec<u8>>,
}

/// A program that can be run.
#[derive(Debug)]
pub(super) enum Program {
    Shell,
    Applet(String),
    Script { path: Vec<u8>, text: Vec<u8> },
}

/// Finds the program of a context, or says why it cannot be run.
pub(super) fn find(context: &Context) -> Result<Program, ErrorKind> {
    look(&context.world, &context.directory, &context.env, &context.argv[0])
}

/// Finds a program by its name in the path of the variables.
pub(super) fn look(
    world: &World,
    directory: &[u8],
    env: &BTreeMap<String, Vec<u8>>,
    name: &[u8],
) -> Result<Program, ErrorKind> {
    if name.contains(&b'/') {
        return load(world, &absolute(directory, name));
    }
    let path = env.get("PATH").map_or(b"/bin".as_slice(), Vec::as_slice);
    let mut answer = ErrorKind::CommandNotFound;
    for place in path.split(|byte| *byte == b':') {
        match load(world, &absolute(directory, &[place, b"/", name].concat())) {
            Err(ErrorKind::CommandNotFound) => {}
            Err(other) => answer = other,
            found => return found,
        }
    }
    Err(answer)
}

fn load(world: &World, path: &[u8]) -> Result<Program, ErrorKind> {
    let tree = lock(&world.tree);
    let inode = tree.find(path, Follow::Yes).and_then(|id| tree.get(id)).map_err(|errno| match errno {
        Errno::NotFound | Errno::NotDirectory => ErrorKind::CommandNotFound,
        _ => ErrorKind::CommandNotExecutable,
    })?;
    let Kind::File(content) = &inode.kind else { return Err(ErrorKind::CommandNotExecutable) };
    if inode.mode & 0o111 == 0 {
        return Err(ErrorKind::CommandNotExecutable);
    }
    if let Some(name) = content.strip_prefix(MAGIC) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Ok(if name == "sh" { Program::Shell } else { Program::Applet(name) });
    }
    if content.starts_with(b"#!/bin/sh") {
        return Ok(Program::Script { path: path.to_vec(), text: content.to_vec() });
    }
    Err(ErrorKind::CommandNotExecutable)
}

/// Runs a program in the process of the context.
pub(super) async fn run(program: Program, mut context: Context) -> ExitStatus {
    match program {
        Program::Applet(name) => applets::run(&name, context).await,
        Program::Script { path, text } => {
            context.argv[0] = path;
            Shell::new(context).script(&text).await
        }
        Program::Shell => {
            if context.argv.get(1).is_none_or(|option| option != b"-c") || context.argv.len() < 3 {
                return ExitStatus::Code(2);
            }
            let text = context.argv.remove(2);
            context.argv.remove(1);
            // What follows the script is `$0` and the arguments.
            if context.argv.len() > 1 {
                context.argv.remove(0);
            }
            Shell::new(context).script(&text).await
        }
    }
}
