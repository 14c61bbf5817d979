//! The content of a file: by a download address on another host, in one piece or in parts, resumed where it breaks.
//!
//! The one invariant to know: all bytes of a download are of one version of the file. Whatever says that the file has changed
//! meanwhile ends it with [`GraphError::Changed`]; an address that has expired does not.

use std::ops::Range;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, LOCATION};

use crate::{
    ErrorClass, GraphClient, GraphError, MimeStream, QuickXorHash, Scope, Weight,
    error::MALWARE,
    request::{Call, Opened, backoff, with_class},
};

use super::{DownloadUrl, DriveItem, DriveItemVersion, single};

/// What is to be downloaded.
#[derive(Debug, Clone)]
pub struct DriveContent {
    drive: String,
    item: String,
    version: Option<String>,
    size: u64,
    hash: Option<String>,
    ctag: Option<String>,
    is_notebook: bool,
    url: Option<DownloadUrl>,
}

impl DriveContent {
    /// The content that an item has now.
    pub fn of_item(drive: &str, item: &DriveItem) -> Self {
        Self {
            drive: drive.to_owned(),
            item: item.id.clone(),
            version: None,
            size: item.size,
            hash: item.hash().map(str::to_owned),
            ctag: item.ctag.clone(),
            is_notebook: item.is_notebook(),
            url: item.download_url.clone(),
        }
    }

    /// The content that an earlier version had. That of the current version is the item's.
    pub fn of_version(drive: &str, item: &DriveItem, version: &DriveItemVersion) -> Self {
        Self {
            version: Some(version.id.clone()),
            size: version.size,
            hash: None,
            ctag: None,
            url: None,
            ..Self::of_item(drive, item)
        }
    }

    /// Whether the item is still the one whose content this is.
    fn is_of(&self, item: &DriveItem) -> bool {
        match (&self.ctag, &item.ctag) {
            (Some(before), Some(now)) => before == now,
            _ => self.size == item.size && self.hash.as_deref() == item.hash(),
        }
    }
}

/// What a finished download says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCheck {
    /// Length and hash are what Microsoft says.
    Matches,
    /// The length is, and Microsoft gave no hash, or only a part was asked for.
    NoHash,
    /// It is whole, but Microsoft says something else about its length or its hash, as it does of Office files that it has
    /// rewritten: try once more, then report.
    Differs,
}

/// A download, read piece by piece.
///
/// After an error that is to be waited for, [`Self::next`] goes on where it stopped.
#[derive(Debug)]
pub struct DriveDownload {
    client: GraphClient,
    content: DriveContent,
    part: Range<u64>,
    is_whole: bool,
    /// The offset of the next byte.
    next: u64,
    body: Option<MimeStream>,
    /// What comes before the next byte in a body that is the whole file although a part was asked for.
    skip: u64,
    /// What the download host calls the version that it gives.
    etag: Option<String>,
    total: Option<u64>,
    hash: QuickXorHash,
    /// Bodies that broke since the last byte came.
    failures: u32,
    /// Whether the address was asked for since the last byte came.
    is_fresh_url: bool,
    is_done: bool,
}

impl GraphClient {
    /// Prepares the download of a whole file; nothing is sent yet.
    pub fn drive_download(&self, content: DriveContent) -> DriveDownload {
        let part = 0..content.size;
        DriveDownload::new(self.clone(), content, part, true)
    }

    /// Prepares the download of a part of a file. Parts may be downloaded side by side; that they are of one version shows in
    /// their joined hash.
    pub fn drive_download_part(&self, content: DriveContent, part: Range<u64>) -> DriveDownload {
        DriveDownload::new(self.clone(), content, part, false)
    }
}

