//! The typed API per workload: each in its own files, and one line here.

mod attachment;
mod calendar;
mod contacts;
mod drive;
mod mail_folder;
mod mail_message;
mod mail_restore;
mod mailbox_settings;
mod outlook;
mod search_folder;
mod todo;
mod upload;
mod user;

#[cfg(test)]
mod tests;

pub use attachment::{AttachmentInfo, AttachmentKind, AttachmentOwner, ExpandItem};
pub use calendar::*;
pub use contacts::{Contact, ContactChange, ContactFolder};
pub use drive::*;
pub use mail_folder::{FolderChange, MailFolder};
pub use mail_message::{MailMessage, MarkedMessage, MessageChange, MessageFlags};
pub use mail_restore::CreatedMessage;
pub use mailbox_settings::{InboxRule, MailCategory};
pub use outlook::{Change, MarkedItem};
pub use search_folder::{MarkedFolder, RECOVERABLE_ITEMS, SEARCH_FOLDERS};
pub use todo::{TodoList, TodoListChange, TodoTask, TodoTaskChange, TodoTaskPart, restore_extension};
pub use upload::{NewAttachment, UploadProgress, UploadSession};
pub use user::GraphUser;
