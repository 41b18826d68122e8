//! `system`: start, stop, status, version (reference 1.1 and 2.4).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{
    fs,
    io::{Write, stdin, stdout},
};

use serde_json::{Value, json};

use crate::call::{
    Host,
    control::{Service, Version},
    failure::{Outcome, failed, gap},
    foundation,
    grammar::Call,
    runtime,
};

fn has_kernel(host: &Host) -> bool {
    host.control.kernel || host.root.join("kernel").exists()
}

/// What `run` and `create` say without a kernel.
pub(crate) fn check_kernel(host: &Host) -> Outcome<()> {
    if has_kernel(host) {
        return Ok(());
    }
    failed(format!(
        "default kernel not configured for architecture {}, please use the `container system kernel set` command to configure it",
        host.control.arch()
    ))
}

pub(crate) fn start(host: &Host, call: &Call) -> Outcome {
    let verifying = "Verifying machine API server is running...";
    if host.version() < Version::V1_0 {
        println!("Verifying apiserver is running...");
    } else {
        eprintln!("Launching container-apiserver...\nTesting access to container-apiserver...");
        if host.version() < Version::V1_2 { println!("{verifying}") } else { eprintln!("{verifying}") }
    }
    if host.control.start_fails {
        return failed("failed to get a response from apiserver: XPC connection error: Connection invalid");
    }
    fs::write(host.root.join("service"), "started")?;
    if has_kernel(host) {
        return Ok(0);
    }
    let missing = "No default kernel configured.";
    if host.version() < Version::V1_2 {
        println!("{missing}");
    } else {
        eprintln!("{missing}");
    }
    let install = if call.has("--enable-kernel-install") {
        true
    } else if call.has("--disable-kernel-install") {
        false
    } else {
        print!(
            "Install the recommended default kernel from [https://github.com/kata-containers/kata-containers/releases]? [Y/n]: "
        );
        stdout().flush()?;
        let mut answer = String::new();
        if stdin().read_line(&mut answer)? == 0 {
            return failed("failed to read user input");
        }
        matches!(answer.trim(), "" | "y" | "Y")
    };
    if install {
        eprintln!("Installing kernel...");
        fs::write(host.root.join("kernel"), "")?;
    }
    Ok(0)
}

pub(crate) fn stop(host: &Host, _: &Call) -> Outcome {
    println!("stopping containers");
    for record in host.records()? {
        if host.running(&record.id)?.is_some() {
            runtime::kill(host, &record.id)?;
            println!("{}", record.id);
        }
    }
    fs::write(host.root.join("service"), "stopped")?;
    Ok(0)
}

fn server(host: &Host) -> String {
    format!("container-apiserver version {} (build: release, commit: 1a2b3c4)", host.version().number())
}

pub(crate) fn status(host: &Host, call: &Call) -> Outcome {
    let service = host.service();
    let is_running = service == Service::Running;
    let word = match service {
        Service::Running => "running",
        Service::Unregistered => "unregistered",
        Service::NotRunning => "not running",
    };
    let text = |text: &str| if is_running { text.to_owned() } else { String::new() };
    match call.get("--format").unwrap_or("table") {
        "json" => {
            let status = json!({
                "apiServerAppName": text("container-apiserver"),
                "apiServerBuild": text("release"),
                "apiServerCommit": text("1a2b3c4d5e6f7081920a1b2c3d4e5f6071829304"),
                "apiServerVersion": text(&server(host)),
                "appRoot": text("/Users/me/Library/Application Support/com.apple.container/"),
                "installRoot": text("/usr/local/"),
                "status": word,
            });
            println!("{}", foundation::compact(&status, host.version()));
        }
        "table" => match service {
            Service::Running => println!("FIELD  VALUE\nstatus  running"),
            Service::Unregistered => println!("apiserver is not running and not registered with launchd"),
            Service::NotRunning => println!("apiserver is not running"),
        },
        other => return gap(format!("--format {other}")),
    }
    if is_running { Ok(0) } else { Err(crate::call::failure::Failure::Silent(1)) }
}

pub(crate) fn version(host: &Host, call: &Call) -> Outcome {
    let number = host.version().number();
    let mut all =
        vec![json!({"appName": "container", "buildType": "release", "commit": "1a2b3c4", "version": number})];
    if host.service() == Service::Running {
        all.push(json!({
            "appName": "container-apiserver", "buildType": "release", "commit": "1a2b3c4", "version": server(host),
        }));
    }
    match call.get("--format").unwrap_or("table") {
        "json" => println!("{}", foundation::compact(&Value::Array(all), host.version())),
        "table" => {
            println!("COMPONENT  VERSION  BUILD  COMMIT");
            for one in all {
                let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                println!(
                    "{}  {}  {}  {}",
                    text("appName"),
                    text("version"),
                    text("buildType"),
                    text("commit")
                );
            }
        }
        other => return gap(format!("--format {other}")),
    }
    Ok(0)
}
