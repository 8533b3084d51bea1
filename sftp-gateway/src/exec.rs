//! Commands over SSH: digests as `sha256sum` and its like print them, and `scp -f` for old clients. There is no shell:
//! a command line is cut into words, and what we do not have is refused.

mod scp;

use crate::fs::{DigestKind, ExportFs, FsError};
use crate::path::{ExportPath, printable};
use crate::sftp::digest::{digest, digest_of};
use crate::sftp::{FileReports, OpenFile, Sink, SinkClosed};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// What may wait on a command's standard input.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// A command line that we have an answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Digests of files, or of the standard input when there is none.
    Digest(DigestKind, Vec<Vec<u8>>),
    /// `scp -f`.
    Source { recursive: bool, times: bool, paths: Vec<Vec<u8>> },
}

impl Command {
    /// `None` for everything else.
    pub(crate) fn parse(line: &[u8]) -> Option<Command> {
        let mut words = words(line)?.into_iter();
        let program = words.next()?;
        let kind = match &program[..] {
            b"md5sum" => Some(DigestKind::Md5),
            b"sha1sum" => Some(DigestKind::Sha1),
            b"sha256sum" => Some(DigestKind::Sha256),
            b"scp" => None,
            _ => return None,
        };
        let (mut from, mut to, mut recursive, mut times, mut options) = (false, false, false, false, true);
        let mut paths = Vec::new();
        for word in words {
            match word.strip_prefix(b"-") {
                Some(b"-") if options => options = false,
                Some(letters) if options && !letters.is_empty() => {
                    for letter in letters {
                        match (kind, letter) {
                            (None, b'f') => from = true,
                            (None, b't') => to = true,
                            (None, b'r') => recursive = true,
                            (None, b'p') => times = true,
                            (None, b'd' | b'v' | b'q') | (Some(_), b'b' | b't') => {}
                            _ => return None,
                        }
                    }
                }
                _ => paths.push(word),
            }
        }
        match kind {
            Some(kind) => Some(Command::Digest(kind, paths)),
            None => (from && !to && !paths.is_empty()).then_some(Command::Source { recursive, times, paths }),
        }
    }
}

/// Words as a shell cuts them; `None` when a shell would do more than that.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut word, mut rest) = (Vec::new(), None::<Vec<u8>>, line.iter().copied());
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().push(rest.next()?),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        b'\'' => break,
                        byte => word.push(byte),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        b'"' => break,
                        b'\\' => match rest.next()? {
                            byte @ (b'"' | b'\\' | b'$' | b'`') => word.push(byte),
                            byte => word.extend([b'\\', byte]),
                        },
                        b'$' | b'`' => return None,
                        byte => word.push(byte),
                    }
                }
            }
            b';' | b'|' | b'&' | b'<' | b'>' | b'$' | b'`' | b'(' | b')' | b'\n' | b'\r' | 0 => return None,
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Some(words)
}

/// A command's standard input. Nothing waits for room in it: more than fits ends the command.
#[derive(Default)]
pub(crate) struct Input {
    state: Mutex<(VecDeque<u8>, bool)>,
    changed: Notify,
}

/// More input than a command of ours takes.
#[derive(Debug, thiserror::Error)]
#[error("more input than the command takes")]
pub(crate) struct TooMuchInput;

impl Input {
    pub(crate) fn receive(&self, bytes: &[u8]) -> Result<(), TooMuchInput> {
        let mut state = self.state.lock();
        if state.0.len() + bytes.len() > INPUT_BYTES_MAX {
            return Err(TooMuchInput);
        }
        state.0.extend(bytes);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.state.lock().1 = true;
        self.changed.notify_one();
    }

