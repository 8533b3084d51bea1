//! A server process of its own per test, and a small client for it.

use api::accounts::NewToken;
use api::objects::{put_end, put_head};
use api::problem::{Code, Problem};
use api::upload::{BeginUpload, Durable, Received, RunSummary, UploadSession};
use bytes::{Bytes, BytesMut};
use repo_format::compress::compress;
use repo_format::entry::{Content, Element, Entry, EntryKind, PathKey, Profile, Time};
use repo_format::filelist::ContentListBuilder;
use repo_format::id::{ChunkId, NodeId, ObjectId, ObjectKind};
use repo_format::keys::IdKeys;
use repo_format::node::BuiltNode;
use repo_format::pathmap::PathMapBuilder;
use reqwest::{Certificate, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_holdfastd");
const RESERVE_BYTES: &str = "67108864";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The program, without anything of the environment that would configure it.
pub fn program(data: &Path) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    data: PathBuf,
    pub output: PathBuf,
    folder: Option<TempDir>,
}

impl Server {
    /// On a fresh data folder.
    pub fn start() -> Server {
        Self::start_with(&[])
    }

    /// On a fresh data folder, with more arguments to `serve`.
    pub fn start_with(arguments: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_on(&folder.path().join("data"), arguments);
        server.folder = Some(folder);
        server
    }

    /// On a data folder that may hold something.
    pub fn start_on(data: &Path, arguments: &[&str]) -> Server {
        Self::start_process(data, arguments, &[])
    }

    /// On a data folder that may hold something, with environment variables.
    #[cfg(feature = "testing")]
    pub fn start_with_environment(data: &Path, variables: &[(&str, &str)]) -> Server {
        Self::start_process(data, &[], variables)
    }

    fn start_process(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Server {
        let output = data.with_extension(format!("out-{}", std::process::id()));
        let log = data.with_extension("log");
        let mut command = program(data);
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]).args(arguments);
        // A machine with a large disk that is nearly full runs the tests all the same; an argument goes before this.
        command.env("HOLDFAST_DISK_RESERVE_BYTES", RESERVE_BYTES);
        command.envs(variables.iter().copied());
        command.stdout(File::create(&output).unwrap());
        command.stderr(File::options().create(true).append(true).open(&log).unwrap());
        // Files of a run that was killed must not be taken for this one's.
        let _ = std::fs::remove_file(data.join("run/address"));
        let mut process = command.spawn().unwrap();
        let started = Instant::now();
        while !data.join("run/address").exists() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none(), "the server ended at once: {}", log());
            assert!(started.elapsed() < START_TIMEOUT, "the server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Server { process, data: data.to_owned(), output, folder: None }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap()
    }

    pub fn run_file(&self, name: &str) -> String {
        std::fs::read_to_string(self.data.join("run").join(name)).unwrap().trim().to_owned()
    }

    /// An administration command.
    pub fn command(&self, arguments: &[&str]) -> Output {
        program(&self.data).args(arguments).output().unwrap()
    }

    /// An administration command that must succeed and print JSON.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A user with a vault, and a client with its token.
    pub fn user(&self, name: &str) -> VaultClient {
        let added: Value = self.json(&["user", "add", name, "--json"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        VaultClient { client: self.client(&text(&added["token"]["secret"])), vault: text(&added["user"]["vault"]) }
    }

    pub fn client(&self, secret: &str) -> Client {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap());
        let pem = std::fs::read(self.data.join("run/certificate.pem")).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
            .http1_only()
            .build()
            .unwrap();
        Client { http, base: format!("https://{}", self.run_file("address")), secret: secret.to_owned() }
    }

    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.run_file("metrics-address"));
        self.client("").http.get(url).send().await.unwrap().text().await.unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.process.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    /// Stops it in good order; the data folder stays as long as the answer lives.
    pub fn stop(mut self) -> Option<TempDir> {
        self.signal("-TERM");
        assert!(self.wait().success(), "{}", self.log());
        self.folder.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A holder of a token.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub base: String,
    pub secret: String,
}

