//! Files in: told to the script as lines with lengths, so that what breaks off is no end.
use agentkernel_core::{Error, ErrorKind, Result, SandboxPath, Source, WriteOptions};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    Place, Talk,
    archive::{Archive, Entry, Kind, bad, padding, steps},
    flag, script, split,
    talk::ENDING,
    text,
};

/// How much goes at once.
const CHUNK: usize = 256 << 10;
/// Modes of directories that would hinder unpacking are set at the end; at most for so many.
const MOST_LATER: usize = 64 << 10;

/// Writes a file: beside its place first, and there when everything has arrived.
pub(super) async fn write(
    place: &Place,
    path: &SandboxPath,
    options: &WriteOptions,
    content: Source<'_>,
) -> Result<()> {
    let operation = "write file";
    let (parent, name) = split(path)?;
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Conflict, operation, "it is a directory")
            .with_context("backend", "apple")
            .with_context("path", path));
    }
    let mut taker = Taker::start(place, operation, path, &[&parent, flag(options.parents)]).await?;
    let mode = options.mode.map_or_else(|| "-".to_owned(), |mode| format!("{:03o}", mode & 0o777));
    taker.say(format!("f {mode} - {}", word(name.as_bytes()))).await?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match fill(content, &mut chunk).await {
            Ok(0) => break,
            Ok(length) => taker.part(chunk.get(..length).unwrap_or_default()).await?,
            Err(error) => {
                taker.talk.give_up().await;
                return Err(Error::from(error).with_context("path", path));
            }
        }
    }
    taker.say("0".to_owned()).await?;
    taker.end().await
}

/// Unpacks a tree. Every name is walked step by step, and no link is followed on the way.
pub(super) async fn unpack(place: &Place, path: &SandboxPath, tar: Source<'_>) -> Result<()> {
    let mut taker = Taker::start(place, "unpack tree", path, &[&text(path)?, flag(true)]).await?;
    match taker.all(&mut Archive(tar)).await {
        Ok(()) => taker.end().await,
        Err(error) => {
            taker.talk.give_up().await;
            Err(error.with_context("path", path))
        }
    }
}

/// Reads until the buffer is full or the source ends.
async fn fill(source: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match source.read(rest).await? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// A name as a word of a line, with all bytes by number that a shell could take for something else.
fn word(name: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if let Ok(plain) = str::from_utf8(name)
        && name.iter().all(is_plain)
    {
        return plain.to_owned();
    }
    let mut word = "~".to_owned();
    for byte in name {
        match byte {
            byte if is_plain(byte) => word.push(char::from(*byte)),
            byte => word.push_str(&format!("\\0{byte:03o}")),
        }
    }
    word
}

/// The script that takes.
struct Taker {
    talk: Talk,
    /// Where it is, below its directory.
    at: Vec<Vec<u8>>,
    later: Vec<(Vec<Vec<u8>>, u32)>,
}

impl Taker {
    async fn start(
        place: &Place,
        operation: &'static str,
        path: &SandboxPath,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut talk = Talk::start(place, operation, path, script::TAKE, arguments)?;
        let pid = talk.begin().await?;
        talk.runs(&pid, ENDING);
        Ok(Self { talk, at: Vec::new(), later: Vec::new() })
    }

    async fn say(&mut self, mut line: String) -> Result<()> {
        line.push('\n');
        self.talk.put(line.as_bytes()).await
    }

    /// Sends a part of the content; an empty one would be its end.
    async fn part(&mut self, bytes: &[u8]) -> Result<()> {
        self.say(bytes.len().to_string()).await?;
        self.talk.put(bytes).await
    }

    async fn end(mut self) -> Result<()> {
        self.say("e".to_owned()).await?;
        self.talk.verdict().await
    }

    async fn all(&mut self, archive: &mut Archive<'_>) -> Result<()> {
        while let Some(entry) = archive.next().await? {
            self.entry(archive, &entry).await?;
        }
        // The deepest come first: what is closed above would hide them.
        for (steps, mode) in std::mem::take(&mut self.later).into_iter().rev() {
            self.go(&steps).await?;
            self.say(format!("m {mode:03o}")).await?;
        }
        Ok(())
    }

    async fn entry(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<()> {
        let mut parent = steps(&entry.path)?;
        let Some(name) = parent.pop() else {
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(bad("an entry has no name")),
            };
        };
        let name = word(&name);
        match entry.kind {
            Kind::File => {
                self.go(&parent).await?;
                self.say(format!("f {:03o} {} {name}", entry.mode, entry.modified)).await?;
                self.content(archive, entry.size).await
            }
            Kind::Directory => {
                self.go(&parent).await?;
                self.say(format!("d {:03o} {name}", entry.mode | 0o700)).await?;
                if entry.mode & 0o700 == 0o700 {
                    return Ok(());
                }
                if self.later.len() == MOST_LATER {
                    return Err(bad("too many directories are closed to their owner"));
                }
                self.later.push((steps(&entry.path)?, entry.mode));
                Ok(())
            }
            Kind::Symlink if entry.target.is_empty() || entry.target.contains(&0) => {
                Err(bad("a link leads nowhere"))
            }
            Kind::Symlink => {
                self.go(&parent).await?;
                self.say(format!("l {name} {}", word(&entry.target))).await
            }
            Kind::Hard => {
                let mut target = steps(&entry.target)?;
                let source = target.pop().ok_or_else(|| bad("a link leads nowhere"))?;
                self.go(&target).await?;
                self.say("k".to_owned()).await?;
                self.go(&parent).await?;
                self.say(format!("h {name} {}", word(&source))).await
            }
            Kind::Other => Err(bad("an entry is neither file, directory nor link")),
        }
    }

    async fn content(&mut self, archive: &mut Archive<'_>, size: u64) -> Result<()> {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let part = chunk.get_mut(..length).unwrap_or_default();
            archive.exactly(part).await?;
            self.part(part).await?;
            left -= u64::try_from(length).unwrap_or(left);
        }
        let mut rest = [0; 512];
        archive.exactly(rest.get_mut(..padding(size)).unwrap_or_default()).await?;
        self.say("0".to_owned()).await
    }

    /// Goes to a directory below, which is made if it is missing.
    async fn go(&mut self, steps: &[Vec<u8>]) -> Result<()> {
        let mut lines = String::new();
        if !steps.starts_with(&self.at) {
            lines.push_str("u\n");
            self.at.clear();
        }
        for step in steps.get(self.at.len()..).unwrap_or_default() {
            lines.push_str(&format!("c {}\n", word(step)));
        }
        if !lines.is_empty() {
            self.at = steps.to_vec();
            self.talk.put(lines.as_bytes()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_one_line() {
        assert_eq!(word(b"a.b-c_d"), "a.b-c_d");
        assert_eq!(word(b"~"), "~\\0176");
        assert_eq!(word(b"a b\n$'\\\xff"), "~a\\0040b\\0012\\0044\\0047\\0134\\0377");
    }
}
