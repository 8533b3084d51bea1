//! Who receives what the server sends: a mail server and a web server on loopback that keep what they get. Also compiled
//! into the tests of the server, which may not use this crate: names nothing but the standard library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A connection, encrypted or not.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// Makes a connection an encrypted one.
pub type Encrypt = Arc<dyn Fn(TcpStream) -> Box<dyn Connection> + Send + Sync>;

/// What has come in, for a test that waits for it.
pub struct Inbox<T> {
    state: Mutex<VecDeque<T>>,
    came: Condvar,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox { state: Mutex::default(), came: Condvar::new() }
    }
}

impl<T> Inbox<T> {
    fn push(&self, item: T) {
        self.state.lock().unwrap().push_back(item);
        self.came.notify_all();
    }

    /// The first one for which `wanted` holds, taken out; others stay. Fails when none comes in time.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&T) -> bool) -> T {
        self.wait(limit, wanted).expect("nothing came in time")
    }

    /// As [`Inbox::wait_for`], `None` when none comes in time.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let until = Instant::now() + limit;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(at) = state.iter().position(&wanted) {
                return state.remove(at);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.came.wait_timeout(state, left).unwrap().0;
        }
    }

    /// How many are there for which `wanted` holds.
    pub fn count(&self, wanted: impl Fn(&T) -> bool) -> usize {
        self.state.lock().unwrap().iter().filter(|item| wanted(item)).count()
    }
}

/// A mail as it came in.
#[derive(Clone, Debug)]
pub struct ReceivedMail {
    /// Envelope sender.
    pub from: String,
    /// Envelope recipients.
    pub to: Vec<String>,
    /// Head and body as sent, with `\n` line ends.
    pub text: String,
    /// Name and password, where somebody logged in.
    pub login: Option<(String, String)>,
    /// Whether it came over an encrypted connection.
    pub is_encrypted: bool,
}

impl ReceivedMail {
    /// A header, unfolded; encoded words are decoded.
    pub fn header(&self, name: &str) -> Option<String> {
        let (head, _) = self.text.split_once("\n\n")?;
        let head = head.replace("\n ", " ").replace("\n\t", " ");
        let value = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })?;
        Some(decode_words(&value))
    }

    /// The body as text.
    pub fn body(&self) -> String {
        let (_, body) = self.text.split_once("\n\n").unwrap();
        match self.header("content-transfer-encoding").unwrap_or_default().to_ascii_lowercase().as_str() {
            "base64" => String::from_utf8(decode_base64(body)).unwrap(),
            "quoted-printable" => String::from_utf8(decode_quoted(&body.replace("=\n", ""), false)).unwrap(),
            _ => body.to_owned(),
        }
        .replace("\r\n", "\n")
    }
}

/// A mail server that keeps what it gets. `refuse@` is refused for good, `later@` at the first try, `busy@` always for now.
pub struct SmtpReceiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it got.
    pub mails: Arc<Inbox<ReceivedMail>>,
}

/// How a mail server talks.
#[derive(Clone, Default)]
pub struct SmtpSettings {
    /// Name and password that it asks for.
    pub login: Option<(String, String)>,
    /// Offers STARTTLS.
    pub starttls: Option<Encrypt>,
    /// Speaks TLS at once.
    pub tls: Option<Encrypt>,
}

impl SmtpReceiver {
    /// On a free port of loopback; ends with the process.
    pub fn start(settings: SmtpSettings) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), settings)
    }

    /// On an address of its own.
    pub fn start_at(address: SocketAddr, settings: SmtpSettings) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::new(Inbox::default());
        let (inbox, seen) = (mails.clone(), Arc::new(Mutex::new(HashMap::new())));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (settings, inbox, seen) = (settings.clone(), inbox.clone(), seen.clone());
                std::thread::spawn(move || {
                    // A client that goes away in the middle has said so.
                    let _ = converse(connection, &settings, &inbox, &seen);
                });
            }
        });
        SmtpReceiver { address, mails }
    }
}

