//! Running scripts: words, redirections, children, traps.
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
};

use agentkernel_core::{Bytes, ExitStatus, Signal};

use super::{
    applets,
    pipe::{PipeReader, PipeWriter, pipe},
    process::{Disposition, Process, World, lock},
    program::{self, Context},
    shell::{List, Node, Piece, Redirection, Target, Word, parse},
    tree::{Follow, Id, Kind, Person, READ, WRITE, absolute},
};

/// An open file of a process.
#[derive(Debug, Clone)]
pub(super) enum Fd {
    Null,
    Zero,
    Reader(PipeReader),
    Writer(PipeWriter),
    File { id: Id, offset: Arc<Mutex<usize>>, append: bool },
}

/// stdin, stdout and stderr; a closed one is absent.
pub(super) type Fds = [Option<Fd>; 3];

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
    background: Vec<Arc<Process>>,
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
    fn fork(&self, list: List) -> Arc<Process> {
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

    /// Returns a word as one text.
    async fn text(&mut self, word: &Word) -> Result<Vec<u8>, ExitStatus> {
        Ok(self.fields_of(word, false).await?.join(&b' '))
    }

    async fn fields(&mut self, words: &[Word]) -> Result<Vec<Vec<u8>>, ExitStatus> {
        let mut fields = Vec::new();
        for word in words {
            fields.extend(self.fields_of(word, true).await?);
        }
        Ok(fields)
    }

    async fn fields_of(&mut self, word: &Word, split: bool) -> Result<Vec<Vec<u8>>, ExitStatus> {
        let (mut fields, mut current) = (Vec::new(), None::<Vec<u8>>);
        for piece in word {
            let (bytes, whole) = match piece {
                Piece::Text(text) => (text.clone(), true),
                Piece::Sum(text) => (self.sum(text), true),
                Piece::Variable { name, quoted: true, alternative: None } if name == "@" => {
                    let arguments = self.arguments.get(1..).unwrap_or_default().to_vec();
                    for (index, argument) in arguments.into_iter().enumerate() {
                        if index > 0 {
                            fields.extend(current.take());
                        }
                        current.get_or_insert_default().extend(argument);
                    }
                    continue;
                }
                Piece::Variable { name, alternative, quoted } => {
                    let value = match (self.variable(name), alternative) {
                        (Some(_), Some(alternative)) => self.boxed_text(alternative).await?,
                        (None, Some(_)) => Vec::new(),
                        (value, None) => value.unwrap_or_default(),
                    };
                    (value, *quoted || !split)
                }
                Piece::Output { body, quoted } => (self.output(body.clone()).await, *quoted || !split),
            };
            if whole {
                current.get_or_insert_default().extend(bytes);
                continue;
            }
            let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
            if bytes.first().is_some_and(space) {
                fields.extend(current.take());
            }
            let parts = bytes.split(space).filter(|part| !part.is_empty());
            for (index, part) in parts.enumerate() {
                if index > 0 {
                    fields.extend(current.take());
                }
                current.get_or_insert_default().extend_from_slice(part);
            }
            if bytes.last().is_some_and(space) {
                fields.extend(current.take());
            }
        }
        fields.extend(current);
        Ok(fields)
    }

    fn boxed_text<'a>(
        &'a mut self,
        word: &'a Word,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, ExitStatus>> + Send + 'a>> {
        Box::pin(self.text(word))
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        match name {
            "?" => Some(self.last.to_string().into()),
            "$" => Some(self.own_pid.to_string().into()),
            "!" => self.background.last().map(|child| child.pid.to_string().into()),
            "#" => Some((self.arguments.len().saturating_sub(1)).to_string().into()),
            "@" | "*" => Some(self.arguments.get(1..).unwrap_or_default().join(&b' ')),
            _ => match name.parse::<usize>() {
                Ok(index) => self.arguments.get(index).cloned(),
                Err(_) => self.variables.get(name).map(|(value, _)| value.clone()),
            },
        }
    }

    /// Sums of numbers and variables: `i+1`.
    fn sum(&self, text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(text).into_owned();
        let terms = text.split('+').map(str::trim).map(|term| {
            let value = self.variable(term.trim_start_matches('$')).unwrap_or_else(|| term.into());
            term.parse().ok().or_else(|| String::from_utf8_lossy(&value).parse::<i64>().ok()).unwrap_or(0)
        });
        terms.sum::<i64>().to_string().into()
    }

    async fn output(&mut self, body: List) -> Vec<u8> {
        let (reader, writer) = pipe();
        let mut copy = self.clone();
        copy.fds[1] = Some(Fd::Writer(writer));
        let child = copy.fork(body);
        drop(copy);
        let mut all = Vec::new();
        while let Some(bytes) = reader.take(usize::MAX).await {
            all.extend_from_slice(&bytes);
        }
        self.last = code(child.ended().await);
        while all.last() == Some(&b'\n') {
            all.pop();
        }
        all
    }
}

/// Opens a file as a shell's redirection does.
pub(super) fn open(
    world: &World,
    path: &[u8],
    person: Person,
    writing: bool,
    append: bool,
) -> Result<Fd, super::tree::Errno> {
    let mut tree = lock(&world.tree);
    let id = match tree.find(path, Follow::Yes) {
        Ok(id) => id,
        Err(super::tree::Errno::NotFound) if writing => {
            tree.make(path, Kind::File(Arc::default()), 0o644, person)?
        }
        Err(errno) => return Err(errno),
    };
    tree.check(id, person, if writing { WRITE } else { READ })?;
    match tree.get(id)?.kind {
        Kind::Null => return Ok(Fd::Null),
        Kind::Zero => return Ok(Fd::Zero),
        Kind::Directory(_) => return Err(super::tree::Errno::IsDirectory),
        Kind::Fifo | Kind::Link(_) => return Err(super::tree::Errno::Special),
        Kind::File(_) if writing && !append => tree.truncate(id),
        Kind::File(_) => {}
    }
    Ok(Fd::File { id, offset: Arc::default(), append })
}

/// Reads at most so many bytes; none at end-of-file.
pub(super) async fn read(world: &World, fd: &Fd, most: usize) -> Bytes {
    match fd {
        Fd::Null | Fd::Writer(_) => Bytes::new(),
        Fd::Zero => Bytes::from(vec![0; most.min(64 << 10)]),
        Fd::Reader(reader) => reader.take(most).await.unwrap_or_default(),
        Fd::File { id, offset, .. } => {
            let tree = lock(&world.tree);
            let mut offset = lock(offset);
            let Ok(Kind::File(content)) = tree.get(*id).map(|inode| &inode.kind) else { return Bytes::new() };
            let start = (*offset).min(content.len());
            let end = start.saturating_add(most.min(64 << 10)).min(content.len());
            *offset = end;
            Bytes::copy_from_slice(&content[start..end])
        }
    }
}

/// Writes all bytes; a broken pipe ends the process by a signal.
pub(super) async fn write(world: &World, fd: &Fd, bytes: Bytes) -> Result<(), ExitStatus> {
    match fd {
        Fd::Null | Fd::Zero => Ok(()),
        Fd::Reader(_) => Err(ExitStatus::Code(1)),
        Fd::Writer(writer) => {
            writer.give(bytes).await.map_err(|_| ExitStatus::Signal(Signal::new(13).unwrap_or(Signal::TERM)))
        }
        Fd::File { id, offset, append } => {
            let mut tree = lock(&world.tree);
            let mut offset = lock(offset);
            let at = (!append).then_some(*offset);
            *offset = tree.write_at(*id, at, &bytes).map_err(|_| ExitStatus::Code(1))?;
            Ok(())
        }
    }
}
