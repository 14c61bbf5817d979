//! The typed API per workload.

mod attachment;
mod mail_folder;
mod mail_message;
mod mail_restore;
mod upload;
mod user;

#[cfg(test)]
mod tests;

pub use attachment::{AttachmentInfo, AttachmentKind, ExpandItem};
pub use mail_folder::{FolderChange, MailFolder};
pub use mail_message::{MailMessage, MarkedMessage, MessageChange, MessageFlags};
pub use mail_restore::CreatedMessage;
pub use upload::{NewAttachment, UploadProgress, UploadSession};
pub use user::GraphUser;
