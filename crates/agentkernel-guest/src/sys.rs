//! The system calls that rustix does not have: fork, exec, wait, signals. The only unsafe code of the guest.
#![expect(unsafe_code, reason = "raw system calls; everything else in the crate is safe code")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Which side of a [`fork`] this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(i32),
}

/// A signal that was read from a [`signal_fd`].
pub(crate) struct Received {
    pub(crate) number: i32,
    /// The sender's process id, 0 if it is outside of our namespace.
    pub(crate) sender: u32,
}

/// Strings for execve(2), made before the fork.
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Appends what a descriptor gives, at most so many bytes, without filling the room for it first.
pub(crate) fn read_more(from: impl AsFd, into: &mut Vec<u8>, most: usize) -> rustix::io::Result<usize> {
    into.reserve(most);
    let room = into.spare_capacity_mut().get_mut(..most).unwrap_or_default();
    let count = rustix::io::read(from, room)?.0.len();
    // SAFETY: the kernel has written so many bytes there, and no more than there was room for.
    unsafe { into.set_len(into.len() + count) };
    Ok(count)
}

/// Copies the process. The guest has one thread, so that the child may do anything, not only what is
/// async-signal-safe; it must end by [`exit`] or [`execute`].
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: no arguments; the process has one thread, so that no lock is held by another.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process at once, without running anything of the library.
pub(crate) fn exit(code: u8) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code.into()) }
}

/// Replaces the program; returns only the error number of the failure.
pub(crate) fn execute(path: &CStr, argv: &Strings, env: &Strings) -> i32 {
    // SAFETY: the path ends with a NUL; both arrays end with a null pointer and point to strings that they own.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    errno()
}

pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Waits for a child: `None` if none has ended and `options` has `WNOHANG`.
pub(crate) fn wait(pid: i32, options: c_int) -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: `status` lives over the call.
    match check(unsafe { libc::waitpid(pid, &raw mut status, options) })? {
        0 => Ok(None),
        pid => Ok(Some((pid, status))),
    }
}

/// Sends a signal; a negative pid is a group, -1 is everyone but us and init.
pub(crate) fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: any numbers are allowed; wrong ones are an error.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

