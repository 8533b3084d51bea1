//! The data folder: what lies where, with which permissions, and that one process owns it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process has it.
    #[error("the data folder {0} is in use by a running server")]
    InUse(PathBuf),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Paths in one data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    root: PathBuf,
}

/// The folder is this process's until the value is dropped (or the process ends, however it ends).
#[derive(Debug)]
pub struct DataFolderLock {
    _file: File,
}

impl DataFolder {
    /// Names only; nothing is touched.
    pub fn new(root: PathBuf) -> Self {
        DataFolder { root }
    }
    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The master key in its text form, mode 0600.
    pub fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }
    /// The accounts database.
    pub fn accounts(&self) -> PathBuf {
        self.root.join("accounts.sqlite")
    }
    /// Everything of the storage engine.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    /// Certificate chain made at the first start, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("tls").join("certificate.pem")
    }
    /// Its private key, PEM, mode 0600.
    pub fn private_key(&self) -> PathBuf {
        self.root.join("tls").join("private-key.pem")
    }
    /// The SFTP gateway's own keys.
    pub fn ssh_host_keys(&self) -> PathBuf {
        self.root.join("ssh_host_keys.pem")
    }

    /// Address of the SFTP gateway, while it listens.
    pub fn sftp_address(&self) -> PathBuf {
        self.root.join("run").join("sftp-address")
    }

    /// Where the running server can be reached from this machine, `ADDRESS:PORT`.
    pub fn address(&self) -> PathBuf {
        self.root.join("run").join("address")
    }
    /// Where metrics and health of the running server are.
    pub fn metrics_address(&self) -> PathBuf {
        self.root.join("run").join("metrics-address")
    }
    /// The certificate that the running server shows, PEM.
    pub fn shown_certificate(&self) -> PathBuf {
        self.root.join("run").join("certificate.pem")
    }
    /// The URL that the running server gives to people and agents.
    pub fn public_url(&self) -> PathBuf {
        self.root.join("run").join("public-url")
    }
    /// The credential of commands on this machine, mode 0600, another one at every start.
    pub fn local_token(&self) -> PathBuf {
        self.root.join("run").join("local-token")
    }

    /// Creates the folder and its parts where they are missing, mode 0700.
    pub fn create(&self) -> Result<(), DataFolderError> {
        for folder in [self.root.clone(), self.root.join("tls"), self.root.join("run")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|source| DataFolderError::Io { path: folder, source })?;
        }
        Ok(())
    }

    /// Takes the folder for this process.
    pub fn lock(&self) -> Result<DataFolderLock, DataFolderError> {
        let path = self.root.join("lock");
        let at = |source| DataFolderError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(at)?;
        match file.try_lock() {
            Ok(()) => Ok(DataFolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataFolderError::InUse(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(at(source)),
        }
    }

    /// Removes what says how to reach a running server.
    pub fn clear_run(&self) {
        for file in [
            self.address(),
            self.metrics_address(),
            self.sftp_address(),
            self.shown_certificate(),
            self.public_url(),
            self.local_token(),
        ] {
            // A file that stays tells a later command of a server that is gone; connecting then fails with a clear error.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Writes a small file (mode 0600) so that readers see either all of it or what was there before; on disk on return.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataFolderError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| DataFolderError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_process_has_it_and_nobody_else_can_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path().join("data"));
        folder.create().unwrap();
        folder.create().unwrap();
        let lock = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(DataFolderError::InUse(_))));
        drop(lock);
        folder.lock().unwrap();
        write_private(&folder.local_token(), b"one").unwrap();
        write_private(&folder.local_token(), b"two").unwrap();
        assert_eq!(std::fs::read(folder.local_token()).unwrap(), b"two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.local_token()), 0o600);
        assert_eq!(mode(folder.root()), 0o700);
        folder.clear_run();
        assert!(!folder.local_token().exists());
    }
}
