//! What is protected, and how an operator writes it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of data that Holdfast knows how to protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Mail folders and messages of one mailbox.
    Mail,
    /// Calendars and events of one mailbox.
    Calendar,
    /// Contact folders and contacts of one mailbox.
    Contacts,
    /// To Do lists and tasks of one mailbox.
    Tasks,
    /// The files of one person's drive.
    OneDrive,
}

impl Workload {
    /// Every workload, in the order in which lists show them.
    pub const ALL: [Self; 5] = [Self::Mail, Self::Calendar, Self::Contacts, Self::Tasks, Self::OneDrive];

    /// What `user:NAME` stands for: a person is protected when all of these are.
    pub const OF_A_USER: &[Self] = &Self::ALL;

    /// The code in records and pins. Never reused.
    pub fn code(self) -> u8 {
        match self {
            Self::Mail => 1,
            Self::Calendar => 2,
            Self::Contacts => 3,
            Self::Tasks => 4,
            Self::OneDrive => 5,
        }
    }

    /// Reads the code back.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.code() == code)
    }

    /// The word an operator types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Calendar => "calendar",
            Self::Contacts => "contacts",
            Self::Tasks => "tasks",
            Self::OneDrive => "onedrive",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Workload {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, ParseResourceError> {
        let expected = "a workload: mail, calendar, contacts, tasks or onedrive";
        let found = Self::ALL.into_iter().find(|workload| workload.as_str() == text);
        found.ok_or_else(|| ParseResourceError { text: text.to_owned(), expected })
    }
}

/// What kind of thing a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A person, or a shared mailbox.
    User,
}

impl ResourceKind {
    /// The prefix in a resource's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
        }
    }
}

/// A resource as an operator writes it: `user:alex@contoso.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    /// The part before the colon.
    pub kind: ResourceKind,
    /// The part after it: a user principal name or Microsoft's id, compared without case.
    pub name: String,
}

/// The text does not name what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct ParseResourceError {
    /// What was typed.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for ResourceName {
    type Err = ParseResourceError;

    fn from_str(text: &str) -> Result<Self, ParseResourceError> {
        match text.split_once(':') {
            Some(("user", name)) if !name.is_empty() => {
                Ok(Self { kind: ResourceKind::User, name: name.to_owned() })
            }
            _ => Err(ParseResourceError {
                text: text.to_owned(),
                expected: "a resource: write user:NAME, for example user:alex@contoso.com",
            }),
        }
    }
}
