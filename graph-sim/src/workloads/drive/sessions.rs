//! Upload sessions of files, and the host that takes their fragments.
//!
//! Invariant: fragments come in order, each all or nothing; a session keeps no bytes of a file that names its recipe. A
//! session ends with its file; when the name is taken at the end it stays, for a commit under another name.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::json;

use crate::blob::{Data, Synthetic};
use crate::http::{Call, Outside, Refusal, admit, broken, identify, lose_answer, plain, refuse, say_left};
use crate::json::timestamp;
use crate::limits::{Cost, Scope};
use crate::workloads::drive::show::{self, Audience, Place};
use crate::workloads::drive::store::DriveStore;
use crate::workloads::drive::upload::{Arriving, Target, place};
use crate::workloads::objects::view::View;
use crate::workloads::states::UserState;
use crate::world::World;

/// Fragments but the last are multiples of it: 320 KiB.
const UNIT: u64 = 327_680;
/// A fragment has less.
const FRAGMENT_LIMIT: usize = 60 * 1024 * 1024;
const LIFE_MS: u64 = 24 * 60 * 60 * 1000;
const MAX_SESSIONS: usize = 1024;
/// What writes costs.
const WRITE_UNITS: u64 = 2;

/// The sessions of a person's drive.
pub(crate) struct Sessions(HashMap<String, Session>);

impl UserState for Sessions {
    fn populate(_world: &World, _user: u32) -> Self {
        Self(HashMap::new())
    }
}

/// A session that was opened.
pub(crate) struct Opened {
    /// Names the person; nobody guesses the rest.
    pub id: String,
    pub expires_ms: u64,
}

struct Session {
    app: String,
    arriving: Arriving,
    /// None = the first fragment says.
    size: Option<u64>,
    received: Received,
    /// A fragment that was not the last had an odd length; that shows at the end.
    is_uneven: bool,
    /// The file is made when that is asked for.
    defer: bool,
    expires_ms: u64,
}

/// The bytes so far, as their recipe as long as they follow one.
#[derive(Default)]
struct Received {
    length: u64,
    recipe: Option<Synthetic>,
    bytes: Vec<u8>,
}

impl Received {
    fn push(&mut self, fragment: &[u8], size: u64) {
        if self.length == 0 {
            self.recipe = Synthetic::claimed(fragment, size);
        }
        if let Some(recipe) = self.recipe.filter(|recipe| !recipe.has(self.length, fragment)) {
            self.recipe = None;
            self.bytes = vec![0; self.length as usize];
            Data::Generated(recipe).read(0, &mut self.bytes);
        }
        if self.recipe.is_none() {
            self.bytes.extend_from_slice(fragment);
        }
        self.length += fragment.len() as u64;
    }

    fn data(&self, world: &World) -> Data {
        match self.recipe {
            Some(recipe) => Data::Generated(recipe),
            None => world.blobs.keep(Bytes::copy_from_slice(&self.bytes)),
        }
    }
}

impl Session {
    fn is_complete(&self) -> bool {
        self.size == Some(self.received.length)
    }

    /// The next range, in one of the forms that the service has.
    fn status(&self) -> Vec<u8> {
        let next = self.received.length;
        let ranges = match self.size {
            Some(size) if size == next => Vec::new(),
            Some(size) if next / UNIT % 2 == 1 => vec![format!("{next}-{}", size - 1)],
            _ => vec![format!("{next}-")],
        };
        json!({"expirationDateTime": timestamp(self.expires_ms), "nextExpectedRanges": ranges})
            .to_string()
            .into_bytes()
    }

