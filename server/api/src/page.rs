//! Lists in pages. Every list takes `?limit=` (1 to 200, 50 when absent) and `?after=`, the `next` of the page before.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Names the next page; absent at the end. Opaque.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}
