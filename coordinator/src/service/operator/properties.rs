//! What is shown and searched of the properties that the worker stored: Microsoft's JSON, of every kind of item. The rest stays
//! unread.

use holdfast_proto::coordinator::BrowseEntry;
use holdfast_repository::{EntryFlags, EntryKind, ItemEntry, ItemKey};
use serde::Deserialize;

/// The properties of any kind of item. Every one may be absent, or null.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Properties {
    display_name: Option<String>,
    name: Option<String>,
    title: Option<String>,
    subject: Option<String>,
    from: Option<Recipient>,
    sender: Option<Recipient>,
    organizer: Option<Recipient>,
    to_recipients: Option<Vec<Recipient>>,
    cc_recipients: Option<Vec<Recipient>>,
    bcc_recipients: Option<Vec<Recipient>>,
    attendees: Option<Vec<Recipient>>,
    email_addresses: Option<Vec<Address>>,
    created_by: Option<Identities>,
    last_modified_by: Option<Identities>,
    received_date_time: Option<String>,
    last_modified_date_time: Option<String>,
    file_system_info: Option<FileSystemInfo>,
    start: Option<UtcTime>,
    due_date_time: Option<UtcTime>,
    has_attachments: Option<bool>,
    #[serde(rename = "_holdfast")]
    holdfast: Option<Holdfast>,
}

