//! Where the verdict goes: files named on the command line or a directory named in the environment.
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::Verdict;

/// The directory that each backend's verdict is written to, as `NAME.json` and `NAME.xml`.
const DIRECTORY: &str = "AGENTKERNEL_VERDICTS";
/// Which run this process is a part of: nextest runs each trial in a process of its own.
const NEXTEST_RUN: &str = "NEXTEST_RUN_ID";

/// Where the verdict goes.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    json: Option<PathBuf>,
    junit: Option<PathBuf>,
    directory: Option<PathBuf>,
}

/// Returns the run that this process is a part of.
pub(crate) fn run() -> Option<String> {
    env::var(NEXTEST_RUN).ok()
}

impl Destinations {
    /// Takes `--json FILE` and `--junit FILE` out of the arguments and returns the rest, for the harness.
    pub(crate) fn take(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, Vec<OsString>), String> {
        let directory = env::var_os(DIRECTORY).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut taken = Self { directory, ..Self::default() };
        let (mut rest, mut arguments) = (Vec::new(), arguments.into_iter());
        while let Some(argument) = arguments.next() {
            let text = argument.to_str().unwrap_or_default();
            let (name, value) =
                text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let destination = match name {
                "--json" => &mut taken.json,
                "--junit" => &mut taken.junit,
                _ => {
                    rest.push(argument);
                    continue;
                }
            };
            let value = value.map(OsString::from).or_else(|| arguments.next());
            let value = value.filter(|value| !value.is_empty()).ok_or(format!("{name} needs a file"))?;
            *destination = Some(value.into());
        }
        Ok((taken, rest))
    }

    /// Writes the verdict wherever it is wanted.
    pub(crate) fn write(&self, verdict: Verdict) -> Result<(), String> {
        let at = |path: &Path, written: io::Result<()>| {
            written.map_err(|error| format!("the verdict cannot be written to {}: {error}", path.display()))
        };
        if let Some(path) = &self.json {
            at(path, write_json(path, &verdict))?;
        }
        if let Some(path) = &self.junit {
            at(path, write_junit(path, &verdict))?;
        }
        match &self.directory {
            Some(directory) => at(directory, write_both(directory, verdict)),
            None => Ok(()),
        }
    }
}

fn write_json(path: &Path, verdict: &Verdict) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(verdict)?;
    text.push('\n');
    fs::write(path, text)
}

fn write_junit(path: &Path, verdict: &Verdict) -> io::Result<()> {
    fs::write(path, verdict.to_junit()?)
}

/// Writes both forms, together with what other processes of the same run have written.
fn write_both(directory: &Path, verdict: Verdict) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let file = |extension: &str| directory.join(format!("{}.{extension}", verdict.backend));
    let (json, junit, lock) = (file("json"), file("xml"), file("lock"));
    let lock = File::options().create(true).append(true).open(lock)?;
    lock.lock()?;
    let verdict = match earlier(&json).filter(|_| verdict.run.is_some()) {
        Some(mut earlier) if earlier.run == verdict.run => {
            earlier.add(verdict);
            earlier
        }
        _ => verdict,
    };
    write_json(&json, &verdict)?;
    write_junit(&junit, &verdict)
}

/// Reads what is there; what is no verdict of this format is replaced.
fn earlier(path: &Path) -> Option<Verdict> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice::<Verdict>(&text).ok().filter(|verdict| verdict.format == Verdict::FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, rule, verdict::Trial};

    fn taken(arguments: &[&str]) -> Result<(Destinations, Vec<OsString>), String> {
        Destinations::take(arguments.iter().map(OsString::from))
    }

    /// A verdict of the first rules, as one process of a run has it.
    fn part(run: Option<&str>, rules: std::ops::Range<usize>, outcome: Outcome) -> Verdict {
        let rules = rule::all().skip(rules.start).take(rules.len());
        let trials = rules.map(|rule| Trial::new(rule, outcome, None, 7)).collect();
        Verdict::new("part", Err("not asked"), run.map(ToOwned::to_owned), trials)
    }

    fn written(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
        let directory = tempfile::tempdir().unwrap();
        verdicts.into_iter().for_each(|verdict| write_both(directory.path(), verdict).unwrap());
        let verdict = earlier(&directory.path().join("part.json")).unwrap();
        let xml = fs::read_to_string(directory.path().join("part.xml")).unwrap();
        assert_eq!(xml, verdict.to_junit().unwrap());
        verdict
    }

    #[test]
    fn the_harness_sees_only_its_own_arguments() {
        let (taken, rest) = taken(&["kit", "--json", "a", "filter", "--junit=b", "--exact"]).unwrap();
        assert_eq!((taken.json, taken.junit), (Some("a".into()), Some("b".into())));
        assert_eq!(rest, ["kit", "filter", "--exact"]);
    }

    #[test]
    fn a_file_without_a_name_is_told() {
        assert_eq!(taken(&["kit", "--junit"]).unwrap_err(), "--junit needs a file");
    }

    #[test]
    fn processes_of_one_run_add_up() {
        let parts = [part(Some("run"), 1..3, Outcome::Passed), part(Some("run"), 0..1, Outcome::Failed)];
        let verdict = written(parts);
        let expected = rule::all().take(3).map(rule::Rule::name).collect::<Vec<_>>();
        assert_eq!(verdict.trials.iter().map(|trial| trial.name.clone()).collect::<Vec<_>>(), expected);
        assert_eq!((verdict.counts.passed, verdict.counts.failed), (2, 1));
    }

    #[test]
    fn a_trial_that_was_tried_again_counts_as_it_ended_last() {
        let parts = [part(Some("run"), 0..2, Outcome::Failed), part(Some("run"), 0..1, Outcome::Passed)];
        assert_eq!(written(parts).counts.failed, 1);
    }

    #[test]
    fn another_run_begins_anew() {
        let parts = [part(Some("run"), 0..2, Outcome::Failed), part(Some("next"), 0..1, Outcome::Passed)];
        assert_eq!(written(parts).counts.failed, 0);
        let parts = [part(None, 0..2, Outcome::Failed), part(None, 0..1, Outcome::Passed)];
        assert_eq!(written(parts).counts.failed, 0);
    }
}