impl Client {
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.secret)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &impl serde::Serialize) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    pub async fn post_binary(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(Method::POST, path).header("content-type", api::BINARY).body(body).send().await.unwrap()
    }
}

/// A holder of a token, and its vault.
#[derive(Clone)]
pub struct VaultClient {
    pub client: Client,
    pub vault: String,
}

impl VaultClient {
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/vaults/{}{rest}", self.vault)
    }

    pub fn upload_path(&self, session: &UploadSession, rest: &str) -> String {
        self.path(&format!("/uploads/{}{rest}", session.id))
    }

    pub async fn keys(&self) -> IdKeys {
        let bytes = self.client.get(&self.path("/keys")).await.bytes().await.unwrap();
        IdKeys::from_bytes(&bytes).unwrap()
    }

    pub async fn begin(&self) -> UploadSession {
        let begin = BeginUpload { computer: "pc".into(), series: "s".into(), base_snapshot: None };
        ok(self.client.post(&self.path("/uploads"), &begin).await).await
    }

    /// Uploads a tree and commits it; answers the snapshot.
    pub async fn backup(&self, tree: &Tree) -> api::browse::Snapshot {
        let session = self.begin().await;
        let _: Received =
            ok(self.client.post_binary(&self.upload_path(&session, "/chunks"), body(&tree.chunks)).await).await;
        let _: Durable =
            ok(self.client.post_binary(&self.upload_path(&session, "/nodes"), body(&tree.nodes)).await).await;
        self.commit(&session, tree).await
    }

    pub async fn commit(&self, session: &UploadSession, tree: &Tree) -> api::browse::Snapshot {
        let summary = RunSummary { files: 2, paths: vec!["/docs".into()], ..RunSummary::default() };
        let commit = api::upload::Commit { root: tree.root.to_string(), summary };
        ok(self.client.post(&self.upload_path(session, "/commit"), &commit).await).await
    }
}

/// The answer of a request that must succeed.
pub async fn ok<T: DeserializeOwned>(response: Response) -> T {
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
    serde_json::from_slice(&bytes).unwrap()
}