    /// The next byte; `None` at the end.
    async fn byte(&self) -> Option<u8> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(byte) = state.0.pop_front() {
                    return Some(byte);
                }
                if state.1 {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Runs a command; gives its exit status.
pub(crate) async fn run(
    command: Command,
    fs: Arc<dyn ExportFs>,
    input: &Input,
    reports: Arc<dyn FileReports>,
    sink: &impl Sink,
) -> Result<u32, SinkClosed> {
    match command {
        Command::Digest(kind, paths) if paths.is_empty() => {
            let mut bytes = Vec::new();
            while let Some(byte) = input.byte().await {
                bytes.push(byte);
                if bytes.len() > INPUT_BYTES_MAX {
                    return Ok(1);
                }
            }
            sink.send(Bytes::from(format!("{}  -\n", HEXLOWER.encode(&digest_of(kind, &bytes))))).await?;
            Ok(0)
        }
        Command::Digest(kind, paths) => {
            let mut status = 0;
            for sent in paths {
                let outcome = async {
                    let path = ExportPath::parse(&sent).map_err(|_| FsError::NotFound)?;
                    let file = OpenFile::new(path.clone(), fs.open(&path).await?, reports.clone());
                    digest(&file.file, kind, 0, u64::MAX, &*reports).await
                };
                match outcome.await {
                    Ok(digest) => sink.send(digest_line(&digest, &sent)).await?,
                    Err(error) => {
                        status = 1;
                        let name = format!("{}sum", kind.name());
                        sink.send_error(complaint(&name, &sent, &error)).await?;
                    }
                }
            }
            Ok(status)
        }
        Command::Source { recursive, times, paths } => {
            scp::Source { fs, input, reports, sink, recursive, times, failed: false }.run(paths).await
        }
    }
}

/// As coreutils print it: names with a backslash or line feed are escaped, and the line says so.
fn digest_line(digest: &[u8], name: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(80 + name.len());
    if name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r')) {
        line.push(b'\\');
    }
    line.extend_from_slice(HEXLOWER.encode(digest).as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line.into()
}

fn complaint(program: &str, name: &[u8], error: &FsError) -> Bytes {
    let reason = match error {
        FsError::NotFound => "No such file or directory",
        FsError::Denied => "Permission denied",
        FsError::Unsupported | FsError::Failed(_) => "Input/output error",
    };
    Bytes::from(format!("{program}: {}: {reason}\n", printable(name)))
}

#[cfg(test)]
mod tests {
    use super::{Command, digest_line};
    use crate::fs::DigestKind;

    fn source(recursive: bool, times: bool, path: &str) -> Option<Command> {
        Some(Command::Source { recursive, times, paths: vec![path.into()] })
    }

    #[test]
    fn commands_are_those_that_clients_send() {
        assert_eq!(Command::parse(b"scp -f /a/b.dump"), source(false, false, "/a/b.dump"));
        assert_eq!(Command::parse(b"scp -v -r -p -f -- '/a b'"), source(true, true, "/a b"));
        assert_eq!(Command::parse(b"scp -rpf \"a \\\" b\""), source(true, true, "a \" b"));
        let digest = |kind, path: &[u8]| Some(Command::Digest(kind, vec![path.to_vec()]));
        assert_eq!(Command::parse(b"sha256sum a\\ b"), digest(DigestKind::Sha256, b"a b"));
        assert_eq!(Command::parse(b"sha1sum ''\\''x'"), digest(DigestKind::Sha1, b"'x"));
        assert_eq!(Command::parse(b"md5sum -b -- -x"), digest(DigestKind::Md5, b"-x"));
        assert_eq!(Command::parse(b"md5sum"), Some(Command::Digest(DigestKind::Md5, vec![])));
        for refused in [
            "",
            "sh",
            "/bin/sh -c id",
            "scp -t /x",
            "scp -f -t /x",
            "scp /x",
            "scp -S /bin/sh -f /x",
            "sha256sum x; id",
            "sha256sum $(id)",
            "sha256sum \"$(id)\"",
            "sha256sum `id`",
            "echo ${ShellId}%ComSpec%",
            "md5sum -c x",
            "scp -f 'x",
        ] {
            assert_eq!(Command::parse(refused.as_bytes()), None, "{refused}");
        }
    }

    #[test]
    fn names_cannot_make_lines() {
        assert_eq!(&digest_line(&[0xab], b"a\nb\\")[..], b"\\ab  a\\nb\\\\\n");
        assert_eq!(&digest_line(&[0xab], b"a b")[..], b"ab  a b\n");
    }
}