/// What the worker added.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Holdfast {
    well_known: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Recipient {
    email_address: Option<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    name: Option<String>,
    address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Identities {
    user: Option<Identity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    display_name: Option<String>,
    email: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FileSystemInfo {
    last_modified_date_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UtcTime {
    date_time: Option<String>,
}

impl Properties {
    /// Properties that cannot be read are shown as absent: one strange item must not hide its folder.
    pub(super) fn read(meta: &[u8]) -> Self {
        serde_json::from_slice(meta).unwrap_or_default()
    }

    /// A folder's well-known name.
    pub(super) fn well_known(&self) -> Option<&str> {
        self.holdfast.as_ref()?.well_known.as_deref()
    }

    /// What people call the item; empty where it has no name.
    pub(super) fn name(&self, kind: EntryKind) -> &str {
        let name = match kind {
            // A calendar has a name, every other folder a display name.
            EntryKind::Folder => self.display_name.as_ref().or(self.name.as_ref()),
            EntryKind::MailMessage | EntryKind::CalendarEvent => self.subject.as_ref(),
            EntryKind::Contact => self.display_name.as_ref(),
            EntryKind::Task => self.title.as_ref(),
            EntryKind::DriveFile | EntryKind::DriveFolder => self.name.as_ref(),
        };
        name.map_or("", String::as_str)
    }

    /// When it happened, is due, or was changed; none where that says nothing, or nothing that can be read.
    pub(super) fn time_ms(&self, kind: EntryKind) -> Option<u64> {
        let changed = self.last_modified_date_time.as_deref();
        match kind {
            EntryKind::Folder => None,
            EntryKind::MailMessage => self.received_date_time.as_deref().and_then(instant_ms),
            EntryKind::CalendarEvent => self.start.as_ref().and_then(UtcTime::instant_ms),
            EntryKind::Task => self.due_date_time.as_ref().and_then(UtcTime::instant_ms),
            EntryKind::Contact => changed.and_then(instant_ms),
            EntryKind::DriveFile | EntryKind::DriveFolder => {
                let own =
                    self.file_system_info.as_ref().and_then(|info| info.last_modified_date_time.as_deref());
                own.or(changed).and_then(instant_ms)
            }
        }
    }

    /// The names and addresses of whom it comes from: sender, organizer, the contact itself, who made or changed a file.
    pub(super) fn senders(&self) -> impl Iterator<Item = &str> {
        let recipients = [&self.from, &self.sender, &self.organizer].into_iter().flatten();
        let addresses = recipients.filter_map(|recipient| recipient.email_address.as_ref());
        let addresses = addresses.chain(self.email_addresses.iter().flatten());
        let identities = [&self.last_modified_by, &self.created_by].into_iter().flatten();
        let users = identities.filter_map(|identities| identities.user.as_ref());
        let of_users = users.flat_map(|user| [&user.email, &user.display_name]);
        addresses.flat_map(Address::texts).chain(of_users).flatten().map(String::as_str)
    }

    /// The names and addresses of whom it went to: recipients, attendees.
    pub(super) fn recipients(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.to_recipients, &self.cc_recipients, &self.bcc_recipients, &self.attendees];
        let recipients = lists.into_iter().flatten().flatten();
        let addresses = recipients.filter_map(|recipient| recipient.email_address.as_ref());
        addresses.flat_map(Address::texts).flatten().map(String::as_str)
    }

    /// The item as a listing shows it.
    pub(super) fn entry(&self, key: &ItemKey, item: &ItemEntry) -> BrowseEntry {
        let flagged = item.flags.contains(EntryFlags::HAS_ATTACHMENTS);
        BrowseEntry {
            kind: kind_word(item.kind).to_owned(),
            id: String::from_utf8_lossy(&key.0).into_owned(),
            name: self.name(item.kind).to_owned(),
            who: self.senders().next().unwrap_or_default().to_owned(),
            time_ms: self.time_ms(item.kind).unwrap_or(0),
            size: item.size,
            stale: item.flags.contains(EntryFlags::STALE),
            has_attachments: self.has_attachments.unwrap_or(flagged),
        }
    }
}

impl Address {
    /// The address first: it is what tells two people of one name apart.
    fn texts(&self) -> [&Option<String>; 2] {
        [&self.address, &self.name]
    }
}

impl UtcTime {
    /// Graph answers in UTC unless it is asked otherwise, which nobody here does.
    fn instant_ms(&self) -> Option<u64> {
        let local: jiff::civil::DateTime = self.date_time.as_deref()?.parse().ok()?;
        let at = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        u64::try_from(at.timestamp().as_millisecond()).ok()
    }
}

fn instant_ms(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// The word for a kind on the wire.
pub(super) fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Folder => "folder",
        EntryKind::MailMessage => "mail_message",
        EntryKind::CalendarEvent => "calendar_event",
        EntryKind::Contact => "contact",
        EntryKind::Task => "task",
        EntryKind::DriveFile => "drive_file",
        EntryKind::DriveFolder => "drive_folder",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOON: u64 = 1_767_268_800_000;

    fn shown(kind: EntryKind, meta: &Value) -> (String, String, u64) {
        let properties = Properties::read(meta.to_string().as_bytes());
        let who = properties.senders().next().unwrap_or_default().to_owned();
        (properties.name(kind).to_owned(), who, properties.time_ms(kind).unwrap_or(0))
    }

    fn row(name: &str, who: &str, time_ms: u64) -> (String, String, u64) {
        (name.to_owned(), who.to_owned(), time_ms)
    }

    #[test]
    fn every_kind_shows_its_name_its_person_and_its_time() {
        let ann = json!({ "emailAddress": { "name": "Ann", "address": "ann@x.test" } });
        let message = json!({ "subject": "Hello", "from": ann, "receivedDateTime": "2026-01-01T12:00:00Z" });
        assert_eq!(shown(EntryKind::MailMessage, &message), row("Hello", "ann@x.test", NOON));
        let start = json!({ "dateTime": "2026-01-01T12:00:00.0000000", "timeZone": "UTC" });
        let event = json!({ "subject": "Lunch", "organizer": ann, "start": start });
        assert_eq!(shown(EntryKind::CalendarEvent, &event), row("Lunch", "ann@x.test", NOON));
        let contact = json!({ "displayName": "Ann", "emailAddresses": [{ "address": "ann@x.test" }],
                              "lastModifiedDateTime": "2026-01-01T12:00:00Z" });
        assert_eq!(shown(EntryKind::Contact, &contact), row("Ann", "ann@x.test", NOON));
        let task = json!({ "title": "Pay", "dueDateTime": start });
        assert_eq!(shown(EntryKind::Task, &task), row("Pay", "", NOON));
        let file = json!({ "name": "a.txt", "lastModifiedDateTime": "2026-02-02T00:00:00Z",
                           "fileSystemInfo": { "lastModifiedDateTime": "2026-01-01T12:00:00Z" },
                           "lastModifiedBy": { "user": { "displayName": "Ann", "email": "ann@x.test" } } });
        assert_eq!(shown(EntryKind::DriveFile, &file), row("a.txt", "ann@x.test", NOON));
        assert_eq!(shown(EntryKind::Folder, &json!({ "name": "Calendar" })), row("Calendar", "", 0));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        for meta in [json!(null), json!({ "subject": 7 }), json!({ "subject": null, "from": null })] {
            assert_eq!(shown(EntryKind::MailMessage, &meta), row("", "", 0));
        }
        let event = json!({ "subject": "Lunch", "start": { "dateTime": "soon", "timeZone": "UTC" } });
        assert_eq!(shown(EntryKind::CalendarEvent, &event), row("Lunch", "", 0));
    }
}
