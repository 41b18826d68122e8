//! What would be made: the backend and why, and every restriction with what enforces it.
use agentkernel_core::{
    BackendType, Capabilities, Capability, Considered, Lifetime, Requirement, SandboxName, SandboxSpec,
};
use serde_json::{Value, json};

use super::table;
use crate::report::printable;

/// What restricts a sandbox whether it was asked for or not, where the backend can. Limits are not among them: which of
/// them a backend has by default is told in its documentation.
const RESTRICTIONS: [Capability; 3] =
    [Capability::DropCapabilities, Capability::NoNewPrivileges, Capability::SyscallFilter];

/// A sandbox that is not made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: SandboxName,
    pub(crate) backend: BackendType,
    pub(crate) version: String,
    pub(crate) capabilities: Capabilities,
    /// The backends that were asked, the chosen one last.
    pub(crate) considered: Vec<Considered>,
    /// Those that come later in the order.
    pub(crate) not_asked: Vec<BackendType>,
    pub(crate) is_chosen_by_caller: bool,
    pub(crate) spec: SandboxSpec,
}

/// One restriction.
struct Row {
    capability: Capability,
    /// Empty for a default.
    asked: String,
    enforced_by: Option<String>,
    weaker: bool,
}

pub(super) fn human(plan: &Plan) -> String {
    let spec = &plan.spec;
    let mut facts = vec![
        vec!["name".to_owned(), plan.name.to_string()],
        vec!["backend".to_owned(), format!("{} {}", plan.backend, plan.version)],
    ];
    facts.extend(
        choices(plan).into_iter().map(|(backend, why)| vec![String::new(), format!("{backend}: {why}")]),
    );
    facts.push(vec!["isolation".to_owned(), plan.capabilities.isolation().to_string()]);
    for (name, value) in values(plan) {
        match value {
            Value::Null => {}
            Value::Array(items) => facts.extend(items.iter().map(|item| vec![name.to_owned(), words(item)])),
            value => facts.push(vec![name.to_owned(), words(&value)]),
        }
    }
    let mut text = table(&[], facts.into_iter());
    text += "\n";
    text += &table(
        &["RESTRICTION", "ASKED", "ENFORCED BY"],
        rows(plan).into_iter().map(|row| {
            let by = match row.enforced_by {
                Some(by) => by,
                None if row.weaker => "nothing (--allow-weaker)".to_owned(),
                None => "nothing".to_owned(),
            };
            let asked = if row.asked.is_empty() { "(default)".to_owned() } else { row.asked };
            vec![row.capability.to_string(), asked, by]
        }),
    );
    if spec.lifetime == Lifetime::Owned {
        text += "\nIt would be removed when its command ends. Nothing was made.\n";
    } else {
        text += "\nIt would stay until it is removed. Nothing was made.\n";
    }
    text
}

pub(super) fn object(plan: &Plan) -> Value {
    let restrictions = rows(plan).into_iter().map(|row| {
        json!({
            "capability": row.capability,
            "asked": row.asked,
            "enforced_by": row.enforced_by,
            "allowed_weaker": row.weaker,
        })
    });
    let choices = choices(plan).into_iter().map(|(backend, why)| json!({"backend": backend, "reason": why}));
    let mut object = json!({
        "dry_run": true,
        "name": plan.name,
        "backend": plan.backend,
        "version": plan.version,
        "isolation": plan.capabilities.isolation(),
        "considered": choices.collect::<Vec<_>>(),
        "lifetime": plan.spec.lifetime,
        "restrictions": restrictions.collect::<Vec<_>>(),
    });
    for (name, value) in values(plan) {
        object[name] = value;
    }
    object
}

fn choices(plan: &Plan) -> Vec<(BackendType, String)> {
    let considered = plan.considered.iter().map(|one| (one.backend, one.reason.clone()));
    let why = if plan.is_chosen_by_caller {
        "another one was chosen by the caller"
    } else {
        "an earlier one was taken"
    };
    considered.chain(plan.not_asked.iter().map(|one| (*one, format!("not asked: {why}")))).collect()
}

/// What is asked for beside restrictions. Values of variables and contents of files are not shown.
fn values(plan: &Plan) -> Vec<(&'static str, Value)> {
    let spec = &plan.spec;
    let access = |read_only: bool| if read_only { "ro" } else { "rw" };
    let mounts = spec.mounts.iter().map(|mount| {
        json!({"source": mount.source.to_string_lossy(), "target": mount.target, "access": access(mount.read_only)})
    });
    let volumes = spec.volumes.iter().map(
        |volume| json!({"source": volume.name, "target": volume.target, "access": access(volume.read_only)}),
    );
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| json!({"target": tmpfs.target, "size_mb": tmpfs.size_mb}));
    let files =
        spec.files.iter().map(|file| json!({"target": file.target.to_string(), "bytes": file.content.len()}));
    vec![
        ("image", json!(spec.image.as_ref().map(ToString::to_string))),
        ("pull", json!(spec.pull)),
        ("network", json!(spec.network)),
        ("ports", spec.ports.iter().map(|port| json!(port.to_string())).collect()),
        ("mounts", mounts.collect()),
        ("volumes", volumes.collect()),
        ("tmpfs", tmpfs.collect()),
        ("files", files.collect()),
        ("env", spec.env.iter().map(|var| json!(var.name())).collect()),
        ("cwd", json!(spec.cwd.as_ref().map(ToString::to_string))),
        ("user", json!(spec.config.user)),
        ("labels", spec.labels.iter().map(|(name, value)| json!(format!("{name}={value}"))).collect()),
        ("time_to_live", json!(spec.time_to_live.map(|time| time.as_secs()))),
    ]
}

fn rows(plan: &Plan) -> Vec<Row> {
    let asked = plan.spec.requirements.iter().map(|Requirement { capability, asked, weaker }| Row {
        capability: *capability,
        asked: asked.clone(),
        enforced_by: (!weaker).then(|| plan.backend.to_string()),
        weaker: *weaker,
    });
    let is_asked = |capability: Capability| {
        plan.spec.requirements.iter().any(|requirement| requirement.capability == capability)
    };
    let by_default = |capability: Capability| match capability {
        Capability::NoNewPrivileges => plan.spec.no_new_privileges,
        Capability::SyscallFilter => plan.spec.syscall_filter,
        _ => true,
    };
    let defaults = RESTRICTIONS.into_iter().filter(|one| !is_asked(*one)).map(|capability| {
        let holds = by_default(capability) && plan.capabilities.has(capability);
        let enforced_by = holds.then(|| plan.backend.to_string());
        Row { capability, asked: String::new(), enforced_by, weaker: false }
    });
    asked.chain(defaults).collect()
}

/// A value as people read it.
fn words(value: &Value) -> String {
    let text = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}={}", words(value)))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(","),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    printable(&text)
}
