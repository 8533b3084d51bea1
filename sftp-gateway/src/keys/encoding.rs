//! The pieces that SSH's key formats are made of (RFC 4251, section 5) and text around them.

use data_encoding::BASE64;

/// A length and as many bytes.
pub(super) fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

/// A number that is not negative, big-endian.
pub(super) fn mpint(out: &mut Vec<u8>, value: &[u8]) {
    let start = value.iter().position(|byte| *byte != 0).unwrap_or(value.len());
    let value = value.get(start..).unwrap_or_default();
    let sign = value.first().is_some_and(|byte| byte & 0x80 != 0);
    out.extend_from_slice(&(value.len() as u32 + u32::from(sign)).to_be_bytes());
    if sign {
        out.push(0);
    }
    out.extend_from_slice(value);
}

/// Takes a length and as many bytes off the front.
pub(super) fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(value)
}

/// Base64 in lines of `width`, each ended by a line feed.
pub(super) fn base64_lines(bytes: &[u8], width: usize) -> String {
    let text = BASE64.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / width + 1);
    for line in text.as_bytes().chunks(width) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines
}

/// A PEM without headers: line feeds, no empty line, which OpenSSL and OpenSSH insist on.
pub(super) fn pem(label: &str, bytes: &[u8], width: usize) -> String {
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", base64_lines(bytes, width))
}

/// The body of the first PEM with this label, and what follows it.
pub(super) fn read_pem<'a>(text: &'a str, label: &str) -> Option<(Vec<u8>, &'a str)> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    Some((BASE64.decode(&body).ok()?, rest))
}

/// OpenSSH's private format, without a passphrase (OpenSSH: PROTOCOL.key). `fields` are those of the private part, from
/// the name of the algorithm on, without the comment.
pub(super) fn openssh(public: &[u8], fields: &[u8], comment: &str, check: u32) -> String {
    let mut private = Vec::with_capacity(fields.len() + comment.len() + 32);
    private.extend_from_slice(&check.to_be_bytes());
    private.extend_from_slice(&check.to_be_bytes());
    private.extend_from_slice(fields);
    string(&mut private, comment.as_bytes());
    let mut pad = 1;
    while private.len() % 8 != 0 {
        private.push(pad);
        pad += 1;
    }
    let mut out = b"openssh-key-v1\0".to_vec();
    string(&mut out, b"none");
    string(&mut out, b"none");
    string(&mut out, b"");
    out.extend_from_slice(&1u32.to_be_bytes());
    string(&mut out, public);
    string(&mut out, &private);
    let text = pem("OPENSSH PRIVATE KEY", &out, 70);
    zeroize::Zeroize::zeroize(&mut private);
    zeroize::Zeroize::zeroize(&mut out);
    text
}