impl DriveDownload {
    fn new(client: GraphClient, content: DriveContent, part: Range<u64>, is_whole: bool) -> Self {
        Self {
            client,
            content,
            // There is nothing to ask for.
            is_done: part.is_empty(),
            next: part.start,
            hash: QuickXorHash::of_part(part.start),
            part,
            is_whole,
            body: None,
            skip: 0,
            etag: None,
            total: None,
            failures: 0,
            is_fresh_url: false,
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GraphError> {
        while !self.is_done {
            if self.body.is_none() {
                let Some(opened) = self.open().await? else { continue };
                self.body = Some(self.accept(opened)?);
            }
            let Some(body) = &mut self.body else { continue };
            match body.next().await {
                Ok(Some(piece)) => {
                    let piece = self.wanted(piece);
                    if !piece.is_empty() {
                        return Ok(Some(piece));
                    }
                }
                Ok(None) => {
                    if let Err(error) = self.end_body() {
                        self.pause_after(error).await?;
                    }
                }
                Err(error) => self.pause_after(error).await?,
            }
        }
        Ok(None)
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// The hash of what came so far; of a part, to be joined with the others.
    pub fn hash(&self) -> &QuickXorHash {
        &self.hash
    }

    /// Compares what came with what Microsoft says, after the end.
    pub fn check(&self) -> ContentCheck {
        if self.next != self.part.end {
            return ContentCheck::Differs;
        }
        match &self.content.hash {
            Some(expected) if self.is_whole && *expected != self.hash.finish() => ContentCheck::Differs,
            Some(_) if self.is_whole => ContentCheck::Matches,
            _ => ContentCheck::NoHash,
        }
    }

    /// Asks for what is still missing; none where the address has expired and another one is to be tried.
    async fn open(&mut self) -> Result<Option<Opened>, GraphError> {
        let url = match self.content.url.clone() {
            Some(url) => url,
            None => {
                self.is_fresh_url = true;
                let url = self.locate().await.map_err(|error| self.unless_notebook(error))?;
                self.content.url.insert(url).clone()
            }
        };
        let end = self.end().unwrap_or(self.part.end);
        let left = end.saturating_sub(self.next);
        let mut call = Call::download(url.expose().to_owned(), Scope::SharePoint, left).costs(Weight::Single);
        // An empty file refuses every range, and a whole one needs none.
        if self.next > 0 || !self.is_whole {
            call = call.range(self.next, end);
        }
        match self.client.open(call).await {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.status() == Some(416) => Err(GraphError::Changed),
            Err(error) if is_expiry(&error) && !self.is_fresh_url => {
                tracing::debug!(code = error.code(), "a download address has expired");
                self.content.url = None;
                Ok(None)
            }
            Err(error) => {
                self.content.url = None;
                Err(self.unless_notebook(error))
            }
        }
    }

    /// Finds a new address, and whether the item is still the same.
    async fn locate(&self) -> Result<DownloadUrl, GraphError> {
        let DriveContent { drive, item, version, .. } = &self.content;
        let below: &[&str] = match version {
            Some(version) => &["versions", version, "content"],
            None => {
                let now = self.client.drive_item(drive, item).await?;
                if !self.content.is_of(&now) {
                    return Err(GraphError::Changed);
                }
                if let Some(url) = now.download_url {
                    return Ok(url);
                }
                &["content"]
            }
        };
        let call = single(self.client.item_url(drive, item, below)).expecting_redirect();
        let reply = self.client.send(call).await?;
        let location = reply.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        location
            .map(DownloadUrl::new)
            .ok_or(GraphError::Incomplete { what: "the answer to a download", field: "location" })
    }

    /// Checks that the body is of the same version and holds what is missing.
    fn accept(&mut self, opened: Opened) -> Result<MimeStream, GraphError> {
        let etag = opened.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let (start, total) = match opened.status {
            206 => {
                let (start, total) = content_range(&opened.headers)
                    .ok_or(GraphError::Incomplete { what: "a part of a file", field: "content-range" })?;
                (start, Some(total))
            }
            // Ranges are refused: everything comes once more.
            _ => (0, opened.body.content_length),
        };
        let changed = |before: bool| if before { Err(GraphError::Changed) } else { Ok(()) };
        changed(self.etag.is_some() && etag.is_some() && self.etag != etag)?;
        changed(total.is_some() && self.total.is_some() && self.total != total)?;
        // Of a whole file the answer's word counts: Microsoft rewrites Office files, and says the old length for a while.
        changed(!self.is_whole && total.is_some_and(|total| total != self.content.size))?;
        self.skip = self
            .next
            .checked_sub(start)
            .ok_or(GraphError::Incomplete { what: "a part of a file", field: "its beginning" })?;
        self.etag = self.etag.take().or(etag);
        self.total = self.total.or(total);
        Ok(opened.body)
    }

    /// The bytes of a piece that were asked for and are new.
    fn wanted(&mut self, mut piece: Bytes) -> Bytes {
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        piece = piece.slice(usize::try_from(skipped).unwrap_or(piece.len())..);
        if !self.is_whole {
            let left = usize::try_from(self.part.end - self.next).unwrap_or(usize::MAX);
            piece.truncate(left);
        }
        if !piece.is_empty() {
            self.hash.update(&piece);
            self.next += piece.len() as u64;
            (self.failures, self.is_fresh_url) = (0, false);
        }
        if self.end() == Some(self.next) {
            (self.is_done, self.body) = (true, None);
        }
        piece
    }

    /// Where it ends: of a whole file where the answer says, which is not known before there is one.
    fn end(&self) -> Option<u64> {
        if self.is_whole { self.total } else { Some(self.part.end) }
    }

    /// A body that ended well is the end of the file, or of the smaller part that the host chose to give.
    fn end_body(&mut self) -> Result<(), GraphError> {
        self.body = None;
        match self.end() {
            Some(end) if end != self.next => {
                Err(GraphError::Truncated { expected: Some(end), got: self.next })
            }
            _ => {
                self.is_done = true;
                Ok(())
            }
        }
    }

    /// A body that broke is opened again where it broke, after a while, and not for ever.
    async fn pause_after(&mut self, error: GraphError) -> Result<(), GraphError> {
        self.body = None;
        self.failures += 1;
        if error.class() != ErrorClass::Retry || self.failures >= self.client.inner.options.max_attempts {
            return Err(error);
        }
        tracing::debug!(code = error.code(), offset = self.next, "a download broke, going on");
        tokio::time::sleep(backoff(self.failures, &*self.client.inner.random)).await;
        Ok(())
    }

    /// Parts of notebooks are often not to be had, whatever their size: that is no trouble of the service.
    fn unless_notebook(&self, error: GraphError) -> GraphError {
        if self.content.is_notebook && error.status() == Some(503) && error.class() == ErrorClass::Retry {
            return with_class(error, ErrorClass::SkipItem);
        }
        error
    }
}

/// Download hosts say so in one of these ways; infected content is refused alike, but says so.
fn is_expiry(error: &GraphError) -> bool {
    matches!(error.status(), Some(401 | 403 | 404 | 410)) && !error.has_code(MALWARE)
}

/// (first byte, length of the whole) of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()?))
}
