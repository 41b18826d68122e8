//! Claims, each both ways: what is claimed works, what is not claimed answers `Unsupported` and makes nothing.
use std::net::Ipv4Addr;

use agentkernel_core::{
    Capability, Depth, Enforcement, Error, ErrorKind, ExecOptions, Lifetime, LogOptions, Mount, Network,
    PortMapping, Replay, SandboxConfig, SandboxExt, Signal, Tmpfs, TtySize, Volume, WriteOptions,
};

use crate::{
    fixture::{Fixture, command, command_with, kind, path},
    rule::Rule,
};

/// Makes one rule for each capability.
macro_rules! claims {
    ($($name:ident: $trial:ident($capability:ident)),+ $(,)?) => {
        pub(crate) const RULES: &[Rule] = &[$(Rule {
            module: module_path!(),
            rule: stringify!($name),
            needs: &[],
            claim: Some(Capability::$capability),
            trial: |fixture| Box::pin($trial(fixture, Capability::$capability)),
        }),+];
    };
}

claims![
    stdin_is_given_or_refused: command_part(ExecStdin),
    a_terminal_is_given_or_refused: command_part(ExecTty),
    another_user_is_given_or_refused: command_part(ExecUser),
    detached_commands_are_started_or_refused: command_part(ExecDetached),
    raw_bytes_are_carried_or_refused: command_part(RawBytes),
    signals_are_sent_or_refused: running_part(ExecSignal),
    resizing_is_done_or_refused: running_part(ExecTty),
    detaching_is_done_or_refused: running_part(ExecDetached),
    attaching_is_done_or_refused: call(ExecDetached),
    files_are_moved_or_refused: files(Files),
    connections_are_made_or_refused: connections(Forward),
    stats_are_told_or_refused: call(Stats),
    logs_are_told_or_refused: call(Logs),
    snapshots_are_taken_or_refused: snapshot(Snapshot),
    the_user_of_the_sandbox_is_set_or_refused: config_part(ExecUser),
    mounts_are_made_or_refused: config_part(BindMount),
    volumes_are_made_or_refused: config_part(Volume),
    memory_file_systems_are_made_or_refused: config_part(Tmpfs),
    ports_are_published_or_refused: config_part(PortMapping),
    no_network_is_enforced_or_refused: config_part(NetworkNone),
    named_hosts_are_enforced_or_refused: config_part(NetworkAllow),
    a_network_is_given_or_refused: config_part(NetworkFull),
    a_processor_limit_is_enforced_or_refused: config_part(CpuLimit),
    a_memory_limit_is_enforced_or_refused: config_part(MemoryLimit),
    a_process_limit_is_enforced_or_refused: config_part(PidsLimit),
    a_disk_limit_is_enforced_or_refused: config_part(DiskLimit),
    an_open_files_limit_is_enforced_or_refused: config_part(OpenFilesLimit),
    a_read_only_root_is_enforced_or_refused: config_part(ReadOnlyRoot),
    kept_capabilities_are_enforced_or_refused: config_part(DropCapabilities),
    no_new_privileges_is_enforced_or_refused: config_part(NoNewPrivileges),
    a_syscall_filter_is_enforced_or_refused: config_part(SyscallFilter),
    outliving_the_owner_is_possible_or_refused: config_part(Persistence),
    a_limit_that_may_be_weaker_is_shown_as_it_is: weaker(PidsLimit),
];

/// What a call gives where the capability is claimed or not.
fn expected(fixture: &Fixture, capability: Capability) -> Option<ErrorKind> {
    (!fixture.claims(capability)).then_some(ErrorKind::Unsupported)
}

/// A command that needs the capability starts or is refused.
async fn command_part(fixture: Fixture, capability: Capability) {
    let options = ExecOptions::default();
    let spec = match capability {
        Capability::ExecStdin => command_with(&["true"], options.with_stdin()),
        Capability::ExecTty => command_with(&["true"], options.with_tty(TtySize::default())),
        Capability::ExecUser => command_with(&["true"], options.with_user("1000:1000".parse().unwrap())),
        Capability::RawBytes => command(&[b"true".as_slice(), b"\xff"]),
        _ => command(&["true"]).detached(),
    };
    let sandbox = fixture.start().await;
    assert_eq!(kind(sandbox.spawn(&spec).await.map(drop)), expected(&fixture, capability));
}

