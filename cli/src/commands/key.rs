//! `holdfast key`: the key file that everything is sealed with.

use std::path::PathBuf;

use holdfast_repository::KeyFile;
use holdfast_runtime::{Exit, SystemRandom};
use serde::Serialize;

use crate::{
    error::CliError,
    local::make_signing_key,
    output::{Format, say},
};

/// Make and keep the keys everything is sealed with
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new key file
    #[command(after_help = "Examples:\n  holdfast key init --out /etc/holdfast/key.json")]
    Init(InitOptions),
    /// Make the key that coordinators sign with, and its public half for the storage nodes
    #[command(after_help = "Examples:\n  holdfast key signing --out /etc/holdfast")]
    Signing(SigningOptions),
}

#[derive(Debug, clap::Args)]
pub struct SigningOptions {
    /// The folder for signing.key and signing.pub; existing ones are kept
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct InitOptions {
    /// Where to write it; an existing file is never replaced
    #[arg(long, value_name = "FILE", default_value = "holdfast-key.json")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    fingerprint: String,
}

#[derive(Serialize)]
struct SigningKey {
    private: PathBuf,
    public: PathBuf,
}

pub fn run(command: Command, format: Format) -> Result<Exit, CliError> {
    match command {
        Command::Init(options) => init(options, format),
        Command::Signing(options) => {
            std::fs::create_dir_all(&options.out)?;
            make_signing_key(&options.out)?;
            let made = SigningKey {
                private: options.out.join("signing.key"),
                public: options.out.join("signing.pub"),
            };
            format.print(&made, |made| {
                say!(
                    "{} is for the coordinators alone, {} for every storage node.",
                    made.private.display(),
                    made.public.display()
                );
            })?;
            Ok(Exit::Ok)
        }
    }
}

fn init(options: InitOptions, format: Format) -> Result<Exit, CliError> {
    let key = KeyFile::generate(&SystemRandom);
    key.save(&options.out).map_err(CliError::failed)?;
    let made = Made { file: options.out, fingerprint: key.fingerprint() };
    format.print(&made, |made| {
        say!("Wrote {} (fingerprint {}).", made.file.display(), made.fingerprint);
        say!("Without this file nothing can be restored. Keep a copy offline, away from the storage.");
        say!("An old copy of it defeats the erasure of a person: see docs/keys.md.");
    })?;
    Ok(Exit::Ok)
}
