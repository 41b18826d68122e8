//! Running scripts: words, redirections, children, traps.
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use agentkernel_core::{Bytes, ExitStatus, Signal};

use super::{
    applets,
    descriptor::{Fd, Fds, open, read, write},
    pipe::pipe,
    process::{Disposition, Process, World, lock},
    program::{self, Context},
    shell::{List, Node, Redirection, Target, Word, parse},
    tree::{Follow, Person, absolute},
};

/// The state of a shell.
#[derive(Debug, Clone)]
pub(super) struct Shell {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    pub(super) person: Person,
    pub(super) directory: Vec<u8>,
    pub(super) fds: Fds,
    /// Each with whether children get it.
    pub(super) variables: BTreeMap<String, (Vec<u8>, bool)>,
    pub(super) arguments: Vec<Vec<u8>>,
    pub(super) last: u8,
    /// `$$`, which subshells do not change.
    pub(super) own_pid: u32,
    pub(super) background: Vec<Arc<Process>>,
    traps: BTreeMap<u8, Vec<u8>>,
}

/// What a part of a script gives: its status, or the end of the shell.
type Step<'a> = Pin<Box<dyn Future<Output = Result<u8, ExitStatus>> + Send + 'a>>;

pub(super) fn code(status: ExitStatus) -> u8 {
    u8::try_from(status.code()).unwrap_or(255)
}

impl Shell {
    pub(super) fn new(context: Context) -> Self {
        let variables = context.env.into_iter().map(|(name, value)| (name, (value, true))).collect();
        Self {
            own_pid: context.process.pid,
            world: context.world,
            process: context.process,
            person: context.person,
            directory: context.directory,
            fds: context.fds,
            variables,
            arguments: context.argv,
            last: 0,
            background: Vec::new(),
            traps: BTreeMap::new(),
        }
    }

    /// Runs a script to its end.
    pub(super) async fn script(mut self, text: &[u8]) -> ExitStatus {
        let list = match parse(text) {
            Ok(list) => list,
            Err(misread) => {
                self.say(&format!("sh: {misread}\n")).await;
                return ExitStatus::Code(2);
            }
        };
        match self.list(&list).await {
            Ok(status) => ExitStatus::Code(status),
            Err(status) => status,
        }
    }

    async fn say(&self, text: &str) {
        if let Some(fd) = &self.fds[2] {
            let _written = write(&self.world, fd, Bytes::copy_from_slice(text.as_bytes())).await;
        }
    }

    fn context(&self, argv: Vec<Vec<u8>>, process: Arc<Process>) -> Context {
        let exported = self.variables.iter().filter(|(_, (_, exported))| *exported);
        Context {
            world: Arc::clone(&self.world),
            process,
            person: self.person,
            directory: self.directory.clone(),
            fds: self.fds.clone(),
            env: exported.map(|(name, (value, _))| (name.clone(), value.clone())).collect(),
            argv,
        }
    }

    /// Starts a copy of this shell that runs a part of the script.
    pub(super) fn fork(&self, list: List) -> Arc<Process> {
        let group = self.process.group.load(Ordering::SeqCst);
        let mut copy = self.clone();
        copy.background.clear();
        copy.traps.clear();
        self.world.start(&self.process.command, Some(group), Some(&self.process), move |process| {
            copy.process = process;
            Box::pin(async move {
                match copy.list(&list).await {
                    Ok(status) => ExitStatus::Code(status),
                    Err(status) => status,
                }
            })
        })
    }

    async fn list(&mut self, list: &List) -> Result<u8, ExitStatus> {
        for (node, background) in list {
            if *background {
                let mut copy = self.clone();
                copy.fds[0] = Some(Fd::Null);
                self.background.push(copy.fork(vec![(node.clone(), false)]));
                self.last = 0;
            } else {
                self.last = self.node(node).await?;
            }
            self.run_traps().await?;
        }
        Ok(self.last)
    }

    async fn run_traps(&mut self) -> Result<(), ExitStatus> {
        let pending = std::mem::take(&mut *lock(&self.process.pending));
        for signal in pending {
            let Some(text) = self.traps.get(&signal).cloned() else { continue };
            let list = parse(&text).map_err(|_| ExitStatus::Code(2))?;
            let last = self.last;
            self.boxed(&list).await?;
            self.last = last;
        }
        Ok(())
    }

    fn boxed<'a>(&'a mut self, list: &'a List) -> Step<'a> {
        Box::pin(self.list(list))
    }

