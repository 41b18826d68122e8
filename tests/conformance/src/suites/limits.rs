//! Limits and restrictions, measured from inside.
use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use agentkernel_core::{
    ErrorKind, ExitStatus, Lifetime, LogOptions, Mount, Sandbox, SandboxExt, Signal, Tmpfs, Volume,
};
use futures_util::TryStreamExt;

use crate::{
    fixture::{Fixture, command, end, kind, output, script, sh},
    rule::rules,
    wait::{eventually, soon},
};

rules![
    a_fork_storm_is_contained[PidsLimit],
    a_sandbox_out_of_processes_can_be_stopped[PidsLimit],
    a_processor_limit_holds_back[CpuLimit],
    memory_used_up_ends_the_command[MemoryLimit],
    memory_used_up_is_told[MemoryLimit, TypedExit],
    exit_137_is_not_out_of_memory[MemoryLimit],
    a_kill_is_not_out_of_memory[MemoryLimit],
    a_sandbox_out_of_memory_goes_on[MemoryLimit],
    open_files_are_limited[OpenFilesLimit],
    disk_space_is_limited[DiskLimit, Files],
    commands_have_no_capabilities[DropCapabilities],
    commands_keep_the_capabilities_asked_for[DropCapabilities],
    commands_gain_no_privileges[NoNewPrivileges],
    system_calls_are_filtered[SyscallFilter],
    a_read_only_root_refuses_commands[ReadOnlyRoot],
    a_read_only_root_refuses_files[ReadOnlyRoot, Files],
    a_read_only_root_leaves_places_to_write[ReadOnlyRoot],
    files_go_to_the_places_to_write[ReadOnlyRoot, Files],
    the_root_is_writable_by_default,
    a_mount_shows_the_host_directory[BindMount],
    a_read_only_mount_refuses_writing[BindMount],
    a_memory_file_system_has_its_limit[Tmpfs],
    a_volume_outlives_its_sandbox[Volume],
    stats_tell_something[Stats],
    logs_are_kept_after_the_end[Logs, Persistence],
    the_last_lines_of_a_log_can_be_asked_for[Logs, Persistence],
];

const STORM: &str = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo all";

async fn storm(fixture: &Fixture) -> Arc<dyn Sandbox> {
    let mut config = fixture.config();
    config.pids = Some(48);
    let sandbox = fixture.start_with(&config).await;
    let session = sandbox.spawn(&script(STORM)).await.unwrap();
    soon("the storm ends", session.collect()).await.unwrap();
    sandbox
}

async fn a_fork_storm_is_contained(fixture: Fixture) {
    let mut config = fixture.config();
    config.pids = Some(48);
    let sandbox = fixture.start_with(&config).await;
    let output = soon("the storm ends", output(&sandbox, &script(STORM))).await;
    assert_ne!(&*output.stdout, b"all\n", "200 processes were started with 48 allowed");
}

async fn a_sandbox_out_of_processes_can_be_stopped(fixture: Fixture) {
    let sandbox = storm(&fixture).await;
    soon("stop returns", sandbox.stop()).await.unwrap();
    assert!(!sandbox.is_running().await.unwrap());
}

