//! `sw_vers` of macOS, for tests: the version is `AGENTKERNEL_STANDIN_MACOS`, the text beside it, or 26.1.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::{env, fs, process::ExitCode};

fn main() -> ExitCode {
    let beside =
        env::current_exe().ok().and_then(|exe| fs::read_to_string(exe.with_file_name("macos-version")).ok());
    let version = env::var("AGENTKERNEL_STANDIN_MACOS").ok().or(beside);
    let version = version.as_deref().map_or("26.1", str::trim);
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => println!("ProductName:\t\tmacOS\nProductVersion:\t\t{version}\nBuildVersion:\t\t25B78"),
        ["--productName" | "-productName"] => println!("macOS"),
        ["--productVersion" | "-productVersion"] => println!("{version}"),
        ["--buildVersion" | "-buildVersion"] => println!("25B78"),
        ["--productVersionExtra" | "-productVersionExtra"] => {}
        _ => {
            eprintln!(
                "Usage: sw_vers [--help|--productName|--productVersion|--productVersionExtra|--buildVersion]"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
