//! Which system calls commands may make: one filter program, made of ranges of numbers and a few rules on arguments.
//!
//! What is in the list goes through; what is known and not in it fails with EPERM; what is newer than the list fails
//! with ENOSYS, so that programs fall back. Calls of another architecture's table end the process.
use std::ffi::{c_int, c_long};

use crate::sys::Instruction;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// linux/bpf_common.h and linux/seccomp.h.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// Offsets in struct `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Flags of clone(2) that make namespaces.
const NAMESPACES: u32 = 0x7e02_0000;
/// The personalities that Docker allows: they change nothing but what uname(2) tells.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];
/// Families that stay within the sandbox's network namespace: unix, IPv4, IPv6, netlink.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];
/// TIOCSTI and TIOCLINUX type into terminals.
const TERMINALS: [u32; 2] = [0x5412, 0x541c];

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Docker's list, without what an agent's tools do not need: keys, bpf, io_uring, userfaultfd, namespaces, mounts.
const EVERYWHERE: &[c_long] = calls![
    SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group
    SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat
    SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr
    SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_mempolicy
    SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
    SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday
    SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy
    SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioprio_get SYS_kcmp SYS_kill SYS_landlock_add_rule
    SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr
    SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore
    SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify
    SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv
    SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat
    SYS_openat SYS_openat2 SYS_pidfd_getfd SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_process_mrelease SYS_process_vm_readv
    SYS_process_vm_writev SYS_pselect6 SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat2
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo
    SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile
    SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid
    SYS_setgroups SYS_setitimer SYS_setpgid SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit
    SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync
    SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete
    SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime
    SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice
    SYS_wait4 SYS_waitid SYS_write SYS_writev
];

#[cfg(target_arch = "x86_64")]
const HERE: &[c_long] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents SYS_getpgrp
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll
    SYS_readlink SYS_rename SYS_renameat SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd SYS_stat SYS_symlink
    SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(target_arch = "aarch64")]
const HERE: &[c_long] = calls![SYS_renameat];
/// fchmodat2, map_shadow_stack, futex_wake, futex_wait, futex_requeue, cachestat, mseal: newer than some libraries'
/// tables, with the same number everywhere.
const NEWER: [c_long; 7] = [451, 452, 453, 454, 455, 456, 462];
/// The highest number that was known when the list was written: listns.
const LAST_KNOWN: u32 = 470;

/// Makes the filter.
pub(crate) fn program() -> Vec<Instruction> {
    let mut made = vec![load(ARCH), jump(JUMP_EQUAL, ARCHITECTURE, 1, 0), end(KILL), load(NUMBER)];
    for (call, rule) in rules() {
        let block = rule.block();
        // Whoever is not meant jumps over; a block always ends by a return.
        let length = u8::try_from(block.len()).unwrap_or(u8::MAX);
        made.push(jump(JUMP_EQUAL, number(call), 0, length));
        made.extend(block);
    }
    for (first, last) in ranges() {
        made.push(jump(JUMP_AT_LEAST, first, 1, 0));
        made.push(end(refuse(libc::EPERM)));
        made.push(jump(JUMP_GREATER, last, 1, 0));
        made.push(end(ALLOW));
    }
    // The table of x32 begins far above: it is unknown here.
    made.extend([jump(JUMP_GREATER, LAST_KNOWN, 1, 0), end(refuse(libc::EPERM)), end(refuse(libc::ENOSYS))]);
    made
}

