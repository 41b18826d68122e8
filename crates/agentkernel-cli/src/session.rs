//! A running command joined to our stdin, stdout, stderr, terminal and signals until one side ends.
use std::{io, sync::Arc, time::Duration};

use agentkernel_core::{
    Bytes, Error, ErrorKind, Events, ExecControl, ExecEvent, ExecId, ExecOutput, ExecSession, ExitStatus,
    Result, SandboxName, Signal,
};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::{sync::Notify, time::timeout};

use crate::{
    output,
    signals::{Act, Signals},
    sink::{Sink, To},
    stdin, terminal,
};

/// How long the other side may take to confirm a signal or a size before it counts as gone.
const CONTROL: Duration = Duration::from_secs(1);

/// How a session ended for us.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended.
    Exited(ExitStatus),
    /// The person left it running.
    Detached(ExecId),
    /// We were told to end; the session's drop killed the command.
    Signaled(Signal),
    /// Nobody reads our output any more; the session's drop killed the command.
    ReaderGone,
}

/// How a session is joined to us.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Join<'a> {
    /// The command has a terminal: ours is made raw.
    pub(crate) tty: bool,
    /// The detach keys are ours.
    pub(crate) detach_keys: bool,
    /// All of this sandbox's command goes to stdout, as lines of JSON.
    pub(crate) lines_of: Option<&'a SandboxName>,
}

/// Joins the session until it ends. Output goes out as it comes, and holds the command back when it cannot.
pub(crate) async fn join(mut session: ExecSession, join: Join<'_>, signals: &mut Signals) -> Result<End> {
    let _raw = if join.tty { Some(terminal::RawMode::enter()?) } else { None };
    let mut sink = Sink::start(vec![To::Stdout, To::Stderr]).map_err(no_thread)?;
    let detached = forward_stdin(&mut session, join.detach_keys)?;
    let control = session.control();
    if let Some(name) = join.lines_of {
        sink.put(0, output::started_line(name, session.id()).into());
    }
    loop {
        tokio::select! {
            biased;
            act = signals.next() => if let Some(signal) = obey(act, &*control).await {
                return Ok(End::Signaled(signal));
            },
            () = detached.notified() => return session.detach().await.map(End::Detached),
            event = step(&mut session, &mut sink) => match event {
                Ok(Some(event)) if join.lines_of.is_some() => {
                    if let Some(line) = output::event_line(&event) {
                        sink.put(0, line.into());
                    }
                    if let ExecEvent::Exited(status) = event {
                        return written(sink, status, signals).await;
                    }
                }
                Ok(Some(ExecEvent::Stdout(bytes))) => sink.put(0, bytes),
                Ok(Some(ExecEvent::Stderr(bytes))) => sink.put(1, bytes),
                Ok(Some(ExecEvent::Exited(status))) => return written(sink, status, signals).await,
                Ok(Some(_) | None) => {}
                Err(Failure::Session(error)) => return Err(error),
                Err(Failure::Output(error)) => return output_failed(error),
            },
        }
    }
}

/// Prints what a command did, each part in its stream, or all of it as lines of JSON.
pub(crate) async fn print(
    mut events: Events<ExecEvent>,
    as_json: bool,
    signals: &mut Signals,
) -> Result<End> {
    let mut sink = Sink::start(vec![To::Stdout, To::Stderr]).map_err(no_thread)?;
    let printed = async {
        loop {
            match sink.ready().await {
                Ok(()) => {}
                Err(error) => return output_failed(error),
            }
            let Some(event) = events.next().await.transpose()? else { break };
            match event {
                event if as_json => {
                    if let Some(line) = output::event_line(&event) {
                        sink.put(0, line.into());
                    }
                }
                ExecEvent::Stdout(bytes) => sink.put(0, bytes),
                ExecEvent::Stderr(bytes) => sink.put(1, bytes),
                _ => {}
            }
        }
        match sink.finish().await {
            Ok(()) => Ok(End::Exited(ExitStatus::Code(0))),
            Err(error) => output_failed(error),
        }
    };
    match signals.race(printed).await {
        Ok(end) => end,
        Err(signal) => Ok(End::Signaled(signal)),
    }
}

