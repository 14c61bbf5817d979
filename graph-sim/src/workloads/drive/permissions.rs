//! `/items/{i}/permissions`, `invite`, `createLink`: who may do what with an item.
//!
//! Invariant: an item has its own permissions and those of every folder above it; only its own can be changed or taken
//! away at it. Whoever would get a mail is counted.

use serde_json::{Value, json};

use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::json::parse_timestamp;
use crate::workloads::drive::ids::{drive_id, item_id, permission_id};
use crate::workloads::drive::item::{Grant, Item, Link, To};
use crate::workloads::drive::items::{self, not_found};
use crate::workloads::drive::show::Audience;
use crate::workloads::drive::store::{DriveStore, ROOT};
use crate::workloads::objects::page;

/// The number of the owner's permission, at the root.
const OWNERS: u32 = u32::MAX;
const ROLES: [&str; 3] = ["read", "write", "owner"];
const LINK_SCOPES: [&str; 3] = ["anonymous", "organization", "users"];
/// Kinds of links with what they let people do.
const LINK_KINDS: [(&str, &str); 3] = [("view", "read"), ("edit", "write"), ("blocksDownload", "read")];

/// A person of the tenant as identities show them.
pub(crate) fn person(to: &Audience<'_>, user: u32) -> Value {
    let user = to.world.people.user(user);
    json!({"user": {"id": user.id, "displayName": user.display_name, "email": user.user_principal_name}})
}

fn identity(to: &Audience<'_>, whom: &To) -> Value {
    match whom {
        To::Person(user) => person(to, *user),
        To::Guest(address) => json!({"user": {"displayName": address, "email": address}}),
        To::Link(_) => Value::Null,
    }
}

/// All permissions of an item: its own first, then those from above.
pub(crate) fn of(to: &Audience<'_>, store: &DriveStore, key: u32) -> Vec<Value> {
    let Some(item) = store.get(key) else { return Vec::new() };
    let mut all: Vec<Value> = item.grants().iter().map(|grant| shown(to, item, grant)).collect();
    for folder in store.above(key) {
        all.extend(folder.grants().iter().map(|grant| inherited(store, folder, shown(to, folder, grant))));
    }
    let owner =
        json!({"id": permission_id(ROOT, OWNERS), "roles": ["owner"], "grantedToV2": person(to, store.user)});
    match store.get(ROOT).filter(|_| key != ROOT) {
        Some(root) => all.push(inherited(store, root, owner)),
        None => all.push(owner),
    }
    all
}

fn inherited(store: &DriveStore, folder: &Item, mut permission: Value) -> Value {
    let path = format!("/drives/{}/root:{}", drive_id(store.user), store.path(folder.key));
    permission["inheritedFrom"] =
        json!({"driveId": drive_id(store.user), "id": item_id(store.user, folder.key), "path": path});
    permission
}

fn shown(to: &Audience<'_>, item: &Item, grant: &Grant) -> Value {
    let id = permission_id(item.key, grant.number);
    let mut permission = json!({"id": id, "roles": [grant.role]});
    match &grant.to {
        To::Link(link) => {
            let url = format!("https://contoso-my.sharepoint.example/:x:/g/{id}");
            permission["link"] = json!({"type": link.kind, "scope": link.scope, "webUrl": url});
            permission["hasPassword"] = link.has_password.into();
            let people: Vec<Value> = link.people.iter().map(|whom| identity(to, whom)).collect();
            permission["grantedToIdentitiesV2"] = people.into();
        }
        whom => permission["grantedToV2"] = identity(to, whom),
    }
    if let Some(expires) = &grant.expires {
        permission["expirationDateTime"] = expires.as_str().into();
    }
    permission
}

pub(crate) fn list(call: &Call) -> Answer {
    page::refuse_any(call, &["$filter", "$orderby", "$search", "$expand", "$skip"])?;
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::read(call, &mut store)?;
    collection(call, of(&Audience::of(call), &store, key))
}

fn collection(call: &Call, permissions: Vec<Value>) -> Answer {
    let context = format!("{}/v1.0/$metadata#Collection(permission)", call.base);
    page::one(200, &json!({"@odata.context": context, "value": permissions}))
}

