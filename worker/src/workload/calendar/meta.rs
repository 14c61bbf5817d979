//! The meta of a stored event: Microsoft's JSON, kept verbatim, with `_holdfast` added.

use holdfast_repository::ContentPart;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    JobError,
    workload::{
        attachments::StoredAttachment,
        stored::{broken, holdfast_of},
    },
};

/// What Holdfast adds to an event.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEvent {
    /// Each is a part of the content.
    #[serde(default)]
    pub attachments: Vec<StoredAttachment>,
    /// What makes it differ from its rule, where it is a series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<StoredSeries>,
}

/// What makes a series differ from its rule.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSeries {
    /// Its times that are other than the rule says, unless they are in a part.
    #[serde(default)]
    pub exceptions: Vec<StoredException>,
    /// Where the exceptions are, when they are too many for the properties: a JSON array of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions_part: Option<PartPlace>,
    /// Its times that do not take place, as Microsoft names them: `OID.{id}.2026-05-01`.
    #[serde(default)]
    pub cancelled: Vec<String>,
}

/// One time of a series, in another way than the series says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredException {
    /// Microsoft's JSON.
    pub event: Box<RawValue>,
    /// Its own, whatever the series has; each is a part of the content.
    #[serde(default)]
    pub attachments: Vec<StoredAttachment>,
}

/// A part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartPlace {
    /// Which part.
    pub part: u32,
    /// Its length.
    pub len: u64,
}

impl StoredSeries {
    /// Whether any time of it is other than the rule says.
    pub fn differs(&self) -> bool {
        !self.exceptions.is_empty() || self.exceptions_part.is_some() || !self.cancelled.is_empty()
    }
}

impl StoredException {
    /// Its id; empty where that cannot be read.
    pub fn id(&self) -> String {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        serde_json::from_str::<Named>(self.event.get()).map(|named| named.id).unwrap_or_default()
    }
}

impl StoredEvent {
    /// The JSON of it: equal for what is the same.
    pub fn to_json(&self) -> Result<Vec<u8>, JobError> {
        serde_json::to_vec(self).map_err(broken("meta"))
    }
}

/// What Holdfast added to a stored event.
pub fn stored_event(meta: &[u8]) -> Result<StoredEvent, JobError> {
    holdfast_of(meta)
}

/// Whether a stored event and its content fit together; else what is wrong, as a code.
pub fn fit_together(stored: &StoredEvent, parts: &[ContentPart]) -> Result<(), &'static str> {
    let series = stored.series.as_ref();
    let of_exceptions = series.into_iter().flat_map(|series| &series.exceptions);
    let mut attachments = stored.attachments.iter().chain(of_exceptions.flat_map(|one| &one.attachments));
    if !attachments.all(|one| one.source.fits(parts)) {
        return Err("attachment");
    }
    let is_there =
        |place: PartPlace| parts.get(place.part as usize).is_some_and(|part| part.len == place.len);
    match series.and_then(|series| series.exceptions_part) {
        Some(place) if !is_there(place) => Err("exceptions"),
        _ => Ok(()),
    }
}
