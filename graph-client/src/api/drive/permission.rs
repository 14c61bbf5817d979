//! Who may do what with an item, and giving it back.
//!
//! The one invariant to know: nothing here mails anybody. That nobody is told is written into every call, not asked for.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    GraphClient, GraphError, Scope, Weight,
    error::Operation,
    json::{FromObject, read_object, read_page},
    request::{Call, Repeat},
};

/// A permission.
#[derive(Debug, Clone, PartialEq)]
pub struct DrivePermission {
    /// Its id.
    pub id: String,
    /// Such as `read`, `write`, `owner`.
    pub roles: Vec<String>,
    /// The link that gives it; none where it was given to somebody by name.
    pub link: Option<SharingLink>,
    /// Whether it comes from a folder above.
    pub is_inherited: bool,
    /// Whether its link asks for a password, which nobody can read.
    pub has_password: bool,
    /// Everything Microsoft said, also to whom it was given.
    pub raw: Value,
}

/// A link that gives a permission.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SharingLink {
    /// Such as `view` or `edit`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Such as `anonymous`, `organization` or `users`.
    pub scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    roles: Option<Vec<String>>,
    link: Option<SharingLink>,
    inherited_from: Option<Value>,
    has_password: Option<bool>,
}

impl FromObject for DrivePermission {
    fn from_object(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Value = serde_json::from_slice(raw)?;
        let fields = Fields::deserialize(&raw)?;
        Ok(Self {
            id: fields.id,
            roles: fields.roles.unwrap_or_default(),
            link: fields.link,
            is_inherited: fields.inherited_from.is_some(),
            has_password: fields.has_password.unwrap_or_default(),
            raw,
        })
    }
}

/// A permission to be given to people and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// To whom, by their directory ids.
    pub object_ids: Vec<String>,
    /// To whom else, by address: guests whose id nobody told. They are not told either.
    pub addresses: Vec<String>,
    /// `read`, `write` or `owner`.
    pub roles: Vec<String>,
}

/// A link to be made. It gets a new address: the old one does not come back. Nobody is named in it: v1.0 mails whoever is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// `view`, `edit` or another kind that Microsoft knows.
    pub kind: String,
    /// `anonymous`, `organization` or `users`.
    pub scope: String,
    /// When it ends, as Microsoft writes it.
    pub expires: Option<String>,
}

impl GraphClient {
    /// All permissions of an item, inherited ones included. Ask only where [`super::DriveItem::is_shared`].
    pub async fn drive_permissions(
        &self,
        drive: &str,
        item: &str,
    ) -> Result<Vec<DrivePermission>, GraphError> {
        let first = self.item_url(drive, item, &["permissions"]);
        let call = |url| Call::get(url, Operation::Item, Scope::SharePoint).costs(Weight::Permissions);
        self.whole(first, call, "the list of permissions").await
    }

    /// Gives a permission; nobody is told. Returns what was made of it.
    ///
    /// An id that the tenant does not know any more refuses the whole call (`noResolvedUsers`).
    pub async fn grant_drive_permission(
        &self,
        drive: &str,
        item: &str,
        grant: &NewGrant,
    ) -> Result<Vec<DrivePermission>, GraphError> {
        let known = grant.object_ids.iter().map(|id| json!({ "objectId": id }));
        let guests = grant.addresses.iter().map(|address| json!({ "email": address }));
        let recipients: Vec<_> = known.chain(guests).collect();
        let body = json!({
            "recipients": recipients,
            "roles": grant.roles,
            "requireSignIn": true,
            "sendInvitation": false,
        });
        // Given twice it is given once.
        let call =
            Call::post(self.item_url(drive, item, &["invite"]), &body, Repeat::Safe, Scope::SharePoint);
        let reply = self.send(call.costs(Weight::Permissions)).await?;
        read_page(&reply.body, "granted permissions").map(|page| page.items)
    }

    /// Makes a link; nobody is told. One of the same kind and scope that is there already is returned instead.
    pub async fn create_drive_link(
        &self,
        drive: &str,
        item: &str,
        link: &NewLink,
    ) -> Result<DrivePermission, GraphError> {
        let mut body = json!({ "type": link.kind, "scope": link.scope, "sendNotification": false });
        if let Some(expires) = &link.expires {
            body["expirationDateTime"] = Value::from(expires.as_str());
        }
        let url = self.item_url(drive, item, &["createLink"]);
        let call = Call::post(url, &body, Repeat::Safe, Scope::SharePoint).costs(Weight::Permissions);
        read_object(&self.send(call).await?.body, "a link")
    }

    /// Takes a permission away. One that is gone already is taken away.
    pub async fn delete_drive_permission(
        &self,
        drive: &str,
        item: &str,
        permission: &str,
    ) -> Result<(), GraphError> {
        let url = self.item_url(drive, item, &["permissions", permission]);
        self.delete_gone(Call::delete(url, Scope::SharePoint).costs(Weight::Permissions)).await
    }
}
