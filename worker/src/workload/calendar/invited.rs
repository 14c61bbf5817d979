//! Who was invited, as text: a restored event names them where it cannot invite them.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The body of an event with its organizer and those who were invited on top; none where nobody was.
pub(super) fn body_with_invited(event: &Value) -> Option<Value> {
    let attendees = event.get("attendees").and_then(Value::as_array).filter(|all| !all.is_empty())?;
    let body = event.get("body");
    let text = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
    let is_html = text("contentType").is_some_and(|kind| kind.eq_ignore_ascii_case("html"));
    let mut lines = vec![format!("Organizer: {}", person(event.get("organizer")))];
    lines.extend(attendees.iter().map(attendee));
    let content = text("content").unwrap_or_default();
    let content =
        if is_html { with_html(&lines, content) } else { lines.join("\r\n") + "\r\n\r\n" + content };
    Some(json!({ "contentType": if is_html { "html" } else { "text" }, "content": content }))
}

fn attendee(attendee: &Value) -> String {
    let kind = match attendee.get("type").and_then(Value::as_str) {
        Some("optional") => "Optional",
        Some("resource") => "Resource",
        _ => "Required",
    };
    let answer = attendee.get("status").and_then(|status| status.get("response")).and_then(Value::as_str);
    let mut line = format!("{kind}: {}", person(Some(attendee)));
    if let Some(answer) = answer.filter(|answer| *answer != "none") {
        // Writing to a string cannot fail.
        let _ = write!(line, " ({answer})");
    }
    line
}

/// `Name <address>`
fn person(recipient: Option<&Value>) -> String {
    let address = recipient.and_then(|recipient| recipient.get("emailAddress"));
    let text = |name: &str| {
        address.and_then(|address| address.get(name)).and_then(Value::as_str).unwrap_or_default()
    };
    match (text("name"), text("address")) {
        ("", address) => address.to_owned(),
        (name, "") => name.to_owned(),
        (name, address) => format!("{name} <{address}>"),
    }
}

/// The lines as the first paragraph of the page.
fn with_html(lines: &[String], page: &str) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    let paragraph = format!("<p>{}</p>", lines.join("<br>"));
    // ASCII lower case keeps every offset.
    let at =
        page.to_ascii_lowercase().find("<body").and_then(|body| Some(body + page[body..].find('>')? + 1));
    let (before, after) = page.split_at(at.unwrap_or(0));
    format!("{before}{paragraph}{after}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, content: &str) -> Value {
        json!({
            "organizer": { "emailAddress": { "name": "O", "address": "o@x" } },
            "attendees": [
                { "type": "required", "emailAddress": { "address": "a@x" }, "status": { "response": "accepted" } },
                { "type": "optional", "emailAddress": { "name": "B & C", "address": "b@x" } },
            ],
            "body": { "contentType": kind, "content": content },
        })
    }

    #[test]
    fn those_who_were_invited_are_named_in_the_text() {
        let text = body_with_invited(&event("text", "hello")).unwrap();
        let lines = "Organizer: O <o@x>\r\nRequired: a@x (accepted)\r\nOptional: B & C <b@x>\r\n\r\nhello";
        assert_eq!(text, json!({ "contentType": "text", "content": lines }));
        let html = body_with_invited(&event("html", "<html><BODY lang=x>hi</BODY></html>")).unwrap();
        let expected = "<html><BODY lang=x><p>Organizer: O &lt;o@x&gt;<br>Required: a@x (accepted)<br>\
                        Optional: B &amp; C &lt;b@x&gt;</p>hi</BODY></html>";
        assert_eq!(html["content"], expected);
    }

    #[test]
    fn an_event_without_attendees_keeps_its_body() {
        assert_eq!(body_with_invited(&json!({ "attendees": [], "body": {} })), None);
        assert_eq!(body_with_invited(&json!({})), None);
    }
}
