//! Which call a path is.
//!
//! Invariant: literals compare without case, ids with it.

use http::Method;

use crate::http::{Refusal, refuse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Users,
    UsersDelta,
    User,
    /// Any call that would send mail to people.
    Send,
    Folders,
    FolderDelta,
    Folder,
    Messages,
    MessageDelta,
    Message,
    MessageValue,
    MessageMove,
    Attachments,
    UploadSession,
    Attachment,
    AttachmentValue,
}

impl Route {
    pub(crate) fn is_directory(self) -> bool {
        matches!(self, Self::Users | Self::UsersDelta | Self::User)
    }

    /// The name it is counted by.
    pub(crate) fn kind(self, method: &Method) -> &'static str {
        let (get, post, patch) = (*method == Method::GET, *method == Method::POST, *method == Method::PATCH);
        match self {
            Self::Users => "user_list",
            Self::UsersDelta => "user_delta",
            Self::User => "user_get",
            Self::Send => "send",
            Self::Folders if post => "folder_create",
            Self::Folders => "folder_list",
            Self::FolderDelta => "folder_delta",
            Self::Folder if get => "folder_get",
            Self::Folder if patch => "folder_patch",
            Self::Folder => "folder_delete",
            Self::Messages if post => "message_create",
            Self::Messages => "message_list",
            Self::MessageDelta => "message_delta",
            Self::Message if get => "message_get",
            Self::Message if patch => "message_patch",
            Self::Message => "message_delete",
            Self::MessageValue => "message_value",
            Self::MessageMove => "message_move",
            Self::Attachments if post => "attachment_create",
            Self::Attachments => "attachment_list",
            Self::UploadSession => "upload_session",
            Self::Attachment if get => "attachment_get",
            Self::Attachment => "attachment_delete",
            Self::AttachmentValue => "attachment_value",
        }
    }

    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Send | Self::MessageMove | Self::UploadSession => *method == Method::POST,
            Self::Folders | Self::Messages | Self::Attachments => {
                *method == Method::GET || *method == Method::POST
            }
            Self::Folder | Self::Message => {
                *method == Method::GET || *method == Method::PATCH || *method == Method::DELETE
            }
            Self::Attachment => *method == Method::GET || *method == Method::DELETE,
            _ => *method == Method::GET,
        }
    }
}

/// A route with the ids its path names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub route: Route,
    pub user: Option<String>,
    pub folder: Option<String>,
    pub message: Option<String>,
    pub attachment: Option<String>,
}

/// Finds the call; `segments` are decoded and start with `users`.
pub(crate) fn find(method: &Method, segments: &[String]) -> Result<Target, Refusal> {
    let lower: Vec<String> = segments
        .iter()
        .map(|segment| segment.to_ascii_lowercase())
        .map(|segment| segment.strip_suffix("()").map_or(segment.clone(), ToOwned::to_owned))
        .collect();
    let names: Vec<&str> = lower.iter().map(String::as_str).collect();
    let at = |index: usize| segments.get(index).cloned();
    let mut target =
        Target { route: Route::Users, user: at(1), folder: None, message: None, attachment: None };
    let route = match names.as_slice() {
        ["users"] => Route::Users,
        ["users", "delta"] => Route::UsersDelta,
        ["users", _] => Route::User,
        ["users", _, "sendmail"] => Route::Send,
        ["users", _, "mailfolders"] => Route::Folders,
        ["users", _, "mailfolders", "delta"] => Route::FolderDelta,
        ["users", _, "mailfolders", _, rest @ ..] => {
            target.folder = at(3);
            match rest {
                [] => Route::Folder,
                ["childfolders"] => Route::Folders,
                ["messages"] => Route::Messages,
                ["messages", "delta"] => Route::MessageDelta,
                ["messages", _, rest @ ..] => {
                    target.message = at(5);
                    target.attachment = at(7);
                    of_message(rest).ok_or_else(|| unknown(segments))?
                }
                _ => return Err(unknown(segments)),
            }
        }
        ["users", _, "messages"] => Route::Messages,
        ["users", _, "messages", "delta"] => {
            return Err(refuse(
                400,
                "ErrorInvalidRequest",
                "Change tracking is not supported against this resource.",
            ));
        }
        ["users", _, "messages", _, rest @ ..] => {
            target.message = at(3);
            target.attachment = at(5);
            of_message(rest).ok_or_else(|| unknown(segments))?
        }
        _ => return Err(unknown(segments)),
    };
    target.route = route;
    if !route.allows(method) {
        return Err(refuse(405, "Request_BadRequest", format!("The method {method} is not allowed here.")));
    }
    Ok(target)
}

fn of_message(rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Message,
        ["$value"] => Route::MessageValue,
        ["move"] => Route::MessageMove,
        ["send" | "reply" | "replyall" | "forward"] => Route::Send,
        ["attachments"] => Route::Attachments,
        ["attachments", "createuploadsession"] => Route::UploadSession,
        ["attachments", _] => Route::Attachment,
        ["attachments", _, "$value"] => Route::AttachmentValue,
        _ => return None,
    })
}

fn unknown(segments: &[String]) -> Refusal {
    let last = segments.last().map_or("", String::as_str);
    refuse(400, "BadRequest", format!("Resource not found for the segment '{last}'."))
}
