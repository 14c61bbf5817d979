//! Ids of drives, items and permissions, in SharePoint's shapes.
//!
//! Invariant: an id names its person and its number, and carries a check, so that another one names nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::rng::mix;
use crate::world::World;

const DRIVE_PREFIX: &str = "b!";
const ITEM_PREFIX: &str = "01";
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ITEM_BYTES: usize = 20;
const DRIVE_SALT: u64 = 0x6472_6976;
const ITEM_SALT: u64 = 0x6974_656d;

/// The id of a person's drive.
pub(crate) fn drive_id(user: u32) -> String {
    let check = mix(u64::from(user) ^ DRIVE_SALT);
    let mut bytes = user.to_be_bytes().to_vec();
    for part in [check, mix(check), mix(check ^ 1), mix(check ^ 2)] {
        bytes.extend_from_slice(&part.to_be_bytes());
    }
    format!("{DRIVE_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Whose drive it is.
pub(crate) fn drive_owner(world: &World, id: &str) -> Option<u32> {
    let bytes = URL_SAFE_NO_PAD.decode(id.strip_prefix(DRIVE_PREFIX)?).ok()?;
    let user = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    ((user as usize) < world.people.len() && drive_id(user) == id).then_some(user)
}

/// The id of an item of a person's drive.
pub(crate) fn item_id(user: u32, key: u32) -> String {
    let number = u64::from(user) << 32 | u64::from(key);
    let check = mix(number ^ ITEM_SALT);
    let mut bytes = [0; ITEM_BYTES];
    bytes[..8].copy_from_slice(&(number ^ check).to_be_bytes());
    bytes[8..16].copy_from_slice(&check.to_be_bytes());
    bytes[16..].copy_from_slice(&mix(check).to_be_bytes()[..4]);
    let mut id = ITEM_PREFIX.to_owned();
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        id.extend((0..8).rev().map(|at| char::from(ALPHABET[(bits >> (5 * at) & 31) as usize])));
    }
    id
}

/// The item's number.
pub(crate) fn item_key(user: u32, id: &str) -> Option<u32> {
    let mut first = 0_u128;
    let digits = id.strip_prefix(ITEM_PREFIX)?.bytes();
    for digit in digits.take(26) {
        first = first << 5 | ALPHABET.iter().position(|one| *one == digit)? as u128;
    }
    // 26 digits are 130 bits: number, check and two bits more. The number's two highest bits fall out; they are not the key's.
    let number = (first >> 66) as u64 ^ (first >> 2) as u64;
    let key = number as u32;
    (item_id(user, key) == id).then_some(key)
}

/// What etags name an item by.
pub(crate) fn guid(user: u32, key: u32) -> String {
    let number = u64::from(user) << 32 | u64::from(key);
    let bytes = u128::from(mix(number)) << 64 | u128::from(mix(number ^ ITEM_SALT));
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string().to_uppercase()
}

/// The id of a permission: the item that has it, and its number there.
pub(crate) fn permission_id(key: u32, number: u32) -> String {
    URL_SAFE_NO_PAD.encode(format!("i:0#.f|{key}|{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_id_names_its_item_and_nothing_else_does() {
        for (user, key) in [(0, 1), (3, 77), (u32::MAX, u32::MAX)] {
            let id = item_id(user, key);
            assert_eq!((id.len(), item_key(user, &id)), (34, Some(key)));
            assert_eq!(item_key(user ^ 1, &id), None);
            assert_eq!(item_key(user, &id.to_lowercase()), None);
        }
        assert_eq!(item_key(0, "01"), None);
        assert_eq!(item_key(0, ""), None);
    }
}
