//! A password's way from a file on this computer to a client program: never an argument, never in the environment, and
//! never on a disk. It is put into a file in memory that only this program's account may open, and that is gone with
//! this program, however it ends.

use crate::error::AgentError;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest password, bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// Everybody but the owner.
const OTHERS: u32 = 0o077;

/// Reads a password: the first line of a file that only its owner may use, who is this program's account or root.
pub(super) fn read_password(path: &Path) -> Result<Zeroizing<String>, AgentError> {
    let failed = |error| AgentError::file(path, error);
    let file = File::open(path).map_err(failed)?;
    let stat = file.metadata().map_err(failed)?;
    if stat.mode() & OTHERS != 0 || ![0, rustix::process::geteuid().as_raw()].contains(&stat.uid()) {
        let path = path.display();
        return Err(AgentError::Usage(format!(
            "{path} holds a password: it must belong to the account of this program, and to nobody else (chmod 600)"
        )));
    }
    let mut text = Zeroizing::new(String::with_capacity(PASSWORD_BYTES_MAX as usize));
    file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(AgentError::BadFile { path: path.to_path_buf(), detail: "holds no password".into() });
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A file in memory, mode 0600, and the path under which programs of the same account open it while it lives.
pub(super) fn in_memory(content: &str) -> Result<(File, PathBuf), AgentError> {
    let failed = |error: std::io::Error| AgentError::file("a file in memory", error);
    let file = memfd_create("holdfast", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    let mut file = File::from(file);
    file.write_all(content.as_bytes()).map_err(failed)?;
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    Ok((file, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        write(&path, "s3cret\nnot this\n").unwrap();
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = read_password(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_password(&path).unwrap().as_str(), "s3cret");
        write(&path, "\n").unwrap();
        assert!(read_password(&path).is_err());
    }

    #[test]
    fn a_file_in_memory_is_private_and_gone_with_its_owner() {
        let (file, path) = in_memory("s3cret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(file);
        assert!(!path.exists());
    }
}