fn converse(
    connection: TcpStream,
    settings: &SmtpSettings,
    inbox: &Inbox<ReceivedMail>,
    seen: &Mutex<HashMap<String, u32>>,
) -> std::io::Result<()> {
    let raw = connection.try_clone()?;
    let (mut stream, mut is_encrypted): (BufReader<Box<dyn Connection>>, bool) = match &settings.tls {
        Some(encrypt) => (BufReader::new(encrypt(connection)), true),
        None => (BufReader::new(Box::new(connection)), false),
    };
    let (mut login, mut from, mut to) = (None, String::new(), Vec::new());
    let say = |stream: &mut BufReader<Box<dyn Connection>>, text: &str| {
        stream.get_mut().write_all(format!("{text}\r\n").as_bytes())?;
        stream.get_mut().flush()
    };
    say(&mut stream, "220 receiver")?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let address = || {
            let (_, rest) = line.split_once('<').unwrap_or_default();
            rest.split('>').next().unwrap_or_default().to_owned()
        };
        let may_send = settings.login.is_none() || login.is_some();
        match verb.as_str() {
            "EHLO" | "HELO" => {
                let mut lines = vec!["250-receiver"];
                if settings.starttls.is_some() && !is_encrypted {
                    lines.push("250-STARTTLS");
                }
                if settings.login.is_some() {
                    lines.push("250-AUTH PLAIN");
                }
                lines.push("250 8BITMIME");
                say(&mut stream, &lines.join("\r\n"))?;
            }
            "STARTTLS" => {
                let encrypt = settings.starttls.as_ref().unwrap();
                say(&mut stream, "220 go on")?;
                stream = BufReader::new(encrypt(raw.try_clone()?));
                is_encrypted = true;
            }
            "AUTH" => {
                let text = String::from_utf8(decode_base64(line.rsplit(' ').next().unwrap())).unwrap();
                let mut parts = text.split('\0').skip(1).map(ToOwned::to_owned);
                let given = (parts.next().unwrap(), parts.next().unwrap());
                if settings.login.as_ref() == Some(&given) {
                    login = Some(given);
                    say(&mut stream, "235 welcome")?;
                } else {
                    say(&mut stream, "535 wrong name or password")?;
                }
            }
            "MAIL" if may_send => {
                (from, to) = (address(), Vec::new());
                say(&mut stream, "250 yes")?;
            }
            "MAIL" => say(&mut stream, "530 log in first")?,
            "RCPT" => {
                let address = address();
                let tries = {
                    let mut seen = seen.lock().unwrap();
                    let tries = seen.entry(address.clone()).or_insert(0);
                    *tries += 1;
                    *tries
                };
                if address.starts_with("refuse@") {
                    say(&mut stream, "550 5.1.1 there is no such mailbox")?;
                } else if address.starts_with("busy@") || address.starts_with("later@") && tries == 1 {
                    say(&mut stream, "451 4.7.1 come back later")?;
                } else {
                    to.push(address);
                    say(&mut stream, "250 yes")?;
                }
            }
            "DATA" => {
                say(&mut stream, "354 go on")?;
                let mut text = String::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    let line = line.trim_end_matches(['\r', '\n']);
                    if line == "." {
                        break;
                    }
                    text.push_str(line.strip_prefix('.').unwrap_or(line));
                    text.push('\n');
                }
                // Kept before it is acknowledged: whoever hears the answer finds it.
                inbox.push(ReceivedMail {
                    from: from.clone(),
                    to: to.clone(),
                    text,
                    login: login.clone(),
                    is_encrypted,
                });
                say(&mut stream, "250 kept")?;
            }
            "RSET" | "NOOP" => say(&mut stream, "250 yes")?,
            "QUIT" => return say(&mut stream, "221 bye"),
            _ => say(&mut stream, "500 what?")?,
        }
    }
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

/// A web server that keeps what is posted to it. It answers as [`WebReceiver::answer_with`] says, at first 200.
pub struct WebReceiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it got.
    pub requests: Arc<Inbox<ReceivedRequest>>,
    answer: Arc<Mutex<(u16, String)>>,
}

impl WebReceiver {
    /// On a free port of loopback; ends with the process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Inbox::default());
        let answer = Arc::new(Mutex::new((200, String::new())));
        let (inbox, answers) = (requests.clone(), answer.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (inbox, answers) = (inbox.clone(), answers.clone());
                std::thread::spawn(move || {
                    let _ = take_request(connection, &inbox, &answers);
                });
            }
        });
        WebReceiver { address, requests, answer }
    }

    /// From now on requests get this status and these further header lines.
    pub fn answer_with(&self, status: u16, headers: &str) {
        *self.answer.lock().unwrap() = (status, headers.to_owned());
    }

    /// Its URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn take_request(
    connection: TcpStream,
    inbox: &Inbox<ReceivedRequest>,
    answer: &Mutex<(u16, String)>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(connection);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    inbox.push(ReceivedRequest { path, headers, body });
    let (status, more) = answer.lock().unwrap().clone();
    let text = format!("HTTP/1.1 {status} Answer\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.get_mut().write_all(text.as_bytes())
}

fn decode_base64(text: &str) -> Vec<u8> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

fn decode_quoted(text: &str, is_header: bool) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'=' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            b'_' if is_header => out.push(b' '),
            other => out.push(other),
        }
    }
    out
}

/// `=?utf-8?b?…?=` and `=?utf-8?q?…?=`.
fn decode_words(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, word)) = rest.split_once("=?") {
        let mut parts = word.splitn(4, '?');
        let (_, encoding, content) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let behind = parts.next().unwrap().strip_prefix('=').unwrap();
        // Blanks between two encoded words are none.
        if !before.trim().is_empty() || out.is_empty() {
            out.push_str(before);
        }
        let bytes = match encoding {
            "b" | "B" => decode_base64(content),
            _ => decode_quoted(content, true),
        };
        out.push_str(&String::from_utf8(bytes).unwrap());
        rest = behind;
    }
    out + rest
}
