//! The engine without SSH: what clients rely on, byte by byte.

use crate::served::{PATIENCE, noise};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use sftp_gateway::ExportPath;
use sftp_gateway::sftp::{Engine, EngineOptions, FileClosed, FileReports, Inbox, Sink, SinkClosed, WireError};
use sftp_gateway::testing::{MemoryFile, MemoryFs};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

#[derive(Default)]
struct Reports(Mutex<Vec<FileClosed>>);

impl FileReports for Reports {
    fn opened(&self, _: &ExportPath, _: u64) {}

    fn closed(&self, closed: &FileClosed) {
        self.0.lock().push(closed.clone());
    }
}

struct Replies(mpsc::Sender<Bytes>);

impl Sink for Replies {
    async fn send(&self, bytes: Bytes) -> Result<(), SinkClosed> {
        self.0.send(bytes).await.map_err(|_| SinkClosed)
    }
}

struct Talk {
    inbox: Arc<Inbox>,
    replies: mpsc::Receiver<Bytes>,
    waiting: BytesMut,
    reports: Arc<Reports>,
    last_id: u32,
}

/// Type, id and what follows.
type Reply = (u8, u32, Bytes);

const STATUS: u8 = 101;
const DATA: u8 = 103;
const NAME: u8 = 104;

fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
    [&(fields.len() as u32 + 5).to_be_bytes(), &[kind][..], &id.to_be_bytes(), fields].concat()
}

impl Talk {
    async fn begin(fs: Arc<MemoryFs>) -> Talk {
        let inbox = Arc::new(Inbox::default());
        let reports = Arc::new(Reports::default());
        let (sender, replies) = mpsc::channel(1);
        let engine = Engine::new(fs, inbox.clone(), reports.clone(), EngineOptions::default());
        tokio::spawn(async move { engine.run(&Replies(sender)).await });
        let mut talk = Talk { inbox, replies, waiting: BytesMut::new(), reports, last_id: 0 };
        talk.inbox.receive(&frame(1, 3, &[])).unwrap();
        let (kind, version, mut extensions) = talk.reply().await;
        assert_eq!((kind, version), (2, 3));
        let mut names = Vec::new();
        while extensions.has_remaining() {
            names.push(string(&mut extensions));
            string(&mut extensions);
        }
        assert!(names.contains(&Bytes::from("limits@openssh.com")));
        talk
    }

    fn ask(&mut self, kind: u8, fields: &[u8]) -> u32 {
        self.last_id += 1;
        self.inbox.receive(&frame(kind, self.last_id, fields)).unwrap();
        self.last_id
    }

    /// The next reply, however its bytes were cut.
    async fn reply(&mut self) -> Reply {
        loop {
            if let Some(length) = self.waiting.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
                && self.waiting.len() >= 4 + length
            {
                assert!(length <= 256 * 1024);
                let mut reply = self.waiting.split_to(4 + length).freeze();
                reply.advance(4);
                return (reply.get_u8(), reply.get_u32(), reply);
            }
            let more = tokio::time::timeout(PATIENCE, self.replies.recv()).await.unwrap();
            self.waiting.extend_from_slice(&more.expect("the engine ended"));
        }
    }

    async fn answer(&mut self, kind: u8, fields: &[u8]) -> (u8, Bytes) {
        let id = self.ask(kind, fields);
        let (kind, answered, rest) = self.reply().await;
        assert_eq!(answered, id);
        (kind, rest)
    }

    async fn status(&mut self, kind: u8, fields: &[u8]) -> u32 {
        let (kind, mut rest) = self.answer(kind, fields).await;
        assert_eq!(kind, STATUS);
        rest.get_u32()
    }

    async fn open(&mut self, path: &str) -> Bytes {
        let (kind, mut rest) = self.answer(3, &[field(path), 1u32.to_be_bytes().to_vec(), vec![0; 4]].concat()).await;
        assert_eq!(kind, 102);
        string(&mut rest)
    }
}

fn string(bytes: &mut Bytes) -> Bytes {
    let length = bytes.get_u32() as usize;
    bytes.split_to(length)
}

fn read(handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let mut fields = field(handle);
    fields.put_u64(offset);
    fields.put_u32(length);
    fields
}

fn files(files: &[(&str, MemoryFile)]) -> Arc<MemoryFs> {
    let fs = MemoryFs::new();
    for (path, file) in files {
        fs.put(path, file.clone());
    }
    Arc::new(fs)
}

