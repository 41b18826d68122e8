//! `image`: pull, list, inspect, load, save, delete, tag (reference 1.7 and 2.3).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{fs::File, io::stdin};

use serde_json::{Value, json};

use crate::call::{
    Host, archive,
    control::Version,
    failure::{Outcome, failed, gap, usage},
    foundation,
    grammar::Call,
    reference::{normalise, short},
    state::now,
    store,
};

/// The architecture that a call asks for: `--platform`, the environment, `--arch`, that of the machine.
pub(crate) fn arch(host: &Host, call: &Call) -> Outcome<String> {
    let from_environment = std::env::var("CONTAINER_DEFAULT_PLATFORM").ok();
    if let (None, Some(platform)) = (call.get("--platform"), &from_environment) {
        eprintln!("using platform from environment variable: {platform}");
    }
    let asked = call.get("--platform").map(str::to_owned).or(from_environment);
    let (os, arch) = match &asked {
        Some(platform) => match platform.split('/').collect::<Vec<_>>().as_slice() {
            [os, arch] | [os, arch, _] => ((*os).to_owned(), (*arch).to_owned()),
            _ => return failed(format!("invalid platform {platform}")),
        },
        None => (
            call.get("--os").unwrap_or("linux").to_owned(),
            call.get("--arch").map_or_else(|| host.control.arch(), str::to_owned),
        ),
    };
    if !["linux", "windows", "darwin"].contains(&os.as_str()) {
        return failed(format!("unknown operating system {os}"));
    }
    if os != "linux" {
        return gap(format!("images for {os}"));
    }
    Ok(match arch.as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    })
}

/// Fetches what is not there; says so as lines on stderr, as without a terminal in `plain`.
pub(crate) fn fetch(host: &Host, reference: &str, progress: bool) -> Outcome<(String, Value)> {
    let whole = normalise(reference);
    if progress {
        eprintln!("[1/2] Fetching image 0%");
    }
    if let Some(text) = &host.control.pull_failure {
        return failed(text);
    }
    if !host.control.registry.contains(&whole) {
        let (domain, rest) = whole.split_once('/').unwrap_or_default();
        let (name, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        return failed(format!(
            "HTTP request to https://{domain}/v2/{name}/manifests/{tag} failed with response: 404 Not Found. Reason: Unknown"
        ));
    }
    if progress {
        eprintln!("[1/2] Fetching image 100%\n[2/2] Unpacking image 100%");
    }
    let _lock = host.lock()?;
    let mut images = host.images()?;
    let descriptor = host.built_in()?;
    images.insert(whole.clone(), descriptor.clone());
    host.set_images(&images)?;
    Ok((whole, descriptor))
}

pub(crate) fn pull(host: &Host, call: &Call) -> Outcome {
    arch(host, call)?;
    let progress = matches!(call.get("--progress"), Some("plain" | "ansi" | "color"));
    fetch(host, call.first(), progress)?;
    Ok(0)
}

fn describe(host: &Host, reference: &str, descriptor: &Value, full: bool) -> Outcome<Value> {
    let variants = host.variants(descriptor)?;
    let shown = |variant: &store::Variant| {
        if host.version() < Version::V1_0 {
            json!({"platform": variant.platform, "size": variant.size, "config": variant.config})
        } else {
            json!({"platform": variant.platform, "digest": variant.digest, "size": variant.size, "config": variant.config})
        }
    };
    let shown = variants.iter().map(shown).collect::<Vec<_>>();
    let size = variants.iter().map(|variant| variant.size).sum::<u64>();
    let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
    Ok(foundation::without_nulls(if host.version() >= Version::V1_0 {
        json!({
            "id": digest.trim_start_matches("sha256:"),
            "configuration": {"creationDate": foundation::date(now(), host.version()), "name": reference, "descriptor": descriptor},
            "variants": shown,
        })
    } else if full {
        json!({"name": reference, "index": descriptor, "variants": shown})
    } else {
        json!({"reference": reference, "descriptor": descriptor, "fullSize": format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10)})
    }))
}

pub(crate) fn list(host: &Host, call: &Call) -> Outcome {
    if call.has("--quiet") && call.has("--verbose") {
        return failed("cannot use flag --quiet and --verbose together");
    }
    let images = host.images()?;
    match call.get("--format").unwrap_or("table") {
        "json" => {
            let all =
                images.iter().map(|(reference, descriptor)| describe(host, reference, descriptor, false));
            println!("{}", foundation::compact(&Value::Array(all.collect::<Outcome<_>>()?), host.version()));
        }
        "table" if call.has("--quiet") => {
            images.keys().for_each(|reference| println!("{}", short(reference)));
        }
        "table" => {
            println!("NAME  TAG  DIGEST");
            for (reference, descriptor) in &images {
                let (name, tag) = short(reference).rsplit_once(':').unwrap_or((short(reference), ""));
                let digest = descriptor.get("digest").and_then(Value::as_str).unwrap_or_default();
                println!(
                    "{name}  {tag}  {}",
                    digest.trim_start_matches("sha256:").get(..12).unwrap_or_default()
                );
            }
        }
        other => return gap(format!("--format {other}")),
    }
    Ok(0)
}

