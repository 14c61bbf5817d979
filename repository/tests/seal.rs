//! Sealed content opens to itself and to nothing else.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{HashMap, HashSet};

use common::{job_keys, noise, prose};
use holdfast_record::{Ciphertext, Codec, RecordKind, SealedRecord};
use holdfast_repository::{ResourceKey, SealError, SealOptions, Sealer};
use proptest::prelude::*;

fn seal(sealer: &Sealer, kind: RecordKind, plain: &[u8]) -> SealedRecord {
    sealer.seal(kind, sealer.hash(kind, plain), plain, vec![], SealOptions::default()).unwrap()
}

#[test]
fn content_opens_to_itself() {
    let sealer = Sealer::new(&job_keys(1));
    for kind in RecordKind::ALL {
        for plain in [vec![], vec![1], prose(1, 100_000), noise(2, 300_000), prose(3, 64 << 10)] {
            let h = sealer.hash(*kind, &plain);
            let record = SealedRecord::decode(seal(&sealer, *kind, &plain).encode()).unwrap();
            record.verify().unwrap();
            // In a copy, as another holds it, and then in place.
            assert_eq!(sealer.open(record.clone(), h).unwrap(), plain);
            assert_eq!(sealer.open(record, h).unwrap(), plain);
        }
    }
    assert_eq!(seal(&sealer, RecordKind::Data, &prose(1, 100_000)).header.codec, Codec::Zstd);
    assert_eq!(seal(&sealer, RecordKind::Data, &noise(1, 100_000)).header.codec, Codec::None);
}

#[test]
fn equal_content_has_an_equal_id_and_equal_bytes() {
    let (one, two) = (Sealer::new(&job_keys(1)), Sealer::new(&job_keys(1)));
    let plain = prose(1, 500_000);
    assert_eq!(seal(&one, RecordKind::Data, &plain), seal(&two, RecordKind::Data, &plain));
    let ids: HashSet<_> = RecordKind::ALL.iter().map(|kind| one.id(one.hash(*kind, &plain))).collect();
    assert_eq!(ids.len(), RecordKind::ALL.len(), "kinds are domains of their own");
    let other_tenant = Sealer::new(&job_keys(2));
    assert_ne!(
        one.id(one.hash(RecordKind::Data, &plain)),
        other_tenant.id(other_tenant.hash(RecordKind::Data, &plain))
    );
}

#[test]
fn no_nonce_serves_two_plaintexts_even_across_compression_levels() {
    let sealer = Sealer::new(&job_keys(1));
    let mut used: HashMap<(holdfast_model::ChunkId, [u8; 12]), Ciphertext> = HashMap::new();
    let mut distinct = 0;
    for n in 0..300 {
        let plain = prose(n / 3, 4_000 + (n as usize / 3) * 17);
        let h = sealer.hash(RecordKind::Data, &plain);
        for zstd_level in [-5, 1, 3, 9, 19] {
            let options = SealOptions { zstd_level, ..SealOptions::default() };
            let record = sealer.seal(RecordKind::Data, h, &plain, vec![], options).unwrap();
            assert_eq!(sealer.open(record.clone(), h).unwrap(), plain);
            let before = used.insert((record.header.id, record.nonce), record.ciphertext.clone());
            distinct += usize::from(before.is_none());
            assert!(
                before.is_none_or(|ciphertext| ciphertext == record.ciphertext),
                "a nonce was used twice"
            );
        }
    }
    assert!(distinct > 200, "levels must differ for this to prove something: {distinct}");
}

#[test]
fn the_wrong_keys_open_nothing() {
    let keys = job_keys(1);
    let sealer = Sealer::new(&keys);
    let mut other = keys.clone();
    other.resource_key = ResourceKey::generate(&common::Seeded::new(99));
    let other = Sealer::new(&other);
    let plain = prose(1, 1000);

    let tree = seal(&sealer, RecordKind::ManifestLeaf, &plain);
    let h = sealer.hash(RecordKind::ManifestLeaf, &plain);
    assert!(matches!(other.open(tree, h), Err(SealError::NotAuthentic { .. })));
    let data = seal(&sealer, RecordKind::Data, &plain);
    let h = sealer.hash(RecordKind::Data, &plain);
    assert_eq!(other.open(data.clone(), h).unwrap(), plain, "content is shared");

    let mut later = keys.clone();
    let only = later.tenant_keys.enc.remove(&1).unwrap();
    later.tenant_keys.enc.insert(2, only);
    let error = Sealer::new(&later).open(data, h).unwrap_err();
    assert!(matches!(error, SealError::NoKey { epoch: 1, .. }));
}

#[test]
fn a_sealed_root_opens_for_its_object_only() {
    let sealer = Sealer::new(&job_keys(1));
    let h = sealer.hash(RecordKind::Snapshot, b"one");
    let other = sealer.id(sealer.hash(RecordKind::Snapshot, b"two"));
    let sealed = sealer.seal_root(h);
    assert_eq!(sealer.open_root(sealer.id(h), &sealed).unwrap(), h);
    assert!(sealer.open_root(other, &sealed).is_err());
    assert!(Sealer::new(&job_keys(2)).open_root(sealer.id(h), &sealed).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_record_never_opens_to_something_else(
        plain in prop::collection::vec(any::<u8>(), 0..3000), byte: prop::sample::Index, bit in 0..8u8,
    ) {
        let sealer = Sealer::new(&job_keys(1));
        let h = sealer.hash(RecordKind::Data, &plain);
        let mut record = seal(&sealer, RecordKind::Data, &plain);
        let mut ciphertext = record.ciphertext.to_vec();
        ciphertext[byte.index(record.ciphertext.len())] ^= 1 << bit;
        record.ciphertext = ciphertext.into();
        prop_assert!(sealer.open(record, h).is_err());
    }
}