    fn accept(&mut self, headers: &HeaderMap, body: &Bytes) -> Result<(), Refusal> {
        let bad = |text: &str| refuse(400, "invalidRequest", text);
        let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range = range.and_then(parse_range).ok_or_else(|| bad("Content-Range is missing or wrong."))?;
        let Fragment { first, last, total } = range;
        let size = *self.size.get_or_insert(total);
        if total != size || last < first || last >= total || last - first + 1 != body.len() as u64 {
            return Err(bad("Content-Range does not fit the body or the session."));
        }
        if body.len() >= FRAGMENT_LIMIT {
            return Err(refuse(413, "invalidRequest", "A fragment has less than 60 MiB."));
        }
        let have = self.received.length;
        if first != have {
            let code = if first < have { "fragmentOverlap" } else { "fragmentOutOfOrder" };
            return Err(refuse(416, "invalidRange", format!("The next byte is {have}.")).inner(code));
        }
        self.is_uneven |= last + 1 != total && !(body.len() as u64).is_multiple_of(UNIT);
        self.received.push(body, total);
        Ok(())
    }
}

struct Fragment {
    first: u64,
    last: u64,
    total: u64,
}

/// `bytes a-b/n`
fn parse_range(text: &str) -> Option<Fragment> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse().ok();
    Some(Fragment { first: number(first)?, last: number(last)?, total: number(total)? })
}

fn gone() -> Refusal {
    refuse(404, "itemNotFound", "The upload session was not found.").inner("uploadSessionNotFound")
}

impl Sessions {
    pub(crate) fn open(
        call: &Call,
        arriving: Arriving,
        size: Option<u64>,
        defer: bool,
    ) -> Result<Opened, Refusal> {
        let now = call.world.clock.now_ms();
        let number = call.world.requests.load(std::sync::atomic::Ordering::Relaxed);
        let secret = blake3::hash(format!("{} {number} {now} {}", call.path, call.world.nonce).as_bytes());
        let id = format!("{}-{}", call.user, secret.to_hex());
        let mut sessions = call.world.state::<Self>(call.user);
        sessions.0.retain(|_, session| session.expires_ms > now);
        if sessions.0.len() >= MAX_SESSIONS {
            return Err(refuse(503, "serviceNotAvailable", "Too many upload sessions."));
        }
        let expires_ms = now + LIFE_MS;
        let app = call.claims.appid.clone();
        let received = Received::default();
        let session = Session { app, arriving, size, received, is_uneven: false, defer, expires_ms };
        sessions.0.insert(id.clone(), session);
        Ok(Opened { id, expires_ms })
    }

    fn find(&mut self, world: &World, id: &str) -> Result<&mut Session, Refusal> {
        let now = world.clock.now_ms();
        self.0.get_mut(id).filter(|session| session.expires_ms > now).ok_or_else(gone)
    }

    /// Makes the file of a session that is complete, where it belongs or elsewhere.
    pub(crate) fn commit(
        world: &World,
        user: u32,
        id: &str,
        elsewhere: Option<Target>,
    ) -> Result<(u32, u16), Refusal> {
        let (arriving, data) = {
            let mut sessions = world.state::<Self>(user);
            let session = sessions.find(world, id)?;
            if !session.is_complete() {
                return Err(refuse(400, "invalidRequest", "The upload session is not complete."));
            }
            if session.is_uneven {
                sessions.0.remove(id);
                let text = "Fragments but the last must be multiples of 320 KiB.";
                return Err(refuse(400, "invalidRequest", text));
            }
            let mut arriving = session.arriving.clone();
            arriving.target = elsewhere.unwrap_or(arriving.target);
            (arriving, session.received.data(world))
        };
        let placed = place(world, &mut world.state::<DriveStore>(user), &arriving, data)?;
        world.state::<Self>(user).0.remove(id);
        Ok(placed)
    }
}

/// What a call to the upload host led to.
enum Outcome {
    Status(u16, Vec<u8>),
    Made(u32, u16),
    Ended,
}