fn set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a plain C struct for which zero is valid; it is initialized by the next call anyway.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid for writes.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` is initialized; a wrong number is an error that changes nothing.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Blocks signals and returns a descriptor to read them from.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = set(signals);
    // SAFETY: `set` is initialized; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) })?;
    // SAFETY: -1 makes a new descriptor; `set` is initialized.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the next signal, `None` if there is none.
pub(crate) fn read_signal(fd: &OwnedFd) -> Option<Received> {
    let mut bytes = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(fd, &mut bytes).ok()?;
    // The struct begins with ssi_signo, ssi_errno, ssi_code, ssi_pid (signalfd(2)), 4 bytes each.
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes);
    (length == bytes.len()).then(|| Received { number: word(0).cast_signed(), sender: word(12) })
}

/// Gives a new process what every program expects: no signal blocked, every handler the default.
pub(crate) fn reset_signals() {
    // The kernel's own struct: all zeros are the default handler, no flags, no mask. The library's function refuses
    // the two signals that it uses itself, but what was ignored before exec stays ignored after it.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is as long as the kernel's struct, the old one is not asked for, and 8 is the length of
        // the kernel's masks; SIGKILL and SIGSTOP are errors that change nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), 8) };
    }
    let set = set(&[]);
    // SAFETY: `set` is initialized; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}

/// Closes every descriptor from `first` on. For a new process that keeps none of what it was copied with.
pub(crate) fn close_from(first: u32) {
    // SAFETY: closes descriptors whose owners are in memory that the caller, a forked process that never
    // returns, does not use any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 16);
    for fd in first..u32::try_from(most.min(1 << 16)).unwrap_or(1 << 16) {
        // SAFETY: as above.
        unsafe { libc::close(fd.cast_signed()) };
    }
}

/// Closes every descriptor from `first` on but `kept`. For a new process, as [`close_from`].
pub(crate) fn close_others(first: u32, kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    if kept > first {
        // SAFETY: closes descriptors whose owners are in memory that is not used any more, as below.
        unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) };
    }
    // SAFETY: as above. Where the call is missing they are closed by exec.
    unsafe { libc::syscall(libc::SYS_close_range, kept.max(first) + 1, u32::MAX, 0) };
}

/// Returns the uid of a socket's peer.
pub(crate) fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    peer(socket).map(|peer| peer.uid)
}

/// Returns the process id of a socket's peer, 0 if it is outside of our namespace. rustix has a type for it that
/// cannot hold 0.
pub(crate) fn peer_pid(socket: impl AsFd) -> io::Result<i32> {
    peer(socket).map(|peer| peer.pid)
}

fn peer(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: -1, uid: 0, gid: 0 };
    let mut length = u32::try_from(mem::size_of::<libc::ucred>()).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `peer` and `length` live over the call, and `length` is the size of `peer`.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length)
    })?;
    Ok(peer)
}

/// Makes files, pipes and terminals as another user's: `/dev/stdout` can be opened again only by its owner. Nothing
/// else of the process changes; whoever may not do it makes them as its own.
pub(crate) fn as_owner<T>(uid: u32, gid: u32, make: impl FnOnce() -> T) -> T {
    // SAFETY: any number is allowed; one that may not be taken changes nothing.
    let old_gid = unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    let old_uid = unsafe { libc::setfsuid(uid) };
    let made = make();
    // SAFETY: as above; these were ours before.
    unsafe { libc::setfsuid(old_uid.cast_unsigned()) };
    // SAFETY: as above.
    unsafe { libc::setfsgid(old_gid.cast_unsigned()) };
    made
}

/// The argument of clone3(2), version 0 of the kernel's struct and what came with cgroups.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Copies the process into new namespaces (`CLONE_NEW*`). As [`fork`], and without a thread of the library's that
/// would have to know the new process id: the child asks the kernel.
pub(crate) fn fork_into(namespaces: c_int) -> io::Result<Fork> {
    let flags = u64::from(namespaces.cast_unsigned());
    let args =
        CloneArgs { flags, exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()), ..CloneArgs::default() };
    // SAFETY: `args` lives over the call and has the size that is told; without a stack of its own the child goes on
    // with a copy of ours, as after fork; the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, mem::size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Changes a mount and, if told so, all below it: flags set, propagation, and the user namespace of its ids.
pub(crate) fn set_mount(
    mount: impl AsFd,
    set: u64,
    propagation: u64,
    users: Option<&OwnedFd>,
    all_below: bool,
) -> io::Result<()> {
    const RECURSIVE: c_int = 0x8000;
    let users = users.map_or(0, |users| u64::from(users.as_raw_fd().cast_unsigned()));
    // struct mount_attr of mount_setattr(2): set, clear, propagation, user namespace.
    let attributes = [set, 0, propagation, users];
    let flags = libc::AT_EMPTY_PATH | if all_below { RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path ends with a NUL and `attributes` lives over the call with the size that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            mem::size_of_val(&attributes),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One instruction of a filter (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) value: u32,
}

/// Filters the system calls of this process and of everything that it starts, for good (seccomp(2)).
pub(crate) fn filter(program: &[Instruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `program` points to as many instructions as it says, which live over the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // struct ifreq: 16 bytes of name, then a union that begins with the flags.
    let mut request = [0u8; 40];
    let flags = i16::try_from(libc::IFF_UP).unwrap_or(1).to_ne_bytes();
    for (to, from) in request.iter_mut().zip(b"lo") {
        *to = *from;
    }
    for (to, from) in request.iter_mut().skip(16).zip(flags) {
        *to = from;
    }
    // SAFETY: `request` is as long as struct ifreq, has a name with a NUL, and lives over the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, request.as_mut_ptr()) }).map(drop)
}

/// Waits until a signal comes.
pub(crate) fn wait_for_signal() {
    // SAFETY: no arguments.
    unsafe { libc::pause() };
}
