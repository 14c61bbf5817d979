//! The calendars: read whole, put into the manifest where they changed.

use holdfast_graph_client::Calendar;
use serde_json::json;

use crate::{
    JobError,
    backup::BackupContext,
    workload::{
        collect::Container,
        stored::{FolderToPut, ROOT_ID},
    },
};

/// The word for the calendar that every mailbox has: in a path of Microsoft's it stands without an id.
pub(super) const DEFAULT_CALENDAR: &str = "calendar";

/// The calendars of a run.
pub(super) struct Calendars {
    /// Their ids, the default one first.
    pub(super) ids: Vec<String>,
    pub(super) containers: Vec<Container>,
    default_id: Option<String>,
}

impl Calendars {
    /// Reads the calendars and puts what changed into the manifest. Those that others share with the user are left out: they
    /// are in the mailboxes of those others.
    pub(super) async fn sync(context: &BackupContext) -> Result<Self, JobError> {
        let groups = context.graph.calendar_groups(&context.user).await?;
        let mut listed = context.graph.calendars(&context.user).await?;
        keep_own(&mut listed);
        listed.sort_by_key(|one| !one.is_default);
        let root = json!({ "displayName": "", "calendarGroups": groups }).to_string();
        FolderToPut::root(&root).put(&context.manifest).await?;
        let (mut ids, mut containers) = (Vec::new(), Vec::new());
        for calendar in &listed {
            let put = FolderToPut {
                id: &calendar.id,
                parent_id: Some(ROOT_ID),
                raw: &calendar.raw.to_string(),
                well_known: calendar.is_default.then_some(DEFAULT_CALENDAR),
            };
            put.put(&context.manifest).await?;
            let path = format!("/{}", calendar.name.replace('/', "\u{2215}"));
            ids.push(calendar.id.clone());
            containers.push(Container::new(&calendar.id, path));
        }
        let default_id = listed.iter().find(|one| one.is_default).map(|one| one.id.clone());
        Ok(Self { ids, containers, default_id })
    }

    /// Whether it is the one that every mailbox has.
    pub(super) fn is_default(&self, id: &str) -> bool {
        self.default_id.as_deref() == Some(id)
    }
}

/// Leaves those out that others share with the user.
pub(super) fn keep_own(calendars: &mut Vec<Calendar>) {
    let owner = calendars.iter().find(|one| one.is_default).and_then(|one| one.owner.clone());
    calendars.retain(|one| is_own(one, owner.as_deref()));
}

/// Whether a calendar is the user's own; `owner` has the default one. Where Microsoft names no owner it is.
fn is_own(calendar: &Calendar, owner: Option<&str>) -> bool {
    match (&calendar.owner, owner) {
        (Some(one), Some(owner)) => one.eq_ignore_ascii_case(owner),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calendar_of_somebody_else_is_left_out_and_one_without_owner_is_not() {
        let calendar = |owner: Option<&str>| Calendar {
            id: "c".into(),
            name: "C".into(),
            is_default: false,
            owner: owner.map(str::to_owned),
            raw: json!({}),
        };
        assert!(is_own(&calendar(Some("Alex@x.example")), Some("alex@x.example")));
        assert!(!is_own(&calendar(Some("kim@x.example")), Some("alex@x.example")));
        assert!(is_own(&calendar(None), Some("alex@x.example")) && is_own(&calendar(Some("kim")), None));
    }
}
