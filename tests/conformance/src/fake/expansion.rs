//! Words of a script: variables, sums, output of commands, and splitting into fields.
use std::pin::Pin;

use agentkernel_core::ExitStatus;

use super::{
    descriptor::Fd,
    interpreter::{Shell, code},
    pipe::pipe,
    shell::{List, Piece, Word},
};

/// The longest text that a script can make: its memory is ours.
const LONGEST: usize = 16 << 20;

impl Shell {
    /// Returns a word as one text; one that is too long ends the shell, as running out of memory ends a real one.
    pub(super) async fn text(&mut self, word: &Word) -> Result<Vec<u8>, ExitStatus> {
        let text = self.fields_of(word, false).await?.join(&b' ');
        if text.len() > LONGEST { Err(ExitStatus::Code(2)) } else { Ok(text) }
    }

    pub(super) async fn fields(&mut self, words: &[Word]) -> Result<Vec<Vec<u8>>, ExitStatus> {
        let mut fields = Vec::new();
        for word in words {
            fields.extend(self.fields_of(word, true).await?);
        }
        Ok(fields)
    }

    async fn fields_of(&mut self, word: &Word, split: bool) -> Result<Vec<Vec<u8>>, ExitStatus> {
        let (mut fields, mut current) = (Vec::new(), None::<Vec<u8>>);
        for piece in word {
            let (bytes, whole) = match piece {
                Piece::Text(text) => (text.clone(), true),
                Piece::Sum(text) => (self.sum(text), true),
                Piece::Variable { name, quoted: true, alternative: None } if name == "@" => {
                    let arguments = self.arguments.get(1..).unwrap_or_default().to_vec();
                    for (index, argument) in arguments.into_iter().enumerate() {
                        if index > 0 {
                            fields.extend(current.take());
                        }
                        current.get_or_insert_default().extend(argument);
                    }
                    continue;
                }
                Piece::Variable { name, alternative, quoted } => {
                    let value = match (self.variable(name), alternative) {
                        (Some(_), Some(alternative)) => self.boxed_text(alternative).await?,
                        (None, Some(_)) => Vec::new(),
                        (value, None) => value.unwrap_or_default(),
                    };
                    (value, *quoted || !split)
                }
                Piece::Output { body, quoted } => (self.output(body.clone()).await, *quoted || !split),
            };
            if whole {
                current.get_or_insert_default().extend(bytes);
                continue;
            }
            let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n');
            if bytes.first().is_some_and(space) {
                fields.extend(current.take());
            }
            let parts = bytes.split(space).filter(|part| !part.is_empty());
            for (index, part) in parts.enumerate() {
                if index > 0 {
                    fields.extend(current.take());
                }
                current.get_or_insert_default().extend_from_slice(part);
            }
            if bytes.last().is_some_and(space) {
                fields.extend(current.take());
            }
        }
        fields.extend(current);
        Ok(fields)
    }

    fn boxed_text<'a>(
        &'a mut self,
        word: &'a Word,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, ExitStatus>> + Send + 'a>> {
        Box::pin(self.text(word))
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        match name {
            "?" => Some(self.last.to_string().into()),
            "$" => Some(self.own_pid.to_string().into()),
            "!" => self.background.last().map(|child| child.pid.to_string().into()),
            "#" => Some((self.arguments.len().saturating_sub(1)).to_string().into()),
            "@" | "*" => Some(self.arguments.get(1..).unwrap_or_default().join(&b' ')),
            _ => match name.parse::<usize>() {
                Ok(index) => self.arguments.get(index).cloned(),
                Err(_) => self.variables.get(name).map(|(value, _)| value.clone()),
            },
        }
    }

    /// Sums of numbers and variables: `i+1`.
    fn sum(&self, text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(text).into_owned();
        let terms = text.split('+').map(str::trim).map(|term| {
            let value = self.variable(term.trim_start_matches('$')).unwrap_or_else(|| term.into());
            term.parse().ok().or_else(|| String::from_utf8_lossy(&value).parse::<i64>().ok()).unwrap_or(0)
        });
        terms.sum::<i64>().to_string().into()
    }

    async fn output(&mut self, body: List) -> Vec<u8> {
        let (reader, writer) = pipe();
        let mut copy = self.clone();
        copy.fds[1] = Some(Fd::Writer(writer));
        let child = copy.fork(body);
        drop(copy);
        let mut all = Vec::new();
        while let Some(bytes) = reader.take(usize::MAX).await {
            all.extend_from_slice(&bytes[..bytes.len().min(LONGEST - all.len())]);
        }
        self.last = code(child.ended().await);
        while all.last() == Some(&b'\n') {
            all.pop();
        }
        all
    }
}