/// Answers on the upload host.
pub(crate) fn serve(world: &Arc<World>, call: &Outside<'_>, id: &str) -> Result<Response, Refusal> {
    let Outside { connection, parts, body, .. } = call;
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return Err(refuse(401, "unauthenticated", "The upload address takes no bearer token."));
    }
    let options = world.options();
    let user: u32 = id.split('-').next().and_then(|user| user.parse().ok()).ok_or_else(gone)?;
    if user as usize >= world.people.len() {
        return Err(gone());
    }
    let range = parts.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let place = format!("upload {user} {}", range.unwrap_or_default());
    let luck = world.faults.luck(options.faults.seed, parts.method.as_str(), &place);
    if let Some(response) = broken(world, connection, &luck) {
        return Ok(response);
    }
    let app = world.state::<Sessions>(user).find(world, id)?.app.clone();
    let name = &world.people.user(user).user_principal_name;
    world
        .counters
        .request(name, if parts.method == Method::GET { "drive_upload_status" } else { "drive_upload" });
    world.counters.with(|all| all.upload_bytes += body.len() as u64);
    let units = if parts.method == Method::GET { 1 } else { WRITE_UNITS };
    let cost = Cost { units, ..Cost::of(&luck, body.len() as u64) };
    let flight = admit(world, &options, &app, Scope::SharePoint, &cost, &luck)?;
    let outcome = act(world, call, user, id)?;
    let mut response = match outcome {
        Outcome::Status(status, body) => plain(status, "application/json", body),
        Outcome::Ended => plain(204, "text/plain", Vec::new()),
        Outcome::Made(key, status) => {
            let store = world.state::<DriveStore>(user);
            let to = Audience { world, options: &options, base: call.base, app: &app };
            let item = store.get(key).ok_or_else(gone)?;
            let shown = show::item(&to, &store, item, &View::default(), Place::Alone);
            plain(status, "application/json", shown.to_string().into_bytes())
        }
    };
    if parts.method != Method::GET {
        lose_answer(world, connection, &luck);
    }
    if let Some(left) = flight.left {
        say_left(&mut response, &left);
    }
    identify(world, &parts.headers, &mut response);
    Ok(response)
}

fn act(world: &World, call: &Outside<'_>, user: u32, id: &str) -> Result<Outcome, Refusal> {
    match call.parts.method {
        Method::GET => {
            let status = world.state::<Sessions>(user).find(world, id)?.status();
            Ok(Outcome::Status(200, status))
        }
        Method::DELETE => world.state::<Sessions>(user).0.remove(id).map(|_| Outcome::Ended).ok_or_else(gone),
        Method::POST => {
            Sessions::commit(world, user, id, None).map(|(key, status)| Outcome::Made(key, status))
        }
        Method::PUT => {
            {
                let mut sessions = world.state::<Sessions>(user);
                let session = sessions.find(world, id)?;
                session.accept(&call.parts.headers, &call.body)?;
                if !session.is_complete() || session.defer {
                    return Ok(Outcome::Status(202, session.status()));
                }
            }
            Sessions::commit(world, user, id, None).map(|(key, status)| Outcome::Made(key, status))
        }
        _ => Err(refuse(405, "invalidRequest", "The method is not allowed here.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Shape;
    use crate::pieces::{Look, MARKS};

    const SIZE: u64 = 200_000;

    fn content() -> Vec<u8> {
        let shape = Shape::Pieces(Look::Random(MARKS[0]));
        Data::Generated(Synthetic { seed: 11, size: SIZE, shape }).to_vec()
    }

    fn received(content: &[u8]) -> Received {
        let mut received = Received::default();
        content.chunks(70_000).for_each(|fragment| received.push(fragment, SIZE));
        received
    }

    #[test]
    fn a_file_that_names_its_recipe_is_not_kept() {
        let received = received(&content());
        assert_eq!((received.length, received.bytes.capacity()), (SIZE, 0));
        assert!(received.recipe.is_some());
    }

    #[test]
    fn a_file_that_leaves_its_recipe_is_kept_as_it_came() {
        let mut content = content();
        content[150_000] ^= 1;
        let received = received(&content);
        assert!(received.recipe.is_none());
        assert_eq!(received.bytes, content);
    }
}
