//! The lines that do something inside.
use super::is_own;
use crate::{
    command::{Line, Secret},
    ports, script,
};

/// What the value of the n-th variable is called on its way inside.
const CARRIER: &str = "AGENTKERNEL_ENV_";
/// The longest `NAME=value` that a program can be given (execve(2)).
const MAX_STRING: usize = 128 * 1024 - 1;

/// Whose the stdin of a command is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// The command has none; the call has one all the same, which is how it is let go.
    #[default]
    Ours,
    Callers,
    Terminal,
}

/// A command inside.
#[derive(Debug, Default)]
pub(crate) struct Exec<'a> {
    pub id: &'a str,
    pub nonce: &'a str,
    pub user: Option<&'a str>,
    pub cwd: Option<&'a str>,
    pub stdin: Stdin,
    /// Later ones win.
    pub env: Vec<(&'a str, String)>,
    pub argv: Vec<String>,
}

impl Exec<'_> {
    /// Returns the call: the command in [`script::RUN`].
    pub(crate) fn line(&self) -> Line {
        let mut argv = vec!["exec".to_owned(), "--interactive".to_owned()];
        if self.stdin == Stdin::Terminal {
            argv.push("--tty".to_owned());
        }
        let (mut env, mut names) = (Vec::new(), Vec::new());
        for (name, value) in &self.env {
            let mut on_the_way = format!("{CARRIER}{}", names.len());
            if on_the_way.len() + 1 + value.len() > MAX_STRING && !is_own(name) {
                // Its own name is shorter. It then stands beside that of the sandbox, and a shell takes the last.
                on_the_way = (*name).to_owned();
            } else {
                names.push(*name);
            }
            argv.push(format!("--env={on_the_way}"));
            env.push(Secret { name: on_the_way, value: value.clone() });
        }
        argv.extend(self.user.map(|user| format!("--user={user}")));
        // The directory is entered by the script: `--workdir` would make one that is missing.
        let names = names.join(" ");
        let stdin = match self.stdin {
            Stdin::Ours => "0",
            Stdin::Callers => "1",
            Stdin::Terminal => "2",
        };
        let cwd = self.cwd.unwrap_or_default();
        let rest =
            ["--", self.id, "/bin/sh", "-c", script::RUN, "agentkernel", self.nonce, cwd, stdin, &names];
        argv.extend(rest.map(str::to_owned));
        argv.extend(self.argv.iter().cloned());
        Line { argv, env }
    }
}

/// Runs a script that is talked with: its stdin is ours.
pub(crate) fn talk(id: &str, script: &str, nonce: &str, arguments: &[&str]) -> Line {
    let mut argv = ["exec", "--interactive", "--", id, "/bin/sh", "-c", script, "agentkernel", nonce]
        .map(str::to_owned)
        .to_vec();
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Line { argv, env: Vec::new() }
}

/// Runs one of our scripts inside.
pub(crate) fn exec_script(id: &str, user: Option<&str>, script: &str, arguments: &[&str]) -> Line {
    let mut argv = vec!["exec".to_owned()];
    argv.extend(user.map(|user| format!("--user={user}")));
    argv.extend(["--", id, "/bin/sh", "-c", script, "agentkernel"].map(str::to_owned));
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Line { argv, env: Vec::new() }
}

/// Carries a connection to a port inside.
pub(crate) fn relay(id: &str, port: u16) -> Line {
    let port = port.to_string();
    ["exec", "--interactive", "--", id, "/bin/sh", "-c", ports::RELAY, "agentkernel", &port].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stands_behind_the_only_separator() {
        let exec = Exec {
            id: "agentkernel-demo",
            nonce: "n",
            user: Some("user"),
            cwd: Some("/tmp"),
            stdin: Stdin::Callers,
            env: vec![("A", "1".to_owned()), ("B", "2".to_owned())],
            argv: vec!["---x".to_owned(), "--".to_owned(), String::new()],
        };
        let line = exec.line();
        let shown = line.argv.iter().map(String::as_str).filter(|argument| *argument != script::RUN);
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "exec",
                "--interactive",
                "--env=AGENTKERNEL_ENV_0",
                "--env=AGENTKERNEL_ENV_1",
                "--user=user",
                "--",
                "agentkernel-demo",
                "/bin/sh",
                "-c",
                "agentkernel",
                "n",
                "/tmp",
                "1",
                "A B",
                "---x",
                "--",
                "",
            ]
        );
        assert_eq!(line.env.iter().map(|secret| secret.value.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    }
}
