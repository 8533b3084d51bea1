//! One-time codes by time, RFC 6238 as every authenticator app makes them: HMAC-SHA-1, 30 seconds, six digits.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Bytes of a secret, as RFC 4226 recommends.
pub(crate) const SECRET_BYTES: usize = 20;
const STEP_NS: i64 = 30 * 1_000_000_000;
const DIGITS: u32 = 6;
/// Steps that a clock may be ahead or behind.
const DRIFT_STEPS: i64 = 1;

fn code_at(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let offset = usize::from(bytes[bytes.len() - 1] & 0xf);
    let number = bytes[offset..offset + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{:0width$}", (number & 0x7fff_ffff) % 10_u32.pow(DIGITS), width = DIGITS as usize)
}

/// Whether a text can be such a code at all.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() == DIGITS as usize && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The step of time whose code this is, newest first; `None` when it is none of those that count now.
pub(crate) fn step_of(secret: &[u8], code: &str, now_ns: i64) -> Option<i64> {
    let now = now_ns.div_euclid(STEP_NS);
    (now - DRIFT_STEPS..=now + DRIFT_STEPS).rev().find(|step| code_at(secret, *step) == code)
}

/// What an authenticator app reads, as a URL.
pub(crate) fn provisioning_url(secret: &[u8], account: &str) -> Zeroizing<String> {
    let account = percent_encoding::utf8_percent_encode(account, percent_encoding::NON_ALPHANUMERIC);
    Zeroizing::new(format!(
        "otpauth://totp/Holdfast:{account}?secret={}&issuer=Holdfast",
        data_encoding::BASE32_NOPAD.encode(secret)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix B of RFC 6238, the last six of its eight digits.
    #[test]
    fn the_vectors_of_the_standard() {
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let now_ns = seconds * 1_000_000_000;
            assert_eq!(step_of(secret, code, now_ns), Some(seconds / 30), "{seconds}");
            assert_eq!(step_of(secret, code, now_ns + STEP_NS), Some(seconds / 30));
            assert_eq!(step_of(secret, code, now_ns - STEP_NS), Some(seconds / 30));
            assert_eq!(step_of(secret, code, now_ns + 2 * STEP_NS), None);
            assert_eq!(step_of(secret, code, now_ns - 2 * STEP_NS), None);
        }
        assert!(is_code("012345") && !is_code("12345") && !is_code("1234567") && !is_code("12345a"));
    }

    #[test]
    fn apps_can_read_the_url() {
        let url = provisioning_url(b"12345678901234567890", "anna@example.org");
        let expected =
            "otpauth://totp/Holdfast:anna%40example%2Eorg?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Holdfast";
        assert_eq!(url.as_str(), expected);
    }
}
