//! Earlier versions of a file.

use bytes::Bytes;
use holdfast_model::Millis;
use serde::Deserialize;

use crate::{GraphClient, GraphError, Scope, Weight, error::Operation, json::FromObject, request::Call};

use super::super::outlook::millis;

/// A version of a file. The first one listed is the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveItemVersion {
    /// Its id, such as `3.0`.
    pub id: String,
    /// The length of its content.
    pub size: u64,
    /// When it was made.
    pub modified_ms: Option<Millis>,
    /// The whole object as it came.
    pub raw: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    size: Option<u64>,
    last_modified_date_time: Option<String>,
}

impl FromObject for DriveItemVersion {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Fields = serde_json::from_slice(raw)?;
        Ok(Self {
            id: fields.id,
            size: fields.size.unwrap_or_default(),
            modified_ms: fields.last_modified_date_time.as_deref().and_then(millis),
            raw: Bytes::copy_from_slice(raw),
        })
    }
}

impl GraphClient {
    /// The versions of a file, the current one first.
    pub async fn drive_versions(&self, drive: &str, item: &str) -> Result<Vec<DriveItemVersion>, GraphError> {
        let first = self.item_url(drive, item, &["versions"]);
        let call = |url| Call::get(url, Operation::Item, Scope::SharePoint).costs(Weight::Listing);
        self.whole(first, call, "the list of versions").await
    }
}
