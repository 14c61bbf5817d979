//! `/drives/{d}/root/delta`: rounds over what changed.
//!
//! Invariant: a token holds everything the server needs, so any page can be asked for again; whatever is wrong with it is
//! a 410 that says where the enumeration begins anew.

use serde_json::{Value, json};

use crate::delta::{self, Token};
use crate::http::{Answer, Call, Refusal, refuse};
use crate::json::parse_timestamp;
use crate::query::Query;
use crate::workloads::drive::items::{self, page_size};
use crate::workloads::drive::show::{self, Audience, Place, RELATIONS, SCHEMA};
use crate::workloads::drive::store::{Change, DriveStore, ROOT};
use crate::workloads::objects::page;
use crate::workloads::objects::view::View;

const COLLECTION: &str = "drive";
const TOKEN: &str = "token";
/// Without all of them no permission change is reported.
const SHARING: [&str; 3] =
    ["deltashowremovedasdeleted", "deltatraversepermissiongaps", "deltashowsharingchanges"];
const SHARING_ROLE: &str = "Sites.FullControl.All";

/// One page.
pub(crate) fn delta(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$search", "$orderby", "$skip"])?;
    let with_sharing = SHARING.iter().all(|wanted| prefers(call, wanted));
    if with_sharing && !call.has_role(&[SHARING_ROLE]) {
        return Err(refuse(
            403,
            "accessDenied",
            "Sharing changes need the permission Sites.FullControl.All.",
        ));
    }
    let size = page_size(call)?;
    let mut store = call.world.state::<DriveStore>(call.user);
    if items::find(call, &mut store)? != ROOT {
        return Err(refuse(400, "invalidRequest", "Delta is only supported at the root of the drive."));
    }
    let mut token = resume(call, &store)?;
    let view = View::of(&SCHEMA, &token.query(), &RELATIONS)?;
    let (start, is_initial) = (token.start, token.position < token.start);
    let (changes, more) = delta::disturbed(
        call,
        || next(&store, &mut token, size, with_sharing),
        |change| matches!(change, Change::Present(_)),
        |number| Change::Removed { key: number as u32, parent: 0 },
    );
    let mut page = Page { call, store: &store, view: &view, shown: Vec::new(), lines: Vec::new() };
    let with_parents = call.headers.get("deltaexcludeparent").is_none_or(|value| value != "true");
    for change in changes {
        match change {
            Change::Removed { key, parent } => page.lines.push(show::removed(&store, key, parent)),
            Change::Shared(key) => page.present(key, true),
            Change::Present(key) => {
                if with_parents {
                    // In the initial round every folder has a line of its own; only the root heads every page.
                    let is_new = store.get(key).is_some_and(|item| item.seq > start);
                    page.parents(key, !is_initial || is_new);
                }
                page.present(key, false);
            }
        }
    }
    let lines = page.lines;
    answer(call, lines, &token, more)
}

fn answer(call: &Call, lines: Vec<Value>, token: &Token, more: bool) -> Answer {
    let name = if more { "@odata.nextLink" } else { "@odata.deltaLink" };
    let context = format!("{}/v1.0/$metadata#Collection(driveItem)", call.base);
    page::one(200, &json!({"@odata.context": context, "value": lines, name: link(call, token)}))
}

fn link(call: &Call, token: &Token) -> String {
    call.link(&Query(vec![(TOKEN.into(), token.encode())]))
}

/// A page in the making.
struct Page<'a> {
    call: &'a Call,
    store: &'a DriveStore,
    view: &'a View,
    /// Folders that have a line already.
    shown: Vec<u32>,
    lines: Vec<Value>,
}

impl Page<'_> {
    /// The folders above an item, from the root on, unless they were shown already.
    fn parents(&mut self, key: u32, all: bool) {
        let above: Vec<u32> = self.store.above(key).map(|folder| folder.key).collect();
        for folder in above.into_iter().rev().filter(|folder| all || *folder == ROOT) {
            if !self.shown.contains(&folder) {
                self.present(folder, false);
            }
        }
    }

    fn present(&mut self, key: u32, only_sharing: bool) {
        let Some(item) = self.store.get(key) else { return };
        if item.is_folder() && !only_sharing {
            self.shown.push(key);
        }
        let place = Place::Delta { only_roots: prefers(self.call, "hierarchicalsharing") };
        let mut line = show::item(&Audience::of(self.call), self.store, item, self.view, place);
        line["@odata.type"] = "#microsoft.graph.driveItem".into();
        if only_sharing {
            line["@microsoft.graph.sharedChanged"] = "True".into();
        }
        self.lines.push(line);
    }
}

/// The first changes after the token's position, and whether there are more; moves the token.
fn next(store: &DriveStore, token: &mut Token, size: usize, with_sharing: bool) -> (Vec<Change>, bool) {
    let mut changes = store.changes(token.position, token.start, with_sharing);
    let mut taken = Vec::new();
    for (seq, change) in changes.by_ref().take(size) {
        token.position = seq;
        taken.push(change);
    }
    let more = changes.next().is_some();
    drop(changes);
    if !more {
        token.position = store.stand().seq;
    }
    (taken, more)
}

/// The token of a call; a new one without.
fn resume(call: &Call, store: &DriveStore) -> Result<Token, Refusal> {
    let stand = store.stand();
    let fresh = |position: u64, start: u64| Token {
        collection: COLLECTION.into(),
        position,
        within: None,
        start,
        epoch: stand.epoch,
        nonce: call.world.nonce,
        options: call.query.without(&["$top", TOKEN]).0,
    };
    let Some(text) = call.query.get(TOKEN) else { return Ok(fresh(0, stand.seq)) };
    if text.eq_ignore_ascii_case("latest") {
        return Ok(fresh(stand.seq, stand.seq));
    }
    if let Some(since_ms) = parse_timestamp(text) {
        let position = store.position_at(since_ms);
        return Ok(fresh(position, position));
    }
    if call.luck.strikes("410", call.options.faults.rate_expired_delta) {
        call.world.counters.fault("410");
        return Err(resync(call, fresh(0, stand.seq)));
    }
    let token = Token::decode(text)
        .ok_or_else(|| refuse(400, "invalidRequest", "The provided delta token is malformed."))?;
    if token.nonce != call.world.nonce || token.epoch != stand.epoch || token.collection != COLLECTION {
        let again = Token { options: token.options, ..fresh(0, stand.seq) };
        return Err(resync(call, again));
    }
    Ok(token)
}

/// Both inner codes happen, and the address to begin anew is not always given.
fn resync(call: &Call, again: Token) -> Refusal {
    let salt = call.luck.salt("resync") ^ u64::from(call.luck.call);
    let inner = match salt % 2 {
        0 => "resyncChangesApplyDifferences",
        _ => "resyncChangesUploadDifferences",
    };
    let refusal = refuse(410, "resyncRequired", "Resync required. The delta token is too old.").inner(inner);
    if (salt / 2).is_multiple_of(4) {
        return refusal;
    }
    refusal.header("location", link(call, &again))
}

/// Whether `Prefer` names it.
fn prefers(call: &Call, wanted: &str) -> bool {
    let values = call.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
}
