//! Where the master key comes from, and making it at the first start. The key itself is `repo_format`'s.

use crate::config::MasterKeySource;
use crate::data_folder::{DataFolder, DataFolderError, write_private};
use repo_format::FormatError;
use repo_format::keyring::MasterKey;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const TEXT_BYTES_MAX: u64 = 4096;

/// Why there is no master key to work with.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file cannot be read.
    #[error("master key file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Other users can read the file.
    #[error("master key file {path}: other users can read it; run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a master key.
    #[error("{source_name}: {error}")]
    NotAKey {
        /// Where the text came from.
        source_name: String,
        /// Why.
        error: FormatError,
    },
    /// The command failed.
    #[error("the master key command failed: {0}")]
    Command(String),
    /// The key is gone, but data sealed under it is there.
    #[error(
        "the master key file {path} is missing, but {store} holds data: put the master key from the recovery sheet \
         back into that file; without it nothing can be read"
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
        /// What it would open.
        store: PathBuf,
    },
    /// The new key could not be stored.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// Reads a key from a file in its text form. With `private`, a file that others can read is refused.
pub fn read_file(path: &Path, private: bool) -> Result<MasterKey, MasterKeyError> {
    use std::io::Read;
    let unreadable = |source| MasterKeyError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if private && mode & 0o077 != 0 {
        return Err(MasterKeyError::Exposed { path: path.to_owned() });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    parse(&text, &format!("master key file {}", path.display()))
}

/// Reads a key from text; `source_name` is for the error.
pub fn parse(text: &str, source_name: &str) -> Result<MasterKey, MasterKeyError> {
    MasterKey::from_text(text).map_err(|error| MasterKeyError::NotAKey { source_name: source_name.to_owned(), error })
}

/// The key in use.
pub fn load(source: &MasterKeySource) -> Result<MasterKey, MasterKeyError> {
    match source {
        MasterKeySource::File(path) => read_file(path, true),
        MasterKeySource::Environment(text) => parse(text, crate::config::MASTER_KEY_VARIABLE),
        MasterKeySource::Command(command) => {
            let output = std::process::Command::new("/bin/sh")
                .arg("-c")
                .arg(command)
                .stderr(std::process::Stdio::inherit())
                .output()
                .map_err(|error| MasterKeyError::Command(error.to_string()))?;
            if !output.status.success() {
                return Err(MasterKeyError::Command(output.status.to_string()));
            }
            let bytes = Zeroizing::new(output.stdout);
            let text =
                std::str::from_utf8(&bytes).map_err(|_| MasterKeyError::Command("its output is not text".into()))?;
            parse(text, "the output of the master key command")
        }
    }
}

/// A key of random bytes.
pub fn generate() -> Result<MasterKey, MasterKeyError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| MasterKeyError::Random)?;
    Ok(MasterKey::from_bytes(*bytes))
}

/// Stores a key in its text form, mode 0600.
pub fn store(path: &Path, key: &MasterKey) -> Result<(), MasterKeyError> {
    let not_a_key = |error| MasterKeyError::NotAKey { source_name: "new master key".into(), error };
    let mut text = key.to_text().map_err(not_a_key)?;
    text.push('\n');
    Ok(write_private(path, text.as_bytes())?)
}

/// The key in use, made now when there is neither key nor data; true when it was made.
pub fn load_or_create(source: &MasterKeySource, folder: &DataFolder) -> Result<(MasterKey, bool), MasterKeyError> {
    let MasterKeySource::File(path) = source else { return Ok((load(source)?, false)) };
    match read_file(path, true) {
        Err(MasterKeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return Ok((result?, false)),
    }
    if std::fs::read_dir(folder.store()).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(MasterKeyError::Lost { path: path.clone(), store: folder.store() });
    }
    let key = generate()?;
    store(path, &key)?;
    Ok((key, true))
}

/// Where a new key waits until the keyring has been wrapped with it.
pub fn next_path(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

/// Ends a change of the key that was cut short: the waiting key takes its place when it opens the keyring, else it
/// goes.
pub fn settle_rotation(source: &MasterKeySource, folder: &DataFolder) -> Result<(), MasterKeyError> {
    let MasterKeySource::File(path) = source else { return Ok(()) };
    let next = next_path(path);
    let key = match read_file(&next, true) {
        Err(MasterKeyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        key => key?,
    };
    if crate::run::check_keyring(folder, &key).is_ok() {
        store(path, &key)?;
        kill_point!(RotationKeyReplaced);
    }
    std::fs::remove_file(&next).map_err(|source| MasterKeyError::Unreadable { path: next, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_never_over_data() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(parent.path().join("data"));
        folder.create().unwrap();
        let source = MasterKeySource::File(folder.master_key());
        let (key, made) = load_or_create(&source, &folder).unwrap();
        assert!(made);
        let (again, made) = load_or_create(&source, &folder).unwrap();
        assert!(!made);
        assert_eq!(key.fingerprint(), again.fingerprint());

        std::fs::create_dir_all(folder.store().join("index")).unwrap();
        std::fs::remove_file(folder.master_key()).unwrap();
        assert!(matches!(load_or_create(&source, &folder), Err(MasterKeyError::Lost { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        store(&path, &generate().unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_file(&path, true), Err(MasterKeyError::Exposed { .. })));
        read_file(&path, false).unwrap();
    }

    #[test]
    fn commands_and_text_give_the_same_key() {
        let key = generate().unwrap();
        let text = key.to_text().unwrap();
        let by_command = load(&MasterKeySource::Command(format!("echo {}", text.as_str()))).unwrap();
        let by_text = load(&MasterKeySource::Environment(text)).unwrap();
        assert_eq!(by_command.fingerprint(), key.fingerprint());
        assert_eq!(by_text.fingerprint(), key.fingerprint());
        assert!(matches!(load(&MasterKeySource::Command("exit 3".into())), Err(MasterKeyError::Command(_))));
    }
}
