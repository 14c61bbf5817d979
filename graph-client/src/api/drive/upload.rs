//! Upload sessions for files of any size.
//!
//! The one invariant to know: fragments go in order, all but the last in multiples of 320 KiB, and without our token. After a
//! lost answer the session itself is asked how far it got.

use std::fmt;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    ErrorClass, GraphClient, GraphError, Scope, Weight,
    json::read_object,
    request::{Body, Call, JSON, Repeat, with_class},
};

use super::{super::upload::next_expected, DriveItem, NameConflict, write::FileTimes};

/// Fragments that are no multiple of this fail at the end of the file only.
const FRAGMENT_UNIT: usize = 320 << 10;

/// Microsoft advises 5 to 10 MiB.
const FRAGMENT: usize = 32 * FRAGMENT_UNIT;

/// Microsoft refuses 60 MiB and more.
const MAX_FRAGMENT: usize = 191 * FRAGMENT_UNIT;

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDriveFile {
    /// Its name.
    pub name: String,
    /// Its exact length.
    pub size: u64,
    /// Its times.
    pub times: FileTimes,
    /// What happens when the name is taken.
    pub conflict: NameConflict,
}

/// An open upload of a file.
pub struct DriveUpload {
    url: Zeroizing<String>,
    size: u64,
    next: u64,
}

impl DriveUpload {
    /// An upload that another process began. Ask [`GraphClient::drive_upload_status`] before anything is sent.
    pub fn reopen(url: &str, size: u64) -> Self {
        Self { url: Zeroizing::new(url.to_owned()), size, next: 0 }
    }

    /// The address. Whoever has it can write the file: keep it sealed or not at all.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The offset of the next fragment.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// How long the next fragment should be.
    pub fn fragment_size(&self) -> usize {
        usize::try_from(self.size - self.next).map_or(FRAGMENT, |left| left.min(FRAGMENT))
    }
}

impl fmt::Debug for DriveUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriveUpload")
            .field("size", &self.size)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// How far an upload got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveUploadProgress {
    /// The next fragment starts here.
    More {
        /// The offset.
        next: u64,
    },
    /// All is there: the file.
    Done(Box<DriveItem>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    upload_url: String,
}

impl GraphClient {
    /// Opens an upload of a new file. An empty file has no fragments: use [`Self::put_drive_file`].
    pub async fn create_drive_upload(
        &self,
        drive: &str,
        parent: &str,
        file: &NewDriveFile,
    ) -> Result<DriveUpload, GraphError> {
        let url = self.named_url(drive, parent, &file.name, "createUploadSession");
        let mut item = json!({
            "@microsoft.graph.conflictBehavior": file.conflict.word(),
            "name": file.name,
            "fileSize": file.size,
        });
        if let Some(times) = file.times.to_json() {
            item["fileSystemInfo"] = times;
        }
        self.open_drive_upload(url, item, file.size).await
    }

    /// Opens an upload of new content for a file; what it had becomes an earlier version.
    pub async fn create_drive_version_upload(
        &self,
        drive: &str,
        item: &str,
        size: u64,
        times: &FileTimes,
    ) -> Result<DriveUpload, GraphError> {
        let mut properties = json!({ "fileSize": size });
        if let Some(times) = times.to_json() {
            properties["fileSystemInfo"] = times;
        }
        self.open_drive_upload(self.item_url(drive, item, &["createUploadSession"]), properties, size).await
    }

    async fn open_drive_upload(
        &self,
        url: String,
        item: Value,
        size: u64,
    ) -> Result<DriveUpload, GraphError> {
        // A session that nobody knows of ends by itself.
        let call = Call::post(url, &json!({ "item": item }), Repeat::Safe, Scope::SharePoint);
        let reply = self.send(call.costs(Weight::Listing)).await?;
        let opened: Opened = read_object(&reply.body, "an upload session")?;
        Ok(DriveUpload::reopen(&opened.upload_url, size))
    }