    fn node<'a>(&'a mut self, node: &'a Node) -> Step<'a> {
        Box::pin(async move {
            match node {
                Node::Simple { assignments, words, redirections } => {
                    self.simple(assignments, words, redirections).await
                }
                Node::Pipeline(nodes) => self.pipeline(nodes).await,
                Node::And(left, right) => match self.node(left).await? {
                    0 => self.node(right).await,
                    status => Ok(status),
                },
                Node::Or(left, right) => match self.node(left).await? {
                    0 => Ok(0),
                    _ => self.node(right).await,
                },
                Node::Not(node) => Ok(u8::from(self.node(node).await? == 0)),
                Node::If { arms, otherwise } => {
                    for (condition, body) in arms {
                        if self.list(condition).await? == 0 {
                            return self.list(body).await;
                        }
                    }
                    self.last = 0;
                    self.list(otherwise).await
                }
                Node::Loop { until, condition, body } => {
                    let mut status = 0;
                    while (self.list(condition).await? == 0) != *until {
                        status = self.list(body).await?;
                        tokio::task::yield_now().await;
                    }
                    Ok(status)
                }
                Node::For { name, words, body } => {
                    let mut status = 0;
                    for field in self.fields(words).await? {
                        self.variables.insert(name.clone(), (field, false));
                        status = self.list(body).await?;
                    }
                    Ok(status)
                }
                Node::Group { body, redirections } => {
                    let before = self.fds.clone();
                    let status = match self.redirect(redirections).await {
                        Ok(()) => self.list(body).await,
                        Err(status) => Ok(status),
                    };
                    self.fds = before;
                    status
                }
                Node::Subshell { body, redirections } => {
                    let mut copy = self.clone();
                    if let Err(status) = copy.redirect(redirections).await {
                        return Ok(status);
                    }
                    let child = copy.fork(body.clone());
                    drop(copy);
                    Ok(code(child.ended().await))
                }
            }
        })
    }

    async fn pipeline(&mut self, nodes: &[Node]) -> Result<u8, ExitStatus> {
        let mut children = Vec::new();
        let mut input = self.fds[0].clone();
        for (index, node) in nodes.iter().enumerate() {
            let mut copy = self.clone();
            copy.fds[0] = input.take();
            if index + 1 < nodes.len() {
                let (reader, writer) = pipe();
                copy.fds[1] = Some(Fd::Writer(writer));
                input = Some(Fd::Reader(reader));
            }
            children.push(copy.fork(vec![(node.clone(), false)]));
        }
        drop(input);
        let mut status = 0;
        for child in children {
            status = code(child.ended().await);
        }
        Ok(status)
    }

    async fn simple(
        &mut self,
        assignments: &[(String, Word)],
        words: &[Word],
        redirections: &[Redirection],
    ) -> Result<u8, ExitStatus> {
        let fields = self.fields(words).await?;
        let mut assigned = Vec::new();
        for (name, word) in assignments {
            assigned.push((name.clone(), self.text(word).await?));
        }
        if fields.is_empty() {
            for (name, value) in assigned {
                let exported = self.variables.get(&name).is_some_and(|(_, exported)| *exported);
                self.variables.insert(name, (value, exported));
            }
        } else if !assigned.is_empty() {
            let mut copy = self.clone();
            copy.variables.extend(assigned.into_iter().map(|(name, value)| (name, (value, true))));
            return match copy.redirect(redirections).await {
                Ok(()) => copy.run(fields).await,
                Err(status) => Ok(status),
            };
        }
        let before = self.fds.clone();
        if let Err(status) = self.redirect(redirections).await {
            self.fds = before;
            return Ok(status);
        }
        if fields.first().is_some_and(|name| name == b"exec") {
            drop(before);
            return self.exec(fields).await;
        }
        let status = if fields.is_empty() { Ok(0) } else { self.run(fields).await };
        self.fds = before;
        status
    }

    /// Replaces the shell, or only its open files.
    async fn exec(&mut self, mut fields: Vec<Vec<u8>>) -> Result<u8, ExitStatus> {
        fields.remove(0);
        if fields.is_empty() {
            return Ok(0);
        }
        let context = self.context(fields, Arc::clone(&self.process));
        self.fds = [None, None, None];
        match program::find(&context) {
            Ok(found) => Err(program::run(found, context).await),
            Err(_) => Err(ExitStatus::Code(127)),
        }
    }