/// The problem of a request that must be refused with `status` and `code`.
pub async fn refused(response: Response, status: StatusCode, code: Code) -> Problem {
    assert_eq!(response.headers().get("content-type").map(|kind| kind.to_str().unwrap()), Some(api::PROBLEM));
    let id = response.headers().get("request-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(response.status(), status);
    let problem: Problem = response.json().await.unwrap();
    assert_eq!((problem.code, problem.status), (code, status.as_u16()), "{problem:?}");
    assert_eq!(problem.instance.as_deref(), Some(id.as_str()));
    problem
}

/// An object as it travels.
#[derive(Clone)]
pub struct Sent {
    pub kind: ObjectKind,
    pub id: ObjectId,
    pub codec: u8,
    pub plain_len: u32,
    pub payload: Vec<u8>,
}

/// Records with their end.
pub fn body(objects: &[Sent]) -> Bytes {
    let mut out = BytesMut::new();
    for object in objects {
        put_head(&mut out, object.kind, object.codec, object.plain_len, &object.id, object.payload.len());
        out.extend_from_slice(&object.payload);
    }
    put_end(&mut out, objects.len() as u32);
    out.freeze()
}

pub fn chunk(keys: &IdKeys, plaintext: &[u8]) -> Sent {
    let (codec, payload) = compress(plaintext, 3).unwrap();
    let id = keys.chunk_id(plaintext).into();
    Sent { kind: ObjectKind::Chunk, id, codec: codec.byte(), plain_len: plaintext.len() as u32, payload }
}

fn node(built: &BuiltNode) -> Sent {
    let (codec, payload) = compress(&built.bytes, 3).unwrap();
    let plain_len = built.bytes.len() as u32;
    Sent { kind: ObjectKind::Node, id: built.id.into(), codec: codec.byte(), plain_len, payload }
}

/// `/docs` with a small file, a file of many pieces with a hole, and a name that is not text.
pub struct Tree {
    pub chunks: Vec<Sent>,
    pub nodes: Vec<Sent>,
    pub root: NodeId,
    pub small: Vec<u8>,
    pub large: Vec<u8>,
}

pub const ODD_NAME: &[u8] = b"odd \xff name";
const HOLE_BYTES: usize = 300_000;

impl Tree {
    /// `salt` makes the contents differ.
    pub fn build(keys: &IdKeys, salt: u8) -> Tree {
        let (mut chunks, mut nodes) = (Vec::new(), Vec::new());
        let small = vec![b'a' ^ salt; 1000];
        chunks.push(chunk(keys, &small));
        let small_content =
            vec![Element::Data { chunk: ChunkId::from_bytes(*chunks[0].id.as_bytes()), offset: 0, len: 1000 }];

        let mut sink = |built: BuiltNode| nodes.push(node(&built));
        let (mut large, mut list) = (Vec::new(), ContentListBuilder::new());
        let mut push = |list: &mut ContentListBuilder, element| list.push(keys, element, &mut sink).unwrap();
        for piece in 0..300u32 {
            // Not compressible, and another one for each piece and salt.
            let key = blake3_like(salt, piece);
            let plaintext: Vec<u8> = (0..7000u32).flat_map(|at| key.wrapping_mul(at | 1).to_le_bytes()).collect();
            let sent = chunk(keys, &plaintext);
            let id = ChunkId::from_bytes(*sent.id.as_bytes());
            // Bytes from the middle of each chunk, as a bundled file would have them.
            push(&mut list, Element::Data { chunk: id, offset: 100, len: 27_000 });
            large.extend_from_slice(&plaintext[100..27_100]);
            chunks.push(sent);
            if piece == 150 {
                push(&mut list, Element::Hole { len: HOLE_BYTES as u64 });
                large.extend(std::iter::repeat_n(0, HOLE_BYTES));
            }
        }
        let large_content = list.finish(keys, &mut sink).unwrap();
        assert!(matches!(large_content, Content::List(_)));

        let mut map = PathMapBuilder::new(keys);
        let file = |size: u64, content: Content, bytes: &[u8]| {
            let mut hasher = keys.content_hasher();
            hasher.data(bytes);
            EntryKind::File { size, content, hash: hasher.finish(), profile: Profile::Default }
        };
        let docs = PathKey::from_path(b"/docs").unwrap();
        let mut entries = vec![
            (docs.clone(), EntryKind::Directory),
            (docs.child(b"large").unwrap(), file(large.len() as u64, large_content, &large)),
            (docs.child(ODD_NAME).unwrap(), EntryKind::Symlink { target: b"small".to_vec() }),
            (docs.child(b"small").unwrap(), file(1000, Content::Inline(small_content), &small)),
        ];
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, kind) in entries {
            map.push(&key, &entry(kind), &mut sink).unwrap();
        }
        let root = map.finish(&mut sink).unwrap();
        Tree { chunks, nodes, root, small, large }
    }
}

fn blake3_like(salt: u8, piece: u32) -> u32 {
    (u32::from(salt) << 24 ^ piece).wrapping_mul(0x9E37_79B1) | 1
}

fn entry(kind: EntryKind) -> Entry {
    Entry {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        user: Vec::new(),
        group: Vec::new(),
        mtime: Time { seconds: -5, nanoseconds: 7 },
        xattrs: Vec::new(),
        link_group: None,
    }
}

/// A token made by an administration command.
pub fn token(server: &Server, arguments: &[&str]) -> NewToken {
    let mut all = vec!["token", "add", "t", "--json"];
    all.extend_from_slice(arguments);
    server.json(&all)
}