/// Keeps the output in memory, at most `limit` bytes of each stream, for those who want all of it at the end.
pub(crate) async fn collect(
    mut session: ExecSession,
    limit: usize,
    signals: &mut Signals,
) -> Result<std::result::Result<ExecOutput, Signal>> {
    let _detached = forward_stdin(&mut session, false)?;
    let control = session.control();
    let (mut stdout, mut stderr, mut truncated) = (BytesMut::new(), BytesMut::new(), false);
    let mut keep = |kept: &mut BytesMut, bytes: &Bytes| {
        let room = limit - kept.len();
        truncated |= bytes.len() > room;
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let status = loop {
        tokio::select! {
            biased;
            act = signals.next() => if let Some(signal) = obey(act, &*control).await {
                return Ok(Err(signal));
            },
            event = session.next_event() => match event.transpose()? {
                Some(ExecEvent::Stdout(bytes)) => keep(&mut stdout, &bytes),
                Some(ExecEvent::Stderr(bytes)) => keep(&mut stderr, &bytes),
                Some(ExecEvent::Exited(status)) => break status,
                Some(_) | None => {}
            },
        }
    };
    Ok(Ok(ExecOutput { status, stdout: stdout.freeze(), stderr: stderr.freeze(), truncated }))
}

enum Failure {
    Session(Error),
    Output(io::Error),
}

/// The next event, once there is room for it. Cancel-safe, as both halves are.
async fn step(session: &mut ExecSession, sink: &mut Sink) -> std::result::Result<Option<ExecEvent>, Failure> {
    sink.ready().await.map_err(Failure::Output)?;
    session.next_event().await.transpose().map_err(Failure::Session)
}

/// Sends our stdin in, unless reading it would stop us. Returns the news that the detach keys were pressed.
fn forward_stdin(session: &mut ExecSession, detach_keys: bool) -> Result<Arc<Notify>> {
    let pressed = Arc::new(Notify::new());
    if let Some(writer) = session.take_stdin()
        && terminal::can_read_stdin()
    {
        let queue = stdin::chunks().map_err(no_thread)?;
        tokio::spawn(stdin::forward(queue, writer, detach_keys.then(|| Arc::clone(&pressed))));
    }
    Ok(pressed)
}

/// Acts on a signal and returns the one to end by, if it is time: also when the command cannot be told.
async fn obey(act: Act, control: &dyn ExecControl) -> Option<Signal> {
    match act {
        Act::Resize => {
            // A command without a terminal has no size.
            let _unsupported = timeout(CONTROL, control.resize(terminal::size())).await;
            None
        }
        Act::Forward(signal) => {
            let told = timeout(CONTROL, control.signal(signal)).await;
            (!matches!(told, Ok(Ok(())))).then_some(signal)
        }
        Act::End(signal) => Some(signal),
    }
}

/// Waits for the reader of what the command wrote; its own end is known by now, so any signal ends the wait.
async fn written(mut sink: Sink, status: ExitStatus, signals: &mut Signals) -> Result<End> {
    match signals.race(sink.finish()).await {
        Ok(Ok(())) => Ok(End::Exited(status)),
        Ok(Err(error)) => output_failed(error),
        Err(signal) => Ok(End::Signaled(signal)),
    }
}

fn output_failed(error: io::Error) -> Result<End> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(End::ReaderGone);
    }
    Err(Error::unexpected("pass the command's output on", "writing failed", error))
}

fn no_thread(error: io::Error) -> Error {
    Error::new(ErrorKind::ResourceExhausted, "start", "there is no room for a thread").with_source(error)
}