    async fn run(&mut self, fields: Vec<Vec<u8>>) -> Result<u8, ExitStatus> {
        let name = String::from_utf8_lossy(&fields[0]).into_owned();
        let number = |field: Option<&Vec<u8>>| {
            field.and_then(|text| String::from_utf8_lossy(text).parse::<u64>().ok())
        };
        match name.as_str() {
            ":" => Ok(0),
            "exit" => {
                let status = number(fields.get(1)).map_or(self.last, |code| code.to_le_bytes()[0]);
                Err(ExitStatus::Code(status))
            }
            "cd" => {
                let to = fields.get(1).cloned().unwrap_or_default();
                let to = absolute(&self.directory, &to);
                let tree = lock(&self.world.tree);
                let found = tree.find(&to, Follow::Yes).and_then(|id| tree.entries(id));
                drop(tree);
                match found {
                    Ok(_) => {
                        self.directory = to;
                        Ok(0)
                    }
                    Err(_) => Ok(1),
                }
            }
            "trap" => {
                self.trap(&fields[1..]);
                Ok(0)
            }
            "read" => self.read(&fields[1..]).await,
            "wait" => {
                while let Some(child) = self.background.pop() {
                    let process = Arc::clone(&self.process);
                    tokio::select! {
                        _ = child.ended() => {}
                        () = process.caught.notified() => self.run_traps().await?,
                    }
                }
                Ok(0)
            }
            "export" => {
                for field in &fields[1..] {
                    let name = String::from_utf8_lossy(field).into_owned();
                    if let Some(variable) = self.variables.get_mut(&name) {
                        variable.1 = true;
                    }
                }
                Ok(0)
            }
            // A signal to the shell itself counts before the next command.
            "kill" | "echo" | "printf" | "test" | "[" | "true" | "false" | "pwd" => {
                let context = self.context(fields, Arc::clone(&self.process));
                let status = applets::run(&name, context).await;
                tokio::task::yield_now().await;
                match status {
                    ExitStatus::Code(status) => Ok(status),
                    ended => Err(ended),
                }
            }
            _ => self.child(fields).await,
        }
    }

    async fn child(&mut self, fields: Vec<Vec<u8>>) -> Result<u8, ExitStatus> {
        let context = self.context(fields, Arc::clone(&self.process));
        let found = match program::find(&context) {
            Ok(found) => found,
            Err(_) => {
                self.say(&format!("sh: {}: not found\n", String::from_utf8_lossy(&context.argv[0]))).await;
                return Ok(127);
            }
        };
        let group = self.process.group.load(Ordering::SeqCst);
        let child = self.world.start(&self.process.command, Some(group), Some(&self.process), |process| {
            Box::pin(program::run(found, Context { process, ..context }))
        });
        Ok(code(child.ended().await))
    }

    fn trap(&mut self, fields: &[Vec<u8>]) {
        let Some((action, signals)) = fields.split_first() else { return };
        for signal in signals {
            let Ok(signal) = String::from_utf8_lossy(signal).parse::<Signal>() else { continue };
            let disposition = if action.is_empty() { Disposition::Ignored } else { Disposition::Caught };
            lock(&self.process.dispositions).insert(signal.number(), disposition);
            self.traps.insert(signal.number(), action.clone());
        }
    }

    async fn read(&mut self, names: &[Vec<u8>]) -> Result<u8, ExitStatus> {
        let mut line = Vec::new();
        let ended = loop {
            match self.fds[0].clone() {
                Some(fd) => match read(&self.world, &fd, 1).await.first() {
                    Some(b'\n') => break false,
                    Some(byte) => line.push(*byte),
                    None => break true,
                },
                None => break true,
            }
        };
        if let Some(name) = names.first() {
            self.variables
                .insert(String::from_utf8_lossy(name).into_owned(), (line.trim_ascii().to_vec(), false));
        }
        Ok(u8::from(ended))
    }

    async fn redirect(&mut self, redirections: &[Redirection]) -> Result<(), u8> {
        for redirection in redirections {
            let (word, write, append) = match &redirection.to {
                Target::Copy(from) => {
                    self.fds[redirection.fd] = self.fds[*from].clone();
                    continue;
                }
                Target::Close => {
                    self.fds[redirection.fd] = None;
                    continue;
                }
                Target::Read(word) => (word, false, false),
                Target::Write(word) => (word, true, false),
                Target::Append(word) => (word, true, true),
            };
            let path = self.text(word).await.map_err(code)?;
            match open(&self.world, &absolute(&self.directory, &path), self.person, write, append) {
                Ok(fd) => self.fds[redirection.fd] = Some(fd),
                Err(errno) => {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    self.say(&format!("sh: {path}: {}\n", errno.text())).await;
                    return Err(1);
                }
            }
        }
        Ok(())
    }
}
