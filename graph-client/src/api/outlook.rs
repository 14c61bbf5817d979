//! What the workloads of a mailbox share: its quota scope, changes, time stamps, whole listings.

use bytes::Bytes;
use holdfast_model::Millis;
use serde::Deserialize;

use crate::{
    GraphClient, GraphError, Page, Scope,
    error::Operation,
    json::FromObject,
    request::{Call, MAX_PAGES},
};

/// What a delta says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// It is there, new or changed.
    Present(Box<T>),
    /// It is gone from here: deleted, moved or out of sight.
    Removed {
        /// Which one.
        id: String,
        /// Microsoft's word for it, such as `changed` or `deleted`.
        reason: String,
    },
}

impl<T: FromObject> FromObject for Change<T> {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        match removal(raw)? {
            Some((id, reason)) => Ok(Self::Removed { id, reason }),
            None => T::from_object(raw).map(|object| Self::Present(Box::new(object))),
        }
    }
}

#[derive(Deserialize)]
struct RemovedFields {
    id: String,
    #[serde(rename = "@removed")]
    removed: Option<Removed>,
    /// What drives have instead.
    deleted: Option<Deleted>,
}

#[derive(Deserialize)]
struct Removed {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Deleted {
    #[serde(default)]
    state: String,
}

/// (id, reason) of an object that is marked removed.
fn removal(raw: &[u8]) -> Result<Option<(String, String)>, serde_json::Error> {
    let fields: RemovedFields = serde_json::from_slice(raw)?;
    let reason = fields.removed.map(|removed| removed.reason).or(fields.deleted.map(|deleted| deleted.state));
    Ok(reason.map(|reason| (fields.id, reason)))
}

pub(super) fn mailbox(user: &str) -> Scope {
    Scope::Mailbox(user.to_lowercase())
}

/// A time stamp of Microsoft's as milliseconds; what lies before 1970 counts as 1970.
pub(super) fn millis(text: &str) -> Option<Millis> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    Some(Millis::try_from(stamp.as_millisecond()).unwrap_or(0))
}

/// The change key in an etag.
pub(super) fn etag_key(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// An object with the value of the extended property that was asked for, such as a restore key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedItem {
    /// Its immutable id.
    pub id: String,
    /// The value; none where the object lacks the property.
    pub value: Option<String>,
    /// The properties by which it can be recognised, as they came.
    pub raw: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkedFields {
    id: String,
    #[serde(default)]
    single_value_extended_properties: Option<Vec<ExtendedProperty>>,
}

#[derive(Deserialize)]
pub(super) struct ExtendedProperty {
    pub value: Option<String>,
}

impl FromObject for MarkedItem {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: MarkedFields = serde_json::from_slice(raw)?;
        let properties = fields.single_value_extended_properties.unwrap_or_default();
        let value = properties.into_iter().find_map(|property| property.value);
        Ok(Self { id: fields.id, value, raw: Bytes::copy_from_slice(raw) })
    }
}

/// What asks for one extended property.
pub(super) fn expand_property(property_id: &str) -> String {
    format!("singleValueExtendedProperties($filter=id eq '{}')", property_id.replace('\'', "''"))
}

/// Whether a body shows inline attachments: `cid:` in any case.
pub(super) fn contains_cid(body: &str) -> bool {
    body.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"cid:"))
}

/// An object that was made, or found where it is now.
#[derive(Deserialize)]
pub(super) struct Created {
    pub id: String,
}

/// Marked items per page.
const MARKED_PAGE_SIZE: &str = "500";

impl GraphClient {
    /// One page of what is in a folder or calendar: the selected properties and one extended property.
    pub(super) async fn marked_items(
        &self,
        user: &str,
        (path, select): (&[&str], &str),
        property_id: &str,
        link: Option<&str>,
    ) -> Result<Page<MarkedItem>, GraphError> {
        let expand = expand_property(property_id);
        let query = [("$select", select), ("$top", MARKED_PAGE_SIZE), ("$expand", expand.as_str())];
        let first = || self.url(&[&["users", user], path].concat(), &query);
        let call = Call::get(link.map_or_else(first, str::to_owned), Operation::List, mailbox(user));
        self.page(call.immutable_ids(), "a page of marked items").await
    }

    /// All pages of a listing that is small enough to be held.
    pub(super) async fn whole<T: FromObject>(
        &self,
        first: String,
        call: impl Fn(String) -> Call,
        what: &'static str,
    ) -> Result<Vec<T>, GraphError> {
        let (mut all, mut next) = (Vec::new(), Some(first));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(all) };
            let page: Page<T> = self.page(call(url), what).await?;
            all.extend(page.items);
            next = page.next;
        }
        Err(GraphError::TooMany { what, limit: MAX_PAGES })
    }

    /// Deletes. What is gone already is deleted.
    pub(super) async fn delete_gone(&self, call: Call) -> Result<(), GraphError> {
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(error) if error.class() == crate::ErrorClass::Gone => Ok(()),
            Err(error) => Err(error),
        }
    }
}
