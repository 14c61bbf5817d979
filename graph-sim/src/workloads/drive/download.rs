//! Content: Graph says where it is, and a host of its own gives it to whoever has the address.
//!
//! Invariant: an address is signed and dies with its time; it names an item, whose content is what it is when it is read,
//! or one earlier version. The host takes no bearer token.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode, header};

use crate::blob::Data;
use crate::faults::Luck;
use crate::http::body::{Outgoing, Reader};
use crate::http::{
    Answer, Call, Outside, Refusal, Reply, admit, broken, identify, no_such_host, refuse, say_left, set,
};
use crate::limits::{Cost, Scope};
use crate::options::SimOptions;
use crate::workloads::drive::generate::media_type;
use crate::workloads::drive::item::{Fate, Item, Kind};
use crate::workloads::drive::items::{self, locked, not_found};
use crate::workloads::drive::show::{Audience, etag, luck_of};
use crate::workloads::drive::store::DriveStore;
use crate::world::World;

const MAC_CONTEXT: &str = "holdfast graph-sim 2026-11-30 download addresses";
const MAC_DIGITS: usize = 32;

/// What an address names.
struct Ticket {
    user: u32,
    key: u32,
    /// None = what the file has now.
    version: Option<u32>,
    expires_ms: u64,
    app: String,
}

impl Ticket {
    fn text(&self) -> String {
        let Self { user, key, version, expires_ms, app } = self;
        format!("{user}|{key}|{}|{expires_ms}|{app}", version.unwrap_or(0))
    }

    fn mac(world: &World, text: &str) -> String {
        let key = blake3::derive_key(MAC_CONTEXT, &world.nonce.to_le_bytes());
        blake3::keyed_hash(&key, text.as_bytes()).to_hex()[..MAC_DIGITS].to_owned()
    }

    fn seal(&self, world: &World) -> String {
        let text = self.text();
        URL_SAFE_NO_PAD.encode(format!("{}{text}", Self::mac(world, &text)))
    }

    fn open(world: &World, sealed: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(sealed).ok()?).ok()?;
        let (mac, text) = text.split_at_checked(MAC_DIGITS)?;
        if mac != Self::mac(world, text) {
            return None;
        }
        let mut parts = text.splitn(5, '|');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (user, key, version, expires_ms) = (number()?, number()?, number()?, number()?);
        let version = (version > 0).then_some(version as u32);
        let app = parts.next()?.to_owned();
        Some(Self { user: user as u32, key: key as u32, version, expires_ms, app })
    }
}

/// The address of a file's content, or of an earlier version's.
pub(crate) fn url(to: &Audience<'_>, user: u32, key: u32, version: Option<u32>) -> String {
    let expires_ms = to.world.clock.now_ms() + to.options.download_url_seconds * 1000;
    let ticket = Ticket { user, key, version, expires_ms, app: to.app.to_owned() };
    format!("{}/_onedrive/download/{}", to.content_host(), ticket.seal(to.world))
}

/// `/items/{i}/content`: where the content is.
pub(crate) fn content(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::read(call, &mut store)?;
    let item = store.get(key).ok_or_else(not_found)?;
    refuse_unreadable(call, &store, item)?;
    let known = call.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(etag(call.user, item).as_str()) {
        return Ok(Reply::Empty(304));
    }
    Ok(Reply::Redirect(url(&Audience::of(call), call.user, key, None)))
}

/// Refuses content that cannot be had, or of what has none.
pub(crate) fn refuse_unreadable(call: &Call, store: &DriveStore, item: &Item) -> Result<(), Refusal> {
    if item.content().is_none() {
        return Err(refuse(400, "invalidRequest", "The item has no content."));
    }
    match item.fate() {
        Some(Fate::Malware) => {
            let text = "Malware was detected in the file.";
            return Err(refuse(403, "malwareDetected", text).header("x-virus-infected", "true"));
        }
        Some(Fate::Locked) => return Err(locked()),
        None => {}
    }
    refuse_notebook(&call.world, &call.options, store, item)
}

/// Refuses a part of a notebook by decree of the fault options.
fn refuse_notebook(
    world: &World,
    options: &SimOptions,
    store: &DriveStore,
    item: &Item,
) -> Result<(), Refusal> {
    let is_part = store.get(item.parent).is_some_and(|folder| matches!(folder.kind, Kind::Notebook(_)));
    let luck = luck_of(options, store.user, item.key);
    if is_part && luck.dooms("notebook", options.faults.rate_notebook_503) {
        world.counters.fault("notebook_503");
        return Err(refuse(503, "serviceNotAvailable", "The service is not available."));
    }
    Ok(())
}

