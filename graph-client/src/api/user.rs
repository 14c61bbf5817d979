//! Users of the tenant.

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use crate::{
    GraphClient, GraphError, Scope, Weight,
    error::Operation,
    request::{Call, MAX_PAGES},
};

/// A person, a shared mailbox or a room.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphUser {
    /// Microsoft's id.
    pub id: String,
    /// What the user signs in with.
    #[serde(default)]
    pub user_principal_name: String,
    /// The primary address; none without a mailbox.
    #[serde(default)]
    pub mail: Option<String>,
    /// The name people see.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Whether the account may sign in; false for shared mailboxes.
    #[serde(default)]
    pub account_enabled: Option<bool>,
}

impl GraphClient {
    /// Lists all users of the tenant, page by page.
    pub fn users(&self) -> impl Stream<Item = Result<GraphUser, GraphError>> + Send + use<> {
        let first = self.url(
            &["users"],
            &[("$select", "id,userPrincipalName,mail,displayName,accountEnabled"), ("$top", "999")],
        );
        let client = self.clone();
        stream::try_unfold((client, Some(first), 0usize), |(client, link, pages)| async move {
            let Some(link) = link else { return Ok(None) };
            if pages >= MAX_PAGES {
                return Err(GraphError::TooMany { what: "the list of users", limit: MAX_PAGES });
            }
            let call = Call::get(link, Operation::List, Scope::Directory).costs(Weight::Plain(2));
            let page = client.page::<GraphUser>(call, "a user").await?;
            Ok(Some((page.items, (client, page.next, pages + 1))))
        })
        .map_ok(|users| stream::iter(users.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
    }
}
