//! New contacts, edits, moves, deletions, photos.
//!
//! Invariant: no contact is chosen twice in one evolution, so the counts given back are exact.

use crate::rng::Rng;
use crate::workloads::Changes;
use crate::workloads::contacts::book::{ContactBook, DEFAULT, photo};
use crate::world::World;

/// Lets it happen to one person's contacts.
pub(crate) fn evolve(world: &World, user: u32, wanted: &Changes, rng: &mut Rng) -> Changes {
    let now = world.clock.now_ms();
    let mut done = Changes::default();
    let mut book = world.state::<ContactBook>(user);
    let places = book.places();
    let mut free: Vec<u64> = book.contacts.iter().map(|contact| contact.key).collect();
    let mut choose = |rng: &mut Rng| (!free.is_empty()).then(|| free.swap_remove(rng.below(free.len())));
    let ContactBook { numbers, contacts, .. } = &mut *book;
    for _ in 0..wanted.deleted {
        let Some(key) = choose(rng) else { break };
        contacts.remove(numbers, key);
        done.deleted += 1;
    }
    for _ in 0..wanted.moved {
        let Some(key) = choose(rng) else { break };
        let from = contacts.get(key).map_or(DEFAULT, |contact| contact.place);
        let targets: Vec<u64> = places.iter().copied().filter(|place| *place != from).collect();
        if targets.is_empty() {
            break;
        }
        contacts.move_to(numbers, key, *rng.pick(&targets), now);
        done.moved += 1;
    }
    for _ in 0..wanted.edited {
        let Some(key) = choose(rng) else { break };
        if let Some(contact) = contacts.change(numbers, key, now) {
            let title = format!("Senior adviser {}", 1 + rng.below(900));
            contact.fields.insert("jobTitle".into(), title.into());
            contact
                .fields
                .insert("personalNotes".into(), format!("Met again, note {}.", rng.below(10_000)).into());
        }
        done.edited += 1;
    }
    for _ in 0..wanted.flags {
        let Some(key) = choose(rng) else { break };
        if let Some(contact) = contacts.quietly(key) {
            contact.photo = Some(photo(rng));
        }
        done.flags += 1;
    }
    for _ in 0..wanted.new {
        let place = *rng.pick(&places);
        book.generate(world, place, Some(now));
        done.new += 1;
    }
    done
}