    /// Sends the fragment that starts at [`DriveUpload::next_offset`].
    ///
    /// A session that is gone is [`ErrorClass::Reread`]: start over. When the answer to the last fragment is lost the outcome
    /// is [`GraphError::Ambiguous`]: look for the file first. A `nameAlreadyExists` at the end keeps the session:
    /// [`Self::commit_drive_upload`].
    pub async fn upload_drive_fragment(
        &self,
        upload: &mut DriveUpload,
        fragment: Bytes,
    ) -> Result<DriveUploadProgress, GraphError> {
        let end = upload.next + fragment.len() as u64;
        let is_even = fragment.len().is_multiple_of(FRAGMENT_UNIT) || end == upload.size;
        if fragment.is_empty() || fragment.len() > MAX_FRAGMENT || end > upload.size || !is_even {
            return Err(GraphError::Config {
                setting: "upload fragment",
                reason: "it is empty, too large, past the end or no multiple of 320 KiB",
            });
        }
        let call = Call::upload(Method::PUT, upload.url.to_string(), Some(fragment), Scope::SharePoint)
            .content_range(upload.next, end, upload.size)
            .costs(Weight::Listing);
        match self.send(call).await {
            Ok(reply) if matches!(reply.status, 200 | 201) => {
                upload.next = upload.size;
                // It is there, whatever the answer looks like.
                let item = read_object(&reply.body, "an uploaded file")
                    .map_err(|error| GraphError::Ambiguous { source: Box::new(error) })?;
                Ok(DriveUploadProgress::Done(Box::new(item)))
            }
            Ok(reply) => advance(upload, next_expected(&reply).unwrap_or(end), end),
            Err(error) if error.status() == Some(416) => {
                let next =
                    self.drive_upload_status_of(upload).await.map_err(|error| lost(upload, end, error))?;
                advance(upload, next, upload.size).map_err(|_| error)
            }
            Err(error) => Err(lost(upload, end, error)),
        }
    }

    /// Asks the session how far it got; the next fragment starts there.
    pub async fn drive_upload_status(&self, upload: &mut DriveUpload) -> Result<u64, GraphError> {
        upload.next = self.drive_upload_status_of(upload).await.map_err(|error| lost(upload, 0, error))?;
        Ok(upload.next)
    }

    async fn drive_upload_status_of(&self, upload: &DriveUpload) -> Result<u64, GraphError> {
        let call = Call::upload(Method::GET, upload.url.to_string(), None, Scope::SharePoint);
        let reply = self.send(call.costs(Weight::Single)).await?;
        next_expected(&reply)
            .filter(|next| *next <= upload.size)
            .ok_or(GraphError::Incomplete { what: "the status of an upload", field: "nextExpectedRanges" })
    }

    /// Gives an upload up. One that is gone already is given up.
    pub async fn cancel_drive_upload(&self, upload: DriveUpload) -> Result<(), GraphError> {
        let call = Call::upload(Method::DELETE, upload.url.to_string(), None, Scope::SharePoint);
        self.delete_gone(call.costs(Weight::Listing)).await
    }

    /// Makes the file of an upload that is complete, under another name: after a `nameAlreadyExists` at its end.
    ///
    /// `folder` is the path of the folder from the root, such as `A/B`; empty for the root.
    pub async fn commit_drive_upload(
        &self,
        drive: &str,
        folder: &str,
        name: &str,
        upload: &DriveUpload,
    ) -> Result<DriveItem, GraphError> {
        let body = json!({
            "name": name,
            "@microsoft.graph.conflictBehavior": NameConflict::Rename.word(),
            "@microsoft.graph.sourceUrl": upload.url(),
        });
        let root = self.url(&["drives", drive, "root"], &[]);
        let segments: Vec<_> = folder.split('/').filter(|name| !name.is_empty()).collect();
        let path = segments.iter().map(|name| crate::request::segment(name)).collect::<Vec<_>>().join("/");
        let url = if path.is_empty() { root } else { format!("{root}:/{path}") };
        let body = Body { bytes: body.to_string().into(), content_type: JSON };
        // A session makes one file: a second commit finds it used up.
        let call = Call::put(url, body, Repeat::Never, Scope::SharePoint).costs(Weight::Listing);
        read_object(&self.send(call).await?.body, "a committed file")
    }
}

/// Backwards would never end, and there is nothing after what was sent.
fn advance(upload: &mut DriveUpload, next: u64, end: u64) -> Result<DriveUploadProgress, GraphError> {
    if next <= upload.next || next > end {
        return Err(GraphError::Incomplete { what: "the upload answer", field: "a range that follows" });
    }
    upload.next = next;
    Ok(DriveUploadProgress::More { next })
}

/// A session ends with its last fragment: its end and its loss look the same.
fn lost(upload: &DriveUpload, end: u64, error: GraphError) -> GraphError {
    if !matches!(error.class(), ErrorClass::Gone | ErrorClass::Reread) || error.status() == Some(409) {
        return error;
    }
    if end == upload.size && error.status() == Some(404) {
        return GraphError::Ambiguous { source: Box::new(error) };
    }
    with_class(error, ErrorClass::Reread)
}
