//! JSON as Foundation's encoder writes it: `/` escaped, keys sorted since 1.0 (reference 0.3).
use serde_json::{Map, Value};

use crate::call::control::Version;

/// One compact line.
pub(crate) fn compact(value: &Value, version: Version) -> String {
    let mut out = String::new();
    write(&mut out, value, version, None);
    out
}

/// Over many lines, with a space before the colon.
pub(crate) fn pretty(value: &Value, version: Version) -> String {
    let mut out = String::new();
    write(&mut out, value, version, Some(0));
    out
}

fn sorted(map: &Map<String, Value>, version: Version) -> Vec<(&String, &Value)> {
    let mut entries = map.iter().collect::<Vec<_>>();
    entries.sort_by_key(|(key, _)| *key);
    // Before 1.0 the order was that of a hash table: any order but the sorted one.
    if version < Version::V1_0 {
        entries.reverse();
    }
    entries
}

fn write(out: &mut String, value: &Value, version: Version, depth: Option<usize>) {
    let newline = |out: &mut String, more: usize| {
        if let Some(depth) = depth {
            out.push('\n');
            out.push_str(&"  ".repeat(depth + more));
        }
    };
    let inner = depth.map(|depth| depth + 1);
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                newline(out, 1);
                write(out, item, version, inner);
            }
            if items.is_empty() && depth.is_some() {
                out.push('\n');
            }
            newline(out, 0);
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (key, item)) in sorted(map, version).into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                newline(out, 1);
                text(out, key);
                out.push_str(if depth.is_some() { " : " } else { ":" });
                write(out, item, version, inner);
            }
            if map.is_empty() && depth.is_some() {
                out.push('\n');
            }
            newline(out, 0);
            out.push('}');
        }
        Value::String(string) => text(out, string),
        other => out.push_str(&other.to_string()),
    }
}

fn text(out: &mut String, string: &str) {
    out.push_str(&Value::String(string.to_owned()).to_string().replace('/', "\\/"));
}

/// Objects without the keys whose value is null: an absent optional is left out.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Seconds since 1970 as this version writes a date.
pub(crate) fn date(seconds: u64, version: Version) -> Value {
    if version < Version::V1_0 {
        // Seconds since 2001-01-01 UTC.
        return Value::from(f64::from(u32::try_from(seconds.saturating_sub(978_307_200)).unwrap_or(0)));
    }
    let days = i64::try_from(seconds / 86_400).unwrap_or(0);
    // Days to a date, after Howard Hinnant's `civil_from_days`.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let rest = seconds % 86_400;
    Value::String(format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest % 3_600 / 60,
        rest % 60
    ))
}
