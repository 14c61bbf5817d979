//! rclone, its configuration and the place where it finds Microsoft.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use harness::sim::{CLIENT_ID, CLIENT_SECRET, MICROSOFT_TENANT, SimTenant};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    AT_ONCE,
    front::{ADDRESS, CA_FILE, HOSTS},
};

/// Binds the first argument over the hosts file of this namespace alone, and becomes the others.
const WITH_HOSTS: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;

pub struct Rclone {
    folder: PathBuf,
    /// Where its copy lies.
    pub copied: PathBuf,
}

impl Rclone {
    /// Writes its configuration: a token and the drive of this person.
    pub async fn new(folder: &Path, tenant: &SimTenant, owner: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let url = format!("{}/{MICROSOFT_TENANT}/oauth2/v2.0/token", tenant.url());
        let form = [
            ("client_id", CLIENT_ID),
            ("client_secret", CLIENT_SECRET),
            ("grant_type", "client_credentials"),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        let granted: Value = http.post(url).form(&form).send().await?.error_for_status()?.json().await?;
        let token = granted["access_token"].as_str().context("a token")?;
        let url = format!("{}/v1.0/users/{owner}/drive", tenant.url());
        let drive: Value = http.get(url).bearer_auth(token).send().await?.error_for_status()?.json().await?;
        let drive = drive["id"].as_str().context("a drive")?;
        let token = json!({ "access_token": token, "token_type": "Bearer", "refresh_token": "none",
            "expiry": "2099-01-01T00:00:00Z" });
        let config =
            format!("[drive]\ntype = onedrive\ntoken = {token}\ndrive_id = {drive}\ndrive_type = business\n");
        tokio::fs::write(folder.join("rclone.conf"), config).await?;
        let hosts = format!("127.0.0.1 localhost\n{ADDRESS} {}\n", HOSTS.join(" "));
        tokio::fs::write(folder.join("hosts"), hosts).await?;
        Ok(Self { folder: folder.to_owned(), copied: folder.join("copied") })
    }

    /// Copies the drive; a second time, what has changed of it. Says how long that took and what was asked for.
    pub async fn copy(&self, tenant: &SimTenant) -> anyhow::Result<(Duration, u64)> {
        tenant.control("reset-counters", json!({})).await;
        let at_once = AT_ONCE.to_string();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", WITH_HOSTS, "sh"])
            .arg(self.folder.join("hosts"))
            .args(["rclone", "copy", "drive:"])
            .arg(&self.copied)
            .args(["--transfers", &at_once, "--checkers", &at_once, "--config"])
            .arg(self.folder.join("rclone.conf"))
            .arg("--ca-cert")
            .arg(self.folder.join(CA_FILE))
            .stdin(Stdio::null());
        let started = Instant::now();
        let output = command.output().await.context("start rclone")?;
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "rclone: {}: {said}", output.status);
        let requests = tenant.handle.counters().requests.values().flatten().map(|(_, n)| n).sum();
        Ok((took, requests))
    }
}

/// Files below a folder.
pub fn count_files(folder: &Path) -> std::io::Result<u64> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(files)
}
