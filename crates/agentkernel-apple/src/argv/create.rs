//! The line that makes a container.
use std::collections::BTreeMap;

use agentkernel_core::{Capability, Error, ErrorKind, ImageRef, Network, Result, SandboxName, SandboxSpec};

use super::{container_name, is_own, text};
use crate::{
    command::{Line, Secret},
    mounts, ports, script,
};

/// The memory of a machine whose config names none, in MiB: Apple's own default is too little for a compiler.
const DEFAULT_MEMORY_MB: u64 = 2048;
/// The least memory of a machine, in MiB.
const LEAST_MEMORY_MB: u64 = 200;
/// The processors of a machine whose config names none.
const DEFAULT_CPUS: u32 = 2;

/// What a container is made of.
#[derive(Debug)]
pub(crate) struct Create<'a> {
    pub name: &'a SandboxName,
    pub image: &'a ImageRef,
    pub spec: &'a SandboxSpec,
    pub labels: &'a BTreeMap<String, String>,
    /// In seconds since 1970.
    pub deadline: Option<u64>,
}

impl Create<'_> {
    /// Returns the call.
    ///
    /// # Errors
    /// `Unsupported` for what no argument can say.
    pub(crate) fn line(&self) -> Result<Line> {
        let spec = self.spec;
        let enforced = |capability| !spec.is_weaker(capability);
        let mut argv = vec!["create".to_owned(), format!("--name={}", container_name(self.name))];
        argv.extend(self.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        argv.push("--init".to_owned());
        let cpus = spec.vcpus.filter(|_| enforced(Capability::CpuLimit));
        argv.push(format!("--cpus={}", cpus.map_or(Ok(DEFAULT_CPUS), |cpus| whole(cpus.milli()))?));
        let memory = spec.memory_mb.filter(|_| enforced(Capability::MemoryLimit));
        argv.push(format!("--memory={}M", memory.map_or(Ok(DEFAULT_MEMORY_MB), enough)?));
        if spec.network == Network::None && enforced(Capability::NetworkNone) {
            argv.push("--network=none".to_owned());
        }
        argv.push("--cap-drop=ALL".to_owned());
        argv.extend(spec.cap_add.iter().map(|capability| format!("--cap-add={}", capability.name())));
        if let Some(most) = spec.open_files.filter(|_| enforced(Capability::OpenFilesLimit)) {
            argv.push(format!("--ulimit=nofile={most}:{most}"));
        }
        if spec.read_only && enforced(Capability::ReadOnlyRoot) {
            argv.push("--read-only".to_owned());
        }
        argv.extend(mounts::options(spec)?);
        argv.extend(ports::options(spec));
        if let Some(user) = &spec.user {
            argv.push(format!("--user={user}"));
        }
        if let Some(cwd) = &spec.cwd {
            argv.push(format!("--workdir={}", text(cwd.as_bytes(), "cwd")?));
        }
        let mut env = Vec::new();
        for var in &spec.env {
            let value = text(var.value(), "env")?;
            if is_own(var.name()) {
                argv.push(format!("--env={}={value}", var.name()));
            } else {
                argv.push(format!("--env={}", var.name()));
                env.push(Secret { name: var.name().to_owned(), value });
            }
        }
        let deadline = self.deadline.map(|deadline| deadline.to_string()).unwrap_or_default();
        let rest =
            ["--entrypoint=/bin/sh", "--", self.image.as_str(), "-c", script::STAY, "agentkernel", &deadline];
        argv.extend(rest.map(str::to_owned));
        Ok(Line { argv, env })
    }
}

fn whole(milli: u32) -> Result<u32> {
    if milli.is_multiple_of(1000) {
        return Ok(milli / 1000);
    }
    Err(Error::new(ErrorKind::Unsupported, "create sandbox", "a machine has whole processors only")
        .with_context("backend", "apple")
        .with_context("field", "vcpus")
        .with_hint(format!("the next that works is --cpus {}", milli / 1000 + 1)))
}

/// What `container` would refuse only after the image was pulled.
fn enough(memory_mb: u64) -> Result<u64> {
    if memory_mb >= LEAST_MEMORY_MB {
        return Ok(memory_mb);
    }
    Err(Error::new(ErrorKind::InvalidConfig, "create sandbox", "a machine has at least 200 MiB of memory")
        .with_context("backend", "apple")
        .with_context("field", "memory_mb")
        .with_hint(format!("the next that works is --memory {LEAST_MEMORY_MB}M")))
}

#[cfg(test)]
mod tests {
    use agentkernel_core::{
        Capabilities, Cpus, HostContext, Isolation, Mount as HostMount, Owner, PortMapping, SandboxConfig,
        Tmpfs,
    };
    use proptest::prelude::*;

    use super::*;