pub(crate) fn get(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::read(call, &mut store)?;
    let wanted = call.param("permission").unwrap_or_default();
    let all = of(&Audience::of(call), &store, key);
    page::one(200, &all.into_iter().find(|permission| permission["id"] == wanted).ok_or_else(not_found)?)
}

/// The people that a body names.
fn recipients(call: &Call, body: &Value) -> Result<Vec<To>, Refusal> {
    let unknown =
        || refuse(400, "invalidRequest", "One or more users could not be resolved.").inner("noResolvedUsers");
    let named = body["recipients"].as_array().into_iter().flatten();
    let recipients = named.map(|recipient| {
        let text = |name: &str| recipient[name].as_str();
        let name =
            text("objectId").or_else(|| text("email")).or_else(|| text("alias")).ok_or_else(unknown)?;
        match call.world.people.find(name) {
            Some(user) => Ok(To::Person(user)),
            None if text("email").is_none_or(|address| !address.contains('@')) => Err(unknown()),
            None if !call.options.external_sharing => {
                Err(refuse(403, "accessDenied", "Sharing is disabled.").inner("sharingDisabled"))
            }
            None => Ok(To::Guest(name.to_owned())),
        }
    });
    recipients.collect()
}

fn expiry(body: &Value) -> Result<Option<String>, Refusal> {
    match body["expirationDateTime"].as_str() {
        Some(text) if parse_timestamp(text).is_none() => {
            Err(refuse(400, "invalidRequest", "expirationDateTime is not a time."))
        }
        given => Ok(given.map(ToOwned::to_owned)),
    }
}

fn role(body: &Value) -> Result<&'static str, Refusal> {
    let given = body["roles"].as_array().and_then(|roles| roles.first()).and_then(Value::as_str);
    let known = given.and_then(|given| ROLES.iter().find(|role| **role == given));
    known.copied().ok_or_else(|| refuse(400, "invalidRequest", "roles must be read, write or owner."))
}

/// Gives permissions; somebody who has one gets no second one.
pub(crate) fn invite(call: &Call) -> Answer {
    let body = call.json()?;
    let (people, role, expires) = (recipients(call, &body)?, role(&body)?, expiry(&body)?);
    if people.is_empty() {
        return Err(refuse(400, "invalidRequest", "Nobody is invited."));
    }
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::find(call, &mut store)?;
    items::writable(call, &store, key)?;
    if body["sendInvitation"] == true {
        people.iter().for_each(|_| call.would_send("drive_invite"));
    }
    let mut numbers = Vec::new();
    for to in people {
        let known = store.get(key).and_then(|item| item.grants().iter().find(|grant| grant.to == to));
        if let Some(grant) = known.filter(|grant| grant.role == role && grant.expires == expires) {
            numbers.push(grant.number);
            continue;
        }
        let item = store.share(key).ok_or_else(not_found)?;
        let more = item.more_mut();
        more.grants.retain(|grant| grant.to != to);
        numbers.push(more.next_grant);
        more.grants.push(Grant { number: more.next_grant, role, to, expires: expires.clone() });
        more.next_grant += 1;
    }
    let item = store.get(key).ok_or_else(not_found)?;
    let given = item.grants().iter().filter(|grant| numbers.contains(&grant.number));
    collection(call, given.map(|grant| shown(&Audience::of(call), item, grant)).collect())
}

