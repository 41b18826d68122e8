//! Core's parsers: what is accepted is written the same again.
#![expect(clippy::unwrap_used, reason = "a target fails by a panic")]
use std::{fmt::Display, str::FromStr};

use agentkernel_core::{
    Arg, Capability, Cpus, EnvVar, ExecId, HostName, ImageRef, Isolation, LinuxCapability, PortMapping,
    Profile, PullPolicy, SandboxConfig, SandboxName, SandboxPath, Signal, User, VolumeName,
};

pub(crate) fn values(bytes: &[u8]) {
    raw(bytes);
    let Ok(text) = str::from_utf8(bytes) else { return };
    again::<Capability>(text);
    again::<Cpus>(text);
    again::<HostName>(text);
    again::<ImageRef>(text);
    again::<Isolation>(text);
    again::<LinuxCapability>(text);
    again::<SandboxName>(text);
    again::<SandboxPath>(text);
    again::<Signal>(text);
    again::<User>(text);
    again::<VolumeName>(text);
    let _id = text.parse::<ExecId>();
    let _ports = text.parse::<PortMapping>();
    let _profile = text.parse::<Profile>();
    let _pull = text.parse::<PullPolicy>();
    let _config = serde_json::from_str::<SandboxConfig>(text);
}

fn again<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str)
where
    T::Err: std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().unwrap(), value);
    }
}

fn raw(bytes: &[u8]) {
    if let Ok(path) = SandboxPath::new(bytes) {
        let bytes = path.as_bytes();
        assert!(bytes.starts_with(b"/") && !bytes.contains(&0));
        assert!(!bytes.split(|byte| *byte == b'/').any(|step| step == b".."));
        assert_eq!(SandboxPath::new(bytes).unwrap(), path);
    }
    if let Ok(arg) = Arg::new(bytes) {
        assert_eq!(arg.as_bytes(), bytes);
    }
    if let Ok(variable) = EnvVar::parse(bytes) {
        assert_eq!([variable.name().as_bytes(), b"=", variable.value()].concat(), bytes);
    }
}
