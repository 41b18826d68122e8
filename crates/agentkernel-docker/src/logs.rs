//! The output of a detached main command, as the engine kept it.
use agentkernel_core::{Error, ErrorKind, Events, ExecEvent, ExitStatus, LogOptions, Result, Signal, State};
use bollard::{container::LogOutput, query_parameters::LogsOptions};
use futures_util::{StreamExt, stream};

use crate::{
    engine::{Engine, absent_is_none},
    id::ContainerId,
    info,
};

/// Returns what is kept, and with `follow` what comes. `Exited` comes last if the sandbox has ended.
pub(crate) fn read(engine: Engine, id: ContainerId, options: &LogOptions) -> Events<ExecEvent> {
    let options = LogsOptions {
        follow: options.follow,
        stdout: true,
        stderr: true,
        tail: options.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string()),
        ..Default::default()
    };
    let output = engine.docker().logs(id.as_str(), Some(options)).boxed();
    let mapper = engine.clone();
    let events = output.map(move |part| match part {
        Ok(LogOutput::StdOut { message }) => Ok(ExecEvent::Stdout(message)),
        Ok(LogOutput::StdErr { message }) => Ok(ExecEvent::Stderr(message)),
        // The client gives what it cannot attribute, as a frame cut short, another name.
        Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. }) => {
            Err(Error::new(ErrorKind::Disconnected, "read logs", "the engine's log stream broke off"))
        }
        Err(source) => Err(mapper.error("read logs", source)),
    });
    let end = stream::once(async move { end(&engine, &id).await.transpose() }).filter_map(std::future::ready);
    events.chain(end).boxed()
}

/// Returns how the first process ended, if it did: the guest ends as its main command does.
async fn end(engine: &Engine, id: &ContainerId) -> Result<Option<ExecEvent>> {
    let Some(found) = absent_is_none(engine.inspect(id).await)? else { return Ok(None) };
    let Some(state) = found.state.filter(|state| info::state(state) == State::Stopped) else {
        return Ok(None);
    };
    let code = state.exit_code.and_then(|code| u8::try_from(code).ok());
    let status = code.map(|code| match code.checked_sub(128).and_then(Signal::new) {
        Some(signal) => ExitStatus::Signal(signal),
        None => ExitStatus::Code(code),
    });
    Ok(status.map(ExecEvent::Exited))
}
