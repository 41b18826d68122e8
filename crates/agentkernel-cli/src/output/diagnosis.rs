//! What works on this machine, as people read it.
use agentkernel_core::{BackendType, Isolation};
use serde_json::{Value, json};

use super::{BackendRow, backend_object};
use crate::report::printable;

/// All backends, and which of them `run` takes.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) rows: Vec<BackendRow>,
    pub(crate) chosen: Option<BackendType>,
}

/// Strongest first, those that do not work last.
pub(super) fn human(diagnosis: &Diagnosis) -> String {
    let mut rows = diagnosis.rows.iter().collect::<Vec<_>>();
    rows.sort_by_key(|row| {
        row.health.as_ref().ok().map(isolation).map_or((1, None), |class| (0, Some(std::cmp::Reverse(class))))
    });
    let mut text = String::new();
    for row in rows {
        text += &backend(row, diagnosis.chosen);
    }
    text += &match diagnosis.chosen {
        Some(chosen) => format!("`agentkernel run` uses {chosen}.\n"),
        None => "Nothing here can run a sandbox: the hints above say what would.\n".to_owned(),
    };
    text
}

fn isolation(health: &agentkernel_core::Health) -> Isolation {
    health.capabilities.isolation()
}

fn backend(row: &BackendRow, chosen: Option<BackendType>) -> String {
    let mark = if chosen == Some(row.backend) { "*" } else { " " };
    let mut text = String::new();
    let health = match &row.health {
        Ok(health) => health,
        Err(error) => {
            text +=
                &format!("{mark} {}: does not work\n    {}\n", row.backend, printable(&error.to_string()));
            if let Some(hint) = error.hint() {
                text += &format!("    hint: {}\n", printable(hint));
            }
            return text;
        }
    };
    text += &format!(
        "{mark} {}: works, isolation {}, version {}\n",
        row.backend,
        health.capabilities.isolation(),
        printable(&health.version)
    );
    let missing = row.upper_bound.as_ref().map_or_else(Vec::new, |bound| {
        bound.iter().filter(|one| !health.capabilities.has(*one)).map(|one| one.as_str()).collect()
    });
    if !missing.is_empty() {
        text += &format!("    not here: {}\n", missing.join(" "));
    }
    for warning in &health.warnings {
        text += &format!("    {}\n", printable(warning));
    }
    text
}

pub(super) fn object(diagnosis: &Diagnosis) -> Value {
    json!({
        "backends": diagnosis.rows.iter().map(backend_object).collect::<Vec<_>>(),
        "chosen": diagnosis.chosen,
    })
}
