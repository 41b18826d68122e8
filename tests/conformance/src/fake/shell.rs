//! The grammar of the small `sh` of the fake: what the kit's scripts are made of, and no more.

/// A list of commands, each with whether it runs in the background.
pub(super) type List = Vec<(Node, bool)>;

/// A part of a script.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Simple { assignments: Vec<(String, Word)>, words: Vec<Word>, redirections: Vec<Redirection> },
    Pipeline(Vec<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    If { arms: Vec<(List, List)>, otherwise: List },
    Loop { until: bool, condition: List, body: List },
    For { name: String, words: Vec<Word>, body: List },
    Group { body: List, redirections: Vec<Redirection> },
    Subshell { body: List, redirections: Vec<Redirection> },
}

/// A word: pieces side by side.
pub(super) type Word = Vec<Piece>;

#[derive(Debug, Clone)]
pub(super) enum Piece {
    Text(Vec<u8>),
    /// A variable, with `+word` or `:+word`; whether it is in quotes.
    Variable {
        name: String,
        alternative: Option<Word>,
        quoted: bool,
    },
    Output {
        body: List,
        quoted: bool,
    },
    Sum(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(super) struct Redirection {
    pub(super) fd: usize,
    pub(super) to: Target,
}

#[derive(Debug, Clone)]
pub(super) enum Target {
    Read(Word),
    Write(Word),
    Append(Word),
    Copy(usize),
    Close,
}

/// Why a script is not understood.
pub(super) type Misread = &'static str;

/// Reads a script.
pub(super) fn parse(text: &[u8]) -> Result<List, Misread> {
    let mut parser = Parser { text, at: 0 };
    let list = parser.list(&[])?;
    parser.blank();
    if parser.at < text.len() { Err("there is something after the end") } else { Ok(list) }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

const RESERVED: [&[u8]; 8] = [b"then", b"else", b"elif", b"fi", b"do", b"done", b"}", b")"];

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn starts_with(&self, text: &[u8]) -> bool {
        self.text[self.at..].starts_with(text)
    }

    fn accept(&mut self, text: &[u8]) -> bool {
        let found = self.starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn spaces(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'\\' if self.starts_with(b"\\\n") => self.at += 2,
                b'#' => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn blank(&mut self) {
        loop {
            self.spaces();
            if !matches!(self.peek(), Some(b'\n' | b';')) || self.starts_with(b";;") {
                return;
            }
            self.at += 1;
        }
    }

    /// Whether a reserved word stands here as a whole word.
    fn sees(&self, word: &[u8]) -> bool {
        let after = self.text.get(self.at + word.len()).copied();
        self.starts_with(word)
            && (word == b")"
                || after.is_none_or(|byte| {
                    matches!(byte, b' ' | b'\t' | b'\n' | b';' | b')' | b'&' | b'|' | b'<' | b'>')
                }))
    }

    fn takes(&mut self, word: &[u8]) -> bool {
        self.spaces();
        let seen = self.sees(word);
        self.at += if seen { word.len() } else { 0 };
        seen
    }

    fn needs(&mut self, word: &'static [u8], misread: Misread) -> Result<(), Misread> {
        self.blank();
        if self.takes(word) { Ok(()) } else { Err(misread) }
    }

    fn list(&mut self, ends: &[&[u8]]) -> Result<List, Misread> {
        let mut list = Vec::new();
        loop {
            self.blank();
            if self.at >= self.text.len() {
                return Ok(list);
            }
            if let Some(reserved) = RESERVED.iter().find(|word| self.sees(word)) {
                return if ends.contains(reserved) { Ok(list) } else { Err("a word is out of place") };
            }
            let node = self.and_or()?;
            self.spaces();
            let background = self.starts_with(b"&") && !self.starts_with(b"&&");
            self.at += usize::from(background);
            list.push((node, background));
            self.spaces();
            let goes_on = background || matches!(self.peek(), None | Some(b'\n' | b';' | b')'));
            if !goes_on && !RESERVED.iter().any(|word| self.sees(word)) {
                return Err("a separator is missing");
            }
        }
    }

    fn and_or(&mut self) -> Result<Node, Misread> {
        let mut node = self.pipeline()?;
        loop {
            self.spaces();
            let and = self.accept(b"&&");
            if !and && !self.accept(b"||") {
                return Ok(node);
            }
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\n')) {
                self.at += 1;
            }
            let right = Box::new(self.pipeline()?);
            node = if and { Node::And(Box::new(node), right) } else { Node::Or(Box::new(node), right) };
        }
    }

    fn pipeline(&mut self) -> Result<Node, Misread> {
        if self.takes(b"!") {
            return Ok(Node::Not(Box::new(self.pipeline()?)));
        }
        let mut nodes = vec![self.command()?];
        loop {
            self.spaces();
            if !self.starts_with(b"|") || self.starts_with(b"||") {
                break;
            }
            self.at += 1;
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\n')) {
                self.at += 1;
            }
            nodes.push(self.command()?);
        }
        if nodes.len() == 1 { nodes.pop().ok_or("there is no command") } else { Ok(Node::Pipeline(nodes)) }
    }

    fn command(&mut self) -> Result<Node, Misread> {
        self.spaces();
        if self.takes(b"if") {
            return self.if_command();
        }
        for (word, until) in [(b"while", false), (b"until", true)] {
            if self.takes(word) {
                let condition = self.list(&[b"do"])?;
                self.needs(b"do", "`do` is missing")?;
                let body = self.list(&[b"done"])?;
                self.needs(b"done", "`done` is missing")?;
                return self.redirected(vec![(Node::Loop { until, condition, body }, false)]);
            }
        }
        if self.takes(b"for") {
            return self.for_command();
        }
        if self.accept(b"(") {
            let body = self.list(&[b")"])?;
            self.needs(b")", "`)` is missing")?;
            let redirections = self.redirections()?;
            return Ok(Node::Subshell { body, redirections });
        }
        if self.takes(b"{") {
            let body = self.list(&[b"}"])?;
            self.needs(b"}", "`}` is missing")?;
            return self.redirected(body);
        }
        self.simple()
    }

    fn redirected(&mut self, body: List) -> Result<Node, Misread> {
        let redirections = self.redirections()?;
        Ok(Node::Group { body, redirections })
    }

    fn if_command(&mut self) -> Result<Node, Misread> {
        let (mut arms, mut otherwise) = (Vec::new(), Vec::new());
        loop {
            let condition = self.list(&[b"then"])?;
            self.needs(b"then", "`then` is missing")?;
            let body = self.list(&[b"elif", b"else", b"fi"])?;
            arms.push((condition, body));
            if self.takes(b"elif") {
                continue;
            }
            if self.takes(b"else") {
                otherwise = self.list(&[b"fi"])?;
            }
            self.needs(b"fi", "`fi` is missing")?;
            return Ok(Node::If { arms, otherwise });
        }
    }

    fn for_command(&mut self) -> Result<Node, Misread> {
        self.spaces();
        let name = self.name().ok_or("a name is missing")?;
        self.needs(b"in", "`in` is missing")?;
        let mut words = Vec::new();
        loop {
            self.spaces();
            match self.word()? {
                Some(word) => words.push(word),
                None => break,
            }
        }
        self.needs(b"do", "`do` is missing")?;
        let body = self.list(&[b"done"])?;
        self.needs(b"done", "`done` is missing")?;
        self.redirected(vec![(Node::For { name, words, body }, false)])
    }

    fn name(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        if length == 0 || rest[0].is_ascii_digit() {
            return None;
        }
        self.at += length;
        String::from_utf8(rest[..length].to_vec()).ok()
    }

    fn simple(&mut self) -> Result<Node, Misread> {
        let (mut assignments, mut words, mut redirections) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.spaces();
            if let Some(redirection) = self.redirection()? {
                redirections.push(redirection);
                continue;
            }
            if words.is_empty() {
                let before = self.at;
                if let Some(name) = self.name()
                    && self.accept(b"=")
                {
                    let value = self.word()?.unwrap_or_default();
                    assignments.push((name, value));
                    continue;
                }
                self.at = before;
            }
            match self.word()? {
                Some(word) => words.push(word),
                None => break,
            }
        }
        if words.is_empty() && assignments.is_empty() && redirections.is_empty() {
            return Err("a command is missing");
        }
        Ok(Node::Simple { assignments, words, redirections })
    }

    fn redirections(&mut self) -> Result<Vec<Redirection>, Misread> {
        let mut all = Vec::new();
        loop {
            self.spaces();
            match self.redirection()? {
                Some(redirection) => all.push(redirection),
                None => return Ok(all),
            }
        }
    }

    fn redirection(&mut self) -> Result<Option<Redirection>, Misread> {
        let before = self.at;
        let given = self.peek().filter(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        self.at += usize::from(given.is_some());
        let (fd, kind) = match self.peek() {
            Some(b'>') if self.accept(b">>") => (1, b'a'),
            Some(b'>') if self.accept(b">&") => (1, b'&'),
            Some(b'>') if self.accept(b">") => (1, b'>'),
            Some(b'<') if self.accept(b"<&") => (0, b'&'),
            Some(b'<') if self.accept(b"<") => (0, b'<'),
            _ => {
                self.at = before;
                return Ok(None);
            }
        };
        let fd = given.unwrap_or(fd);
        if fd > 2 {
            return Err("only 0, 1 and 2 can be redirected");
        }
        if kind == b'&' {
            if self.accept(b"-") {
                return Ok(Some(Redirection { fd, to: Target::Close }));
            }
            let from = self.peek().filter(|byte| matches!(byte, b'0'..=b'2')).ok_or("a number is missing")?;
            self.at += 1;
            return Ok(Some(Redirection { fd, to: Target::Copy(usize::from(from - b'0')) }));
        }
        self.spaces();
        let word = self.word()?.ok_or("a file is missing")?;
        let to = match kind {
            b'a' => Target::Append(word),
            b'>' => Target::Write(word),
            _ => Target::Read(word),
        };
        Ok(Some(Redirection { fd, to }))
    }

    fn word(&mut self) -> Result<Option<Word>, Misread> {
        let mut word = Word::new();
        let before = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\'' => {
                    let rest = &self.text[self.at + 1..];
                    let end = rest.iter().position(|byte| *byte == b'\'').ok_or("a quote is not closed")?;
                    word.push(Piece::Text(rest[..end].to_vec()));
                    self.at += end + 2;
                }
                b'"' => {
                    self.at += 1;
                    word.push(Piece::Text(Vec::new()));
                    while !self.accept(b"\"") {
                        self.quoted(&mut word)?;
                    }
                }
                b'\\' => {
                    let next = self.text.get(self.at + 1).copied();
                    word.push(Piece::Text(next.into_iter().collect()));
                    self.at += 2;
                }
                b'$' => self.dollar(&mut word, false)?,
                _ => {
                    word.push(Piece::Text(vec![byte]));
                    self.at += 1;
                }
            }
        }
        Ok((self.at > before).then_some(word))
    }

