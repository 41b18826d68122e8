//! The programs of the fake's image: as much of each as the kit's scripts use.
use std::{sync::atomic::Ordering, time::Duration};

use agentkernel_core::{Bytes, ExitStatus, Signal};

use super::{
    descriptor::{Fd, open, read, write},
    loopback::Connection,
    process::lock,
    program::{self, Context},
    tree::{All, Errno, Follow, Kind, absolute},
};

/// The names of the programs beside `sh`.
pub(super) const APPLETS: &[&str] = &[
    "[", "cat", "chmod", "echo", "env", "false", "head", "id", "kill", "ln", "mkdir", "mkfifo", "mv", "nc",
    "printf", "pwd", "rm", "seq", "setsid", "sleep", "test", "touch", "true", "wc", "yes",
];

/// Runs a program in the process of the context.
pub(super) async fn run(name: &str, context: Context) -> ExitStatus {
    let ended = match name {
        "true" => Ok(0),
        "cat" => cat(&context).await,
        "echo" => {
            let line = [context.argv[1..].join(&b' '), b"\n".to_vec()].concat();
            context.print(line).await
        }
        "env" => {
            let lines =
                context.env.iter().map(|(name, value)| [name.as_bytes(), b"=", value, b"\n"].concat());
            let all = lines.collect::<Vec<_>>().concat();
            context.print(all).await
        }
        "head" => head(&context).await,
        "id" => {
            let id = if context.option("-g") { context.person.gid } else { context.person.uid };
            context.print(format!("{id}\n")).await
        }
        "kill" => kill(&context),
        "nc" => nc(context).await,
        "printf" => {
            let text = format(&context.argv[1..]);
            context.print(text).await
        }
        "pwd" => context.print([context.directory.as_slice(), b"\n"].concat()).await,
        "seq" => seq(&context).await,
        "setsid" => setsid(context).await,
        "sleep" => {
            let seconds = context.text(1).parse::<f64>().unwrap_or(0.0);
            tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).await;
            Ok(0)
        }
        "test" | "[" => Ok(u8::from(!holds(&context))),
        "wc" => wc(&context).await,
        "yes" => yes(&context).await,
        "chmod" | "ln" | "mkdir" | "mkfifo" | "mv" | "rm" | "touch" => change(name, &context).await,
        _ => Ok(1),
    };
    match ended {
        Ok(code) => ExitStatus::Code(code),
        Err(status) => status,
    }
}

type Ended = Result<u8, ExitStatus>;

impl Context {
    async fn print(&self, bytes: impl Into<Bytes>) -> Ended {
        match &self.fds[1] {
            Some(fd) => write(&self.world, fd, bytes.into()).await.map(|()| 0),
            None => Ok(1),
        }
    }

    async fn complain(&self, text: &str) -> Ended {
        if let Some(fd) = &self.fds[2] {
            write(&self.world, fd, Bytes::copy_from_slice(text.as_bytes())).await?;
        }
        Ok(1)
    }

    fn option(&self, option: &str) -> bool {
        self.argv.iter().any(|argument| argument == option.as_bytes())
    }

    fn text(&self, index: usize) -> String {
        self.argv.get(index).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    }

    fn path(&self, argument: &[u8]) -> Vec<u8> {
        absolute(&self.directory, argument)
    }

    /// Returns the arguments that are no options.
    fn operands(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.argv[1..].iter().filter(|argument| argument.first() != Some(&b'-'))
    }

    fn opened(&self, argument: &[u8]) -> Result<Fd, Errno> {
        open(&self.world, &self.path(argument), self.person, false, false)
    }
}

async fn copy(context: &Context, from: &Fd) -> Ended {
    loop {
        let bytes = read(&context.world, from, 64 << 10).await;
        if bytes.is_empty() {
            return Ok(0);
        }
        context.print(bytes).await?;
    }
}

async fn cat(context: &Context) -> Ended {
    let mut status = 0;
    let mut files = context.operands().peekable();
    if files.peek().is_none() {
        return match &context.fds[0] {
            Some(fd) => copy(context, fd).await,
            None => Ok(1),
        };
    }
    for file in files {
        match context.opened(file) {
            Ok(fd) => status |= copy(context, &fd).await?,
            Err(errno) => status |= context.complain(&format!("cat: {}\n", errno.text())).await?,
        }
    }
    Ok(status)
}

