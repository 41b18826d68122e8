//! What verbs return, rendered for people or as JSON. stdout is data, and nothing else comes here.
mod diagnosis;
mod plan;
mod stored;
mod usage;

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{
    BackendType, Bytes, Capabilities, CommandInfo, Error, ExecEvent, ExecId, ExecOutput, ExitStatus, Health,
    ImageInfo, PortMapping, Pruned, Reap, Reaped, Result, SandboxInfo, SandboxName, VolumeName,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

pub(crate) use diagnosis::Diagnosis;
pub(crate) use plan::Plan;
pub(crate) use stored::Snapshot;
pub(crate) use usage::{Usage, clear};

use crate::report::printable;

/// What a verb returns.
#[derive(Debug)]
pub(crate) enum View {
    Names(Vec<String>),
    Sandboxes(Vec<SandboxInfo>),
    Sandbox(Box<SandboxInfo>, Vec<CommandInfo>),
    Command(ExecOutput),
    Commands(Vec<CommandInfo>),
    Usage(Vec<Usage>),
    Ports(Vec<PortMapping>),
    Snapshots(Vec<Snapshot>),
    Images(Vec<(BackendType, ImageInfo)>),
    Volumes(Vec<(BackendType, VolumeName)>),
    Pruned(Pruned),
    Diagnosis(Diagnosis),
    Plan(Box<Plan>),
    Reaped(Vec<Reaped>, Reap),
    Backends(Vec<BackendRow>),
    /// What `cp` left out, each with the reason.
    Skipped(Vec<(String, &'static str)>),
}

const COMMANDS: [&str; 4] = ["COMMAND", "STATE", "AGE", "ARGUMENTS"];

/// A backend and what became of asking it.
#[derive(Debug)]
pub(crate) struct BackendRow {
    pub(crate) backend: BackendType,
    pub(crate) health: Result<Health>,
    pub(crate) upper_bound: Option<Capabilities>,
}

/// Prints to stdout.
pub(crate) fn show(view: &View, as_json: bool) -> io::Result<()> {
    let text = if as_json { format!("{}\n", json(view)) } else { human(view) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn human(view: &View) -> String {
    match view {
        View::Names(names) => names.iter().map(|name| format!("{name}\n")).collect(),
        View::Sandboxes(sandboxes) => table(
            &["NAME", "STATE", "BACKEND", "ISOLATION", "IMAGE", "AGE", "OWNER", "WEAKER"],
            sandboxes.iter().map(|info| {
                [
                    info.name.to_string(),
                    info.state.to_string(),
                    info.backend.to_string(),
                    info.isolation.to_string(),
                    info.image.clone(),
                    age(info.created),
                    word(&json!(info.liveness)),
                    weaker(info),
                ]
                .to_vec()
            }),
        ),
        View::Sandbox(info, commands) => {
            let facts = match serde_json::to_value(info) {
                Ok(Value::Object(facts)) => facts,
                _ => Map::new(),
            };
            let facts = facts.iter().filter(|(name, value)| *name != "restrictions" && !is_empty(value));
            let mut text = table(&[], facts.map(|(name, value)| vec![name.clone(), flat(value)]));
            text += "\n";
            text += &table(
                &["RESTRICTION", "ASKED", "CONFIGURED", "WEAKER"],
                info.restrictions.iter().map(|one| {
                    let weaker = if one.allowed_weaker { "allowed" } else { "" };
                    vec![
                        one.capability.to_string(),
                        one.asked.clone(),
                        one.configured.clone(),
                        weaker.to_owned(),
                    ]
                }),
            );
            if !commands.is_empty() {
                text += "\n";
                text += &table(&COMMANDS, commands.iter().map(command_row));
            }
            text
        }
        View::Command(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        View::Commands(commands) => table(&COMMANDS, commands.iter().map(command_row)),
        View::Usage(usage) => usage::human(usage),
        View::Ports(ports) => ports.iter().map(|port| format!("{port}\n")).collect(),
        View::Snapshots(snapshots) => stored::snapshots(snapshots),
        View::Images(images) => stored::images(images),
        View::Volumes(volumes) => stored::volumes(volumes),
        View::Pruned(pruned) => stored::pruned(pruned),
        View::Diagnosis(diagnosis) => diagnosis::human(diagnosis),
        View::Plan(plan) => plan::human(plan),
        View::Reaped(reaped, plan) => table(
            &["NAME", "WHY", "OUTCOME"],
            reaped.iter().map(|one| vec![one.name.to_string(), word(&json!(one.why)), outcome(one, *plan)]),
        ),
        View::Backends(rows) => table(
            &["BACKEND", "STATE", "VERSION", "ISOLATION", "CAPABILITIES"],
            rows.iter().map(|row| match &row.health {
                Ok(health) => vec![
                    row.backend.to_string(),
                    "available".to_owned(),
                    health.version.clone(),
                    health.capabilities.isolation().to_string(),
                    health.capabilities.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(" "),
                ],
                Err(error) => {
                    let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                    vec![
                        row.backend.to_string(),
                        error.kind().to_string(),
                        String::new(),
                        String::new(),
                        format!("{error}{hint}"),
                    ]
                }
            }),
        ),
        View::Skipped(_) => String::new(),
    }
}

fn json(view: &View) -> Value {
    match view {
        View::Names(names) => match names.as_slice() {
            [name] => json!({"name": name}),
            names => names.iter().map(|name| json!({"name": name})).collect(),
        },
        View::Sandboxes(sandboxes) => json!(sandboxes),
        View::Sandbox(info, commands) => {
            let mut object = json!(info);
            object["commands"] = commands.iter().map(command_object).collect();
            object
        }
        View::Command(output) => command_output(output),
        View::Commands(commands) => commands.iter().map(command_object).collect(),
        View::Usage(usage) => usage.iter().map(usage::object).collect(),
        View::Ports(ports) => json!(ports),
        View::Snapshots(snapshots) => snapshots.iter().map(stored::snapshot_object).collect(),
        View::Images(images) => images.iter().map(stored::image_object).collect(),
        View::Volumes(volumes) => volumes.iter().map(stored::volume_object).collect(),
        View::Pruned(pruned) => json!(pruned),
        View::Diagnosis(diagnosis) => diagnosis::object(diagnosis),
        View::Plan(plan) => plan::object(plan),
        View::Reaped(reaped, plan) => reaped
            .iter()
            .map(
                |one| json!({"name": one.name, "id": one.id, "why": one.why, "outcome": outcome(one, *plan)}),
            )
            .collect(),
        View::Backends(rows) => rows.iter().map(backend_object).collect(),
        View::Skipped(skipped) => {
            let skipped = skipped.iter().map(|(path, why)| json!({"path": path, "why": why}));
            json!({"skipped": skipped.collect::<Vec<_>>()})
        }
    }
}

fn backend_object(row: &BackendRow) -> Value {
    let mut object =
        json!({"backend": row.backend, "available": row.health.is_ok(), "upper_bound": row.upper_bound});
    match &row.health {
        Ok(health) => {
            object["version"] = json!(health.version);
            object["isolation"] = json!(health.capabilities.isolation());
            object["capabilities"] = json!(health.capabilities);
            object["warnings"] = json!(health.warnings);
        }
        Err(error) => {
            object["error"] =
                json!({"kind": error.kind().as_str(), "message": error.to_string(), "hint": error.hint()});
        }
    }
    object
}

/// One object for the end of a command: text where the bytes are text, base64 where they are not.
fn command_output(output: &ExecOutput) -> Value {
    let mut object = status_object(output.status);
    object["truncated"] = json!(output.truncated);
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        put_bytes(&mut object, name, bytes);
    }
    object
}

fn status_object(status: ExitStatus) -> Value {
    let signal = match status {
        ExitStatus::Signal(signal) => Some(signal.to_string()),
        _ => None,
    };
    json!({
        "exit_code": status.code(),
        "signal": signal,
        "timed_out": status == ExitStatus::TimedOut,
        "out_of_memory": status == ExitStatus::OutOfMemory,
    })
}

/// Puts bytes in under a name: as text, or with `_base64` behind the name where they are none.
fn put_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match str::from_utf8(bytes) {
        Ok(text) => object[name] = json!(text),
        Err(_) => object[format!("{name}_base64")] = json!(BASE64_STANDARD.encode(bytes)),
    }
}

/// The line of JSON that comes first: where the command runs, and its id there.
pub(crate) fn started_line(name: &SandboxName, id: &ExecId) -> String {
    format!("{}\n", json!({"started": {"sandbox": name, "command": id}}))
}

/// One line of JSON for what a command did; none for what programs need not know.
pub(crate) fn event_line(event: &ExecEvent) -> Option<String> {
    let mut object = json!({});
    match event {
        ExecEvent::Stdout(bytes) => {
            object["stream"] = json!("stdout");
            put_bytes(&mut object, "data", bytes);
        }
        ExecEvent::Stderr(bytes) => {
            object["stream"] = json!("stderr");
            put_bytes(&mut object, "data", bytes);
        }
        ExecEvent::Exited(status) => object = status_object(*status),
        _ => return None,
    }
    Some(format!("{object}\n"))
}

fn command_object(command: &CommandInfo) -> Value {
    let mut object = json!({
        "id": command.id,
        "exit_code": command.exit.map(ExitStatus::code),
        "running": command.running,
        "detached": command.detached,
        "main": command.main,
        "age_seconds": command.age.as_secs(),
    });
    let words = command.argv.iter().map(|word| str::from_utf8(word)).collect::<Result<Vec<_>, _>>();
    match words {
        Ok(words) => object["argv"] = json!(words),
        Err(_) => {
            object["argv_base64"] =
                command.argv.iter().map(|word| json!(BASE64_STANDARD.encode(word))).collect();
        }
    }
    object
}

fn command_row(command: &CommandInfo) -> Vec<String> {
    let state = match command.exit {
        Some(status) => format!("ended {}", status.code()),
        None => "running".to_owned(),
    };
    let words = command.argv.iter().map(|word: &Bytes| String::from_utf8_lossy(word)).collect::<Vec<_>>();
    vec![command.id.to_string(), state, duration(command.age), words.join(" ")]
}

fn outcome(reaped: &Reaped, plan: Reap) -> String {
    let is_left =
        !matches!(reaped.why, agentkernel_core::Liveness::Dead | agentkernel_core::Liveness::Expired);
    match (&reaped.outcome, plan) {
        (Err(error), _) => Error::to_string(error),
        (Ok(()), _) if is_left => "left alone".to_owned(),
        (Ok(()), Reap::Show) => "would be removed".to_owned(),
        (Ok(()), Reap::Remove) => "removed".to_owned(),
    }
}

fn weaker(info: &SandboxInfo) -> String {
    let given_way = info.restrictions.iter().filter(|one| one.allowed_weaker);
    given_way.map(|one| one.capability.as_str()).collect::<Vec<_>>().join(" ")
}

/// The name that a unit variant has in JSON.
fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn flat(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A number of bytes in its largest unit of 1024.
fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn age(created: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    duration(Duration::from_secs(now.saturating_sub(created)))
}

/// A duration in its largest unit.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// A table without lines, which reads the same for people, `cut` and `awk`.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    if table.is_empty() && header.is_empty() {
        return String::new();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentkernel_core::Signal;

    fn output(status: ExitStatus, stdout: &'static [u8]) -> ExecOutput {
        ExecOutput { status, stdout: Bytes::from_static(stdout), stderr: Bytes::new(), truncated: false }
    }

    #[test]
    fn bytes_that_are_no_text_come_as_base64_in_place_of_text() {
        assert_eq!(
            command_output(&output(ExitStatus::Code(3), b"\xff")),
            json!({"exit_code": 3, "signal": null, "timed_out": false, "out_of_memory": false, "truncated": false,
                "stdout_base64": "/w==", "stderr": ""})
        );
    }

    #[test]
    fn the_way_it_ended_is_told_beside_the_code() {
        let object = command_output(&output(ExitStatus::Signal(Signal::KILL), b"a"));
        assert_eq!((&object["exit_code"], &object["signal"]), (&json!(137), &json!("SIGKILL")));
        assert_eq!(command_output(&output(ExitStatus::TimedOut, b"a"))["timed_out"], json!(true));
    }

    #[test]
    fn what_came_from_inside_cannot_drive_the_terminal() {
        assert!(!table(&["A"], std::iter::once(vec!["x\x1b[2J".to_owned()])).contains('\x1b'));
    }
}