    fn quoted(&mut self, word: &mut Word) -> Result<(), Misread> {
        match self.peek().ok_or("a quote is not closed")? {
            b'$' => self.dollar(word, true),
            b'\\' if self.text.get(self.at + 1).is_some_and(|next| b"$`\"\\\n".contains(next)) => {
                word.push(Piece::Text(vec![self.text[self.at + 1]]));
                self.at += 2;
                Ok(())
            }
            byte => {
                word.push(Piece::Text(vec![byte]));
                self.at += 1;
                Ok(())
            }
        }
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), Misread> {
        self.at += 1;
        if self.accept(b"((") {
            let rest = &self.text[self.at..];
            let end = rest.windows(2).position(|pair| pair == b"))").ok_or("`))` is missing")?;
            word.push(Piece::Sum(rest[..end].to_vec()));
            self.at += end + 2;
            return Ok(());
        }
        if self.accept(b"(") {
            let body = self.list(&[b")"])?;
            self.needs(b")", "`)` is missing")?;
            word.push(Piece::Output { body, quoted });
            return Ok(());
        }
        let brace = self.accept(b"{");
        let special = self.peek().filter(|byte| b"$?!@#*0123456789".contains(byte));
        let name = match special {
            Some(byte) => {
                self.at += 1;
                char::from(byte).to_string()
            }
            None => match self.name() {
                Some(name) => name,
                None => {
                    word.push(Piece::Text(b"$".to_vec()));
                    return Ok(());
                }
            },
        };
        let mut alternative = None;
        if brace {
            if self.accept(b":+") || self.accept(b"+") {
                let rest = &self.text[self.at..];
                let end = rest.iter().position(|byte| *byte == b'}').ok_or("`}` is missing")?;
                alternative = Some(vec![Piece::Text(rest[..end].to_vec())]);
                self.at += end;
            }
            if !self.accept(b"}") {
                return Err("`}` is missing");
            }
        }
        word.push(Piece::Variable { name, alternative, quoted });
        Ok(())
    }
}
