//! Commands over a guest: a channel as an [`ExecSession`].
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use agentkernel_core::{
    CommandInfo, EnvVar, Error, ErrorKind, ExecControl, ExecEvent, ExecId, ExecSession, ExecSpec, ExitStatus,
    Replay, Result, Signal, TtySize, Writer, async_trait,
};
use agentkernel_guest::protocol::{CommandEntry, FromGuest, Request, Spawn, Status, ToGuest};
use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    GuestClient, REQUEST_DEADLINE,
    channel::{Channel, Frame},
    failure,
    stream::ChannelWriter,
};

const RUN: &str = "run command";
/// How much longer than a command's deadline we wait for the guest, which enforces it: a guest that is paused cannot.
const MARGIN: Duration = Duration::from_secs(10);

pub(crate) async fn spawn(client: &GuestClient, spec: &ExecSpec) -> Result<ExecSession> {
    let options = &spec.options;
    let variable = |var: &EnvVar| [var.name().as_bytes(), b"=", var.value()].concat();
    let request = Request::Spawn(Spawn {
        argv: spec.argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: options.env.iter().map(variable).collect(),
        cwd: options.cwd.as_ref().map(|cwd| cwd.as_bytes().to_vec()),
        user: options.user.as_ref().map(|user| user.as_str().as_bytes().to_vec()),
        tty: options.tty.map(|size| (size.rows, size.columns)),
        stdin: options.stdin,
        timeout_ms: options.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        main: spec.main,
        detached: spec.detached,
    });
    let program = spec.argv.first().map(|program| String::from_utf8_lossy(program.as_bytes()).into_owned());
    let session = session(client, request, options.stdin, options.timeout).await.map_err(|error| {
        let about_the_program =
            matches!(error.kind(), ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable);
        match (about_the_program, program) {
            (true, Some(program)) => error.with_context("program", program),
            _ => error,
        }
    })?;
    Ok(session.with_output_limit(options.output_limit))
}

pub(crate) async fn attach(client: &GuestClient, id: &ExecId, replay: Replay) -> Result<ExecSession> {
    let number = id.as_str().parse().map_err(|_| {
        Error::new(ErrorKind::NotFound, "attach to command", "there is no such command in the sandbox")
            .with_context("id", id)
    })?;
    let request = Request::Attach { id: number, replay: replay == Replay::Kept };
    session(client, request, true, None).await.map_err(|error| error.with_context("id", id))
}

async fn session(
    client: &GuestClient,
    request: Request,
    stdin: bool,
    deadline: Option<Duration>,
) -> Result<ExecSession> {
    let channel = Arc::new(client.request(request, |_, _| ())?);
    let id = match channel.answer(RUN, REQUEST_DEADLINE).await? {
        Frame::Other(FromGuest::Started { id }) => id,
        Frame::Other(FromGuest::Failed(failed)) => return Err(failure::refused(RUN, &failed)),
        _ => return Err(failure::out_of_place(RUN)),
    };
    let stdin = stdin.then(|| Box::pin(ChannelWriter::new(Arc::clone(&channel))) as Writer);
    let control = Arc::new(Control { channel: Arc::clone(&channel), ended: AtomicBool::new(false) });
    let overdue = deadline
        .map(|deadline| Overdue { sleep: Box::pin(sleep(deadline.saturating_add(MARGIN))), waits: false });
    let events = Output { channel, control: Arc::clone(&control), overdue, ended: false };
    Ok(ExecSession::new(id.into(), Box::pin(events), stdin, control))
}

/// The command's output. Dropping it closes the channel: the guest then kills the command, unless it is detached.
struct Output {
    channel: Arc<Channel>,
    control: Arc<Control>,
    overdue: Option<Overdue>,
    ended: bool,
}

/// Ends the wait for a guest that does not enforce a command's deadline.
struct Overdue {
    sleep: Pin<Box<Sleep>>,
    /// Nothing has come since.
    waits: bool,
}

