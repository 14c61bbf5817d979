//! Exports, read by libraries that know nothing of Holdfast.

use std::{path::Path, process::Command, sync::Arc};

use holdfast_model::ExportFormat;
use holdfast_worker::{backup::Progress, export::ExportJob, restore::Restored};
use serde_json::Value;

use super::{READ_AHEAD_BYTES, World};

impl World {
    /// Exports everything of the newest snapshot.
    pub async fn export(&self, format: ExportFormat, out: &Path) -> Restored {
        let export = ExportJob {
            pin: self.base.clone().unwrap(),
            paths: Vec::new(),
            format,
            out: out.to_owned(),
            read_ahead_bytes: READ_AHEAD_BYTES,
        };
        let progress = Arc::new(Progress::default());
        export.run(self.store.clone(), self.keys.clone(), progress).await.unwrap()
    }

    /// What Python's readers find in the exported files.
    pub async fn export_and_read(&self, format: ExportFormat) -> Vec<Value> {
        let out = tempfile::tempdir().unwrap();
        let done = self.export(format, out.path()).await;
        assert_eq!(done.failed, []);
        python_reads(format, out.path())
    }
}

/// What Python's readers find in the files of a format below a folder.
pub fn python_reads(format: ExportFormat, folder: &Path) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join("target/test-tools/reader-venv/bin/python");
    assert!(python.exists(), "the independent readers are missing: run tests/reader/install.sh");
    let mut command = Command::new(python);
    command.arg(root.join("tests/reader/check_export.py")).arg(format.as_str()).arg(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