/// A rule on an argument of a call.
enum Rule {
    /// Not with any of these bits.
    Without(u32, u32),
    /// Only with one of these values.
    Only(u32, &'static [u32]),
    /// Not with one of these values.
    Never(u32, &'static [u32], c_int),
    /// As if the kernel did not know it.
    Unknown,
}

/// Process 1 has the commands' own user where the caller is not root: it is not theirs to slow down.
const INIT: &[u32] = &[1];

fn rules() -> Vec<(c_long, Rule)> {
    let not_init = |call, argument| (call, Rule::Never(argument, INIT, libc::EPERM));
    vec![
        (libc::SYS_clone, Rule::Without(0, NAMESPACES)),
        // Its flags are behind a pointer: libraries fall back to clone.
        (libc::SYS_clone3, Rule::Unknown),
        (libc::SYS_ioctl, Rule::Never(1, &TERMINALS, libc::EPERM)),
        (libc::SYS_socket, Rule::Only(0, &FAMILIES)),
        // Any other family's code would run before it says that it has no pairs.
        (libc::SYS_socketpair, Rule::Only(0, &[1])),
        (libc::SYS_personality, Rule::Only(0, &PERSONALITIES)),
        not_init(libc::SYS_prlimit64, 0),
        not_init(libc::SYS_sched_setaffinity, 0),
        not_init(libc::SYS_sched_setattr, 0),
        not_init(libc::SYS_sched_setparam, 0),
        not_init(libc::SYS_sched_setscheduler, 0),
        not_init(libc::SYS_setpriority, 1),
        not_init(libc::SYS_ioprio_set, 1),
    ]
}

impl Rule {
    fn block(&self) -> Vec<Instruction> {
        let compare = |argument: u32, values: &[u32], hit: u32, miss: u32| {
            // The low half: the kernel looks at no more of these.
            let mut made = vec![load(16 + 8 * argument)];
            for (index, value) in values.iter().enumerate() {
                let to_hit = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
                made.push(jump(JUMP_EQUAL, *value, to_hit, 0));
            }
            made.extend([end(miss), end(hit)]);
            made
        };
        match self {
            Self::Without(argument, bits) => vec![
                load(16 + 8 * argument),
                jump(JUMP_ANY_BIT, *bits, 1, 0),
                end(ALLOW),
                end(refuse(libc::EPERM)),
            ],
            Self::Only(argument, values) => compare(*argument, values, ALLOW, refuse(libc::EPERM)),
            Self::Never(argument, values, errno) => compare(*argument, values, refuse(*errno), ALLOW),
            Self::Unknown => vec![end(refuse(libc::ENOSYS))],
        }
    }
}

/// The allowed numbers as ranges, ascending.
fn ranges() -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> = [EVERYWHERE, HERE, &NEWER].concat().into_iter().map(number).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number <= *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn refuse(errno: c_int) -> u32 {
    ERRNO | errno.cast_unsigned()
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, value: offset }
}

fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

fn end(value: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does.
    fn verdict(number: u32, arguments: [u64; 2]) -> u32 {
        let program = program();
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, value: operand } = program[at];
            at += 1;
            let taken = match code {
                LOAD => {
                    value = match operand {
                        NUMBER => number,
                        ARCH => ARCHITECTURE,
                        offset => (arguments[(offset as usize - 16) / 8] & 0xffff_ffff) as u32,
                    };
                    continue;
                }
                RETURN => return operand,
                JUMP_EQUAL => value == operand,
                JUMP_GREATER => value > operand,
                JUMP_AT_LEAST => value >= operand,
                _ => value & operand != 0,
            };
            at += usize::from(if taken { jump_true } else { jump_false });
        }
    }

    fn call(call: c_long, arguments: [u64; 2]) -> u32 {
        verdict(number(call), arguments)
    }

    #[test]
    fn every_call_of_the_list_goes_through() {
        let all = [EVERYWHERE, HERE, &NEWER].concat();
        assert!(all.iter().all(|it| call(*it, [0; 2]) == ALLOW));
    }

    #[test]
    fn what_is_not_in_the_list_is_refused() {
        for it in
            [libc::SYS_mount, libc::SYS_unshare, libc::SYS_keyctl, libc::SYS_bpf, libc::SYS_io_uring_setup]
        {
            assert_eq!(call(it, [0; 2]), refuse(libc::EPERM));
        }
    }

    #[test]
    fn what_is_newer_and_another_table_are_unknown() {
        for it in [LAST_KNOWN + 1, 0x4000_0000, 0x4000_0000 + 165] {
            assert_eq!(verdict(it, [0; 2]), refuse(libc::ENOSYS));
        }
        assert_eq!(call(libc::SYS_clone3, [0; 2]), refuse(libc::ENOSYS));
    }

    #[test]
    fn namespaces_are_refused_and_threads_are_not() {
        assert_eq!(call(libc::SYS_clone, [0x1000_0000, 0]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_clone, [0x3d_0f00, 0]), ALLOW);
    }

    #[test]
    fn nothing_types_into_terminals_whatever_the_high_half_says() {
        assert_eq!(call(libc::SYS_ioctl, [0, 0x1_0000_5412]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5413]), ALLOW);
    }

    #[test]
    fn only_families_that_a_network_namespace_holds_are_allowed() {
        assert_eq!(call(libc::SYS_socket, [10, 0]), ALLOW);
        for family in [17, 38, 40] {
            assert_eq!(call(libc::SYS_socket, [family, 0]), refuse(libc::EPERM));
            assert_eq!(call(libc::SYS_socketpair, [family, 0]), refuse(libc::EPERM));
        }
    }

    #[test]
    fn process_1_is_left_alone() {
        assert_eq!(call(libc::SYS_prlimit64, [1, 0]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_prlimit64, [0, 0]), ALLOW);
    }
}