pub(crate) fn inspect(host: &Host, call: &Call) -> Outcome {
    let mut shown = Vec::new();
    let mut missing = Vec::new();
    for name in &call.positionals {
        match host.image(name)? {
            Some((reference, descriptor)) => shown.push(describe(host, &reference, &descriptor, true)?),
            None => missing.push(name.clone()),
        }
    }
    if !missing.is_empty() && host.version() >= Version::V1_0 {
        return failed(format!("image not found: {}", missing.join(", ")));
    }
    println!("{}", foundation::pretty(&Value::Array(shown), host.version()));
    if missing.is_empty() {
        Ok(0)
    } else {
        failed(format!("image inspect failed: Image not found: {}", missing.join(", ")))
    }
}

pub(crate) fn load(host: &Host, call: &Call) -> Outcome {
    let references = match call.get("--input") {
        Some(path) => match File::open(path) {
            Ok(file) => archive::load(host, file, call.has("--force"))?,
            Err(_) if host.version() < Version::V1_0 => {
                println!("File does not exist {path}");
                return Err(crate::call::failure::Failure::Silent(1));
            }
            Err(_) => {
                eprintln!("file does not exist: [\"path\": {path}]");
                return Err(crate::call::failure::Failure::Silent(1));
            }
        },
        None => archive::load(host, stdin().lock(), call.has("--force"))?,
    };
    if host.version() < Version::V1_0 {
        println!("Loaded images:");
    }
    references.iter().for_each(|reference| println!("{reference}"));
    Ok(0)
}

pub(crate) fn save(host: &Host, call: &Call) -> Outcome {
    let wanted = if call.has("--platform") || call.has("--arch") { Some(arch(host, call)?) } else { None };
    let mut images = Vec::new();
    for name in &call.positionals {
        let Some((reference, descriptor)) = host.image(name)? else {
            return failed(format!("image with reference {name}"));
        };
        if let Some(arch) = &wanted {
            host.variant_for(&descriptor, arch)?;
        }
        images.push((reference, descriptor));
    }
    match call.get("--output") {
        Some(path) => store::save(host, &images, &mut File::create(path)?)?,
        None => store::save(host, &images, &mut std::io::stdout().lock())?,
    }
    // Before 1.1 the names came behind the tar.
    if call.has("--output") || host.version() < Version::V1_2 {
        images.iter().for_each(|(reference, _)| println!("{reference}"));
    }
    Ok(0)
}

pub(crate) fn check_delete(_: &Host, call: &Call) -> Outcome<()> {
    match (call.has("--all"), call.positionals.is_empty()) {
        (false, true) => failed("no image specified and --all not supplied"),
        (true, false) => failed("explicitly supplied images conflict with the --all flag"),
        _ => Ok(()),
    }
}

pub(crate) fn delete(host: &Host, call: &Call) -> Outcome {
    let _lock = host.lock()?;
    let mut images = host.images()?;
    let names = if call.has("--all") { images.keys().cloned().collect() } else { call.positionals.clone() };
    let mut missing = Vec::new();
    for name in names {
        match host.image(&name)? {
            Some((reference, _)) => {
                images.remove(&reference);
                host.set_images(&images)?;
                println!("{reference}");
            }
            None => missing.push(name),
        }
    }
    let reclaimed = "Reclaimed Zero KB in disk space";
    if host.version() < Version::V1_0 {
        println!("{reclaimed}");
    } else {
        eprintln!("{reclaimed}");
    }
    if missing.is_empty() || call.has("--force") {
        return Ok(0);
    }
    failed(format!("failed to delete one or more images: {missing:?}"))
}

pub(crate) fn tag(host: &Host, call: &Call) -> Outcome {
    let [source, target] = call.positionals.as_slice() else {
        return usage("Missing expected argument '<target>'");
    };
    let _lock = host.lock()?;
    let Some((_, descriptor)) = host.image(source)? else {
        return failed(format!("image with reference {source}"));
    };
    let target = normalise(target);
    let mut images = host.images()?;
    images.insert(target.clone(), descriptor);
    host.set_images(&images)?;
    println!("{target}");
    Ok(0)
}