/// Makes a link, or gives back one of the same kind and scope.
pub(crate) fn create_link(call: &Call) -> Answer {
    let body = call.json()?;
    let bad = |text: &str| refuse(400, "invalidRequest", text);
    let kind = body["type"].as_str().unwrap_or("view");
    let (kind, role) =
        *LINK_KINDS.iter().find(|(known, _)| *known == kind).ok_or_else(|| bad("The type is not known."))?;
    let scope = body["scope"].as_str().unwrap_or("organization");
    let scope =
        *LINK_SCOPES.iter().find(|known| **known == scope).ok_or_else(|| bad("The scope is not known."))?;
    let (people, expires) = (recipients(call, &body)?, expiry(&body)?);
    let mut store = call.world.state::<DriveStore>(call.user);
    let key = items::find(call, &mut store)?;
    items::writable(call, &store, key)?;
    // In v1.0 whoever is named gets a mail, whatever sendNotification says.
    people.iter().for_each(|_| call.would_send("drive_link"));
    let has_password = body["password"].as_str().is_some_and(|password| !password.is_empty());
    let link = Link { kind: kind.to_owned(), scope: scope.to_owned(), has_password, people };
    let same = |grant: &&Grant| grant.to == To::Link(link.clone()) && grant.expires == expires;
    let known = store.get(key).and_then(|item| item.grants().iter().find(same)).map(|grant| grant.number);
    let (number, status) = match known {
        Some(number) => (number, 200),
        None => {
            let more = store.share(key).ok_or_else(not_found)?.more_mut();
            let number = more.next_grant;
            more.next_grant += 1;
            more.grants.push(Grant { number, role, to: To::Link(link), expires });
            (number, 201)
        }
    };
    one(call, &store, key, number, status)
}

fn one(call: &Call, store: &DriveStore, key: u32, number: u32, status: u16) -> Answer {
    let item = store.get(key).ok_or_else(not_found)?;
    let grant = item.grants().iter().find(|grant| grant.number == number).ok_or_else(not_found)?;
    page::one(status, &shown(&Audience::of(call), item, grant))
}

/// The item and the number of a permission that a call may change.
fn own(call: &Call, store: &mut DriveStore) -> Result<(u32, u32), Refusal> {
    let key = items::find(call, store)?;
    let item = items::writable(call, store, key)?;
    let wanted = call.param("permission").unwrap_or_default();
    let own = item.grants().iter().find(|grant| permission_id(key, grant.number) == wanted);
    if let Some(grant) = own {
        return Ok((key, grant.number));
    }
    let all = of(&Audience::of(call), store, key);
    if all.iter().any(|permission| permission["id"] == wanted) {
        return Err(refuse(400, "invalidRequest", "An inherited permission cannot be changed here."));
    }
    Err(not_found())
}

/// Changes the role, or when it ends.
pub(crate) fn patch(call: &Call) -> Answer {
    let body = call.json()?;
    let role = if body["roles"].is_null() { None } else { Some(role(&body)?) };
    let expires = expiry(&body)?;
    let mut store = call.world.state::<DriveStore>(call.user);
    let (key, number) = own(call, &mut store)?;
    let more = store.share(key).ok_or_else(not_found)?.more_mut();
    if let Some(grant) = more.grants.iter_mut().find(|grant| grant.number == number) {
        grant.role = role.unwrap_or(grant.role);
        grant.expires = expires.or(grant.expires.take());
    }
    one(call, &store, key, number, 200)
}

pub(crate) fn delete(call: &Call) -> Answer {
    let mut store = call.world.state::<DriveStore>(call.user);
    let (key, number) = own(call, &mut store)?;
    store.share(key).ok_or_else(not_found)?.more_mut().grants.retain(|grant| grant.number != number);
    Ok(Reply::Empty(204))
}

/// Gives a link to people.
pub(crate) fn grant(call: &Call) -> Answer {
    let body = call.json()?;
    let people = recipients(call, &body)?;
    let mut store = call.world.state::<DriveStore>(call.user);
    let (key, number) = own(call, &mut store)?;
    let more = store.share(key).ok_or_else(not_found)?.more_mut();
    let found = more.grants.iter_mut().find(|grant| grant.number == number);
    let Some(Grant { to: To::Link(link), .. }) = found else {
        return Err(refuse(400, "invalidRequest", "The permission is not a link."));
    };
    people.iter().for_each(|_| call.would_send("drive_link"));
    link.people.extend(people);
    let item = store.get(key).ok_or_else(not_found)?;
    let granted = item.grants().iter().filter(|grant| grant.number == number);
    collection(call, granted.map(|grant| shown(&Audience::of(call), item, grant)).collect())
}
