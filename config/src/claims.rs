//! How a claim requirement looks in the files' schemas; its type and its reading are `router-common`'s.

use schemars::JsonSchema;

/// A claim that a caller must hold.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRequirement {
    /// The claim's type, such as `scope`.
    #[serde(rename = "type")]
    _type: String,
    /// Values of which the caller must hold one; absent or empty: any value will do.
    #[serde(rename = "any_of", default)]
    _any_of: Vec<String>,
}
