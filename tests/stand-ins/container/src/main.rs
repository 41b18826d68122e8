//! A strict stand-in for Apple's `container`, for tests: what it may be asked, and what it answers, is that of the
//! reference; commands really run, in namespaces of their own.
#[cfg(target_os = "linux")]
mod call;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    call::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    // Commands run in Linux' namespaces only.
    std::process::ExitCode::from(70)
}
