//! The application permissions that a tenant's two apps need, and which of them their tokens bring.

use holdfast_model::Workload;
use holdfast_proto::coordinator::PermissionCheck;

use crate::graph_access::App;

/// The permission shown to the administrator, and others that grant as much.
type Need = (&'static str, &'static [&'static str]);

const USERS: Need = (
    "User.Read.All",
    &["User.ReadBasic.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"],
);

/// Rules, categories and settings are in the mailbox too, and ask for a right of their own.
fn settings(app: App) -> Need {
    match app {
        App::Backup => ("MailboxSettings.Read", &["MailboxSettings.ReadWrite"]),
        App::Restore => ("MailboxSettings.ReadWrite", &[]),
    }
}

/// What an app needs for the workloads of a person, against what its token brings.
pub(super) fn check(app: App, roles: &[String]) -> Vec<PermissionCheck> {
    let check = |(permission, others): Need| PermissionCheck {
        permission: permission.to_owned(),
        needed_for: app.to_string(),
        granted: roles.iter().any(|role| role == permission || others.contains(&role.as_str())),
    };
    let of_workloads = Workload::OF_A_USER.iter().map(|workload| need(app, *workload));
    // The backup app discovers the users as well.
    let users = matches!(app, App::Backup).then_some(USERS);
    of_workloads.chain([settings(app)]).chain(users).map(check).collect()
}

fn need(app: App, workload: Workload) -> Need {
    match (workload, app) {
        (Workload::Mail, App::Backup) => ("Mail.Read", &["Mail.ReadWrite"]),
        (Workload::Mail, App::Restore) => ("Mail.ReadWrite", &[]),
        (Workload::Calendar, App::Backup) => ("Calendars.Read", &["Calendars.ReadWrite"]),
        (Workload::Calendar, App::Restore) => ("Calendars.ReadWrite", &[]),
        (Workload::Contacts, App::Backup) => ("Contacts.Read", &["Contacts.ReadWrite"]),
        (Workload::Contacts, App::Restore) => ("Contacts.ReadWrite", &[]),
        (Workload::Tasks, App::Backup) => ("Tasks.Read.All", &["Tasks.ReadWrite.All"]),
        (Workload::Tasks, App::Restore) => ("Tasks.ReadWrite.All", &[]),
        (Workload::OneDrive, App::Backup) => {
            ("Files.Read.All", &["Files.ReadWrite.All", "Sites.Read.All", "Sites.ReadWrite.All"])
        }
        (Workload::OneDrive, App::Restore) => ("Files.ReadWrite.All", &["Sites.ReadWrite.All"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(app: App, roles: &[&str]) -> Vec<(String, bool)> {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        check(app, &roles).into_iter().map(|check| (check.permission, check.granted)).collect()
    }

    #[test]
    fn missing_permissions_are_told_one_by_one() {
        let checks = granted(App::Backup, &["User.ReadBasic.All", "Mail.ReadWrite"]);
        assert!(checks.contains(&("Mail.Read".to_owned(), true)), "{checks:?}");
        assert!(checks.contains(&("Contacts.Read".to_owned(), false)), "{checks:?}");
        assert!(checks.contains(&("User.Read.All".to_owned(), true)), "{checks:?}");
    }

    #[test]
    fn every_workload_of_a_person_needs_a_permission_of_its_own() {
        for app in [App::Backup, App::Restore] {
            let needs: std::collections::BTreeSet<_> = Workload::ALL.map(|w| need(app, w).0).into();
            assert_eq!(needs.len(), Workload::ALL.len(), "{app}");
        }
        let checks = granted(App::Restore, &["Mail.Read"]);
        assert_eq!(checks.len(), Workload::OF_A_USER.len() + 1, "mail needs two");
        assert!(checks.iter().all(|(_, granted)| !granted), "who may read may not write: {checks:?}");
    }
}