    fn create(config: &SandboxConfig) -> Result<Line> {
        let owner = Owner::new("host", "boot", 1, 2, 3, 0);
        let host = HostContext { cwd: "/work".into(), home: Some("/home/me".into()), owner };
        let all = Capabilities::new(Isolation::Vm).with_all(Capability::ALL);
        let spec = config.resolve(all, &host).unwrap();
        let image = spec.image.clone().unwrap();
        let labels = BTreeMap::from([("agentkernel.name".to_owned(), "demo".to_owned())]);
        Create { name: &"demo".parse().unwrap(), image: &image, spec: &spec, labels: &labels, deadline: None }
            .line()
    }

    /// The arguments up to the image, the script and what follows left out.
    fn head(line: &Line) -> Vec<&str> {
        line.argv.iter().map(String::as_str).take_while(|argument| *argument != "-c").collect()
    }

    #[test]
    fn an_empty_config_has_the_strictest_defaults() {
        let line = create(&SandboxConfig::new("busybox")).unwrap();
        assert_eq!(
            head(&line),
            [
                "create",
                "--name=agentkernel-demo",
                "--label=agentkernel.name=demo",
                "--init",
                "--cpus=2",
                "--memory=2048M",
                "--network=none",
                "--cap-drop=ALL",
                "--entrypoint=/bin/sh",
                "--",
                "busybox",
            ]
        );
        assert!(line.env.is_empty());
    }

    #[test]
    fn everything_that_is_asked_for_is_in_the_call() {
        let mut config = SandboxConfig::new("busybox");
        config.vcpus = Some(Cpus::from_milli(3000).unwrap());
        config.memory_mb = Some(512);
        config.open_files = Some(128);
        config.mount_cwd = true;
        config.mounts = vec![
            HostMount { source: "/a b".into(), target: "/data".into(), read_only: true },
            HostMount { source: "/c:d".into(), target: "/e".into(), read_only: true },
        ];
        config.env.insert("TOKEN".into(), "hunter2".into());
        config.env.insert("PATH".into(), "/bin".into());
        config.user = Some("1000:1000".into());
        config.read_only = Some(true);
        config.cap_add = vec!["NET_RAW".parse().unwrap()];
        config.network = Some(Network::Full);
        config.tmpfs = vec![Tmpfs { target: "/tmp".into(), size_mb: 9 }];
        config.ports = vec![PortMapping { address: None, host: 8080, sandbox: 80 }];
        let line = create(&config).unwrap();
        assert_eq!(
            head(&line)[3..],
            [
                "--init",
                "--cpus=3",
                "--memory=512M",
                "--cap-drop=ALL",
                "--cap-add=NET_RAW",
                "--ulimit=nofile=128:128",
                "--read-only",
                "--volume=/work:/workspace",
                "--volume=/a b:/data:ro",
                "--mount=type=bind,source=/c:d,target=/e,readonly",
                "--mount=type=tmpfs,target=/tmp,size=9M",
                "--tmpfs=/run",
                "--publish=127.0.0.1:8080:80",
                "--user=1000:1000",
                "--workdir=/workspace",
                "--env=PATH=/bin",
                "--env=TOKEN",
                "--entrypoint=/bin/sh",
                "--",
                "busybox",
            ]
        );
        assert_eq!(line.env, [Secret { name: "TOKEN".into(), value: "hunter2".into() }]);
    }

    #[test]
    fn half_a_processor_little_memory_and_a_path_that_no_option_takes_are_refused() {
        let mut config = SandboxConfig::new("busybox");
        config.vcpus = Some(Cpus::from_milli(1500).unwrap());
        assert_eq!(create(&config).unwrap_err().kind(), ErrorKind::Unsupported);
        config.vcpus = None;
        config.memory_mb = Some(199);
        let error = create(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("memory_mb") && error.hint().unwrap().contains("200"));
        config.memory_mb = None;
        config.mounts = vec![HostMount { source: "/c:d,e".into(), target: "/e".into(), read_only: true }];
        assert_eq!(create(&config).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn no_value_of_a_variable_is_an_argument(value in "[a-z]{30,40}") {
            let mut config = SandboxConfig::new("busybox");
            config.env.insert("TOKEN".into(), value.clone());
            prop_assert!(!create(&config).unwrap().argv.iter().any(|argument| argument.contains(&value)));
        }

        #[test]
        fn options_before_the_separator_have_a_value_or_none(cwd in "/[a-z=,: -]{0,20}", source in "/[a-z=: -]{0,20}") {
            let mut config = SandboxConfig::new("busybox");
            config.cwd = Some(cwd);
            config.mounts = vec![HostMount { source: source.into(), target: "/e".into(), read_only: true }];
            if let Ok(line) = create(&config) {
                let options = head(&line);
                let is_whole = |option: &&str| option.starts_with("--") && option.split_once('=').is_none_or(|(_, value)| !value.is_empty());
                prop_assert!(options[1..options.len() - 2].iter().all(is_whole), "{:?}", options);
            }
        }
    }
}
