//! `backup --dry-run`.

use super::{BackupOptions, series_of_paths};
use crate::cache::files::{FilesReader, Remembered};
use crate::cache::series_folder;
use crate::connection::{Connection, root_of};
use crate::error::AgentError;
use crate::fs::{FileKind, ScanEvent, ScanOptions, Scanner, WarningKind};
use crate::report::{Report, human_bytes};
use serde::Serialize;
use std::path::PathBuf;

/// What a backup would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BackupPreview {
    /// `would_back_up`.
    pub event: &'static str,
    /// Regular files.
    pub files: u64,
    /// Directories, links, devices, fifos and sockets.
    pub others: u64,
    /// Sum of file sizes.
    pub bytes: u64,
    /// Files that would be read: new, changed, or not remembered.
    pub files_to_read: u64,
    /// Their sizes.
    pub bytes_to_read: u64,
    /// What could not be looked at.
    pub warnings: u64,
}

/// `--dry-run`: scans and compares with what the last run remembered; opens no file and sends nothing.
pub fn preview(
    connection: &Connection,
    roots: &[PathBuf],
    mut scan: ScanOptions,
    options: &BackupOptions,
    report: &Report,
) -> Result<BackupPreview, AgentError> {
    let series = options.name.clone().unwrap_or_else(|| series_of_paths(roots));
    let snapshots = connection.readable_snapshots()?;
    let base = snapshots.into_iter().rfind(|old| old.computer == options.computer && old.series == series);
    let folder = series_folder(&connection.folders, &connection.login, &options.computer, &series);
    let mut files = match &base {
        Some(base) => FilesReader::open(&folder, &root_of(base)?),
        None => None,
    };
    scan.own_directories.push(connection.folders.cache.clone());
    let scan = Scanner::new(roots, scan).map_err(|error| AgentError::Usage(error.to_string()))?;
    let mut preview = BackupPreview { event: "would_back_up", ..BackupPreview::default() };
    for event in scan {
        let item = match event {
            ScanEvent::Item(item) => item,
            ScanEvent::Warning(warning) => {
                preview.warnings += u64::from(warning.kind != WarningKind::RootIsLink);
                report.warning(&warning.path, &warning.error.to_string());
                continue;
            }
        };
        if item.kind() != FileKind::File {
            preview.others += 1;
            continue;
        }
        preview.files += 1;
        preview.bytes += item.stat.size;
        let status = Remembered::of(&item.stat);
        let unchanged = files
            .as_mut()
            .is_some_and(|files| files.find(&item.key) == Some(status) || files.find_moved(&status).is_some());
        if !unchanged {
            preview.files_to_read += 1;
            preview.bytes_to_read += item.stat.size;
        }
    }
    Ok(preview)
}

/// Text of a preview for people.
pub fn preview_text(preview: &BackupPreview) -> String {
    format!(
        "would back up {} files ({}) and {} others; {} files ({}) would be read",
        preview.files,
        human_bytes(preview.bytes),
        preview.others,
        preview.files_to_read,
        human_bytes(preview.bytes_to_read)
    )
}
