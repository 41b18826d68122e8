//! `-v`, `--mount` and `--tmpfs` (reference 3).
#![expect(clippy::print_stderr, reason = "a command says on stderr which volumes it made")]

use std::{env, path::Path};

use crate::call::{
    Host,
    failure::{Outcome, failed},
    grammar::Call,
    state::{Mount, MountKind, uuid},
    values::split,
    verbs::volume,
};

/// All mounts of a call; volumes that are not there yet are made.
pub(crate) fn mounts(host: &Host, call: &Call) -> Outcome<Vec<Mount>> {
    let mut mounts = Vec::new();
    for path in call.all("--tmpfs") {
        mounts.push(Mount {
            kind: MountKind::Tmpfs,
            source: "tmpfs".to_owned(),
            destination: path.clone(),
            options: Vec::new(),
        });
    }
    for text in call.all("--volume") {
        mounts.push(from_volume(host, text)?);
    }
    for text in call.all("--mount") {
        mounts.push(from_mount(host, text)?);
    }
    Ok(mounts)
}

/// The absolute path of a host path; a directory ends with `/`.
fn host_path(path: &str) -> Outcome<String> {
    let absolute = env::current_dir()?.join(path);
    if !absolute.exists() {
        return failed(format!("path '{path}' does not exist"));
    }
    let mut text = absolute.to_string_lossy().into_owned();
    if absolute.is_dir() && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

fn named(host: &Host, name: &str, destination: &str, options: Vec<String>) -> Outcome<Mount> {
    if volume::find(host, name)?.is_none() {
        volume::make(host, name, None)?;
        eprintln!("named volume was automatically created: [\"name\": {name}]");
    }
    Ok(Mount {
        kind: MountKind::Volume(name.to_owned()),
        source: volume::data(host, name).to_string_lossy().into_owned(),
        destination: destination.to_owned(),
        options,
    })
}

fn from_volume(host: &Host, text: &str) -> Outcome<Mount> {
    let parts = text.split(':').collect::<Vec<_>>();
    let (source, destination, options) = match parts.as_slice() {
        [destination] if destination.starts_with('/') => {
            return named(host, &format!("anon-{}", uuid()), destination, Vec::new());
        }
        [source, destination] => (*source, *destination, ""),
        [source, destination, options] => (*source, *destination, *options),
        _ => return failed(format!("invalid volume format {text}")),
    };
    if source.is_empty() || destination.is_empty() {
        return failed(format!("invalid volume format {text}"));
    }
    let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    if source.contains('/') || source == "." || source == ".." {
        return Ok(Mount {
            kind: MountKind::Bind,
            source: host_path(source)?,
            destination: destination.to_owned(),
            options,
        });
    }
    named(host, source, destination, options)
}

fn from_mount(host: &Host, text: &str) -> Outcome<Mount> {
    let (mut kind, mut source, mut destination, mut options) =
        (String::new(), String::new(), String::new(), Vec::new());
    let mut tmpfs_only = Vec::new();
    for directive in text.split(',').filter(|directive| !directive.is_empty()) {
        let (key, value) = match split(directive, '=', 2).as_slice() {
            [key @ ("readonly" | "ro")] => (*key, ""),
            [key, value] => (*key, *value),
            _ => return failed(format!("invalid directive format missing value {directive} in {text}")),
        };
        match key {
            "type" => kind = value.to_owned(),
            "source" | "src" => source = value.to_owned(),
            "destination" | "dst" | "target" => destination = value.to_owned(),
            "readonly" | "ro" => options.push("ro".to_owned()),
            "size" | "mode" => tmpfs_only.push(format!("{key}={value}")),
            other => return failed(format!("unknown directive {other} when parsing mount {text}")),
        }
    }
    if destination.is_empty() {
        return failed("mount destination cannot be empty");
    }
    if kind != "tmpfs" && !tmpfs_only.is_empty() {
        return failed(format!("size and mode are only supported for tmpfs mounts: {text}"));
    }
    match kind.as_str() {
        "bind" | "virtiofs" => {
            let path = host_path(&source)?;
            if !Path::new(&path).is_dir() {
                return failed(format!("path '{source}' is not a directory"));
            }
            Ok(Mount { kind: MountKind::Bind, source: path, destination, options })
        }
        "tmpfs" => {
            for option in tmpfs_only {
                options.push(match option.strip_prefix("size=") {
                    Some(size) => format!("size={}", crate::call::values::size(size)?),
                    None => option,
                });
            }
            Ok(Mount { kind: MountKind::Tmpfs, source: "tmpfs".to_owned(), destination, options })
        }
        "volume" => named(host, &source, &destination, options),
        other => failed(format!("unsupported mount type {other}")),
    }
}