/// Answers on the download host.
pub(crate) fn serve(world: &Arc<World>, call: &Outside<'_>, sealed: &str) -> Result<Response, Refusal> {
    if call.parts.method != Method::GET {
        return Err(refuse(405, "invalidRequest", "The method is not allowed here."));
    }
    if call.parts.headers.contains_key(header::AUTHORIZATION) {
        return Err(refuse(401, "unauthenticated", "The download address takes no bearer token."));
    }
    let options = world.options();
    let ticket = Ticket::open(world, sealed).ok_or_else(no_such_host)?;
    let path = format!("download {} {}", ticket.user, ticket.key);
    let luck = world.faults.luck(options.faults.seed, "GET", &path);
    if let Some(response) = broken(world, &call.connection, &luck) {
        return Ok(response);
    }
    world.counters.request(&world.people.user(ticket.user).user_principal_name, "drive_download");
    let is_early_death = luck.strikes("expired download", options.faults.rate_expired_download);
    if is_early_death || world.clock.now_ms() >= ticket.expires_ms {
        world.counters.with(|all| {
            *all.faults.entry("expired_download".into()).or_default() += u64::from(is_early_death);
        });
        return Err(refuse(401, "unauthenticated", "The download address has expired."));
    }
    let File { data, etag, media_type } = file(world, &ticket)?;
    if luck_of(&options, ticket.user, ticket.key).dooms("corrupt item", options.faults.rate_corrupt_item) {
        world.counters.fault("corrupt_item");
        return Err(refuse(500, "generalException", "An unspecified error has occurred."));
    }
    let mut range = part(call, data.len(), &etag)?;
    if range.is_some() && luck.strikes("range ignored", options.faults.rate_range_ignored) {
        world.counters.fault("range_ignored");
        range = None;
    }
    let mut response = body(world, &luck, &ticket, data, range)?;
    set(&mut response, "content-type", media_type);
    set(&mut response, "accept-ranges", "bytes");
    set(&mut response, "etag", &etag);
    identify(world, &call.parts.headers, &mut response);
    Ok(response)
}

/// The bytes, or a range of them, once they are let in.
fn body(
    world: &Arc<World>,
    luck: &Luck,
    ticket: &Ticket,
    data: Data,
    range: Option<Range<u64>>,
) -> Result<Response, Refusal> {
    let options = world.options();
    let (total, is_part) = (data.len(), range.is_some());
    let part = range.unwrap_or(0..total);
    let length = part.end - part.start;
    let cost = Cost { download_bytes: length, ..Cost::of(luck, 0) };
    let flight = admit(world, &options, &ticket.app, Scope::SharePoint, &cost, luck)?;
    let left = flight.left;
    let cut = luck.strikes("truncate", options.faults.rate_truncate);
    if cut {
        world.counters.fault("truncate");
    }
    let reader = Reader::part(data, part.clone());
    let body = Outgoing::new(Arc::clone(world), reader, length, cut.then_some(length / 2), Some(flight));
    let mut response = Response::new(Body::from_stream(body));
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut response, "content-range", &format!("bytes {}-{}/{total}", part.start, part.end - 1));
    }
    set(&mut response, "content-length", &length.to_string());
    if let Some(left) = left {
        say_left(&mut response, &left);
    }
    Ok(response)
}

/// What a ticket leads to.
struct File {
    data: Data,
    etag: String,
    media_type: &'static str,
}

fn file(world: &World, ticket: &Ticket) -> Result<File, Refusal> {
    let store = world.state::<DriveStore>(ticket.user);
    let item = store.get(ticket.key).ok_or_else(not_found)?;
    refuse_notebook(world, &world.options(), &store, item)?;
    let content = match ticket.version {
        None => item.content(),
        Some(number) => {
            item.versions().iter().find(|version| version.number == number).map(|version| &version.content)
        }
    };
    let mut etag = etag(ticket.user, item);
    if let Some(number) = ticket.version {
        etag = format!("{}v{number}\"", etag.trim_end_matches('"'));
    }
    let data = content.ok_or_else(not_found)?.data();
    Ok(File { data, etag, media_type: media_type(&store.name_of(item)) })
}

/// The part that `Range` asks for; none = the whole.
fn part(call: &Outside<'_>, total: u64, etag: &str) -> Result<Option<Range<u64>>, Refusal> {
    let text = |name| call.parts.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE) else { return Ok(None) };
    if text(header::IF_RANGE).is_some_and(|wanted| wanted != etag) {
        return Ok(None);
    }
    let bad = || {
        refuse(416, "invalidRange", "The range cannot be had.")
            .header("content-range", format!("bytes */{total}"))
    };
    let (first, last) = range.strip_prefix("bytes=").and_then(|text| text.split_once('-')).ok_or_else(bad)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| bad());
    let part = match (first, last) {
        ("", last) => total.saturating_sub(number(last)?)..total,
        (first, "") => number(first)?..total,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(total),
    };
    if part.is_empty() { Err(bad()) } else { Ok(Some(part)) }
}
