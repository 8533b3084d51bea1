//! Where the agent keeps what: the login in the configuration folder, caches in the cache folder.

use crate::error::AgentError;
use crate::tls::Trust;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Overrides the configuration folder.
pub const CONFIG_VARIABLE: &str = "HOLDFAST_CONFIG_DIR";
/// Overrides the cache folder.
pub const CACHE_VARIABLE: &str = "HOLDFAST_CACHE_DIR";

/// The agent's two folders.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Holds `login.toml`.
    pub config: PathBuf,
    /// Holds nothing that matters.
    pub cache: PathBuf,
}

impl Folders {
    /// From the environment: the two overrides, else the XDG folders, else those in the home directory.
    pub fn from_environment() -> Result<Self, AgentError> {
        let folder = |own: &str, xdg: &str, in_home: &str| {
            let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            set(own)
                .or_else(|| set(xdg).map(|path| path.join("holdfast")))
                .or_else(|| set("HOME").map(|home| home.join(in_home).join("holdfast")))
                .ok_or_else(|| AgentError::Usage(format!("neither {own} nor HOME is set")))
        };
        Ok(Folders {
            config: folder(CONFIG_VARIABLE, "XDG_CONFIG_HOME", ".config")?,
            cache: folder(CACHE_VARIABLE, "XDG_CACHE_HOME", ".cache")?,
        })
    }

    fn login_file(&self) -> PathBuf {
        self.config.join("login.toml")
    }
}

/// A stored login: which server, how it is recognised, which vault, and the token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// `https://host[:port]`.
    pub url: String,
    /// Pinned certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fingerprint: Option<String>,
    /// PEM file of the issuing authority.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca: Option<PathBuf>,
    /// Vault id, hexadecimal.
    pub vault: String,
    /// Vault name, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vault_name: Option<String>,
    /// Of an enrolled computer: its name in every snapshot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub computer: Option<String>,
    /// Bearer token.
    token: String,
}

impl Login {
    /// A login to be stored.
    pub fn new(url: String, trust: &Trust, vault: String, vault_name: Option<String>, token: &str) -> Self {
        let (fingerprint, ca) = match trust {
            Trust::Pinned(fingerprint) => (Some(fingerprint.to_string()), None),
            Trust::Authority(path) => (None, Some(path.clone())),
            Trust::Public => (None, None),
        };
        Login { url, fingerprint, ca, vault, vault_name, computer: None, token: token.to_owned() }
    }

    /// The same for an enrolled computer.
    pub fn of_computer(mut self, name: String) -> Self {
        self.computer = Some(name);
        self
    }

    /// How the server is recognised.
    pub fn trust(&self) -> Result<Trust, AgentError> {
        match (&self.fingerprint, &self.ca) {
            (Some(text), _) => {
                text.parse().map(Trust::Pinned).map_err(|error| AgentError::Usage(format!("stored login: {error}")))
            }
            (None, Some(path)) => Ok(Trust::Authority(path.clone())),
            (None, None) => Ok(Trust::Public),
        }
    }

    /// The secret.
    pub fn token(&self) -> Zeroizing<String> {
        Zeroizing::new(self.token.clone())
    }

    /// Reads the stored login.
    pub fn load(folders: &Folders) -> Result<Self, AgentError> {
        let path = folders.login_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(AgentError::NotLoggedIn(path)),
            Err(error) => return Err(AgentError::file(path, error)),
        };
        // The parser's own message would quote the line, and with it perhaps the token.
        toml::from_str(&text)
            .map_err(|_| AgentError::BadFile { path, detail: "is not a login file; run `holdfast login` again".into() })
    }

    /// Stores it, readable by its owner only.
    pub fn save(&self, folders: &Folders) -> Result<PathBuf, AgentError> {
        let path = folders.login_file();
        let text = toml::to_string(self)
            .map(Zeroizing::new)
            .map_err(|_| AgentError::BadFile { path: path.clone(), detail: "cannot be written".into() })?;
        private_folder(&folders.config)?;
        replace_file(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Forgets it; true if there was one.
    pub fn remove(folders: &Folders) -> Result<bool, AgentError> {
        let path = folders.login_file();
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(AgentError::file(path, error)),
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

/// Creates a folder that only its owner may enter.
pub fn private_folder(path: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(|error| AgentError::file(path, error))
}

/// Replaces a file as a whole, mode 0600.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let (partial, mut file) = create_partial(path)?;
    let write = file.write_all(bytes).and_then(|()| file.sync_all());
    write.map_err(|error| AgentError::file(&partial, error))?;
    std::fs::rename(&partial, path).map_err(|error| AgentError::file(path, error))
}

/// Removes what interrupted runs left in a folder of files made by [`create_partial`].
pub fn remove_partials(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "partial") {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// Opens a new file next to `path`, to be renamed over it when complete. Its name holds the process id, so that two
/// runs do not write into each other's.
pub fn create_partial(path: &Path) -> Result<(PathBuf, std::fs::File), AgentError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial);
    file.map(|file| (partial.clone(), file)).map_err(|error| AgentError::file(partial, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_login_is_private_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { config: folder.path().join("c"), cache: folder.path().join("k") };
        assert!(matches!(Login::load(&folders), Err(AgentError::NotLoggedIn(_))));
        let trust = Trust::Pinned(format!("sha256:{}", "ab".repeat(32)).parse().unwrap());
        let path = Login::new("https://h".into(), &trust, "00".into(), None, "hf_secret").save(&folders).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let login = Login::load(&folders).unwrap();
        assert_eq!(login.trust().unwrap(), trust);
        assert_eq!(login.token().as_str(), "hf_secret");
        std::fs::write(&path, "token = hf_secret\n").unwrap();
        let error = Login::load(&folders).err().unwrap().to_string();
        assert!(!error.contains("hf_secret"), "{error}");
        assert!(Login::remove(&folders).unwrap());
        assert!(!Login::remove(&folders).unwrap());
    }
}
