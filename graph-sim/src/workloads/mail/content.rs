//! The content of a message, and its generation from (seed, mailbox, number).
//!
//! Invariant: [`Generator::message`] is a pure function; nothing it returns is remembered by the generator.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::blob::{Data, Shape, Synthetic};
use crate::options::Population;
use crate::people::People;
use crate::rng::{Rng, mix};
use crate::words::{self, Language};

/// The newest generated message arrived then: 2026-10-31T16:00:00Z.
const NEWEST_MS: u64 = 1_793_462_400_000;
const MESSAGE_SPACING_MS: u64 = 1000 * 60 * 97;
const THREAD_BLOCK: u32 = 8;
const MIN_MESSAGE_BYTES: f64 = 2000.0;
const DEFAULT_MEAN_BYTES: u64 = 60_000;
const SIZE_SIGMA: f64 = 1.5;
const CALIBRATION_SAMPLES: u32 = 20_000;
/// Text of a message in both its forms together.
const MAX_TEXT_BYTES: u64 = 30_000;
const SHARED_PER_CLASS: usize = 6;

/// A name and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub name: String,
    pub address: String,
}

/// Everything a message is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub subject: String,
    pub is_html: bool,
    pub body: String,
    pub from: Option<Person>,
    pub sender: Option<Person>,
    pub to: Vec<Person>,
    pub cc: Vec<Person>,
    pub bcc: Vec<Person>,
    pub reply_to: Vec<Person>,
    pub internet_message_id: String,
    pub in_reply_to: Option<String>,
    pub importance: String,
    pub categories: Vec<String>,
    /// A `followupFlag`; none = not flagged.
    pub flag: Option<Value>,
    pub is_read: bool,
    pub is_draft: bool,
    pub is_read_receipt_requested: bool,
    pub is_delivery_receipt_requested: bool,
    pub sent_ms: u64,
    pub received_ms: u64,
    pub created_ms: u64,
    pub conversation: u64,
    pub headers: Vec<(String, String)>,
    pub attachments: Vec<Attachment>,
    /// Extended properties by id as given.
    pub extended: Vec<(String, String)>,
    /// The MIME as loaded, for messages that came as a file.
    pub raw_mime: Option<Bytes>,
}

/// An attachment.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub key: u32,
    pub name: String,
    pub content_type: String,
    pub is_inline: bool,
    pub content_id: Option<String>,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(Data),
    Item(Arc<Content>),
    Reference,
}

impl Content {
    pub(crate) fn body_type(&self) -> &'static str {
        if self.is_html { "html" } else { "text" }
    }

    pub(crate) fn flag_status(&self) -> &str {
        self.flag
            .as_ref()
            .and_then(|flag| flag.get("flagStatus"))
            .and_then(Value::as_str)
            .unwrap_or("notFlagged")
    }

    pub(crate) fn flag_due(&self) -> Option<&str> {
        self.flag.as_ref()?.get("dueDateTime")?.get("dateTime")?.as_str()
    }

    /// As Exchange has it: inline ones do not count.
    pub(crate) fn has_attachments(&self) -> bool {
        self.attachments.iter().any(|attachment| !attachment.is_inline)
    }
}

/// What part a message plays in its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Received,
    Sent,
    Draft,
}

/// Generates messages.
pub(crate) struct Generator {
    seed: u64,
    people: Arc<People>,
    population: Population,
    scale: f64,
}

impl Generator {
    pub(crate) fn new(seed: u64, people: Arc<People>, population: Population) -> Self {
        let mut generator = Self { seed, people, population, scale: 1.0 };
        generator.calibrate();
        generator
    }

    /// Messages a mailbox starts with; they add up to users × mean, give or take rounding.
    pub(crate) fn count(&self, user: u32) -> u32 {
        let mean = f64::from(self.population.messages_per_user);
        let users = self.population.users;
        if users < 2 {
            return self.population.messages_per_user;
        }
        let weight = |index: u32| 0.4 + 1.2 * (f64::from((index * 7 + 3) % users) / f64::from(users - 1));
        (mean * weight(user)).round() as u32
    }

