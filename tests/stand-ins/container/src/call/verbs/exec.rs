//! `exec` (reference 1.5).
#![expect(clippy::print_stdout, reason = "a command prints")]

use crate::call::{
    Host,
    failure::{Outcome, failed},
    grammar::Call,
    runtime::{self, Attach},
    verbs::create,
};

pub(crate) fn exec(host: &Host, call: &Call) -> Outcome {
    let id = call.first();
    let Some(record) = host.record(id)? else {
        return failed(format!("get failed: container {id} not found"));
    };
    let Some(status) = host.running(id)? else {
        return failed(format!("container {id} is not running"));
    };
    // The init's process is the base; its environment stays in front, also of the same keys. `--ulimit` is ignored.
    let mut process = record.process.clone();
    let [executable, arguments @ ..] = call.command() else {
        return failed("no command");
    };
    process.executable.clone_from(executable);
    process.arguments = arguments.to_vec();
    process.environment.extend(create::environment(call)?);
    process.terminal = call.has("--tty");
    if let Some(directory) = call.get("--workdir") {
        process.directory = directory.to_owned();
    }
    let (user, groups) = create::user(call, &process.user)?;
    process.user = user;
    process.groups.extend(groups);
    let is_detached = call.has("--detach");
    let attach = (!is_detached)
        .then(|| Attach::new(host, call.has("--interactive"), call.has("--tty")))
        .transpose()?;
    let session = runtime::exec(host, &record, process, &status, attach)?;
    if is_detached {
        println!("{id}");
        return Ok(0);
    }
    let ended = session.follow();
    if ended.is_late {
        return failed("failed to exec process CancellationError()");
    }
    Ok(ended.code)
}