/// A control call on a running command works or is refused.
async fn running_part(fixture: Fixture, capability: Capability) {
    let sandbox = fixture.start().await;
    let options = match fixture.claims(capability) && capability == Capability::ExecTty {
        true => ExecOptions::default().with_tty(TtySize::default()),
        false => ExecOptions::default(),
    };
    let session = sandbox.spawn(&command_with(&["sleep", "1000"], options)).await.unwrap();
    let control = session.control();
    let answer = match capability {
        Capability::ExecSignal => control.signal(Signal::TERM).await,
        Capability::ExecTty => control.resize(TtySize::default()).await,
        _ => control.detach().await,
    };
    assert_eq!(kind(answer), expected(&fixture, capability));
}

/// A call on the sandbox works, or finds nothing, or is refused.
async fn call(fixture: Fixture, capability: Capability) {
    let sandbox = fixture.start().await;
    let answer = match capability {
        Capability::Stats => sandbox.stats().await.map(drop),
        Capability::Logs => sandbox.logs(&LogOptions::default()).await.map(drop),
        _ => sandbox.attach(&987_654.into(), Replay::None).await.map(drop),
    };
    let unsupported = kind(answer) == Some(ErrorKind::Unsupported);
    assert_eq!(unsupported, !fixture.claims(capability));
}

async fn files(fixture: Fixture, capability: Capability) {
    let sandbox = fixture.start().await;
    let (file, directory) = (path("/tmp/file"), path("/tmp/directory"));
    let answers = [
        kind(sandbox.write(&file, &WriteOptions::default(), &mut b"x".as_slice()).await),
        kind(sandbox.open(&file).await.map(drop)),
        kind(sandbox.metadata(&file).await.map(drop)),
        kind(sandbox.create_dir(&directory, Depth::One).await),
        kind(sandbox.read_dir(&directory).await.map(drop)),
        kind(sandbox.pack(&directory).await.map(drop)),
        kind(sandbox.remove_path(&file, Depth::One).await),
    ];
    assert_eq!(answers, [expected(&fixture, capability); 7]);
}

async fn connections(fixture: Fixture, capability: Capability) {
    let sandbox = fixture.start().await;
    let listened = sandbox.listen((Ipv4Addr::LOCALHOST, 9100).into()).await;
    let connected = sandbox.connect(9100).await.map(drop);
    let answers = [kind(listened.map(drop)), kind(connected)];
    assert_eq!(answers, [expected(&fixture, capability); 2]);
}

/// Keeping a sandbox as an image works, or there are no images, or it is refused.
async fn snapshot(fixture: Fixture, capability: Capability) {
    let sandbox = fixture.start().await;
    let Some(images) = fixture.backend().images() else {
        assert!(!fixture.claims(capability), "a snapshot is an image, and the backend has no images");
        return;
    };
    let image = format!("agentkernel-snap:{}", &**sandbox.name()).parse().unwrap();
    let committed = kind(images.commit(sandbox.name(), &image).await);
    if committed.is_none() {
        images.remove(&image).await.unwrap();
    }
    assert_eq!(committed, expected(&fixture, capability));
}