async fn head(context: &Context) -> Ended {
    let number = context.text(2).parse::<usize>().unwrap_or(10);
    let fd = match context.argv.get(3) {
        Some(file) => context.opened(file).ok(),
        None => context.fds[0].clone(),
    };
    let Some(fd) = fd else { return Ok(1) };
    let mut left = number;
    while left > 0 {
        let bytes = read(&context.world, &fd, if context.option("-c") { left } else { 64 << 10 }).await;
        if bytes.is_empty() {
            break;
        }
        if context.option("-c") {
            left -= bytes.len();
            context.print(bytes).await?;
            continue;
        }
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(left).collect::<Vec<_>>();
        left -= lines.iter().filter(|line| line.ends_with(b"\n")).count();
        context.print(lines.concat()).await?;
    }
    Ok(0)
}

fn kill(context: &Context) -> Ended {
    let option = context.text(1);
    let signal = match option.strip_prefix('-') {
        Some("0") => 0,
        Some(name) => name.parse::<Signal>().map_or(15, Signal::number),
        None => 15,
    };
    // Without a process, kill(1) is used wrongly: a script that asks whether nobody lives must not hear yes.
    let mut status = if context.operands().next().is_none() { 2 } else { 0 };
    for operand in context.operands() {
        let pid = String::from_utf8_lossy(operand).parse().unwrap_or(0);
        match context.world.process(pid) {
            Some(process) => process.signal(signal),
            None => status = 1,
        }
    }
    Ok(status)
}

/// `printf` with `%s`, `%b` and the escapes of POSIX.
fn format(arguments: &[Vec<u8>]) -> Vec<u8> {
    let Some((format, mut rest)) = arguments.split_first() else { return Vec::new() };
    let mut all = Vec::new();
    loop {
        let (before, mut bytes) = (rest.len(), format.as_slice());
        while let Some((byte, after)) = bytes.split_first() {
            bytes = after;
            match byte {
                b'%' => {
                    if let Some((kind, after)) = bytes.split_first() {
                        bytes = after;
                        if *kind == b'%' {
                            all.push(b'%');
                        } else if let Some((argument, others)) = rest.split_first() {
                            all.extend_from_slice(argument);
                            rest = others;
                        }
                    }
                }
                b'\\' => {
                    let octal = bytes.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                    if octal > 0 {
                        let value = bytes[..octal]
                            .iter()
                            .fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                        all.push(value.to_le_bytes()[0]);
                        bytes = &bytes[octal..];
                    } else if let Some((letter, after)) = bytes.split_first() {
                        bytes = after;
                        all.push(match letter {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            other => *other,
                        });
                    }
                }
                other => all.push(*other),
            }
        }
        if rest.is_empty() || rest.len() == before {
            return all;
        }
    }
}

async fn seq(context: &Context) -> Ended {
    let (first, last) = (context.text(1).parse::<u64>().unwrap_or(1), context.text(2).parse().unwrap_or(0));
    let mut block = Vec::new();
    for number in first..=last {
        block.extend_from_slice(format!("{number}\n").as_bytes());
        if block.len() > 32 << 10 {
            context.print(std::mem::take(&mut block)).await?;
        }
    }
    context.print(block).await
}

async fn setsid(mut context: Context) -> Ended {
    context.argv.remove(0);
    context.process.group.store(context.process.pid, Ordering::SeqCst);
    match program::find(&context) {
        Ok(found) => Err(Box::pin(program::run(found, context)).await),
        Err(_) => Ok(127),
    }
}

fn holds(context: &Context) -> bool {
    let mut words = context.argv[1..].iter().map(Vec::as_slice).collect::<Vec<_>>();
    if words.last() == Some(&b"]".as_slice()) {
        words.pop();
    }
    let number = |text: &[u8]| String::from_utf8_lossy(text).trim().parse::<i64>().unwrap_or(0);
    match words.as_slice() {
        [b"-e", path] => lock(&context.world.tree).find(&context.path(path), Follow::Yes).is_ok(),
        [b"-n", text] | [text] => !text.is_empty(),
        [b"-z", text] => text.is_empty(),
        [left, b"=", right] => left == right,
        [left, b"-lt", right] => number(left) < number(right),
        [left, b"-ge", right] => number(left) >= number(right),
        [left, b"-eq", right] => number(left) == number(right),
        _ => false,
    }
}

