//! Makes time pass in the tenant: new mail, edits, moves, deletions, flags.
//!
//! Invariant: no message is chosen twice in one evolution, so the counts given back are exact.

use serde::{Deserialize, Serialize};

use crate::mailbox::{INBOX, Mailbox, SENT};
use crate::rng::Rng;
use crate::world::World;

/// How much happens, over all chosen mailboxes together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Evolution {
    pub seed: u64,
    pub new: u64,
    pub edited: u64,
    pub moved: u64,
    pub deleted: u64,
    pub flags: u64,
    /// Ids or principal names; empty = everybody.
    pub users: Vec<String>,
}

/// What did happen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Evolved {
    pub new: u64,
    pub edited: u64,
    pub moved: u64,
    pub deleted: u64,
    pub flags: u64,
    pub users: u64,
}

#[derive(Clone, Copy)]
enum Step {
    Edit,
    Move,
    Delete,
    Flag,
}

/// Lets it happen; an unknown user is the error.
pub(crate) fn evolve(world: &World, evolution: &Evolution) -> Result<Evolved, String> {
    let mut users = Vec::new();
    for name in &evolution.users {
        users.push(world.people.find(name).ok_or_else(|| name.clone())?);
    }
    if evolution.users.is_empty() {
        users = (0..world.people.len() as u32).collect();
    }
    let mut done = Evolved { users: users.len() as u64, ..Evolved::default() };
    for (at, user) in users.iter().enumerate() {
        let share = |total: u64| {
            let (count, at) = (users.len() as u64, at as u64);
            total / count + u64::from(at < total % count)
        };
        let mut rng = Rng::new(&[evolution.seed, 0x6576_6f6c, u64::from(*user)]);
        let mut mailbox = world.mailbox(*user);
        let mut free: Vec<u64> = mailbox.messages.keys().copied().collect();
        free.sort_unstable();
        let steps = [
            (Step::Delete, share(evolution.deleted), &mut done.deleted),
            (Step::Move, share(evolution.moved), &mut done.moved),
            (Step::Edit, share(evolution.edited), &mut done.edited),
            (Step::Flag, share(evolution.flags), &mut done.flags),
        ];
        for (step, wanted, count) in steps {
            for _ in 0..wanted.min(free.len() as u64) {
                let key = free.swap_remove(rng.below(free.len()));
                take(world, &mut mailbox, step, key, &mut rng);
                *count += 1;
            }
        }
        for _ in 0..share(evolution.new) {
            let folder = if rng.percent(75) { INBOX } else { SENT };
            let now = world.clock.now_ms();
            mailbox.receive(folder, now);
            done.new += 1;
        }
    }
    Ok(done)
}

fn take(world: &World, mailbox: &mut Mailbox, step: Step, key: u64, rng: &mut Rng) {
    let now = world.clock.now_ms();
    match step {
        Step::Delete => mailbox.delete_message(key),
        Step::Move => {
            let from = mailbox.messages.get(&key).map(|message| message.folder);
            let targets: Vec<u32> = mailbox
                .folders
                .values()
                .filter(|folder| Some(folder.key) != from && folder.parent.is_some() && !folder.hidden)
                .map(|folder| folder.key)
                .collect();
            mailbox.move_message(key, *rng.pick(&targets), now);
        }
        Step::Edit | Step::Flag => {
            let Some(message) = mailbox.messages.get(&key) else { return };
            let mut content = (*world.content(mailbox, message)).clone();
            if matches!(step, Step::Edit) {
                content.raw_mime = None;
                content.subject = format!("{} (rev. {})", content.subject, 1 + rng.below(90));
                let extra =
                    format!("Correction {}: the table below replaces the earlier one.", rng.below(10_000));
                content.body = match content.body.rfind("</body>").filter(|_| content.is_html) {
                    Some(at) => format!("{}<p>{extra}</p>\r\n{}", &content.body[..at], &content.body[at..]),
                    None => format!("{}\r\n{extra}\r\n", content.body),
                };
            } else if rng.percent(60) {
                content.is_read = !content.is_read;
            } else if content.flag.is_some() {
                content.flag = None;
            } else {
                content.flag = Some(serde_json::json!({"flagStatus": "flagged"}));
            }
            mailbox.rewrite(key, content, now);
        }
    }
}