#[tokio::test]
async fn reads_are_full_and_in_order_and_end_with_eof() {
    let content = noise(5, 1_000_000);
    // Pieces of 1,000 bytes: answers are put together from many.
    let fs = files(&[("/x", MemoryFile { piece_bytes: 1000, ..MemoryFile::new(content.clone(), 9) })]);
    let mut talk = Talk::begin(fs).await;
    let handle = talk.open("/x").await;
    let mut asked = VecDeque::new();
    for (offset, length) in [(0u64, 100_000u32), (999_990, 100), (5, 0), (123_456, 300_000), (700_000, 261_120), (1, 1)]
    {
        asked.push_back((talk.ask(5, &read(&handle, offset, length)), offset, length));
    }
    while let Some((id, offset, length)) = asked.pop_front() {
        let (kind, answered, mut rest) = talk.reply().await;
        assert_eq!((kind, answered), (DATA, id));
        let got = string(&mut rest);
        assert!(rest.is_empty());
        let end = (offset + u64::from(length.min(261_120))).min(1_000_000);
        assert!(got == content[offset as usize..end as usize], "{offset} {length}: {}", got.len());
    }
    for offset in [1_000_000, 1_000_001, u64::MAX] {
        assert_eq!(talk.status(5, &read(&handle, offset, 10)).await, 1, "EOF");
    }
    assert_eq!(talk.status(5, &read(b"\0\0\0\x09", 0, 10)).await, 4);
    assert_eq!(talk.status(5, &read(b"no handle", 0, 10)).await, 4);
}

#[tokio::test]
async fn slow_reads_do_not_change_the_order_and_many_run_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let slow = MemoryFile { gate: Some(gate.clone()), ..MemoryFile::new(noise(1, 100), 1) };
    let mut talk = Talk::begin(files(&[("/slow", slow), ("/fast", MemoryFile::new(noise(2, 100), 1))])).await;
    let (slow, fast) = (talk.open("/slow").await, talk.open("/fast").await);
    let ids: Vec<u32> = (0..20).map(|n| talk.ask(5, &read(if n % 2 == 0 { &slow } else { &fast }, 0, 100))).collect();
    // Ten reads wait at the gate together: it lets them through in one go.
    gate.add_permits(10);
    for id in ids {
        assert_eq!(talk.reply().await.1, id);
    }
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_session() {
    let fs = files(&[]);
    for (bytes, error) in [
        (frame(16, 1, &field("/")), WireError::Order),
        ([frame(1, 3, &[]), frame(1, 3, &[])].concat(), WireError::Order),
        ((256u32 * 1024 + 1).to_be_bytes().to_vec(), WireError::Length(256 * 1024 + 1)),
        (u32::MAX.to_be_bytes().to_vec(), WireError::Length(u32::MAX)),
        (vec![0; 4], WireError::Length(0)),
        (vec![0, 0, 0, 3, 1, 0, 0], WireError::Malformed),
    ] {
        let inbox = Arc::new(Inbox::default());
        assert_eq!(inbox.receive(&bytes), Err(error));
        assert_eq!(inbox.receive(&frame(16, 1, &field("/"))), Ok(()), "nothing is taken any more");
        let (sender, mut replies) = mpsc::channel(8);
        let engine = Engine::new(fs.clone(), inbox, Arc::new(Reports::default()), EngineOptions::default());
        tokio::time::timeout(PATIENCE, engine.run(&Replies(sender))).await.unwrap().unwrap();
        while let Some(reply) = replies.recv().await {
            assert_eq!(reply[4], 2, "no answer but the version");
        }
    }
    let inbox = Inbox::default();
    inbox.receive(&frame(1, 3, &[])).unwrap();
    let flood = (0..200_000u32).find_map(|id| inbox.receive(&frame(17, id, &field("/some/file"))).err());
    assert_eq!(flood, Some(WireError::Flood));
}