async fn wc(context: &Context) -> Ended {
    let Some(fd) = &context.fds[0] else { return Ok(1) };
    let (mut bytes, mut lines) = (0, 0);
    loop {
        let block = read(&context.world, fd, 64 << 10).await;
        if block.is_empty() {
            break;
        }
        bytes += block.len();
        lines += block.split(|byte| *byte == b'\n').count() - 1;
    }
    let number = if context.option("-c") { bytes } else { lines };
    context.print(format!("{number}\n")).await
}

async fn yes(context: &Context) -> Ended {
    let block = Bytes::from(b"y\n".repeat(16 << 10));
    loop {
        context.print(block.clone()).await?;
    }
}

/// The programs that only change the tree.
async fn change(name: &str, context: &Context) -> Ended {
    let mut status = 0;
    let person = context.person;
    let paths = context.operands().map(|operand| context.path(operand)).collect::<Vec<_>>();
    let operands = context.operands().collect::<Vec<_>>();
    let changed = {
        let mut tree = lock(&context.world.tree);
        match (name, paths.as_slice()) {
            ("chmod", [_, rest @ ..]) => rest.iter().try_for_each(|path| {
                let mode = u32::from_str_radix(&String::from_utf8_lossy(operands[0]), 8).unwrap_or(0);
                let id = tree.find(path, Follow::Yes)?;
                tree.set_mode(id, mode);
                Ok(())
            }),
            ("ln", [_, link]) => tree.make(link, Kind::Link(operands[0].clone()), 0o777, person).map(drop),
            ("mv", [from, to]) => tree.rename(from, to, person),
            _ => paths.iter().try_for_each(|path| match name {
                "mkdir" if context.option("-p") => tree.make_directories(path, person),
                "mkdir" => tree.make(path, Kind::Directory(Default::default()), 0o755, person).map(drop),
                "mkfifo" => tree.make(path, Kind::Fifo, 0o644, person).map(drop),
                "touch" => match tree.find(path, Follow::Yes) {
                    Ok(_) => Ok(()),
                    Err(_) => tree.make(path, Kind::File(Default::default()), 0o644, person).map(drop),
                },
                _ => tree.remove(path, if context.option("-rf") { All::Yes } else { All::No }, person),
            }),
        }
    };
    if let Err(errno) = changed {
        status = context.complain(&format!("{name}: {}\n", errno.text())).await?;
    }
    Ok(status)
}

/// `nc -l -p PORT -e PROGRAM...`, `nc -l -p PORT` and `nc ADDRESS PORT`; only loopback exists.
async fn nc(mut context: Context) -> Ended {
    let connection = if context.option("-l") {
        let port = context.text(3).parse().unwrap_or(0);
        let Some(mut listener) = context.world.ports.listen(port) else { return Ok(1) };
        listener.incoming.recv().await
    } else {
        let loopback = context.text(1) == "127.0.0.1";
        loopback.then(|| context.world.ports.connect(context.text(2).parse().unwrap_or(0))).flatten()
    };
    let Some(Connection { reader, writer }) = connection else {
        return context.complain("nc: the connection is refused\n").await;
    };
    if let Some(at) = context.argv.iter().position(|argument| argument == b"-e") {
        context.argv.drain(..=at);
        context.fds[0] = Some(Fd::Reader(reader));
        context.fds[1] = Some(Fd::Writer(writer));
        return match program::find(&context) {
            Ok(found) => Err(Box::pin(program::run(found, context)).await),
            Err(_) => Ok(127),
        };
    }
    let sending = async {
        while let Some(fd) = &context.fds[0] {
            let bytes = read(&context.world, fd, 64 << 10).await;
            if bytes.is_empty() || writer.give(bytes).await.is_err() {
                break;
            }
        }
        drop(writer);
    };
    let from = Fd::Reader(reader);
    let ((), received) = tokio::join!(sending, copy(&context, &from));
    received
}
