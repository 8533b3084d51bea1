//! Lists in pages: `?limit=` and `?after=`, a cursor that says nothing to its holder.

use crate::app::AppError;
use crate::http::problem::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// `?limit=&after=`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Page {
    limit: Option<u32>,
    after: Option<String>,
}

impl Page {
    /// How many at most.
    pub(crate) fn limit(&self) -> Result<u32, Refusal> {
        match self.limit.unwrap_or(LIMIT_DEFAULT) {
            limit @ 1..=LIMIT_MAX => Ok(limit),
            _ => Err(Refusal::BadRequest(format!("limit: must be 1 to {LIMIT_MAX}"))),
        }
    }

    /// Behind what.
    pub(crate) fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Refusal> {
        let Some(text) = &self.after else { return Ok(None) };
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let key = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        key.map(Some).ok_or_else(|| Refusal::BadRequest("after: is no cursor of this list".into()))
    }
}

/// The cursor behind the last of `items`, when there may be more.
pub(crate) fn next<T, K: serde::Serialize>(items: &[T], limit: u32, key: impl Fn(&T) -> K) -> Option<String> {
    let last = items.last().filter(|_| items.len() >= limit as usize)?;
    cursor(&key(last))
}

/// A cursor for a place that is known.
pub(crate) fn cursor(place: &impl serde::Serialize) -> Option<String> {
    let json = serde_json::to_vec(place).ok()?;
    Some(data_encoding::BASE64URL_NOPAD.encode(&json))
}

/// An id in a path. One that is none answers like one that is not there.
pub(crate) fn id<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, Refusal> {
    text.parse().map_err(|_| AppError::NotFound { what }.into())
}

/// An id in a body or a query, where something else than an id is a mistake of the caller.
pub(crate) fn named_id<T: std::str::FromStr<Err = control::ControlError>>(
    text: &str,
    field: &str,
) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::BadRequest(format!("{field}: must be 32 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_nothing_else_does() {
        let cursor = next(&["a", "b"], 2, |item| (item.to_string(), 7)).unwrap();
        let page = Page { limit: None, after: Some(cursor) };
        assert_eq!(page.after::<(String, i64)>().unwrap(), Some(("b".to_owned(), 7)));
        assert!(page.after::<i64>().is_err());
        assert_eq!(next(&["a", "b"], 3, |item| item.to_string()), None);
        assert_eq!(next::<&str, String>(&[], 1, |item| item.to_string()), None);
        for bad in ["", "!", "bm9uc2Vuc2U"] {
            assert!(Page { limit: None, after: Some(bad.into()) }.after::<(String, i64)>().is_err(), "{bad}");
        }
        for (limit, fits) in [(0, false), (1, true), (200, true), (201, false)] {
            assert_eq!(Page { limit: Some(limit), after: None }.limit().is_ok(), fits, "{limit}");
        }
    }
}
