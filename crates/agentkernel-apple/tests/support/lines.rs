//! The rules of the command line of `container`, for the log of every call.

use std::path::Path;

/// Returns the arguments of every call of a stand-in until now.
pub(crate) fn of(program: &Path) -> Vec<Vec<String>> {
    let log = std::fs::read_to_string(program.with_file_name("stand-in/calls.jsonl")).unwrap_or_default();
    let calls = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    calls.map(|call| serde_json::from_value(call["argv"].clone()).unwrap()).collect()
}

/// Options without a value.
const FLAGS: [&str; 14] = [
    "--all",
    "--detach",
    "--disable-kernel-install",
    "--enable-kernel-install",
    "--follow",
    "--force",
    "--init",
    "--interactive",
    "--no-stream",
    "--quiet",
    "--read-only",
    "--tty",
    "--version",
    "--help",
];

/// Says which rule a call breaks, if any.
pub(crate) fn broken(call: &[String]) -> Option<&'static str> {
    let words = call.iter().map(String::as_str).collect::<Vec<_>>();
    let verb = words.first().copied().unwrap_or_default();
    let groups = ["image", "i", "network", "n", "volume", "v", "system", "s", "machine", "m"];
    let verbs = if verb.starts_with('-') { 0 } else { 1 + usize::from(groups.contains(&verb)) };
    let (verbs, rest) = words.split_at(verbs.min(words.len()));
    let last = verbs.last().copied().unwrap_or_default();
    if ["prune", "cp", "copy"].contains(&last)
        || ["machine", "m"].contains(&verb)
        || verbs == ["system", "stop"]
    {
        return Some("the verb is forbidden");
    }
    let end = rest.iter().position(|word| *word == "--");
    let has_command = ["create", "run", "exec"].contains(&verb) && verbs.len() == 1;
    if has_command != end.is_some() {
        return Some("there is one `--` before what a command follows, and nowhere else");
    }
    let (options, after) = match end {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => {
            let end = rest.iter().position(|word| !word.starts_with('-')).unwrap_or(rest.len());
            rest.split_at(end)
        }
    };
    if has_command && after.get(1).is_none_or(|word| !["/bin/sh", "-c"].contains(word)) {
        return Some("behind the id stands our shell");
    }
    if !has_command && after.iter().any(|word| word.starts_with('-')) {
        return Some("an option stands behind the id");
    }
    if options.iter().any(|word| !word.starts_with('-')) {
        return Some("an option has its value in a word of its own");
    }
    if options.iter().any(|word| word.split_once('=').is_some_and(|(_, value)| value.is_empty())) {
        return Some("an option has an empty value");
    }
    if options.iter().any(|word| !word.contains('=') && !FLAGS.contains(word)) {
        return Some("an option lacks its value");
    }
    let changes = ["stop", "kill", "delete", "rm"].contains(&last);
    if changes && options.iter().any(|word| ["-a", "--all"].contains(word)) {
        return Some("it changes everything");
    }
    None
}