/// Returns a config that needs the capability.
fn config_for(fixture: &Fixture, capability: Capability) -> SandboxConfig {
    let mut config = fixture.config();
    let at = "/conformance".to_owned();
    match capability {
        Capability::ExecUser => config.user = Some("1000:1000".into()),
        Capability::BindMount => {
            config.mounts = vec![Mount { source: std::env::temp_dir(), target: at, read_only: true }];
        }
        Capability::Volume => {
            let name = fixture.name().parse().unwrap();
            config.volumes = vec![Volume { name, target: at, read_only: false }];
        }
        Capability::Tmpfs => config.tmpfs = vec![Tmpfs { target: at, size_mb: 4 }],
        Capability::PortMapping => {
            config.ports = vec![PortMapping { address: None, host: 0, sandbox: 8080 }];
        }
        Capability::NetworkNone => config.network = Some(Network::None),
        Capability::NetworkAllow => {
            config.network = Some(Network::Allow(vec!["crates.io".parse().unwrap()]));
        }
        Capability::NetworkFull => config.network = Some(Network::Full),
        Capability::CpuLimit => config.vcpus = Some(fixture.vcpus(500)),
        Capability::MemoryLimit => config.memory_mb = Some(fixture.memory_mb(128)),
        Capability::PidsLimit => config.pids = Some(64),
        Capability::DiskLimit => config.disk_mb = Some(64),
        Capability::OpenFilesLimit => config.open_files = Some(256),
        Capability::ReadOnlyRoot => config.read_only = Some(true),
        Capability::DropCapabilities => config.cap_add = vec!["NET_BIND_SERVICE".parse().unwrap()],
        Capability::NoNewPrivileges => config.no_new_privileges = Some(true),
        Capability::SyscallFilter => config.syscall_filter = Some(true),
        Capability::Persistence => config.lifetime = Lifetime::Detached,
        other => panic!("{other} is no part of a config"),
    }
    config
}

/// Whether inspecting shows it as a restriction.
fn restricts(capability: Capability) -> bool {
    matches!(
        capability,
        Capability::NetworkNone
            | Capability::CpuLimit
            | Capability::MemoryLimit
            | Capability::PidsLimit
            | Capability::DiskLimit
            | Capability::OpenFilesLimit
            | Capability::ReadOnlyRoot
            | Capability::DropCapabilities
            | Capability::NoNewPrivileges
            | Capability::SyscallFilter
    )
}

/// A config that needs the capability is taken, runs a command and shows what is enforced, or is refused naming the
/// field, with nothing made.
async fn config_part(fixture: Fixture, capability: Capability) {
    let config = config_for(&fixture, capability);
    let sandbox = fixture.backend().sandbox(fixture.name());
    let started = sandbox.start(&config).await;
    if !fixture.claims(capability) {
        let error = started.unwrap_err();
        assert!(is_refusal_of(&error, capability), "{error}");
        assert!(!fixture.is_listed(sandbox.name()).await, "a refused start left a sandbox");
        return;
    }
    started.unwrap();
    assert!(sandbox.exec(&["true"]).await.unwrap().is_success());
    if restricts(capability) {
        let shown = restriction(&sandbox.inspect().await.unwrap().restrictions, capability);
        let (asked, configured) = (shown.asked.is_empty(), shown.configured.is_empty());
        assert_eq!((asked, configured, shown.allowed_weaker), (false, false, false), "{shown:?}");
    }
    sandbox.remove().await.unwrap();
    if let (Some(volume), Some(volumes)) = (config.volumes.first(), fixture.backend().volumes()) {
        volumes.remove(&volume.name).await.unwrap();
    }
}

fn is_refusal_of(error: &Error, capability: Capability) -> bool {
    error.kind() == ErrorKind::Unsupported && error.to_string().contains(capability.as_str())
}

fn restriction(all: &[Enforcement], capability: Capability) -> Enforcement {
    all.iter().find(|enforcement| enforcement.capability == capability).expect("it is shown").clone()
}

/// A limit that may go unenforced is shown with whether it does.
async fn weaker(fixture: Fixture, capability: Capability) {
    let mut config = config_for(&fixture, capability);
    config.allow_weaker = vec![capability];
    let sandbox = fixture.start_with(&config).await;
    let shown = restriction(&sandbox.inspect().await.unwrap().restrictions, capability);
    if fixture.claims(capability) {
        assert!(!shown.configured.is_empty(), "{shown:?}");
    } else {
        assert!(shown.configured.is_empty() && shown.allowed_weaker, "{shown:?}");
    }
}
