//! The parts of Microsoft 365 that answer calls: how each finds a person, what it limits together, how it refuses.
//!
//! Invariant: all workloads of one backend share its limits; what is limited together is a [`Scope`]. A backend with
//! another kind of allowance brings its own scope, and [`crate::limits`] what a call costs there.

use crate::http::{Refusal, refuse};
use crate::limits::Scope;
use crate::options::SimOptions;
use crate::workloads::drive::ids::drive_owner;
use crate::workloads::route::Params;
use crate::world::World;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The tenant's directory; its own limits are not simulated.
    Directory,
    /// Exchange: mail, contacts, To Do and calendars of a mailbox share the mailbox's limits.
    Outlook,
    /// SharePoint: all drives of the tenant share its limits.
    SharePoint,
}

/// What a call turned out to be about.
pub(crate) struct Subject {
    /// Number of the person; none for calls about the tenant.
    pub user: Option<u32>,
    /// What the call is charged to; none = nothing is limited.
    pub scope: Option<Scope>,
}

impl Backend {
    /// The person a path names, or whose drive it names, as this backend knows people.
    pub(crate) fn subject(
        self,
        world: &World,
        options: &SimOptions,
        params: &Params,
    ) -> Result<Subject, Refusal> {
        match (self, params.get("user")) {
            (Self::SharePoint, name) => {
                let user = match name {
                    Some(name) => world.people.find(name),
                    None => params.get("drive").and_then(|drive| drive_owner(world, drive)),
                };
                let missing = || refuse(404, "itemNotFound", "The resource could not be found.");
                let user = user.ok_or_else(missing)?;
                has_drive(options, user)?;
                Ok(Subject { user: Some(user), scope: Some(Scope::SharePoint) })
            }
            (Self::Outlook, Some(name)) => {
                let missing = || refuse(404, "ErrorInvalidUser", "The requested user is invalid.");
                let user = world.people.find(name).ok_or_else(missing)?;
                has_mailbox(options, user)?;
                Ok(Subject { user: Some(user), scope: Some(Scope::Mailbox(user)) })
            }
            (Self::Directory | Self::Outlook, _) => Ok(Subject { user: None, scope: None }),
        }
    }

    /// The answer to an app without the role.
    pub(crate) fn access_denied(self) -> Refusal {
        match self {
            Self::Directory => {
                let text = "Insufficient privileges to complete the operation.";
                refuse(403, "Authorization_RequestDenied", text)
            }
            Self::SharePoint => refuse(403, "accessDenied", "Access denied."),
            Self::Outlook => {
                refuse(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
            }
        }
    }
}

fn has_drive(options: &SimOptions, user: u32) -> Result<(), Refusal> {
    let population = &options.population;
    let opened = population.users.saturating_sub(population.users_without_drive);
    if user >= opened {
        return Err(refuse(404, "ResourceNotFound", "User's mysite not found."));
    }
    if user >= opened.saturating_sub(population.users_with_locked_drive) {
        return Err(refuse(403, "accessDenied", "The site is locked.").inner("notAllowed"));
    }
    Ok(())
}

fn has_mailbox(options: &SimOptions, user: u32) -> Result<(), Refusal> {
    let population = &options.population;
    if user < population.users.saturating_sub(population.users_without_mailbox) {
        return Ok(());
    }
    let text = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
    Err(refuse(404, "MailboxNotEnabledForRESTAPI", text))
}