#[tokio::test]
async fn listings_come_in_pieces_that_clients_bear() {
    let fs = MemoryFs::new();
    for number in 0..2_500 {
        fs.put(format!("/many/{number:0>200}"), MemoryFile::new("x", 1));
    }
    fs.put(b"/odd/\xff\xfe\n", MemoryFile::new("x", 1));
    fs.put([&b"/odd/"[..], &[b'n'; 5000]].concat(), MemoryFile::new("x", 1));
    let mut talk = Talk::begin(Arc::new(fs)).await;
    for (folder, expected) in [("/many", 2_502), ("/odd", 3)] {
        let (kind, mut rest) = talk.answer(11, &field(folder)).await;
        assert_eq!(kind, 102);
        let handle = string(&mut rest);
        let mut names = Vec::new();
        loop {
            let (kind, mut rest) = talk.answer(12, &field(&handle)).await;
            if kind == STATUS {
                assert_eq!(rest.get_u32(), 1);
                break;
            }
            assert!(kind == NAME && rest.len() < 100 * 1024);
            for _ in 0..rest.get_u32() {
                names.push(string(&mut rest));
                let line = string(&mut rest);
                assert!(!line.contains(&b'\n') && matches!(line[0], b'-' | b'd'));
                assert_eq!(rest.get_u32(), 15, "size, owner, permissions, times");
                rest.advance(8 + 8);
                let kind = rest.get_u32() & 0o170_000;
                assert_eq!(kind, if line[0] == b'd' { 0o040_000 } else { 0o100_000 });
                rest.advance(8);
            }
            assert!(rest.is_empty());
        }
        assert_eq!(names.len(), expected);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), expected, "no name twice");
        assert!(folder != "/odd" || names.contains(&Bytes::from_static(b"\xff\xfe\n")), "{names:?}");
    }
}

#[tokio::test]
async fn foreign_absent_and_forbidden_things_answer_as_they_should() {
    let mut talk = Talk::begin(files(&[("/a/x", MemoryFile::new("abc", 1))])).await;
    for path in ["/absent", "/a/absent", "/a/x/y", "/other-tenant/x", "", "a\0b", "/a/../b"] {
        let expected = if path.is_empty() { 105 } else { STATUS };
        assert_eq!(talk.answer(17, &field(path)).await.0, expected, "{path:?}");
    }
    assert_eq!(talk.status(17, &field(vec![b'a'; 5000])).await, 2);
    let open = |path: &str, flags: u32| [field(path), flags.to_be_bytes().to_vec(), vec![0; 4]].concat();
    for flags in [2, 3, 8, 0x1a, 0x20 | 8 | 2] {
        // Whether the file is there makes no difference.
        assert_eq!(talk.status(3, &open("/a/x", flags)).await, 3);
        assert_eq!(talk.status(3, &open("/b/x", flags)).await, 3);
    }
    for (kind, fields) in [
        (6, [read(b"\0\0\0\x01", 0, 1), b"x".to_vec()].concat()),
        (9, [field("/a/x"), vec![0; 4]].concat()),
        (10, [field("1234"), vec![0; 4]].concat()),
        (13, field("/a/x")),
        (14, [field("/new"), vec![0; 4]].concat()),
        (15, field("/a")),
        (18, [field("/a/x"), field("/a/y")].concat()),
        (20, [field("/a/x"), field("/a/y")].concat()),
        (200, [field("posix-rename@openssh.com"), field("/a/x"), field("/b")].concat()),
        (200, [field("hardlink@openssh.com"), field("/a/x"), field("/b")].concat()),
    ] {
        assert_eq!(talk.status(kind, &fields).await, 3, "{kind}");
    }
    assert_eq!(talk.status(200, &field("nobody@knows")).await, 8);
    assert_eq!(talk.status(99, &[]).await, 8);
    assert_eq!(talk.status(5, &[0, 0]).await, 5);
    for (sent, real) in [("", "/"), (".", "/"), ("/a/../../b//c/.", "/b/c"), ("/nothing/here", "/nothing/here")] {
        let (kind, mut rest) = talk.answer(16, &field(sent)).await;
        assert_eq!((kind, rest.get_u32()), (NAME, 1));
        assert_eq!(string(&mut rest), real.as_bytes());
    }
}

