//! Gives permissions back. Nobody is told, and links get new addresses: the old ones do not come back.

use holdfast_graph_client::{ErrorClass, GraphError, NewGrant, NewLink};
use serde_json::{Value, value::RawValue};

use crate::{JobError, restore::RestoreContext, workload::stored::broken};

/// The role of whose drive it is: nobody can be given it, and nobody lost it.
const OWNER: &str = "owner";

/// Gives an item permissions; returns the codes of those that could not be given. Given twice they are given once.
pub(super) async fn give(
    context: &RestoreContext,
    (drive, item): (&str, &str),
    permissions: &[Box<RawValue>],
) -> Result<Vec<String>, JobError> {
    let mut losses = Vec::new();
    for permission in permissions {
        let permission: Value = serde_json::from_str(permission.get()).map_err(broken("permission"))?;
        let code = match wanted(&permission) {
            Wanted::Grant(grant) => {
                let given = context.graph.grant_drive_permission(drive, item, &grant).await;
                refusal(given.map(drop))?
            }
            Wanted::Link(link) => {
                refusal(context.graph.create_drive_link(drive, item, &link).await.map(drop))?
            }
            Wanted::Nothing => None,
            Wanted::Impossible(code) => Some(code.to_owned()),
        };
        losses.extend(code.map(|code| format!("PermissionNotRestored:{code}")));
    }
    Ok(losses)
}

/// Somebody who is no more, or a tenant that forbids sharing, keeps nothing else from coming back.
fn refusal(given: Result<(), GraphError>) -> Result<Option<String>, GraphError> {
    match given {
        Ok(()) => Ok(None),
        Err(error) if is_refusal(&error) => Ok(Some(error.code().to_owned())),
        Err(error) => Err(error),
    }
}

fn is_refusal(error: &GraphError) -> bool {
    error.class() == ErrorClass::SkipItem || matches!(error.status(), Some(400 | 403))
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Grant(NewGrant),
    Link(NewLink),
    /// It is there by itself.
    Nothing,
    /// Why nobody can give it.
    Impossible(&'static str),
}

fn wanted(permission: &Value) -> Wanted {
    let roles: Vec<String> = permission
        .get("roles")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|role| role.as_str().map(str::to_owned))
        .collect();
    if let Some(link) = permission.get("link") {
        if permission.get("hasPassword").and_then(Value::as_bool).unwrap_or_default() {
            return Wanted::Impossible("LinkHasPassword");
        }
        let text = |name: &str| link.get(name).and_then(Value::as_str).map(str::to_owned);
        return match (text("type"), text("scope")) {
            // Whom it names cannot be named again without a mail to them.
            (_, Some(scope)) if scope == "users" => Wanted::Impossible("LinkNamesPeople"),
            (Some(kind), Some(scope)) => {
                let expires = permission.get("expirationDateTime").and_then(Value::as_str);
                Wanted::Link(NewLink { kind, scope, expires: expires.map(str::to_owned) })
            }
            _ => Wanted::Impossible("LinkUnknown"),
        };
    }
    if roles.iter().any(|role| role == OWNER) {
        return Wanted::Nothing;
    }
    let to = permission.get("grantedToV2").or_else(|| permission.get("grantedTo"));
    let named = |property: &str| {
        let of = |kind: &&str| to?.get(*kind)?.get(property)?.as_str().map(str::to_owned);
        ["user", "group"].iter().find_map(of)
    };
    match (named("id"), named("email")) {
        _ if roles.is_empty() => Wanted::Impossible("NoRole"),
        (Some(id), _) => Wanted::Grant(NewGrant { object_ids: vec![id], addresses: Vec::new(), roles }),
        (None, Some(address)) => {
            Wanted::Grant(NewGrant { object_ids: Vec::new(), addresses: vec![address], roles })
        }
        (None, None) => Wanted::Impossible("NobodyNamed"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn permissions_are_given_to_whom_they_name_and_links_are_made_anew() {
        let grant = json!({ "roles": ["write"], "grantedToV2": { "user": { "id": "u", "email": "u@x" } } });
        let expected =
            NewGrant { object_ids: vec!["u".into()], addresses: Vec::new(), roles: vec!["write".into()] };
        assert_eq!(wanted(&grant), Wanted::Grant(expected));
        let guest = json!({ "roles": ["read"], "grantedToV2": { "user": { "email": "g@y" } } });
        let expected =
            NewGrant { object_ids: Vec::new(), addresses: vec!["g@y".into()], roles: vec!["read".into()] };
        assert_eq!(wanted(&guest), Wanted::Grant(expected));
        let link = json!({ "roles": ["read"], "link": { "type": "view", "scope": "organization", "webUrl": "old" } });
        let expected = NewLink { kind: "view".into(), scope: "organization".into(), expires: None };
        assert_eq!(wanted(&link), Wanted::Link(expected));
    }

    #[test]
    fn what_nobody_can_give_is_said() {
        let locked = json!({ "hasPassword": true, "link": { "type": "view", "scope": "anonymous" } });
        assert_eq!(wanted(&locked), Wanted::Impossible("LinkHasPassword"));
        let named = json!({ "link": { "type": "view", "scope": "users" } });
        assert_eq!(wanted(&named), Wanted::Impossible("LinkNamesPeople"));
        assert_eq!(wanted(&json!({ "roles": ["read"] })), Wanted::Impossible("NobodyNamed"));
        assert_eq!(wanted(&json!({ "roles": ["owner"] })), Wanted::Nothing);
    }
}
