//! Every parser of bytes from strangers over samples and seeded random changes of them, on a stable compiler, in every
//! test run. The seed is printed; `HOLDFAST_SEED` repeats a run, `HOLDFAST_FUZZ_CHANGES` makes it longer.

#[cfg(test)]
mod runs {
    use bytes::Bytes;
    use parking_lot::Mutex;
    use sftp_gateway::keys::{CustomerKey, HostKeys, PublicKey};
    use sftp_gateway::sftp::parsers::{FrameReader, Packet, RequestQueue, is_command};
    use sftp_gateway::sftp::{Engine, EngineOptions, FileClosed, FileReports, Inbox, Sink, SinkClosed};
    use sftp_gateway::testing::{MemoryFile, MemoryFs};
    use sftp_gateway::{ExportPath, printable};
    use std::collections::VecDeque;
    use std::hash::{BuildHasher, RandomState};
    use std::sync::{Arc, LazyLock};

    /// Changed inputs per sample, unless the environment asks for more.
    const CHANGES_PER_SAMPLE: u32 = 2_000;

    /// SplitMix64: a whole run follows from one number.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit.max(1) as u64) as usize
        }
    }

    /// A few random changes of the kinds that find parser mistakes.
    fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let end = (at + 1 + random.below(8)).min(bytes.len());
            match random.below(9) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
                3 => bytes[at..end].fill([0, 0xff, 0x7f, 0x80, 1][random.below(5)]),
                4 => bytes.truncate(at),
                5 => bytes.splice(at..end, random.next().to_le_bytes()).for_each(drop),
                6 => bytes.drain(at..end).for_each(drop),
                7 => bytes.extend_from_within(at..end),
                _ => {
                    let start = random.below(other.len());
                    let piece = &other[start..(start + random.below(64)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
    }

    fn frame(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let fields = fields.concat();
        [&(fields.len() as u32 + 5).to_be_bytes(), &[kind][..], &[0, 0, 0, 7], &fields].concat()
    }

    fn field(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    const HANDLE: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 1];

    /// Sessions with one of each request, so that changes of them reach every field.
    fn sessions() -> Vec<Vec<u8>> {
        let init = frame(1, &[]);
        let path = field(b"/a/x");
        let attributes: &[u8] =
            &[0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0xa4, 0, 0, 0, 3, 0, 0, 0, 4];
        let (offset, length): (&[u8], &[u8]) = (&[0, 0, 0, 0, 0, 0, 0, 5], &[0, 0, 1, 0]);
        let open = frame(3, &[&path, &[0, 0, 0, 1], attributes]);
        let folder = frame(11, &[&field(b"/a")]);
        let extended = |name: &str, rest: &[&[u8]]| frame(200, &[&field(name.as_bytes()), &rest.concat()]);
        let requests = [
            frame(5, &[HANDLE, offset, length]),
            frame(6, &[HANDLE, offset, &path]),
            frame(12, &[HANDLE]),
            frame(8, &[HANDLE]),
            frame(4, &[HANDLE]),
            frame(17, &[&path]),
            frame(7, &[&path]),
            frame(16, &[&field(b"../a/./x")]),
            frame(9, &[&path, attributes]),
            frame(18, &[&path, &path]),
            extended("limits@openssh.com", &[]),
            extended("statvfs@openssh.com", &[&path]),
            extended("fstatvfs@openssh.com", &[HANDLE]),
            extended("expand-path@openssh.com", &[&field(b"~/x")]),
            extended("users-groups-by-id@openssh.com", &[HANDLE, HANDLE]),
            extended("check-file-name", &[&path, &field(b"md5,sha1"), offset, offset, length]),
            extended("check-file-handle", &[HANDLE, &field(b"sha256"), offset, offset, &[0; 4]]),
        ];
        let mut sessions: Vec<_> =
            requests.iter().map(|request| [&init[..], &open, request, &folder].concat()).collect();
        sessions.push([&init[..], &folder, &frame(12, &[HANDLE]), &frame(12, &[HANDLE]), &requests.concat()].concat());
        sessions
    }

    struct Quiet;

    impl FileReports for Quiet {
        fn opened(&self, _: &ExportPath, _: u64) {}
        fn closed(&self, _: &FileClosed) {}
    }

    #[derive(Default)]
    struct Collected(Mutex<Vec<u8>>);

    impl Sink for Collected {
        async fn send(&self, bytes: Bytes) -> Result<(), SinkClosed> {
            self.0.lock().extend_from_slice(&bytes);
            Ok(())
        }
    }

    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().unwrap());

    /// Packets are the same however they are cut, come out of the queue as they went in, and each is answered once, in
    /// order, by frames that can be read.
    fn session(bytes: &[u8]) {
        let packets = |step: usize| {
            let mut reader = FrameReader::default();
            let mut packets = Vec::new();
            for piece in bytes.chunks(step) {
                reader.receive(piece);
                loop {
                    match reader.next_packet() {
                        Ok(Some(packet)) => packets.push(packet),
                        Ok(None) => break,
                        Err(error) => return (packets, Some(error)),
                    }
                }
            }
            (packets, None)
        };
        let (all, error) = packets(bytes.len().max(1));
        assert_eq!((&all, error), (&packets(3).0, packets(3).1));
        let mut queue = RequestQueue::default();
        let mut waiting = VecDeque::new();
        for packet in &all {
            if let Packet::Request { id, request, bytes } = packet {
                queue.push(*id, request.clone(), *bytes).unwrap();
                waiting.push_back((*id, request.clone()));
            }
        }
        let ids: Vec<u32> = waiting.iter().map(|(id, _)| *id).collect();
        while let Some(expected) = waiting.pop_front() {
            assert_eq!(queue.pop(), Some(expected));
        }
        assert_eq!((queue.pop(), queue.bytes()), (None, 0));

        let fs = MemoryFs::new();
        fs.put("/a/x", MemoryFile { piece_bytes: 7, ..MemoryFile::new(&b"twenty bytes of text"[..], 5) });
        let inbox = Arc::new(Inbox::default());
        let broken = inbox.receive(bytes).is_err();
        assert_eq!(broken, error.is_some());
        inbox.end();
        let sink = Collected::default();
        let engine = Engine::new(Arc::new(fs), inbox, Arc::new(Quiet), EngineOptions::default());
        RUNTIME.block_on(engine.run(&sink)).unwrap();
        let said = sink.0.into_inner();
        let (mut rest, mut answered) = (&said[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (reply, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            if reply[0] != 2 {
                answered.push(u32::from_be_bytes(reply[1..5].try_into().unwrap()));
            }
            rest = after;
        }
        assert!(rest.is_empty());
        assert!(broken || answered == ids, "{answered:?} {ids:?}");
    }

    fn path(bytes: &[u8]) {
        let shown = printable(bytes);
        assert!(!shown.chars().any(char::is_control));
        if let Ok(path) = ExportPath::parse(bytes) {
            assert_eq!(ExportPath::parse(path.as_bytes()).unwrap(), path);
            assert!(path.components().all(|name| !matches!(name, b".." | b"." | b"") && !name.contains(&0)));
        }
    }

    fn command(bytes: &[u8]) {
        if is_command(bytes) {
            let words = ["md5sum", "sha1sum", "sha256sum", "scp"];
            let plain: Vec<u8> = bytes.iter().copied().filter(|byte| !b"'\"\\ \t".contains(byte)).collect();
            assert!(words.iter().any(|word| plain.starts_with(word.as_bytes())));
        }
    }

    fn keys(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(key) = PublicKey::parse(&text) {
            assert_eq!(PublicKey::parse(&key.line()), Ok(key));
        }
        if let Ok(key) = PublicKey::from_blob(bytes) {
            assert_eq!(PublicKey::parse(&key.line()), Ok(key));
        }
        let _ = HostKeys::from_text(&text);
        if let Some(key) = CustomerKey::from_pkcs1(bytes, &text, 3) {
            assert!(!key.ppk.contains("\n\n") && key.ppk.lines().nth(2).unwrap().starts_with("Comment: "));
        }
    }

    /// What is parsed, by its name, and samples of it.
    type Target = (&'static str, fn(&[u8]), Vec<Vec<u8>>);

    fn targets() -> Vec<Target> {
        let key = CustomerKey::generate("a comment").unwrap();
        let pkcs1: String = key.pem.lines().filter(|line| !line.starts_with('-')).collect();
        let paths = [&b"/a/b/../c"[..], b"", b"a//./..", b"/\xff\n/x", b"~/x"];
        let commands =
            [&b"scp -v -r -p -f -- '/a b'"[..], b"sha256sum \"a \\\" b\"", b"md5sum", b"echo ${ShellId}", b"scp -t x"];
        let host_keys = HostKeys::generate().unwrap();
        vec![
            ("session", session, sessions()),
            ("path", path, paths.map(<[u8]>::to_vec).to_vec()),
            ("command", command, commands.map(<[u8]>::to_vec).to_vec()),
            (
                "keys",
                keys,
                vec![
                    key.public.line().into_bytes(),
                    key.public.blob().to_vec(),
                    host_keys.public()[0].blob().to_vec(),
                    host_keys.public()[1].blob().to_vec(),
                    host_keys.text().as_bytes().to_vec(),
                    data_encoding::BASE64.decode(pkcs1.as_bytes()).unwrap(),
                ],
            ),
        ]
    }

    #[test]
    fn samples_and_seeded_changes() {
        let seed = match std::env::var("HOLDFAST_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => RandomState::new().hash_one(0u64),
        };
        println!("HOLDFAST_SEED={seed}");
        let changes = match std::env::var("HOLDFAST_FUZZ_CHANGES") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => CHANGES_PER_SAMPLE,
        };
        let mut random = Random(seed);
        for (name, run, samples) in targets() {
            for original in &samples {
                run(original);
                for _ in 0..changes {
                    let mut bytes = original.clone();
                    let other = random.below(samples.len());
                    change(&mut random, &mut bytes, &samples[other]);
                    if std::panic::catch_unwind(|| run(&bytes)).is_err() {
                        panic!("HOLDFAST_SEED={seed}: {name} fails on {}", data_encoding::HEXLOWER.encode(&bytes));
                    }
                }
            }
        }
    }
}