/// Tells the processor time of busy children, `$1` of them, after 2 s, in ticks of 10 ms (fields 14 and 15 of
/// proc_pid_stat(5)).
const BUSY: &str = "for i in $(seq $1); do while :; do :; done & all=\"$all $!\"; done; sleep 2; ticks=0
    for pid in $all; do
        read -r line </proc/$pid/stat; kill -9 $pid
        set -- ${line##*) }; ticks=$((ticks + ${12} + ${13}))
    done; echo $ticks";

async fn a_processor_limit_holds_back(fixture: Fixture) {
    let mut config = fixture.config();
    let vcpus = fixture.vcpus(100);
    config.vcpus = Some(vcpus);
    let sandbox = fixture.start_with(&config).await;
    let started = Instant::now();
    let busy = command(&["sh", "-c", BUSY, "sh", &(vcpus.milli() / 1000 + 1).to_string()]);
    let printed = soon("the script ends", output(&sandbox, &busy)).await.stdout;
    let ticks = String::from_utf8_lossy(&printed).trim().parse::<u64>().unwrap();
    // Less than half a processor more than allowed.
    let most = started.elapsed().as_millis() * u128::from(vcpus.milli() + 400) / 1000;
    assert!(u128::from(ticks) * 10 < most, "{ticks} ticks in {:?} with {vcpus}", started.elapsed());
}

async fn small(fixture: &Fixture) -> Arc<dyn Sandbox> {
    let mut config = fixture.config();
    config.memory_mb = Some(fixture.memory_mb(48));
    fixture.start_with(&config).await
}

const BOMB: &str = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";

async fn memory_used_up_ends_the_command(fixture: Fixture) {
    let sandbox = small(&fixture).await;
    let output = soon("the command ends", output(&sandbox, &script(BOMB))).await;
    assert!(matches!(output.status, ExitStatus::OutOfMemory | ExitStatus::Signal(Signal::KILL)));
}

/// Where the engine starts commands, it tells no more than the signal.
async fn memory_used_up_is_told(fixture: Fixture) {
    let sandbox = small(&fixture).await;
    let output = soon("the command ends", output(&sandbox, &script(BOMB))).await;
    assert_eq!(output.status, ExitStatus::OutOfMemory);
}

async fn exit_137_is_not_out_of_memory(fixture: Fixture) {
    let sandbox = small(&fixture).await;
    assert_eq!(output(&sandbox, &script("exit 137")).await.status, ExitStatus::Code(137));
}

async fn a_kill_is_not_out_of_memory(fixture: Fixture) {
    let sandbox = small(&fixture).await;
    let status = output(&sandbox, &script("kill -9 $$; sleep 1000")).await.status;
    assert_eq!(status, ExitStatus::Signal(Signal::KILL));
}

async fn a_sandbox_out_of_memory_goes_on(fixture: Fixture) {
    let sandbox = small(&fixture).await;
    soon("the command ends", output(&sandbox, &script(BOMB))).await;
    assert_eq!(output(&sandbox, &command(&["true"])).await.status, ExitStatus::Code(0));
}

async fn open_files_are_limited(fixture: Fixture) {
    let mut config = fixture.config();
    config.open_files = Some(64);
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(sh(&sandbox, "ulimit -n; ulimit -H -n").await, "64\n64\n");
}

async fn disk_space_is_limited(fixture: Fixture) {
    let mut config = fixture.config();
    config.disk_mb = Some(16);
    let sandbox = fixture.start_with(&config).await;
    let large = vec![1; 24 << 20];
    assert_eq!(kind(sandbox.write_file("/large", &large).await), Some(ErrorKind::ResourceExhausted));
}

/// Returns a field of a command's `/proc/self/status`.
async fn status(sandbox: &Arc<dyn Sandbox>, field: &str) -> String {
    let text = sh(sandbox, "cat /proc/self/status").await;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the kernel tells it").trim().to_owned()
}

async fn commands_have_no_capabilities(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(status(&sandbox, "CapEff").await, "0000000000000000");
}

async fn commands_keep_the_capabilities_asked_for(fixture: Fixture) {
    let mut config = fixture.config();
    config.cap_add = vec!["NET_BIND_SERVICE".parse().unwrap()];
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(status(&sandbox, "CapEff").await, "0000000000000400");
}

async fn commands_gain_no_privileges(fixture: Fixture) {
    let mut config = fixture.config();
    config.no_new_privileges = Some(true);
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(status(&sandbox, "NoNewPrivs").await, "1");
}

async fn system_calls_are_filtered(fixture: Fixture) {
    let mut config = fixture.config();
    config.syscall_filter = Some(true);
    let sandbox = fixture.start_with(&config).await;
    assert_eq!(status(&sandbox, "Seccomp").await, "2");
}

async fn read_only(fixture: &Fixture) -> Arc<dyn Sandbox> {
    let mut config = fixture.config();
    config.read_only = Some(true);
    fixture.start_with(&config).await
}

async fn a_read_only_root_refuses_commands(fixture: Fixture) {
    let sandbox = read_only(&fixture).await;
    let text = "echo x >/file || echo refused; test -e /file || echo absent";
    let printed = output(&sandbox, &script(text)).await.stdout;
    assert_eq!(printed, "refused\nabsent\n");
}

async fn a_read_only_root_refuses_files(fixture: Fixture) {
    let sandbox = read_only(&fixture).await;
    assert_eq!(kind(sandbox.write_file("/file", b"x").await), Some(ErrorKind::PermissionDenied));
}

async fn a_read_only_root_leaves_places_to_write(fixture: Fixture) {
    let sandbox = read_only(&fixture).await;
    let text = "for d in /tmp /run /dev/shm; do echo x >$d/file && cat $d/file; done";
    assert_eq!(sh(&sandbox, text).await, "x\nx\nx\n");
}

async fn files_go_to_the_places_to_write(fixture: Fixture) {
    let sandbox = read_only(&fixture).await;
    sandbox.write_file("/tmp/file", b"x").await.unwrap();
    assert_eq!(sh(&sandbox, "cat /tmp/file").await, "x");
}

async fn the_root_is_writable_by_default(fixture: Fixture) {
    let sandbox = fixture.start().await;
    assert_eq!(sh(&sandbox, "echo x >/file; cat /file").await, "x\n");
}

/// A directory of the host, removed at the end.
pub(super) struct HostDirectory(pub(super) PathBuf);

impl HostDirectory {
    pub(super) fn new(fixture: &Fixture) -> Self {
        let directory = std::env::temp_dir().join(format!("agentkernel-{}", &*fixture.name()));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "of the host").unwrap();
        Self(directory)
    }
}