#[tokio::test]
async fn handles_are_few_and_keep_what_they_opened() {
    let fs = files(&[("/x", MemoryFile::new("first", 1))]);
    let mut talk = Talk::begin(fs.clone()).await;
    let old = talk.open("/x").await;
    fs.put("/x", MemoryFile::new("second version", 2));
    let (_, mut rest) = talk.answer(5, &read(&old, 0, 100)).await;
    assert_eq!(string(&mut rest), "first");
    let (_, mut attributes) = talk.answer(8, &field(&old)).await;
    attributes.advance(4);
    assert_eq!(attributes.get_u64(), 5);
    let new = talk.open("/x").await;
    let (_, mut rest) = talk.answer(5, &read(&new, 0, 6)).await;
    assert_eq!(string(&mut rest), "second");
    let ids: Vec<u32> = (0..200).map(|_| talk.ask(3, &[field("/x"), vec![0, 0, 0, 1], vec![0; 4]].concat())).collect();
    let mut opened = 2;
    for id in ids {
        let (kind, answered, _) = talk.reply().await;
        assert_eq!(answered, id);
        opened += usize::from(kind == 102);
    }
    assert_eq!(opened, 128);
    assert_eq!(talk.status(4, &field(&old)).await, 0);
    assert_eq!(talk.status(4, &field(&old)).await, 4);
    let closed = talk.reports.0.lock().clone();
    assert_eq!((closed.len(), closed[0].complete, closed[0].bytes_covered), (1, true, 5));
    drop(talk.open("/x").await);
    // The client is gone: all handles are let go of.
    talk.inbox.end();
    while tokio::time::timeout(PATIENCE, talk.replies.recv()).await.unwrap().is_some() {}
    let closed = talk.reports.0.lock().clone();
    assert_eq!(closed.len(), 129);
    assert_eq!(closed.iter().filter(|file| file.bytes_read == 6 && !file.complete).count(), 1);
}

#[tokio::test]
async fn extensions_answer() {
    let known = vec![7; 32];
    let file = MemoryFile { known_sha256: Some(known.clone()), ..MemoryFile::new("abc", 1) };
    let mut talk = Talk::begin(files(&[("/x", file)])).await;
    let extended = |name: &str, rest: &[u8]| [field(name), rest.to_vec()].concat();
    let (kind, mut rest) = talk.answer(200, &extended("limits@openssh.com", &[])).await;
    assert_eq!(
        (kind, rest.get_u64(), rest.get_u64(), rest.get_u64(), rest.get_u64()),
        (201, 262_144, 261_120, 261_120, 128)
    );
    let check = |kinds: &str, start: u64, length: u64, block: u32| {
        [
            field("/x"),
            field(kinds),
            start.to_be_bytes().to_vec(),
            length.to_be_bytes().to_vec(),
            block.to_be_bytes().to_vec(),
        ]
        .concat()
    };
    let (_, mut rest) = talk.answer(200, &extended("check-file-name", &check("sha512,sha256", 0, 0, 0))).await;
    assert_eq!((string(&mut rest), &rest[..]), (Bytes::from("sha256"), &known[..]), "known, not read");
    let (_, mut rest) = talk.answer(200, &extended("check-file-name", &check("md5", 0, 0, 256))).await;
    string(&mut rest);
    assert_eq!(data_encoding::HEXLOWER.encode(&rest), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(talk.status(200, &extended("check-file-name", &check("crc32", 0, 0, 0))).await, 8);
    assert_eq!(talk.status(200, &extended("check-file-name", &check("md5", 0, 0, 5))).await, 8);
    let handle = talk.open("/x").await;
    let (_, mut rest) = talk
        .answer(200, &extended("check-file-handle", &[field(&handle), check("sha1", 1, 1, 0)[6..].to_vec()].concat()))
        .await;
    string(&mut rest);
    assert_eq!(data_encoding::HEXLOWER.encode(&rest), "e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98");
    let (kind, mut rest) = talk.answer(200, &extended("statvfs@openssh.com", &field("/"))).await;
    assert_eq!(kind, 201);
    rest.advance(72);
    assert_eq!((rest.get_u64(), rest.get_u64()), (3, 255), "read-only");
    assert_eq!(talk.answer(200, &extended("fstatvfs@openssh.com", &field(&handle))).await.0, 201);
    assert_eq!(talk.status(200, &extended("statvfs@openssh.com", &field("/absent"))).await, 2);
    for (sent, expected) in [("~", "/"), ("~/x", "/x"), ("a/../b", "/b")] {
        let (_, mut rest) = talk.answer(200, &extended("expand-path@openssh.com", &field(sent))).await;
        rest.advance(4);
        assert_eq!(string(&mut rest), expected);
    }
    assert_eq!(talk.status(200, &extended("expand-path@openssh.com", &field("~root/x"))).await, 2);
    let ids = [field([0, 0, 0, 1, 0, 0, 0, 2]), field([0, 0, 0, 3])].concat();
    let (_, mut rest) = talk.answer(200, &extended("users-groups-by-id@openssh.com", &ids)).await;
    assert_eq!(
        (string(&mut rest), string(&mut rest)),
        (Bytes::from("\0\0\0\x06tenant\0\0\0\x06tenant"), Bytes::from("\0\0\0\x06export"))
    );
}