    /// Scales the log-normal sizes so that, with their bounds, they add up to the wanted total.
    fn calibrate(&mut self) {
        let messages = u64::from(self.population.users) * u64::from(self.population.messages_per_user);
        let mean = match self.population.total_bytes {
            0 => DEFAULT_MEAN_BYTES as f64,
            total => total as f64 / messages.max(1) as f64,
        };
        let mut weights = Vec::new();
        'all: for user in 0..self.population.users {
            for index in 0..self.count(user) {
                weights.push(self.weight(user, index));
                if weights.len() as u32 >= CALIBRATION_SAMPLES {
                    break 'all;
                }
            }
        }
        if weights.is_empty() {
            return;
        }
        self.scale = mean;
        for _ in 0..12 {
            let sum: f64 = weights.iter().map(|weight| self.bounded(*weight)).sum();
            self.scale *= (mean * weights.len() as f64 / sum).clamp(0.25, 4.0);
        }
    }

    fn weight(&self, user: u32, index: u32) -> f64 {
        let mut rng = Rng::new(&[self.seed, 0x0073_697a, u64::from(user), u64::from(index)]);
        (SIZE_SIGMA * rng.normal()).exp()
    }

    fn bounded(&self, weight: f64) -> f64 {
        let most = (self.population.max_message_bytes as f64).max(MIN_MESSAGE_BYTES);
        (weight * self.scale).clamp(MIN_MESSAGE_BYTES, most)
    }

    /// The whole content of a message.
    pub(crate) fn message(&self, user: u32, index: u32, place: Place) -> Content {
        let mut rng = Rng::new(&[self.seed, 0x006d_7367, u64::from(user), u64::from(index)]);
        let (start, position) = self.thread(user, index);
        let thread = mix(self.seed ^ mix((u64::from(user) << 32) | u64::from(start)));
        let language = words::language(thread >> 8);
        let size = self.bounded(self.weight(user, index)) as u64;
        let mut content = Content { conversation: thread, ..Content::default() };
        self.envelope(&mut content, user, index, place, &mut rng);
        content.subject = subject(thread, language, position, &mut rng);
        if position > 0 {
            content.in_reply_to = Some(self.message_id(user, index - 1));
        }
        self.state(&mut content, place, &mut rng);
        content.is_read = self.is_read(user, index, place);
        content.is_html = !rng.percent(25);
        let text_share = if rng.percent(35) { size } else { size.min(3000 + rng.below(9000) as u64) };
        let text_share = text_share.min(MAX_TEXT_BYTES);
        let inline = content.is_html && rng.percent(12) && size > 8000;
        let quote = (position > 0).then(|| self.opening(user, index - 1, language));
        content.body = body(&content, language, quote.as_deref(), text_share / 2, inline, &mut rng);
        let left = size.saturating_sub(2 * content.body.len() as u64);
        self.attach(&mut content, left * 57 / 78, inline, thread, &mut rng);
        content
    }

    /// The first message of the thread and this one's place in it.
    fn thread(&self, user: u32, index: u32) -> (u32, u32) {
        let first = index - index % THREAD_BLOCK;
        let starts = |at: u32| {
            Rng::new(&[self.seed, 0x0074_6872, u64::from(user), u64::from(at)]).percent(45) || at == first
        };
        let start = (first..=index).rev().find(|at| starts(*at)).unwrap_or(first);
        (start, index - start)
    }

    fn message_id(&self, user: u32, index: u32) -> String {
        let number = mix(self.seed ^ mix((u64::from(user) << 32) | u64::from(index)));
        format!("<{number:016X}.{index}@mail{}.contoso.example>", number % 7)
    }

    fn envelope(&self, content: &mut Content, user: u32, index: u32, place: Place, rng: &mut Rng) {
        let owner = self.people.user(user).person();
        let count = u64::from(self.count(user));
        let age = count.saturating_sub(u64::from(index)) * MESSAGE_SPACING_MS;
        let later = u64::from(index).saturating_sub(count) * MESSAGE_SPACING_MS / 60;
        let received = NEWEST_MS - age.min(NEWEST_MS / 2) + later + rng.below(3600) as u64 * 1000;
        content.received_ms = received - received % 1000;
        content.sent_ms = content.received_ms - 1000 * rng.below(20) as u64;
        content.created_ms = content.received_ms;
        content.internet_message_id = self.message_id(user, index);
        let author = if place == Place::Received { self.people.someone(rng) } else { owner.clone() };
        content.sender = Some(author.clone());
        if place == Place::Received && rng.percent(4) {
            content.sender = Some(self.people.someone(rng));
        }
        content.from = Some(author);
        content.to = vec![if place == Place::Received { owner } else { self.people.someone(rng) }];
        for _ in 0..rng.below(4) {
            content.to.push(self.people.someone(rng));
        }
        content.cc = (0..rng.below(3)).map(|_| self.people.someone(rng)).collect();
        if place != Place::Received && rng.percent(15) {
            content.bcc = vec![self.people.someone(rng)];
        }
        if rng.percent(5) {
            content.reply_to = vec![self.people.someone(rng)];
        }
        if place == Place::Received {
            content.headers = vec![
                ("X-Mailer".into(), "Contoso Mail 16.0".into()),
                ("X-Spam-Score".into(), format!("0.{}", rng.below(9))),
            ];
        }
    }

    fn state(&self, content: &mut Content, place: Place, rng: &mut Rng) {
        content.is_draft = place == Place::Draft;
        content.importance = match rng.below(20) {
            0 => "high",
            1 => "low",
            _ => "normal",
        }
        .into();
        if rng.percent(10) {
            content.categories = vec![(*rng.pick(&words::CATEGORIES)).into()];
            if rng.percent(30) {
                content.categories.push("Second look".into());
            }
        }
        match rng.below(25) {
            0 | 1 => content.flag = Some(serde_json::json!({"flagStatus": "flagged"})),
            2 => {
                let day = |hour: u32| serde_json::json!({"dateTime": format!("2026-11-{:02}T{hour:02}:00:00.0000000", 1 + content.received_ms / 1000 % 28), "timeZone": "UTC"});
                content.flag = Some(
                    serde_json::json!({"flagStatus": "flagged", "startDateTime": day(8), "dueDateTime": day(17)}),
                );
            }
            3 => {
                content.flag = Some(
                    serde_json::json!({"flagStatus": "complete", "completedDateTime": {"dateTime": "2026-10-30T00:00:00.0000000", "timeZone": "UTC"}}),
                );
            }
            _ => {}
        }
        content.is_read_receipt_requested = rng.percent(2);
    }

    /// Whether the message starts as read; cheap, for folder counts.
    pub(crate) fn is_read(&self, user: u32, index: u32, place: Place) -> bool {
        place != Place::Received
            || Rng::new(&[self.seed, 0x7265_6164, u64::from(user), u64::from(index)]).percent(70)
    }

    /// The first lines of a message, as its answer quotes them.
    fn opening(&self, user: u32, index: u32, language: &Language) -> String {
        let mut rng = Rng::new(&[self.seed, 0x6f70_656e, u64::from(user), u64::from(index)]);
        let someone = self.people.someone(&mut rng);
        let mut text = format!("{} {}\r\n", someone.name, language.wrote);
        for _ in 0..2 + rng.below(3) {
            text.push_str("> ");
            text.push_str(rng.phrase(language.sentences));
            text.push_str("\r\n");
        }
        text
    }

    fn attach(&self, content: &mut Content, budget: u64, inline: bool, thread: u64, rng: &mut Rng) {
        let mut left = budget;
        if inline {
            let size = (left / 3).clamp(900, 60_000);
            let png = Shape::Binary(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
            content.attachments.push(Attachment {
                key: 0,
                name: "image001.png".into(),
                content_type: "image/png".into(),
                is_inline: true,
                content_id: Some(inline_id(content.conversation)),
                kind: Kind::File(Data::Generated(Synthetic { seed: thread ^ 0x00c1_d000, size, shape: png })),
            });
            left = left.saturating_sub(size);
        }
        let mut room = 1 + rng.below(3);
        while left > 3000 && room > 0 {
            room -= 1;
            let size = if room == 0 { left } else { (left * (20 + rng.below(70) as u64) / 100).max(1000) };
            let attachment = self.file(content.attachments.len() as u32, size, rng);
            if let Kind::File(data) = &attachment.kind {
                left = left.saturating_sub(data.len());
            }
            content.attachments.push(attachment);
        }
        let key = content.attachments.len() as u32;
        if rng.percent(2) {
            content.attachments.push(self.forwarded(key, rng));
        } else if rng.percent(1) {
            content.attachments.push(Attachment {
                key,
                name: format!("{}.docx", rng.pick(&words::FILES)),
                content_type: "application/octet-stream".into(),
                is_inline: false,
                content_id: None,
                kind: Kind::Reference,
            });
        }
    }

    /// A file; four of ten come from the library that all mailboxes share.
    fn file(&self, key: u32, size: u64, rng: &mut Rng) -> Attachment {
        let mut own = Rng::new(&[rng.next()]);
        let mut size = size;
        if rng.percent(40) {
            let class = ((size as f64 / 1000.0).log2() * 4.0).floor().max(0.0);
            size = (1000.0 * (class / 4.0).exp2()) as u64;
            own = Rng::new(&[self.seed, 0x6c69_6272, size, rng.below(SHARED_PER_CLASS) as u64]);
        }
        let (extension, content_type, shape) = file_type(size, &mut own);
        let number = own.below(900);
        Attachment {
            key,
            name: format!("{} {number}.{extension}", own.pick(&words::FILES)),
            content_type: content_type.into(),
            is_inline: false,
            content_id: None,
            kind: Kind::File(Data::Generated(Synthetic { seed: own.next(), size, shape })),
        }
    }

    /// A message attached as an item.
    fn forwarded(&self, key: u32, rng: &mut Rng) -> Attachment {
        let language = words::language(rng.next());
        let author = self.people.someone(rng);
        let sent_ms = NEWEST_MS - 1000 * rng.below(60_000_000) as u64;
        let item = Content {
            subject: (*rng.pick(language.subjects)).into(),
            body: format!("{}\r\n\r\n{}\r\n", rng.pick(language.greetings), rng.pick(language.sentences)),
            from: Some(author.clone()),
            sender: Some(author),
            to: vec![self.people.someone(rng)],
            internet_message_id: format!("<{:016X}@attached.contoso.example>", rng.next()),
            importance: "normal".into(),
            is_read: true,
            sent_ms,
            received_ms: sent_ms,
            created_ms: sent_ms,
            conversation: rng.next(),
            ..Content::default()
        };
        Attachment {
            key,
            name: item.subject.clone(),
            content_type: "message/rfc822".into(),
            is_inline: false,
            content_id: None,
            kind: Kind::Item(Arc::new(item)),
        }
    }
}

