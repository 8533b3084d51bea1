//! `Range` and `If-Range` (RFC 9110): which bytes of a file a request wants.

use axum::http::{HeaderMap, header};

/// What a request wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: no range, one that is not understood, or several.
    Whole,
    /// The bytes `start..end`; never empty.
    Part {
        /// First byte.
        start: u64,
        /// Behind the last byte.
        end: u64,
    },
    /// Nothing of the file.
    Outside,
}

/// Of a file of `size` bytes with the entity tag `etag`.
pub(crate) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE) else { return Wanted::Whole };
    if text(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    parse(range, size).unwrap_or(Wanted::Whole)
}

/// `None` for what must be ignored.
fn parse(range: &str, size: u64) -> Option<Wanted> {
    let (unit, set) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are a number behind every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(number(last)?), if number(last)? == 0 { 0 } else { size }),
        (first, "") => (number(first)?, size),
        (first, last) if number(first)? <= number(last)? => (number(first)?, number(last)?.saturating_add(1).min(size)),
        _ => return None,
    };
    Some(if start < end { Wanted::Part { start, end } } else { Wanted::Outside })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_the_standard_has_them() {
        let part = |start, end| Some(Wanted::Part { start, end });
        for (range, size, expected) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=2-4", 10, part(2, 5)),
            ("bytes=2-", 10, part(2, 10)),
            ("bytes=9-99", 10, part(9, 10)),
            ("bytes=-3", 10, part(7, 10)),
            ("bytes=-99", 10, part(0, 10)),
            ("bytes=0-99999999999999999999999", 10, part(0, 10)),
            ("bytes=10-", 10, Some(Wanted::Outside)),
            ("bytes=-0", 10, Some(Wanted::Outside)),
            ("bytes=0-", 0, Some(Wanted::Outside)),
            ("bytes=99999999999999999999999-", 10, Some(Wanted::Outside)),
            ("bytes=4-2", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=a-b", 10, None),
            ("bytes=", 10, None),
            ("lines=0-1", 10, None),
            ("", 10, None),
        ] {
            assert_eq!(parse(range, size), expected, "{range} of {size}");
        }
    }

    #[test]
    fn another_version_is_sent_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-2".parse().unwrap());
        assert_eq!(wanted(&headers, "\"a\"", 9), Wanted::Part { start: 1, end: 3 });
        headers.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"a\"", 9), Wanted::Whole);
        headers.insert(header::IF_RANGE, "\"a\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"a\"", 9), Wanted::Part { start: 1, end: 3 });
    }
}
