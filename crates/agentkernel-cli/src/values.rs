//! How the values of flags are read: each parser takes the text of one flag and gives a checked value.
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use agentkernel_core::{Error, HostName, Mount, Network, Tmpfs, Volume};
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};

/// Size of a file system in memory when none is given, in MiB.
const TMPFS_MB: u64 = 64;
/// How alike two words must be, from 0 to 1, for one to be taken for the other mistyped; as in clap.
const LIKENESS: f64 = 0.7;

/// Reads a type of the contract; its hint stays with its message, since clap shows only one text.
pub(crate) fn checked<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| plain(&error))
}

/// Reads one of several words; the shell completes them, and a mistyped one gets the nearest.
pub(crate) fn one_of<T>(words: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| checked::<T>(&word))
}

/// Returns the candidate that was most likely meant, if any is near enough.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|word| (strsim::jaro(text, word), word));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score > LIKENESS).map(|(_, word)| word)
}

fn plain(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{}: {hint}", error.message()),
        None => error.message().to_owned(),
    }
}

/// Reads a size in whole MiB: `512M`, `1.5G`, `512MiB`; all units are powers of 1024, as in the docker command.
pub(crate) fn mebibytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("the unit is none of K, M, G and T: write a size like 512M or 2G".to_owned()),
    };
    let plain_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let Some(number) = number.parse::<f64>().ok().filter(|_| plain_number) else {
        return Err("this is not a number with a unit: write a size like 512M or 2G".to_owned());
    };
    let mebibytes = number * 2f64.powi(shift - 20);
    if mebibytes < 1.0 {
        return Err("this is less than 1 MiB: write a size like 512M or 2G".to_owned());
    }
    // 2^43 MiB is beyond every address space, and small enough for f64 to be exact.
    if mebibytes.fract() != 0.0 || mebibytes > 2f64.powi(43) {
        return Err(
            "this is not a whole number of MiB, or too large: write a size like 512M or 2G".to_owned()
        );
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and from 1 to 2^43")]
    Ok(mebibytes as u64)
}

/// Reads a duration with units; zero is refused, since it would end things before they begin.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("this is no time at all".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}: write a duration like 30s or 5m")),
    }
}

/// Reads `NAME=VALUE` of a label.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "there is no `=`: write NAME=VALUE".to_owned())
}

/// Reads `none`, `full` or host names joined by commas.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "full" => Ok(Network::Full),
        // Host names know no case: without this, a slip of the shift key would ask for a host of that name.
        slip if ["none", "full"].iter().any(|word| slip.eq_ignore_ascii_case(word)) => {
            Err(format!("write `{}`", slip.to_ascii_lowercase()))
        }
        hosts => hosts.split(',').map(checked::<HostName>).collect::<Result<_, _>>().map(Network::Allow),
    }
}

/// Reads `SRC:DST[:ro|:rw]`; the source is a host path of any bytes and may have colons.
pub(crate) fn mount() -> impl TypedValueParser<Value = Mount> {
    OsStringValueParser::new().try_map(|text: OsString| {
        let (rest, read_only) = access(text.as_bytes(), true);
        let (source, target) = host_and_inside(rest).ok_or("write SRC:DST[:ro|:rw]")?;
        let source = PathBuf::from(OsStr::from_bytes(source));
        let target = String::from_utf8(target.to_vec()).map_err(|_| "the path inside is not UTF-8")?;
        Ok::<_, &str>(Mount { source, target, read_only })
    })
}

/// Reads `NAME:DST[:ro|:rw]`.
pub(crate) fn volume(text: &str) -> Result<Volume, String> {
    let (rest, read_only) = access(text.as_bytes(), false);
    let (name, target) =
        text[..rest.len()].split_once(':').ok_or_else(|| "write NAME:DST[:ro|:rw]".to_owned())?;
    Ok(Volume { name: checked(name)?, target: target.to_owned(), read_only })
}

/// Reads `DST[:SIZE]`.
pub(crate) fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (target, size_mb) = match text.rsplit_once(':') {
        Some((target, size)) => (target, mebibytes(size)?),
        None => (text, TMPFS_MB),
    };
    Ok(Tmpfs { target: target.to_owned(), size_mb })
}

/// A host file and where a copy of it goes.
#[derive(Debug, Clone)]
pub(crate) struct HostFile {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
}

/// Reads `SRC:DST`; the source is a host path of any bytes and may have colons.
pub(crate) fn file() -> impl TypedValueParser<Value = HostFile> {
    OsStringValueParser::new().try_map(|text: OsString| {
        let (source, target) = host_and_inside(text.as_bytes()).ok_or("write SRC:DST")?;
        let target = String::from_utf8(target.to_vec()).map_err(|_| "the path inside is not UTF-8")?;
        Ok::<_, &str>(HostFile { source: PathBuf::from(OsStr::from_bytes(source)), target })
    })
}

fn host_and_inside(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Splits off `:ro` or `:rw`.
fn access(text: &[u8], default: bool) -> (&[u8], bool) {
    match (text.strip_suffix(b":ro"), text.strip_suffix(b":rw")) {
        (Some(rest), _) => (rest, true),
        (_, Some(rest)) => (rest, false),
        (None, None) => (text, default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_mebibytes() {
        let sizes = ["512M", "2g", "1.5GiB", "1T", "1048576", "512MB"].map(|text| mebibytes(text).ok());
        assert_eq!(sizes, [Some(512), Some(2048), Some(1536), Some(1 << 20), Some(1), Some(512)]);
        for bad in
            ["", "M", "512", "1023K", "1.3M", "-1M", "+1M", "1e3M", "infG", "nanG", "1X", "9999999999T"]
        {
            assert!(mebibytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_have_units_and_are_not_zero() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "30", "0s", "-1s", "1x"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_are_none_full_or_names() {
        assert_eq!(network("none"), Ok(Network::None));
        assert!(matches!(network("crates.io,github.com"), Ok(Network::Allow(hosts)) if hosts.len() == 2));
        for bad in ["", "None", "a,,b", "10.0.0.1"] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volumes_are_writable_and_tmpfs_small_unless_told() {
        let volume = |text| volume(text).map(|volume| (volume.target, volume.read_only)).ok();
        assert_eq!(volume("cache:/c"), Some(("/c".to_owned(), false)));
        assert_eq!(volume("cache:/c:ro"), Some(("/c".to_owned(), true)));
        assert_eq!(volume("./x:/c"), None);
        assert_eq!(tmpfs("/t"), Ok(Tmpfs { target: "/t".to_owned(), size_mb: 64 }));
        assert_eq!(tmpfs("/t:1G"), Ok(Tmpfs { target: "/t".to_owned(), size_mb: 1024 }));
    }
}