impl Overdue {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        if !std::mem::replace(&mut self.waits, true) {
            // Whoever reads much output late keeps the guest waiting, and not the other way round.
            let soonest = Instant::now() + MARGIN;
            if self.sleep.deadline() < soonest {
                self.sleep.as_mut().reset(soonest);
            }
        }
        ready!(self.sleep.as_mut().poll(context));
        Poll::Ready(
            Error::new(ErrorKind::Timeout, RUN, "the guest does not end the command at its deadline")
                .with_hint("it may be paused or starved: look at `agentkernel inspect`"),
        )
    }
}

impl Stream for Output {
    type Item = Result<ExecEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match (self.channel.poll_next(context), &mut self.overdue) {
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(overdue)) => Err(ready!(overdue.poll(context))),
            (Poll::Ready(frame), overdue) => {
                overdue.iter_mut().for_each(|overdue| overdue.waits = false);
                frame
            }
        };
        let event = match frame {
            Ok(Frame::Stdout(bytes)) => return Poll::Ready(Some(Ok(ExecEvent::Stdout(bytes)))),
            Ok(Frame::Stderr(bytes)) => return Poll::Ready(Some(Ok(ExecEvent::Stderr(bytes)))),
            Ok(Frame::Other(FromGuest::Exited(status))) => status_of(status).map(ExecEvent::Exited),
            Ok(Frame::Other(FromGuest::Failed(failed))) => Err(failure::refused(RUN, &failed)),
            Ok(Frame::Other(_)) => Err(failure::out_of_place(RUN)),
            Err(error) => Err(error.with_operation(RUN)),
        };
        self.ended = true;
        self.control.ended.store(true, Ordering::Relaxed);
        Poll::Ready(Some(event))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.control.ended.store(true, Ordering::Relaxed);
        self.channel.close();
    }
}

fn status_of(status: Status) -> Result<ExitStatus> {
    match status {
        Status::Code(code) => Ok(ExitStatus::Code(code)),
        Status::Signal(number) => {
            Signal::new(number).map(ExitStatus::Signal).ok_or_else(|| failure::out_of_place(RUN))
        }
        Status::TimedOut => Ok(ExitStatus::TimedOut),
        Status::OutOfMemory => Ok(ExitStatus::OutOfMemory),
    }
}

struct Control {
    channel: Arc<Channel>,
    ended: AtomicBool,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Sends a frame about a command that still runs, and waits until the guest has taken it.
    async fn tell(&self, frame: ToGuest) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.channel.send(&frame);
        match self.channel.settle().await {
            // It ended meanwhile, and its sandbox with it: there is nothing left to tell.
            Err(_) if self.channel.has_ended() => Ok(()),
            settled => settled,
        }
    }
}

#[async_trait]
impl ExecControl for Control {
    async fn signal(&self, signal: Signal) -> Result<()> {
        self.tell(ToGuest::Signal(signal.number())).await
    }

    async fn resize(&self, size: TtySize) -> Result<()> {
        self.tell(ToGuest::Resize { rows: size.rows, columns: size.columns }).await
    }

    async fn detach(&self) -> Result<()> {
        self.tell(ToGuest::Detach).await
    }
}

pub(crate) async fn commands(client: &GuestClient) -> Result<Vec<CommandInfo>> {
    const LIST: &str = "list commands";
    let channel = client.request(Request::Commands, |_, _| ())?;
    let mut all = Vec::new();
    loop {
        match channel.answer(LIST, REQUEST_DEADLINE).await? {
            Frame::Other(FromGuest::Command(entry)) => all.push(info(*entry)?),
            Frame::Other(FromGuest::Done) => return Ok(all),
            Frame::Other(FromGuest::Failed(failed)) => return Err(failure::refused(LIST, &failed)),
            _ => return Err(failure::out_of_place(LIST)),
        }
        if all.len() > MAX_COMMANDS {
            return Err(failure::out_of_place(LIST));
        }
    }
}

/// More commands than processes fit into a sandbox: the guest lies.
const MAX_COMMANDS: usize = 1 << 16;

fn info(entry: CommandEntry) -> Result<CommandInfo> {
    let mut info = CommandInfo::new(entry.id.into(), entry.argv.into_iter().map(Bytes::from).collect());
    info.exit = entry.exit.map(status_of).transpose()?;
    info.running = entry.running;
    info.detached = entry.detached;
    info.main = entry.main;
    info.age = std::time::Duration::from_millis(entry.age_ms);
    Ok(info)
}