fn inline_id(conversation: u64) -> String {
    format!("image001.png@{:08X}.{:08X}", (conversation >> 32) as u32, conversation as u32)
}

fn subject(thread: u64, language: &Language, position: u32, rng: &mut Rng) -> String {
    let mut own = Rng::new(&[thread, 0x7375_626a]);
    let base = own.pick(language.subjects);
    let number = own.below(400);
    match position {
        0 => format!("{base} {number}"),
        _ if rng.percent(15) => format!("{}{base} {number}", language.forward),
        _ => format!("{}{base} {number}", language.reply),
    }
}

fn body(
    content: &Content,
    language: &Language,
    quote: Option<&str>,
    target: u64,
    inline: bool,
    rng: &mut Rng,
) -> String {
    let author = content.from.as_ref().map_or("", |person| person.name.as_str());
    let mut paragraphs = vec![(*rng.pick(language.greetings)).to_owned()];
    let mut length = 200 + quote.map_or(0, str::len);
    loop {
        let mut paragraph = String::new();
        for _ in 0..1 + rng.below(5) {
            paragraph.push_str(rng.phrase(language.sentences));
            paragraph.push(' ');
        }
        length += paragraph.len();
        paragraphs.push(paragraph);
        if length as u64 >= target {
            break;
        }
    }
    paragraphs.push(format!("{}\r\n{author}", rng.pick(language.closings)));
    if !content.is_html {
        let mut text = paragraphs.join("\r\n\r\n");
        text.push_str("\r\n");
        if let Some(quote) = quote {
            text.push_str("\r\n");
            text.push_str(quote);
        }
        return text;
    }
    let mut html = String::from(
        "<html><head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body>\r\n",
    );
    for paragraph in &paragraphs {
        html.push_str("<p class=\"MsoNormal\">");
        html.push_str(&paragraph.replace("\r\n", "<br>\r\n"));
        html.push_str("</p>\r\n");
    }
    if inline {
        html.push_str(&format!(
            "<p><img width=\"200\" src=\"cid:{}\"></p>\r\n",
            inline_id(content.conversation)
        ));
    }
    if let Some(quote) = quote {
        html.push_str("<blockquote>");
        html.push_str(&quote.replace("> ", "&gt; ").replace("\r\n", "<br>\r\n"));
        html.push_str("</blockquote>\r\n");
    }
    html.push_str("</body></html>\r\n");
    html
}

fn file_type(size: u64, rng: &mut Rng) -> (&'static str, &'static str, Shape) {
    const ZIP: Shape = Shape::Binary(b"PK\x03\x04\x14\0\x06\0\x08\0");
    match rng.below(if size < 200_000 { 8 } else { 6 }) {
        0 | 1 => ("pdf", "application/pdf", Shape::Binary(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")),
        2 => ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ZIP),
        3 => ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ZIP),
        4 => ("jpg", "image/jpeg", Shape::Binary(b"\xff\xd8\xff\xe0\0\x10JFIF\0")),
        5 => ("csv", "text/csv", Shape::Text),
        6 => ("txt", "text/plain", Shape::Text),
        _ => ("ics", "text/calendar", Shape::Text),
    }
}
