//! New mail, edits, moves, deletions, flags.
//!
//! Invariant: no message is chosen twice in one evolution, so the counts given back are exact.

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::mail::mailbox::{INBOX, Mailbox, SENT};
use crate::world::World;

#[derive(Clone, Copy)]
enum Step {
    Edit,
    Move,
    Delete,
    Flag,
}

/// Lets it happen in one mailbox.
pub(crate) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let mut done = Changes::default();
    let mut mailbox = world.mailbox(user);
    let mut free: Vec<u64> = mailbox.messages.keys().copied().collect();
    free.sort_unstable();
    let steps = [
        (Step::Delete, wanted.deleted, &mut done.deleted),
        (Step::Move, wanted.moved, &mut done.moved),
        (Step::Edit, wanted.edited, &mut done.edited),
        (Step::Flag, wanted.flags, &mut done.flags),
    ];
    for (step, wanted, count) in steps {
        for _ in 0..wanted.min(free.len() as u64) {
            let key = free.swap_remove(rng.below(free.len()));
            take(world, &mut mailbox, step, key, rng);
            *count += 1;
        }
    }
    for _ in 0..wanted.new {
        let folder = if rng.percent(75) { INBOX } else { SENT };
        mailbox.receive(folder, world.clock.now_ms());
        done.new += 1;
    }
    done
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
                .filter(|folder| folder.search.is_none())
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
