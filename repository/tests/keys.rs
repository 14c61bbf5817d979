//! Keys open what they should, nothing else, and say clearly why not.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _};

use common::{Seeded, job_keys};
use holdfast_model::{ResourceId, TenantId};
use holdfast_repository::{
    JobKeys, KeyError, KeyFile, KeyFileProvider, KeyProvider as _, ResourceKey, TenantKeys,
};

const TENANT: TenantId = TenantId([7; 16]);
const RESOURCE: ResourceId = ResourceId([8; 16]);

#[test]
fn a_key_file_is_saved_for_its_owner_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.key");
    let file = KeyFile::generate(&Seeded::new(1));

    file.save(&path).unwrap();

    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(KeyFile::load(&path).unwrap().fingerprint(), file.fingerprint());
    assert!(matches!(file.save(&path), Err(KeyError::AlreadyExists { .. })));
}

#[test]
fn a_key_file_that_is_missing_or_damaged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.key");
    let error = KeyFile::load(&path).unwrap_err();
    assert!(matches!(&error, KeyError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("holdfast key init"));

    KeyFile::generate(&Seeded::new(1)).save(&path).unwrap();
    let json = fs::read_to_string(&path).unwrap();
    for damaged in [&json[..json.len() / 2], "", "{}", &json.replace("\"key\": \"", "\"key\": \"zz")] {
        fs::write(&path, damaged).unwrap();
        let error = KeyFile::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::DamagedFile { .. }), "{error}");
    }
    fs::write(&path, json.replacen("\"version\": 1", "\"version\": 9", 1)).unwrap();
    assert!(matches!(KeyFile::load(&path), Err(KeyError::UnknownVersion { found: 9, supported: 1, .. })));
}

#[test]
fn a_key_file_that_others_may_read_still_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.key");
    KeyFile::generate(&Seeded::new(1)).save(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(KeyFile::load(&path).is_ok());
}

#[tokio::test]
async fn wrapped_keys_open_with_their_file_and_in_their_place_only() {
    let provider = KeyFileProvider::new(KeyFile::generate(&Seeded::new(1)));
    let other = KeyFileProvider::new(KeyFile::generate(&Seeded::new(2)));
    let keys = TenantKeys::generate(&Seeded::new(3));
    let key = ResourceKey::generate(&Seeded::new(4));

    let tenant = provider.wrap_tenant_keys(TENANT, &keys).await.unwrap();
    let resource = provider.wrap_resource_key(TENANT, RESOURCE, &key).await.unwrap();

    assert_eq!(provider.unwrap_tenant_keys(TENANT, &tenant).await.unwrap(), keys);
    assert_eq!(provider.unwrap_resource_key(TENANT, RESOURCE, &resource).await.unwrap(), key);
    let wrong = other.unwrap_tenant_keys(TENANT, &tenant).await.unwrap_err();
    assert!(wrong.to_string().contains("use the key file the tenant was connected with"), "{wrong}");
    assert!(matches!(
        other.unwrap_resource_key(TENANT, RESOURCE, &resource).await,
        Err(KeyError::WrongKey { .. })
    ));
    let elsewhere = provider.unwrap_resource_key(TENANT, ResourceId([9; 16]), &resource).await;
    assert!(matches!(elsewhere, Err(KeyError::DamagedBlob { .. })));
}

#[tokio::test]
async fn a_secret_opens_in_its_context_and_every_flipped_bit_is_noticed() {
    let provider = KeyFileProvider::new(KeyFile::generate(&Seeded::new(1)));
    let sealed = provider.seal_secret("app one", b"hunter2").await.unwrap();
    assert_eq!(&provider.open_secret("app one", &sealed).await.unwrap()[..], b"hunter2");
    assert!(provider.open_secret("app two", &sealed).await.is_err());
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(provider.open_secret("app one", &changed).await.is_err(), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert!(provider.open_secret("app one", &sealed[..len]).await.is_err());
    }
}

#[test]
fn job_keys_travel_and_their_blobs_open_in_context() {
    let keys = job_keys(1);
    let read = JobKeys::from_bytes(&keys.to_bytes()).unwrap();
    assert_eq!(read, keys);
    for len in 0..keys.to_bytes().len() {
        assert!(JobKeys::from_bytes(&keys.to_bytes()[..len]).is_err());
    }
    let sealed = keys.seal_blob("checkpoint", &Seeded::new(9), b"state");
    assert_eq!(read.open_blob("checkpoint", &sealed).unwrap(), b"state");
    assert!(read.open_blob("other", &sealed).is_err());
    assert!(job_keys(2).open_blob("checkpoint", &sealed).is_err());
}

#[test]
fn nothing_secret_prints() {
    let keys = job_keys(1);
    let hash = hex::encode(&keys.to_bytes()[33..65]);
    let text = format!("{keys:?} {:?}", KeyFile::generate(&Seeded::new(1)));
    assert!(!text.contains(&hash) && text.contains("redacted"), "{text}");
}
