//! A directory, entry by entry as it is read.
use std::time::Duration;

use agentkernel_core::{DirEntry, Events, FileType, Result, SandboxPath};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader},
    process::ChildStdout,
    time::timeout,
};

use super::{Place, Talk, fault, script, text};
use crate::error;

/// The longest entry: its type, and a name as long as Linux has it.
const MAX_ENTRY: u64 = 1 + 255 + 1;

/// Lists a directory.
pub(crate) async fn read_dir(place: &Place, path: &SandboxPath) -> Result<Events<DirEntry>> {
    let mut talk = Talk::start(place, "read directory", path, script::LIST, &[&text(path)?])?;
    let pid = talk.begin().await?;
    talk.runs(&pid, Duration::ZERO);
    let Some(stdout) = talk.stdout.take() else { return Err(fault::broken(talk.operation, path)) };
    let entries = stream::try_unfold(Some((talk, BufReader::new(stdout))), next);
    Ok(Box::pin(entries))
}

type Rest = Option<(Talk, BufReader<ChildStdout>)>;

async fn next(rest: Rest) -> Result<Option<(DirEntry, Rest)>> {
    let Some((mut talk, mut stdout)) = rest else { return Ok(None) };
    let read = timeout(talk.patience(), entry(&mut stdout)).await;
    match read.map_err(|_| error::timed_out(talk.operation))? {
        Some(Some(entry)) => Ok(Some((entry, Some((talk, stdout))))),
        Some(None) => {
            talk.over();
            Ok(None)
        }
        None => Err(fault::broken(talk.operation, &talk.path)),
    }
}

/// Reads an entry: `Some(None)` is the end, `None` what makes no sense.
async fn entry(stdout: &mut (impl AsyncBufRead + Unpin)) -> Option<Option<DirEntry>> {
    let mut bytes = Vec::new();
    stdout.take(MAX_ENTRY).read_until(0, &mut bytes).await.ok()?;
    let (&kind, name) = bytes.strip_suffix(&[0])?.split_first()?;
    let file_type = match kind {
        b'e' if name.is_empty() => return Some(None),
        b'f' => FileType::File,
        b'd' => FileType::Directory,
        b'l' => FileType::Symlink,
        b'o' => FileType::Other,
        _ => return None,
    };
    let is_name = !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
    is_name.then(|| Some(DirEntry { name: Bytes::copy_from_slice(name), file_type }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_lead_elsewhere_are_no_entries() {
        for bad in [&b"f\0"[..], b"f..\0", b"d.\0", b"fa/b\0", b"xa\0", b"fa", b"", b"\0", b"ex\0"] {
            assert!(entry(&mut &*bad).await.is_none(), "{bad:?}");
        }
        let long = [b"f".as_slice(), &[b'x'; 256], b"\0"].concat();
        assert!(entry(&mut &*long).await.is_none());
        assert_eq!(entry(&mut &b"e\0"[..]).await, Some(None));
        assert_eq!(entry(&mut &b"f\xff\n\0"[..]).await.unwrap().unwrap().name, &b"\xff\n"[..]);
    }
}