impl Drop for HostDirectory {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

async fn mounted(fixture: &Fixture, directory: &HostDirectory) -> Arc<dyn Sandbox> {
    let mut config = fixture.config();
    config.mounts = vec![Mount { source: directory.0.clone(), target: "/shown".into(), read_only: true }];
    fixture.start_with(&config).await
}

async fn a_mount_shows_the_host_directory(fixture: Fixture) {
    let directory = HostDirectory::new(&fixture);
    let sandbox = mounted(&fixture, &directory).await;
    assert_eq!(sh(&sandbox, "cat /shown/file").await, "of the host");
}

async fn a_read_only_mount_refuses_writing(fixture: Fixture) {
    let directory = HostDirectory::new(&fixture);
    let sandbox = mounted(&fixture, &directory).await;
    output(&sandbox, &script("echo x >/shown/new; echo x >/shown/file")).await;
    let content = fs::read_to_string(directory.0.join("file")).unwrap();
    assert_eq!((content.as_str(), directory.0.join("new").exists()), ("of the host", false));
}

async fn a_memory_file_system_has_its_limit(fixture: Fixture) {
    let mut config = fixture.config();
    config.tmpfs = vec![Tmpfs { target: "/memory".into(), size_mb: 1 }];
    let sandbox = fixture.start_with(&config).await;
    let text =
        "head -c 500000 /dev/zero >/memory/a && echo fits; head -c 2000000 /dev/zero >/memory/b || echo full";
    assert_eq!(output(&sandbox, &script(text)).await.stdout, "fits\nfull\n");
}

async fn a_volume_outlives_its_sandbox(fixture: Fixture) {
    let name = fixture.name();
    let mut config = fixture.config();
    config.volumes = vec![Volume { name: name.parse().unwrap(), target: "/volume".into(), read_only: false }];
    let first = fixture.start_with(&config).await;
    sh(&first, "echo kept >/volume/file").await;
    first.remove().await.unwrap();
    let second = fixture.start_with(&config).await;
    let seen = sh(&second, "cat /volume/file").await;
    second.remove().await.unwrap();
    fixture.backend().volumes().unwrap().remove(&name.parse().unwrap()).await.unwrap();
    assert_eq!(seen, "kept\n");
}

async fn stats_tell_something(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let stats = sandbox.stats().await.unwrap();
    assert!(stats.cpu_usec.is_some() || stats.memory_bytes.is_some() || stats.pids.is_some());
}

/// Runs a detached main command to its end and returns the sandbox.
async fn logged(fixture: &Fixture, text: &str) -> Arc<dyn Sandbox> {
    let mut config = fixture.config();
    config.lifetime = Lifetime::Detached;
    let sandbox = fixture.backend().sandbox(fixture.name());
    let session = sandbox.run(&config, script(text).detached()).await.unwrap();
    end(session).await;
    eventually!("the sandbox ends", !sandbox.is_running().await.unwrap());
    sandbox
}

async fn log(sandbox: &Arc<dyn Sandbox>, options: &LogOptions) -> Vec<u8> {
    let mut all = Vec::new();
    let mut events = sandbox.logs(options).await.unwrap();
    while let Some(event) = soon("the log ends", events.try_next()).await.unwrap() {
        if let agentkernel_core::ExecEvent::Stdout(bytes) = event {
            all.extend_from_slice(&bytes);
        }
    }
    all
}

async fn logs_are_kept_after_the_end(fixture: Fixture) {
    let sandbox = logged(&fixture, "echo one; echo two").await;
    assert_eq!(log(&sandbox, &LogOptions::default()).await, b"one\ntwo\n");
}

async fn the_last_lines_of_a_log_can_be_asked_for(fixture: Fixture) {
    let sandbox = logged(&fixture, "seq 1 100").await;
    let options = LogOptions { tail: Some(2), ..LogOptions::default() };
    assert_eq!(log(&sandbox, &options).await, b"99\n100\n");
}
